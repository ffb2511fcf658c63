"""One run of a schedule: its due ticks become jobs, in one transaction."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg import AsyncConnection

from jobq._worker.database import fetch, statement_deadline
from jobq._worker.database_errors import ErrorKind, classify
from jobq.cron import NoNextRun, when
from jobq.schedule import Due, due

logger = logging.getLogger("jobq.worker")

# Seconds that each statement of one run may take, plus the time of the insert for each further
# tick: while one schedule takes long, no other ticks. A failed schedule may take until another is
# due, but at most the last of these values.
TICK = 2.0
TICK_EACH = 0.005
TICK_LONGEST = 20.0


@dataclass(frozen=True, slots=True)
class Ticked:
    """The result of one run of a schedule: the number of inserted jobs, or its fault."""

    name: str
    jobs: int = 0
    skipped: int = 0
    """Number of ticks without a job because another job held the schedule's key."""
    error: str | None = None
    transient: bool = False
    """It lacked a lock, time or resources: try again soon."""


async def tick(
    connection: AsyncConnection[tuple[Any, ...]],
    schema: str,
    *,
    skip: list[str] | None = None,
    now: datetime | None = None,
    seconds: float = TICK,
) -> Ticked | None:
    """Insert the jobs of the schedule that has been due for longest, in one transaction.

    A fault of the schedule is written to its row and returned: it must not stop the others.

    Args:
        connection: an autocommit connection.
        schema: the schema of jobq's tables.
        skip: names of schedules to ignore.
        now: used instead of the database's clock.
        seconds: the server ends the insert after this, or later if many ticks are due.

    Returns:
        The result; None: no unlocked schedule is due.

    Raises:
        psycopg.Error: the connection is at fault.
    """
    name = ""
    transient = False
    try:
        async with statement_deadline(connection, TICK):
            rows = await fetch(connection, schema, "schedule_due", now=now, skip=skip or [])
            if not rows:
                return None
            name, *timing, missed, max_missed, since, moment = rows[0]
            # In a thread: thousands of ticks may have been missed, and heartbeats must not wait for
            # this.
            found = await asyncio.to_thread(_due, timing, since, moment, missed=missed, max_missed=max_missed)
            enough = min(max(seconds, TICK + TICK_EACH * (len(found.ticks) - 1)), TICK_LONGEST)
            async with statement_deadline(connection, enough) if enough > TICK else contextlib.nullcontext():
                [(jobs, skipped, holder)] = await fetch(
                    connection,
                    schema,
                    "schedule_insert_jobs",
                    name=name,
                    ticks=[at.astimezone(UTC).isoformat() for at in found.ticks],
                    next_at=found.next_at,
                )
    except psycopg.Error as error:
        # A refusal by a rule, a time-out or a missing lock concerns only this schedule: others
        # continue.
        kind = classify(error, connection)
        if not name or kind is ErrorKind.CONNECTION:
            raise
        said, transient = error.diag.message_primary or str(error), kind is ErrorKind.TRANSIENT
    except Exception as error:
        if not name:
            raise
        # The rule is invalid, or its zone's file cannot be read.
        said = "it never ticks again" if isinstance(error, NoNextRun) else str(error) or type(error).__name__
    else:
        if found.left_out:
            logger.info(
                "ticks were missed and left out", extra={"schedule": name, "missed": missed, "since": str(since)}
            )
        if skipped:
            logger.info(
                "a tick is skipped: a job holds the schedule's key",
                extra={"schedule": name, "ticks": skipped, "job": None if holder == -1 else holder},
            )
        return Ticked(name, jobs, skipped)
    said = said.replace("\x00", "")[:1000]
    try:
        if await fetch(connection, schema, "schedule_failed", name=name, error=said):
            logger.error("a schedule cannot tick", extra={"schedule": name, "error": said})
    except psycopg.Error as error:
        if classify(error, connection) is ErrorKind.CONNECTION:
            raise
        logger.error("a schedule cannot tick, nor that be written to its row", extra={"schedule": name, "error": said})
    return Ticked(name, error=said, transient=transient)


def _due(timing: list[Any], since: datetime | None, now: datetime, *, missed: str, max_missed: int) -> Due:
    rule = when(*timing)
    if since is None:
        # Written by hand: the schedule begins now.
        return Due(ticks=[], next_at=rule.next(now), left_out=False)
    return due(rule, since, now, missed=missed, max_missed=max_missed)
