"""Run jobs in the calling process, one at a time: for tests, and for scripts without a daemon.

Statements and execution are the daemon's, so a job that passes here also runs there. There is no
lease, no isolation from the task's code, and no hard timeout for tasks that are not async.
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

from jobq._app.step_host import StepHost
from jobq._core.logs import context as log_context
from jobq._postgres.sql import statement
from jobq._worker.inline_steps import InlineSteps
from jobq._worker.inline_transaction import Within
from jobq._worker.ipc.messages import AlreadyCommitted, Disposition, Failure, Job, Success
from jobq._worker.lanes.cursor import NOWHERE, everything
from jobq._worker.lanes.lanes import Lanes
from jobq._worker.limited.queues import LimitedQueues
from jobq._worker.outcomes.parking import park_parameters, park_verdicts
from jobq._worker.outcomes.store import UNSTORED
from jobq._worker.runner.batch_execution import BatchExecution
from jobq._worker.runner.batch_executor import BatchExecutor
from jobq._worker.runner.execution import Execution
from jobq._worker.runner.executor import Outcome
from jobq._worker.runner.inline_batches import InlineBatches
from jobq._worker.runner.open_resources import OpenResources
from jobq._worker.runner.task_bodies import TaskBodies
from jobq._worker.runner.transaction import Transactions
from jobq._worker.runners.key_starts import judged, names
from jobq._worker.statements.parameters import advance_parameters, settle_parameters
from jobq._worker.statements.results import Claimed, claimed
from jobq.app import JobQ
from jobq.settings import Settings
from jobq.steps.store import StepStore

# The same as in `WorkerOptions.park_patience`.
PARK_PATIENCE = 3600.0
# Number of lanes that one statement reads.
LANES = 500
_COUNTED = {Disposition.FAIL: "failed", Disposition.CANCEL: "failed", Disposition.SUCCEED: "succeeded"}

logger = logging.getLogger("jobq.worker")


@dataclass(frozen=True, slots=True)
class Drained:
    """Counts of executions in a drain.

    A job that was retried twice and then succeeded is in both.
    """

    succeeded: int
    failed: int
    """Executions that ended as failed or cancelled."""
    retried: int
    """Executions whose job was put back: for a retry, by a snooze, or parked.

    A job is parked if this code does not know its task or its parameters.
    """


def drain(
    app: JobQ,
    connection: Connection[Any],
    *,
    queues: tuple[str, ...] | None = None,
    max_jobs: int | None = None,
    within: Within | None = None,
    steps: StepStore | None = None,
    step_host: StepHost | None = None,
) -> Drained:
    """Run every due job and the jobs that they insert, until none is due.

    Future jobs, including retries, are left. A job with an until-started key is left, too, if an
    open transaction has replaced it or got it by `return`. Transactional tasks get their own
    connections to the same database.

    Middleware is applied. Resources are created when the first job needs them; an error then
    belongs to that job. They are closed at the end. Hooks for the start and end of workers and
    runners are not called. Jobs of a batch task run when their batch is full, or when no other job is
    due.

    Args:
        app: the application.
        connection: a connection in autocommit mode, so each outcome is committed by itself;
            otherwise ValueError is raised.
        queues: only these queues; None: all.
        max_jobs: most executions; None: no limit.
        within: a transaction of the caller that contains `connection`. It sees its own jobs, and
            nothing here commits it.
        steps: where the steps of durable jobs are stored; None: on `connection`.
        step_host: what their steps need of the application; None: the application itself.
    """
    if within is None and not connection.autocommit:
        raise ValueError("drain(connection=…): give a connection in autocommit mode; each outcome is its own commit")
    log_context.install()
    schema, worker, lanes = app.settings.schema, uuid4(), Lanes(queues)
    counts = {"succeeded": 0, "failed": 0, "retried": 0}
    loop = Loop()
    transactions = Transactions(_settings(app.settings, connection), loop.run) if within is None else within
    resources = OpenResources(app.resources, loop.run_alone)
    bodies = TaskBodies(app, resources, keep=False)
    executor = BatchExecutor(
        tasks=app.tasks,
        bodies=bodies,
        batch_body=bodies.batch,
        run_coroutine=loop.run,
        report_progress=lambda job, done, total: None,
        max_result_bytes=app.settings.max_result_bytes,
        max_error_bytes=64 * 1024,
        transactions=transactions,
        steps=steps or InlineSteps(connection, schema),
        step_host=step_host or StepHost(app),
        context=contextvars.copy_context,
    )
    batches = InlineBatches(app.tasks, worker)
    locked: list[Job] = []
    with closing(loop), closing(resources), closing(transactions), connection.cursor(row_factory=tuple_row) as cursor:
        while True:
            jobs: list[Job] = []
            if max_jobs is None or sum(counts.values()) + len(batches) < max_jobs:
                if within is not None:
                    # Claims use now(), which stands still in a transaction, but jobs are due by the
                    # clock.
                    within.make_due(cursor, schema)
                jobs = _next_jobs(cursor, app, worker, lanes, locked)
            # Jobs of batch tasks wait until their batch is full, or no other job is due.
            executions = batches.add(jobs) if jobs else batches.rest()
            if not jobs and not executions:
                break
            for execution in executions:
                with within.guarded(connection) if within is not None else nullcontext():
                    outcomes = (
                        executor.execute_batch(execution, time.monotonic())
                        if isinstance(execution, BatchExecution)
                        else [executor.execute(execution, time.monotonic())]
                    )
                for outcome in outcomes:
                    _write(cursor, schema, worker, outcome, counts)
        if locked:
            _put_back(cursor, schema, worker, locked)
    return Drained(**counts)


def _write(
    cursor: Cursor[tuple[Any, ...]], schema: str, worker: UUID, outcome: Outcome, counts: dict[str, int]
) -> None:
    """Write an outcome, and count it."""
    match outcome:
        case AlreadyCommitted():
            counts["succeeded"] += outcome.accepted
            if outcome.accepted and outcome.unstored is not None:
                _warn_unstored(outcome.id, outcome.unstored)
        case Success():
            cursor.execute(statement("ack_and_claim", schema).query, advance_parameters(worker, [outcome], NOWHERE, 0))
            counts["succeeded"] += 1
        case Failure() if outcome.ending is Disposition.PARK:
            counts["failed" if _park(cursor, schema, worker, outcome) else "retried"] += 1
        case Failure():
            _settle(cursor, schema, worker, outcome)
            counts[_COUNTED.get(outcome.ending, "retried")] += 1
            if outcome.ending is Disposition.SUCCEED:
                _warn_unstored(outcome.id, outcome.message or "")


def _next_jobs(cursor: Cursor[tuple[Any, ...]], app: JobQ, worker: UUID, lanes: Lanes, locked: list[Job]) -> list[Job]:
    """Claim and return the next job to run, or jobs of `locked` that are unlocked now.

    The list is empty if nothing can run.
    """
    schema = app.settings.schema
    while True:
        _read_lanes(cursor, schema, lanes)
        scan = everything(lanes.arrays())
        first, *rows = cursor.execute(
            statement("ack_and_claim", schema).query, advance_parameters(worker, [], scan, 1)
        ).fetchall()
        found = claimed(first, rows, scan)
        if found.sight is not None:
            lanes.claimed(scan, found.sight)
        found = found if rows else _limited(cursor, schema, worker, lanes)
        found = found if len(found) else _parked(cursor, app, worker, lanes.only)
        jobs, expired = found.jobs()
        keyed = found.keyed
        last = not (jobs or expired or keyed)
        if last:
            # Tried once more; then others may have them.
            keyed = locked[:]
            locked.clear()
        if keyed:
            verdicts = judged(keyed, _start(cursor, schema, worker, keyed))
            jobs, expired = verdicts.start, verdicts.expired
            locked += verdicts.locked
            for job in verdicts.back:
                _settle(cursor, schema, worker, Failure(job.id, job.claims, job.started, Disposition.RELEASE))
        for job in expired:
            _settle(
                cursor, schema, worker, Failure(job.id, job.claims, job.started, Disposition.EXPIRE, message="expired")
            )
        if jobs or last:
            return jobs


def _read_lanes(cursor: Cursor[tuple[Any, ...]], schema: str, lanes: Lanes) -> None:
    """Read which queues have rules, and which lanes have jobs."""
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
    """Put back jobs that an open transaction has replaced or got, and whose rows it still locks."""
    parameters = {"worker": worker, **names(jobs), "delay": 0.0, "let_go": False}
    done = {job_id for (job_id,) in cursor.execute(statement("unclaim_locked", schema).query, parameters).fetchall()}
    for job in jobs:
        if job.id not in done:
            _settle(cursor, schema, worker, Failure(job.id, job.claims, job.started, Disposition.RELEASE))


def _limited(cursor: Cursor[tuple[Any, ...]], schema: str, worker: UUID, lanes: Lanes) -> Claimed:
    """Claim one job of a limited queue.

    Limits do not affect a process that runs one job at a time, but a rate may.
    """
    query = statement("claim_limited", schema).query
    limited = LimitedQueues(schema, 0.0)
    limited.refresh(lanes.limited)
    for queue in sorted(lanes.limited):
        # No job yet, but it must be asked again at once: it looked at many groups without jobs.
        more = True
        while more:
            claim = limited.begin(worker, queue, 1)
            rows = cursor.execute(query, claim).fetchall()
            if len(limited.took(claim, rows)):
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


def _park(cursor: Cursor[tuple[Any, ...]], schema: str, worker: UUID, setback: Failure) -> bool:
    """Park a job that this code cannot run. Return whether it failed instead."""
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
    """Return `settings` with the database of `connection`.

    This is because transactions must run where the jobs are.
    """
    # The DSN has every parameter except the password.
    return replace(settings, database_url=make_conninfo(connection.info.dsn, password=connection.info.password or None))


def _settle(cursor: Cursor[tuple[Any, ...]], schema: str, worker: UUID, setback: Failure) -> None:
    """Record `setback`. If a transaction with a lost connection still locks the job, wait."""
    query, parameters = statement("record_failures", schema).query, settle_parameters(worker, [setback], channel=schema)
    while [accepted for _, accepted, *_ in cursor.execute(query, parameters).fetchall()] == [False]:
        time.sleep(0.05)


class Loop:
    """One event loop for all runs of a drain.

    If the caller's thread already runs one, as in async tests, it uses threads.
    """

    def __init__(self) -> None:
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)

    def run(self, execution: Execution, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a job's coroutine to its end."""
        return self.run_alone(coroutine)

    def run_alone(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run `coroutine` to its end."""
        return _undisturbed(lambda: self._runner.run(coroutine, context=contextvars.copy_context()))

    def close(self) -> None:
        """Cancel the remaining tasks, and close the loop."""
        _undisturbed(self._runner.close)


def _undisturbed(work: Callable[[], Any]) -> Any:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return work()
    with ThreadPoolExecutor(1) as elsewhere:
        return elsewhere.submit(contextvars.copy_context().run, work).result()
