"""Run enqueued jobs at once, in the calling process, without a database.

This is for tests of code that enqueues. It follows the conventions of Celery's
``task_always_eager`` and ``task_eager_propagates``.
"""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn
from uuid import uuid4

from jobq._core.logs import context as log_context
from jobq._worker.inline import Loop
from jobq._worker.ipc.messages import AlreadyCommitted, Disposition, Failure, Job, Success
from jobq._worker.runner.batch_executor import BatchExecutor
from jobq._worker.runner.execution import Execution
from jobq._worker.runner.executor import Outcome
from jobq._worker.runner.open_resources import OpenResources
from jobq._worker.runner.task_bodies import TaskBodies
from jobq.errors import ConfigurationError, NotTransactional
from jobq.job import InsertResult, JobState, NewJob
from jobq.jobref import JobProgress, JobRef
from jobq.steps.store import StepStore
from jobq.testing.eager_batches import EagerBatches
from jobq.testing.eager_job import EagerJob, EagerKeys
from jobq.testing.eager_resources import SharedResources
from jobq.testing.eager_steps import EagerHost, EagerSteps, Waits

if TYPE_CHECKING:
    from jobq.app import JobQ
    from jobq.task import BaseTask

# A job that asks to be cancelled or fails permanently ends so. After any other result, another
# attempt follows.
_ENDINGS: dict[Disposition, JobState] = {
    Disposition.FAIL: "failed",
    Disposition.CANCEL: "cancelled",
    Disposition.EXPIRE: "expired",
    Disposition.SUCCEED: "succeeded",
}


class EagerJobs(EagerSteps):
    """The jobs of one `eager` block, in the order in which they were enqueued."""

    def __init__(self, app: JobQ, *, run: bool, propagate: bool) -> None:
        log_context.install()
        self._app = app
        self._run = run
        self._propagate = propagate
        self._keys = EagerKeys()
        self._loop = Loop()
        self._raised: dict[int, BaseException] = {}
        """The last exception of each job that is running: several do if one enqueues another, or on an event loop."""
        self._resources = OpenResources(app.resources, self._loop.run_alone)
        self._shared = SharedResources(app.resources, self._resources)
        self._bodies = TaskBodies(app, self._resources, keep=False)
        super().__init__()
        self._waits = Waits()
        self._executor = _Executor(
            tasks=app.tasks,
            bodies=self._bodies,
            batch_body=self._bodies.batch,
            run_coroutine=self._loop.run,
            report_progress=self._report_progress,
            max_result_bytes=app.settings.max_result_bytes,
            max_error_bytes=64 * 1024,
            transactions=_NoTransactions(),
            steps=self._waits.store,
            step_host=EagerHost(app, self.jobs, self._waits, self._take),
            context=contextvars.copy_context,
            raised=self._raised,
        )
        self._batches = EagerBatches(
            self.jobs,
            app,
            self._executor,
            begin=self._begin,
            end=self._end,
            open_resources=self._open_resources,
            refuse=lambda execution, other: self._executor.failed(
                execution, app.get_task(execution.job.task), self._raised[other], 0.0
            ),
        )

    def drain(self) -> int:
        """Run each job that has not finished (recorded or snoozed) once; return their number.

        Raises NotTransactional, and runs nothing, if one of them is of a transactional task.
        """
        ready = [job for job in self.jobs if job.state == "ready"]
        for job in ready:
            if self._app.get_task(job.task).transactional:
                raise NotTransactional(
                    f"drain: job {job.id} is of task {job.task!r}, which is transactional and needs a database: "
                    "test it with the fixture jobq"
                )
        for job in ready:
            if job.state == "ready" and not self._batches.takes(job):
                self._execute(job)
        self._batches.run([job for job in ready if self._batches.takes(job)])
        while (child := self._waits.next(self.jobs)) is not None:
            self._execute(child)
        return len(ready)

    def close(self) -> None:
        """Close the resources, and the event loop of async tasks."""
        self._resources.close()
        self._loop.close()

    # --- Replacements for the application's database access

    def insert(self, connection: object, jobs: Sequence[NewJob]) -> list[InsertResult]:
        """Accept `jobs`, and run the new ones."""
        return self._app.middlewares.insert(jobs, self._insert)

    async def insert_async(self, connection: object, jobs: Sequence[NewJob]) -> list[InsertResult]:
        """Accept `jobs`, and run the new ones; async tasks use the running event loop."""
        return await self._app.middlewares.insert_async(jobs, self._insert_async)

    def _insert(self, jobs: Sequence[NewJob]) -> list[InsertResult]:
        done, batched = [], []
        for new in jobs:
            job, inserted = self._take(new)
            done.append(inserted)
            if self._run and inserted.created:
                if self._batches.takes(job):
                    batched.append(job)
                else:
                    self._execute(job)
                    self._settle()
        self._batches.run(batched)
        return done

    async def _insert_async(self, jobs: Sequence[NewJob]) -> list[InsertResult]:
        done, batched = [], []
        for new in jobs:
            job, inserted = self._take(new)
            done.append(inserted)
            if self._run and inserted.created:
                if self._batches.takes(job):
                    batched.append(job)
                else:
                    await self._execute_async(job)
                    await self._settle_async()
        await self._batches.run_async(batched)
        return done

    def insert_own(self, jobs: Sequence[NewJob]) -> list[InsertResult]:
        """Accept jobs from `submit`."""
        return self.insert(None, jobs)

    async def insert_own_async(self, jobs: Sequence[NewJob]) -> list[InsertResult]:
        """Accept jobs from `submit_async`."""
        return await self.insert_async(None, jobs)

    def enqueue_many(self, connection: object, jobs: Iterable[NewJob]) -> list[JobRef[Any]]:
        listed = list(jobs)
        return self._references(listed, self.insert(connection, listed))

    async def enqueue_many_async(self, connection: object, jobs: Iterable[NewJob]) -> list[JobRef[Any]]:
        listed = list(jobs)
        return self._references(listed, await self.insert_async(connection, listed))

    def connection(self) -> NoReturn:
        raise ConfigurationError(
            "eager mode has no database: what needs one (connections, queues, schedules) is tested with the fixture jobq"
        )

    # --- Accepting and running jobs

    def _references(self, jobs: list[NewJob], inserted: list[InsertResult]) -> list[JobRef[Any]]:
        return [
            self._app.get_task(job.options.task).reference(job, done) for job, done in zip(jobs, inserted, strict=True)
        ]

    def _take(self, new: NewJob) -> tuple[EagerJob, InsertResult]:
        """Return the job made from `new`, or the job that holds its key."""
        options = new.options
        task = self._app.get_task(options.task)
        if task.transactional and self._run:
            raise NotTransactional(
                f"task {task.name!r} is transactional and needs a database: test it with the fixture jobq, or pass "
                "run=False to eager(…), which records jobs only"
            )
        if (held := self._keys.conflict(new)) is not None:
            return held
        job = EagerJob(
            id=len(self.jobs) + 1,
            task=options.task,
            options=options,
            args=json.loads(new.args_json),
            args_json=new.args_json,
        )
        self.jobs.append(job)
        self._keys.take(job)
        return job, InsertResult(job.id, True, False)

    @contextmanager
    def _storing(self, steps: StepStore) -> Iterator[None]:
        before, self._executor = self._executor, dataclasses.replace(self._executor, steps=steps)
        try:
            yield
        finally:
            self._executor = before

    def _execute(self, job: EagerJob) -> None:
        while True:
            self._raised.pop(job.id, None)
            execution = self._begin(job)
            outcome = self._executor.execute(execution, time.monotonic())
            if not self._end(job, outcome, execution):
                return

    async def _execute_async(self, job: EagerJob) -> None:
        if not self._app.get_task(job.task).is_async:
            self._execute(job)
            return
        async with AsyncExitStack() as resources:
            while True:
                self._raised.pop(job.id, None)
                execution = self._begin(job)
                outcome = await self._open_resources(job, execution, resources)
                if outcome is None:
                    running = self._executor.execute_async(execution, time.monotonic())
                    outcome = await asyncio.create_task(running, context=contextvars.copy_context())
                if not self._end(job, outcome, execution):
                    return

    async def _open_resources(self, job: EagerJob, execution: Execution, stack: AsyncExitStack) -> Outcome | None:
        """Open the resources of `job`; return the attempt's outcome if one of them raises an error."""
        task, started = self._app.get_task(job.task), time.monotonic()
        try:
            await self._shared.enter(stack, self._bodies.needed(task).values())
        except (Exception, SystemExit) as error:
            return self._executor.failed(execution, task, error, time.monotonic() - started)
        return None

    def _begin(self, job: EagerJob) -> Execution:
        job.attempt += 1
        job.claims += 1
        job.state = "running"
        options = job.options
        given = Job(
            job.id,
            job.claims,
            job.task,
            options.queue,
            job.args_json.encode(),
            job.attempt,
            options.max_attempts,
            0,
            options.timeout,
            (options.columns["headers"] or "{}").encode(),
        )
        return Execution(job=given, worker=uuid4())

    def _end(self, job: EagerJob, outcome: Outcome, execution: Execution | None = None) -> bool:
        """Record the result of an attempt; return whether another attempt follows at once."""
        steps = None if execution is None else execution.steps
        is_suspended = isinstance(outcome, Failure) and steps is not None and steps.suspended is not None
        self._waits.noted(job, is_suspended=is_suspended)
        job.exception = self._raised.pop(job.id, None)
        if isinstance(outcome, Success):
            job.state, job.result_json, job.error = "succeeded", outcome.result.decode(), None
            job.result = json.loads(job.result_json)
            return False
        assert not isinstance(outcome, AlreadyCommitted)  # only transactional tasks return it
        if (args := self._waits.store.restarted.pop(job.id, None)) is not None:
            job.args_json, job.args = args, json.loads(args)
        if outcome.ending is Disposition.SNOOZE:
            job.attempt -= 1
            job.state = "ready"
            return False
        told = outcome.message or ""
        job.error = told if told == outcome.error_type else f"{outcome.error_type}: {told}"
        # A worker would park it for other code. Eager mode has no other code.
        job.state = "failed" if outcome.ending is Disposition.PARK else _ENDINGS.get(outcome.ending, "ready")
        if job.state == "failed" and self._propagate and job.exception is not None:
            raise job.exception
        return job.state == "ready"

    def _report_progress(self, job: Job, done: int, total: int | None) -> None:
        self.jobs[job.id - 1].progress = JobProgress(done, total)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Executor(BatchExecutor):
    """Remembers the exceptions of tasks."""

    raised: dict[int, BaseException]
    """The last exception of each job."""

    def failed(self, execution: Execution, task: BaseTask[..., Any], error: BaseException, seconds: float) -> Outcome:
        """Return the outcome of an attempt whose resources could not be created."""
        return self._setback(execution, task, error, seconds)

    def _setback(self, execution: Execution, task: BaseTask[..., Any], error: BaseException, seconds: float) -> Failure:
        self.raised[execution.job.id] = error
        # Not super(): it would refer to the class that existed before `slots` replaced it.
        return BatchExecutor._setback(self, execution, task, error, seconds)


class _NoTransactions:
    def begin(self, execution: Execution, *, is_async: bool) -> NoReturn:
        raise NotTransactional("eager mode has no database, and so no transaction")


# Members of a JobQ that use the database.
_REPLACED = (
    "insert",
    "insert_async",
    "insert_own",
    "insert_own_async",
    "enqueue_many",
    "enqueue_many_async",
    "fetch_status",
    "fetch_status_async",
    "report",
    "report_async",
    "cancel_job",
    "cancel_job_async",
    "connection",
)
_WITHOUT_WORKFLOWS = (
    "insert_workflow",
    "insert_workflow_async",
    "submit_workflow",
    "submit_workflow_async",
    "workflow_status",
    "workflow_status_async",
    "cancel_workflow",
    "cancel_workflow_async",
    "retry_workflow",
    "additions",
    "retry_workflow_async",
)
_SIGNALS = ("send_signal", "send_signal_async")
_ALL_REPLACED = (*_REPLACED, *_WITHOUT_WORKFLOWS, *_SIGNALS, "connection_async", "waiting_helps")


@contextmanager
def eager(app: JobQ, *, run: bool = True, propagate: bool = False) -> Iterator[EagerJobs]:
    """Run each job of `app` when it is enqueued, in this thread, without a database; yield the jobs::

        with eager(q) as jobs:
            place_order(7)
        assert jobs.assert_enqueued(send_receipt, order_id=7).state == "succeeded"

    Arguments and results pass through JSON as usual, and ``current_job()`` works. A failed job is
    tried again at once, up to ``max_attempts``; a snoozed job stays ``ready``. Middleware is
    applied. Resources are created when the first job needs them, and closed at the end of the
    block. For async tasks that are enqueued on an event loop, they are created for each job, and
    shared by jobs that run at the same time. See `override_resource`.

    Differences to a database: jobs run before your transaction commits, and stay if it is rolled
    back. Connections that are passed are ignored. Delays, priorities, limits, groups, expiries and
    timeouts of ``def`` tasks have no effect. Keys are held within the block. Schedules do not
    tick. Durable tasks run: what waits for a time goes on by ``jobs.advance(days=1)``, what waits for a
    signal by ``q.send_signal`` or ``jobs.send_signal``. Transactional tasks and steps raise
    NotTransactional, workflows raise ConfigurationError. If a test depends on any of this, use the
    fixture ``jobq``. Use one thread at a time.

    Args:
        app: the application.
        run: False records the jobs and runs none until ``jobs.drain()``.
        propagate: whether ``enqueue`` and ``submit`` raise the exception of a job's last attempt
            (like Celery's ``task_eager_propagates``). By default the job is ``failed``, and
            ``ref.result()`` raises JobFailed.
    """
    jobs = EagerJobs(app, run=run, propagate=propagate)
    own = vars(app)
    before = {name: own[name] for name in _ALL_REPLACED if name in own}
    own.update({name: getattr(jobs, name) for name in _REPLACED})
    own.update(dict.fromkeys(_WITHOUT_WORKFLOWS, _no_workflow))
    own.update(send_signal=jobs.send_own_signal, send_signal_async=jobs.send_own_signal_async)
    own.update(connection_async=jobs.connection, waiting_helps=False)
    try:
        yield jobs
    finally:
        for name in _ALL_REPLACED:
            own.pop(name, None)
        own.update(before)
        jobs.close()


def _no_workflow(*_: object) -> NoReturn:
    raise ConfigurationError(
        "eager mode has no database, and workflows need one: test them with the fixture jobq, whose drain() runs them"
    )
