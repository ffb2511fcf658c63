"""Running jobs in the calling process, one at a time: for tests and for scripts that want no daemon.

The same statements and the same execution as the daemon's, so that what passes here is what runs there; but no lease, no
isolation from the task's code, and no hard timeout for tasks that are not async.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID, uuid4

from psycopg import Connection, Cursor
from psycopg.conninfo import make_conninfo
from psycopg.rows import tuple_row

from jobq.app import JobQ
from jobq.config import Settings
from jobq.sql import statement
from jobq.worker.cursor import NOWHERE, everything
from jobq.worker.execution import Execution
from jobq.worker.executor import Executor
from jobq.worker.frames import Ending, Recorded, Setback, Success
from jobq.worker.lanes import Lanes
from jobq.worker.managed import Managed
from jobq.worker.outcomes import Claimed, advance_parameters, claimed, settle_parameters
from jobq.worker.transaction import Transactions


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
    Jobs of the future, retries among them, are left. Transactional tasks get connections of their own to the same database.
    """
    if not connection.autocommit:
        raise ValueError("drain(connection=…): give a connection in autocommit mode; each outcome is its own commit")
    schema, worker, lanes = app.settings.schema, uuid4(), Lanes(queues)
    counts = {"succeeded": 0, "failed": 0, "retried": 0}
    loop = _Loop()
    transactions = Transactions(_settings(app.settings, connection), loop.run)
    executor = Executor(
        tasks=app.tasks,
        run_coroutine=loop.run,
        report_progress=lambda job, done, total: None,
        max_result_bytes=app.settings.max_result_bytes,
        max_error_bytes=64 * 1024,
        transactions=transactions,
    )
    with closing(loop), closing(transactions), connection.cursor(row_factory=tuple_row) as cursor:
        while max_jobs is None or sum(counts.values()) < max_jobs:
            lanes.refresh(cursor.execute(statement("lanes", schema).query).fetchall())
            query = statement("advance", schema).query
            scan = everything(lanes.arrays())
            first, *rows = cursor.execute(query, advance_parameters(worker, [], scan, 1)).fetchall()
            found = claimed(first, rows, scan)
            if found.sight is not None:
                lanes.claimed(scan, found.sight)
            jobs, expired = (found if rows else _managed(cursor, schema, worker, lanes)).jobs()
            for job in expired:
                _settle(cursor, schema, worker, Setback(job.id, job.claims, Ending.EXPIRE, message="expired"))
            if not jobs and not expired:
                break
            for job in jobs:
                outcome = executor.execute(Execution(job=job, worker=worker), time.monotonic())
                match outcome:
                    case Recorded():
                        counts["succeeded"] += outcome.accepted
                    case Success():
                        cursor.execute(query, advance_parameters(worker, [outcome], NOWHERE, 0))
                        counts["succeeded"] += 1
                    case Setback():
                        _settle(cursor, schema, worker, outcome)
                        counts["failed" if outcome.ending in (Ending.FAIL, Ending.CANCEL) else "retried"] += 1
    return Drained(**counts)


def _managed(cursor: Cursor[tuple[Any, ...]], schema: str, worker: UUID, lanes: Lanes) -> Claimed:
    """Claim one job of a managed queue: no limit is in the way of somebody who runs one at a time, but a rate may be."""
    query = statement("claim_managed", schema).query
    managed = Managed(schema, 0.0)
    managed.refresh(lanes.managed)
    for queue in sorted(lanes.managed):
        # Without a job and yet to be asked again at once: it has looked at many groups that have none.
        more = True
        while more:
            claim = managed.begin(worker, queue, 1)
            rows = cursor.execute(query, claim).fetchall()
            if len(managed.took(claim, rows)):
                return Claimed(0, None, rows[:-1])
            locked = bool(rows) and rows[-1][2] == "locked"
            if locked:
                time.sleep(0.01)
            more = locked or (bool(rows) and rows[-1][8] == 0)
    return Claimed()


def _settings(settings: Settings, connection: Connection[Any]) -> Settings:
    """Return `settings` with the database that `connection` has: transactions must be where the jobs are."""
    # The DSN has every parameter but the password.
    return replace(settings, database_url=make_conninfo(connection.info.dsn, password=connection.info.password or None))


def _settle(cursor: Cursor[tuple[Any, ...]], schema: str, worker: UUID, setback: Setback) -> None:
    """Record `setback`; while its job is locked, by a transaction whose connection was lost, wait."""
    query, parameters = statement("settle", schema).query, settle_parameters(worker, [setback])
    while [accepted for _, accepted in cursor.execute(query, parameters).fetchall()] == [False]:
        time.sleep(0.05)


class _Loop:
    """One event loop for all that a drain runs; in threads when the caller's already runs one, as under async tests."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)

    def run(self, execution: Execution, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run `coroutine` to its end."""
        return _undisturbed(lambda: self._runner.run(coroutine, context=contextvars.copy_context()))

    def close(self) -> None:
        """Cancel what is left, and close the loop."""
        _undisturbed(self._runner.close)


def _undisturbed(work: Callable[[], Any]) -> Any:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return work()
    with ThreadPoolExecutor(1) as elsewhere:
        return elsewhere.submit(contextvars.copy_context().run, work).result()
