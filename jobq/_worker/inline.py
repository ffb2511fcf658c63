"""Running jobs in the calling process, one at a time: for tests and for scripts that want no daemon.

The same statements and the same execution as the daemon's, so that what passes here is what runs there; but no lease, no
isolation from the task's code, and no hard timeout for tasks that are not async.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext
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
from jobq.worker.frames import Ending, Job, Recorded, Setback, Success
from jobq.worker.lanes import Lanes
from jobq.worker.managed import Managed
from jobq.worker.outcomes import UNSTORED, Claimed, advance_parameters, claimed, settle_parameters
from jobq.worker.parking import park_parameters, park_verdicts
from jobq.worker.starts import judged, names
from jobq.worker.transaction import Transactions
from jobq.worker.within import Within

# As of `WorkerOptions.park_patience`.
PARK_PATIENCE = 3600.0
# Lanes that are read by one statement.
LANES = 500
_COUNTED = {Ending.FAIL: "failed", Ending.CANCEL: "failed", Ending.SUCCEED: "succeeded"}

logger = logging.getLogger("jobq.worker")


@dataclass(frozen=True, slots=True)
class Drained:
    """What a drain did, in executions: a job that was retried twice and then succeeded counts in both."""

    succeeded: int
    failed: int
    """Ended as failed or cancelled."""
    retried: int
    """Put back: for a retry, by a snooze, or parked, since this code does not know its task or its parameters."""


def drain(
    app: JobQ,
    connection: Connection[Any],
    *,
    queues: tuple[str, ...] | None = None,
    max_jobs: int | None = None,
    within: Within | None = None,
) -> Drained:
    """Run every job that is due, and those that they insert, until none is due or `max_jobs` executions are done.

    `connection` must be in autocommit mode, so that each outcome is committed by itself; ValueError when it is not.
    Jobs of the future, retries among them, are left; so are jobs with a key until started that an open transaction has
    replaced, or was given by `return`. Transactional tasks get connections of their own to the same database.

    `within`: `connection` is in a transaction of the caller's, which sees its own jobs, and which nothing here commits.
    """
    if within is None and not connection.autocommit:
        raise ValueError("drain(connection=…): give a connection in autocommit mode; each outcome is its own commit")
    schema, worker, lanes = app.settings.schema, uuid4(), Lanes(queues)
    counts = {"succeeded": 0, "failed": 0, "retried": 0}
    loop = Loop()
    transactions = Transactions(_settings(app.settings, connection), loop.run) if within is None else within
    executor = Executor(
        tasks=app.tasks,
        run_coroutine=loop.run,
        report_progress=lambda job, done, total: None,
        max_result_bytes=app.settings.max_result_bytes,
        max_error_bytes=64 * 1024,
        transactions=transactions,
        context=contextvars.copy_context,
    )
    locked: list[Job] = []
    with closing(loop), closing(transactions), connection.cursor(row_factory=tuple_row) as cursor:
        while max_jobs is None or sum(counts.values()) < max_jobs:
            if within is not None:
                # Claims look at now(), which stands still in a transaction, and jobs are due by the clock.
                within.make_due(cursor, schema)
            if not (jobs := _next_jobs(cursor, app, worker, lanes, locked)):
                break
            for job in jobs:
                with within.guarded(connection) if within is not None else nullcontext():
                    outcome = executor.execute(Execution(job=job, worker=worker), time.monotonic())
                match outcome:
                    case Recorded():
                        counts["succeeded"] += outcome.accepted
                        if outcome.accepted and outcome.unstored is not None:
                            _warn_unstored(outcome.id, outcome.unstored)
                    case Success():
                        cursor.execute(
                            statement("advance", schema).query, advance_parameters(worker, [outcome], NOWHERE, 0)
                        )
                        counts["succeeded"] += 1
                    case Setback() if outcome.ending is Ending.PARK:
                        counts["failed" if _park(cursor, schema, worker, outcome) else "retried"] += 1
                    case Setback():
                        _settle(cursor, schema, worker, outcome)
                        counts[_COUNTED.get(outcome.ending, "retried")] += 1
                        if outcome.ending is Ending.SUCCEED:
                            _warn_unstored(outcome.id, outcome.message or "")
        if locked:
            _put_back(cursor, schema, worker, locked)
    return Drained(**counts)


def _next_jobs(cursor: Cursor[tuple[Any, ...]], app: JobQ, worker: UUID, lanes: Lanes, locked: list[Job]) -> list[Job]:
    """Claim and return the next job to run, or jobs of `locked` that are so no longer; none when nothing can be run."""
    schema = app.settings.schema
    while True:
        _read_lanes(cursor, schema, lanes)
        scan = everything(lanes.arrays())
        first, *rows = cursor.execute(
            statement("advance", schema).query, advance_parameters(worker, [], scan, 1)
        ).fetchall()
        found = claimed(first, rows, scan)
        if found.sight is not None:
            lanes.claimed(scan, found.sight)
        found = found if rows else _managed(cursor, schema, worker, lanes)
        found = found if len(found) else _parked(cursor, app, worker, lanes.only)
        jobs, expired = found.jobs()
        keyed = found.keyed
        last = not (jobs or expired or keyed)
        if last:
            # Once more, and then others may have them.
            keyed = locked[:]
            locked.clear()
        if keyed:
            verdicts = judged(keyed, _start(cursor, schema, worker, keyed))
            jobs, expired = verdicts.start, verdicts.expired
            locked += verdicts.locked
            for job in verdicts.back:
                _settle(cursor, schema, worker, Setback(job.id, job.claims, job.started, Ending.RELEASE))
        for job in expired:
            _settle(cursor, schema, worker, Setback(job.id, job.claims, job.started, Ending.EXPIRE, message="expired"))
        if jobs or last:
            return jobs


def _read_lanes(cursor: Cursor[tuple[Any, ...]], schema: str, lanes: Lanes) -> None:
    """Learn which queues have rules, and which lanes have jobs."""
    lanes.refresh(cursor.execute(statement("queue_rules", schema).query).fetchall())
    after: tuple[str, int] | None = ("", -1)
    while after is not None:
        slice_ = {"queue": after[0], "priority": after[1], "most": LANES}
        heads = cursor.execute(statement("lanes", schema).query, slice_).fetchall()
        for queue, priority, _, _, seconds in heads:
            lanes.found(queue, priority, seconds)
        after = heads[-1][:2] if len(heads) == LANES else None


def _start(cursor: Cursor[tuple[Any, ...]], schema: str, worker: UUID, jobs: list[Job]) -> list[tuple[Any, ...]]:
    parameters = {"worker": worker, **names(jobs)}
    return cursor.execute(statement("start_jobs", schema).query, parameters).fetchall()


def _put_back(cursor: Cursor[tuple[Any, ...]], schema: str, worker: UUID, jobs: list[Job]) -> None:
    """Put jobs back that a transaction which is still open has replaced, or was given; it still has their rows locked."""
    parameters = {"worker": worker, **names(jobs), "delay": 0.0, "let_go": False}
    done = {job_id for (job_id,) in cursor.execute(statement("unclaim_locked", schema).query, parameters).fetchall()}
    for job in jobs:
        if job.id not in done:
            _settle(cursor, schema, worker, Setback(job.id, job.claims, job.started, Ending.RELEASE))


def _managed(cursor: Cursor[tuple[Any, ...]], schema: str, worker: UUID, lanes: Lanes) -> Claimed:
    """Claim one job of a managed queue: no limit is in the way of a process that runs one at a time, but a rate may be."""
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


def _parked(cursor: Cursor[tuple[Any, ...]], app: JobQ, worker: UUID, queues: tuple[str, ...] | None) -> Claimed:
    """Claim one job that other code could not run."""
    known = sorted(app.tasks.items())
    parameters = {
        "worker": worker,
        "want": 1,
        "tasks": [name for name, _ in known],
        "signatures": [task.arguments.fingerprint for _, task in known],
        "queues": list(queues) if queues is not None else None,
        "without": [],
    }
    return Claimed(0, None, cursor.execute(statement("claim_parked", app.settings.schema).query, parameters).fetchall())


def _park(cursor: Cursor[tuple[Any, ...]], schema: str, worker: UUID, setback: Setback) -> bool:
    """Park a job that this code cannot run. Return whether it has failed instead."""
    query, parameters = statement("park", schema).query, park_parameters(worker, [setback], PARK_PATIENCE, schema)
    while True:
        found = park_verdicts([setback], cursor.execute(query, parameters).fetchall())
        if not found.busy:
            break
        time.sleep(0.05)
    for other in found.instead:
        _settle(cursor, schema, worker, other)
    return bool(found.instead)


def _warn_unstored(job: int, why: str) -> None:
    logger.warning("%s: job %d: %s", UNSTORED, job, why)


def _settings(settings: Settings, connection: Connection[Any]) -> Settings:
    """Return `settings` with the database that `connection` has: transactions must be where the jobs are."""
    # The DSN has every parameter but the password.
    return replace(settings, database_url=make_conninfo(connection.info.dsn, password=connection.info.password or None))


def _settle(cursor: Cursor[tuple[Any, ...]], schema: str, worker: UUID, setback: Setback) -> None:
    """Record `setback`; while its job is locked, by a transaction whose connection was lost, wait."""
    query, parameters = statement("settle", schema).query, settle_parameters(worker, [setback])
    while [accepted for _, accepted, *_ in cursor.execute(query, parameters).fetchall()] == [False]:
        time.sleep(0.05)


class Loop:
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
