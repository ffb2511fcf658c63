"""Running jobs in the calling process, one at a time: for tests and for scripts that want no daemon.

The same statements and the same execution as the daemon's, so that what passes here is what runs there; but no lease, no
isolation from the task's code, and no hard timeout for tasks that are not async.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from psycopg import Connection
from psycopg.rows import tuple_row

from jobq.app import JobQ
from jobq.sql import statement
from jobq.worker.execution import Execution, Executor
from jobq.worker.frames import Ending, Setback, Success
from jobq.worker.lanes import Lanes
from jobq.worker.outcomes import advance_parameters, claimed, settle_parameters


@dataclass(frozen=True, slots=True)
class Drained:
    """What a drain did, in executions: a job that was retried twice and then succeeded counts in both."""

    succeeded: int
    failed: int
    """Ended as failed or cancelled."""
    retried: int
    """Put back: for a retry, by a snooze, or since its task is unknown."""


def drain(
    app: JobQ, connection: Connection[Any], *, queues: tuple[str, ...] | None = None, max_jobs: int | None = None
) -> Drained:
    """Run every job that is due, and those that they insert, until none is due or `max_jobs` executions are done.

    `connection` must be in autocommit mode, so that each outcome is committed by itself; ValueError when it is not.
    Jobs of the future, retries among them, are left.
    """
    if not connection.autocommit:
        raise ValueError("drain(connection=…): give a connection in autocommit mode; each outcome is its own commit")
    schema, worker, lanes = app.settings.schema, uuid4(), Lanes(queues)
    counts = {"succeeded": 0, "failed": 0, "retried": 0}
    executor = Executor(
        tasks=app.tasks,
        run_coroutine=_run_coroutine,
        report_progress=lambda job, done, total: None,
        max_result_bytes=app.settings.max_result_bytes,
        max_error_bytes=64 * 1024,
    )
    with connection.cursor(row_factory=tuple_row) as cursor:
        while max_jobs is None or sum(counts.values()) < max_jobs:
            lanes.refresh((row[0], row[1]) for row in cursor.execute(statement("lanes", schema).query).fetchall())
            query = statement("advance", schema).query
            found = claimed(cursor.execute(query, advance_parameters(worker, [], lanes.arrays(), 1)).fetchall())
            for job in found.expired:
                expired = Setback(job.id, job.claims, Ending.EXPIRE, message="expired")
                cursor.execute(statement("settle", schema).query, settle_parameters(worker, [expired]))
            if not found.jobs and not found.expired:
                break
            for job in found.jobs:
                outcome = executor.execute(Execution(job=job), time.monotonic())
                if isinstance(outcome, Success):
                    cursor.execute(query, advance_parameters(worker, [outcome], ([], []), 0))
                    counts["succeeded"] += 1
                    continue
                cursor.execute(statement("settle", schema).query, settle_parameters(worker, [outcome]))
                counts["failed" if outcome.ending in (Ending.FAIL, Ending.CANCEL) else "retried"] += 1
    return Drained(**counts)


def _run_coroutine(execution: Execution, coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run `coroutine` on a loop of its own; in a thread when this one already runs a loop, as under async tests."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    ended: list[Any] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            ended.append(asyncio.run(coroutine))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=contextvars.copy_context().run, args=(run,))
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return ended[0]
