"""Rules for groups that the application declares. They are stored when a worker starts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, TypeAlias

import psycopg

from jobq._worker.database import Connection, fetch

logger = logging.getLogger("jobq.worker")

Rule: TypeAlias = tuple[str, int | None, str | None]
"""A queue's mode, its limit, and what a retry does, as in the table of queues."""

# Seconds until the next try if another transaction holds a queue's lock.
_AGAIN_AFTER = 0.5


async def declare(connection: Connection, schema: str, rules: Mapping[str, Rule]) -> None:
    """Store the rules of queues that no operator has configured.

    Each rule is set under its queue's lock, as in `operations.configure`, together with its
    effects: the running jobs are counted, and each group with waiting jobs becomes ready, because
    the new rule may allow it to start more jobs. Waits for the lock.
    """
    named = sorted(rules.items())
    for (queue,) in await fetch(connection, schema, "rules_differ", **_columns(named)):
        while True:
            try:
                await _set(connection, schema, queue, rules[queue])
                break
            except psycopg.errors.LockNotAvailable:
                logger.warning(
                    "another transaction holds the lock of a queue whose rule for groups is to be set: waiting for it",
                    extra={"queue": queue},
                )
                await asyncio.sleep(_AGAIN_AFTER)


async def _set(connection: Connection, schema: str, queue: str, rule: Rule) -> None:
    async with connection.transaction():
        await fetch(connection, schema, "queue_lock", schema=schema, queue=queue)
        if not await fetch(connection, schema, "declare_rules", channel=schema, **_columns([(queue, rule)])):
            return
        await fetch(connection, schema, "count_running", queue=queue)
        await fetch(connection, schema, "group_heads_forget", queue=queue)
        await fetch(connection, schema, "group_ready_all", queue=queue)
    logger.info("groups run as the application declares", extra={"queue": queue})


def _columns(rules: list[tuple[str, Rule]]) -> dict[str, list[Any]]:
    return {
        "queues": [queue for queue, _ in rules],
        "modes": [mode for _, (mode, _, _) in rules],
        "limits": [limit for _, (_, limit, _) in rules],
        "retries": [retry for _, (_, _, retry) in rules],
    }
