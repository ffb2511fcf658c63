"""Running what is enqueued at once, in the calling process, without a database: for tests of code that enqueues.

It follows the conventions of Celery's ``task_always_eager`` and ``task_eager_propagates``.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn
from uuid import uuid4

from jobq.errors import ConfigurationError, KeyConflict, NotTransactional
from jobq.jobs import JobOptions, JobState, NewJob
from jobq.refs import Found, JobProgress, JobRef, JobReport
from jobq.tasks import Inserted
from jobq.worker.execution import Execution
from jobq.worker.executor import Executor, Outcome
from jobq.worker.frames import Ending, Job, Recorded, Success
from jobq.worker.inprocess import Loop

if TYPE_CHECKING:
    from jobq.app import JobQ
    from jobq.tasks import BaseTask

# A job that asks to be cancelled or fails for good is one of these; any other ending means another attempt.
_ENDINGS: dict[Ending, JobState] = {
    Ending.FAIL: "failed",
    Ending.CANCEL: "cancelled",
    Ending.EXPIRE: "expired",
    Ending.SUCCEED: "succeeded",
}


@dataclass(kw_only=True)
class EagerJob:
    """A job that was enqueued in eager mode."""

    id: int
    task: str
    options: JobOptions
    args: dict[str, Any]
    """Arguments by name, as JSON's own types."""
    state: JobState = "ready"
    attempt: int = 0
    """Attempts begun so far."""
    result: Any = None
    """What the task returned, as JSON's own types."""
    error: str | None = None
    """Type and text of the last attempt's error."""
    exception: BaseException | None = field(default=None, repr=False)
    """What the last attempt raised."""
    progress: JobProgress | None = None
    result_json: str | None = field(default=None, repr=False)
    args_json: str = field(default="{}", repr=False)


class EagerJobs:
    """The jobs of one `eager` block, in the order in which they were enqueued."""

    def __init__(self, app: JobQ, *, run: bool, propagate: bool) -> None:
        self._app = app
        self._run = run
        self._propagate = propagate
        self._keys: dict[tuple[str, str], EagerJob] = {}
        self._loop = Loop()
        self._raised: list[BaseException] = []
        self._executor = _Executor(
            tasks=app.tasks,
            run_coroutine=self._loop.run,
            report_progress=self._report_progress,
            max_result_bytes=app.settings.max_result_bytes,
            max_error_bytes=64 * 1024,
            transactions=_NoTransactions(),
            context=contextvars.copy_context,
            raised=self._raised,
        )
        self.jobs: list[EagerJob] = []
        """All of them, finished ones too."""

    def enqueued(self, task: BaseTask[..., Any] | str | None = None, /, **args: Any) -> list[EagerJob]:
        """Return the jobs that were enqueued, finished ones too: those of `task`, with these arguments.

        Arguments are compared as JSON; those that are not named may be anything.
        """
        from pydantic_core import to_jsonable_python

        wanted = {name: to_jsonable_python(value) for name, value in args.items()}
        name = task if task is None or isinstance(task, str) else task.name
        return [
            job
            for job in self.jobs
            if name in (None, job.task)
            and all(key in job.args and job.args[key] == value for key, value in wanted.items())
        ]

    def assert_enqueued(self, task: BaseTask[..., Any] | str, /, **args: Any) -> EagerJob:
        """Fail unless a job of `task` with these arguments was enqueued; return the first."""
        __tracebackhide__ = True
        if found := self.enqueued(task, **args):
            return found[0]
        name = task if isinstance(task, str) else task.name
        others = [f"{job.task}({job.args}), {job.state}" for job in self.jobs]
        raise AssertionError(
            f"no job of task {name!r} with {args or 'any arguments'} was enqueued; "
            f"there {'were: ' + '; '.join(others[:20]) if others else 'was none at all'}"
        )

    def refute_enqueued(self, task: BaseTask[..., Any] | str, /, **args: Any) -> None:
        """Fail if a job of `task` with these arguments was enqueued."""
        __tracebackhide__ = True
        if found := self.enqueued(task, **args):
            raise AssertionError(f"job {found[0].id} of task {found[0].task!r} was enqueued: {found[0].state}")

    def drain(self) -> int:
        """Run the jobs that have not finished (recorded, or snoozed), once each; return how many."""
        ready = [job for job in self.jobs if job.state == "ready"]
        for job in ready:
            self._execute(job)
        return len(ready)

    def close(self) -> None:
        """Close the event loop of async tasks."""
        self._loop.close()

    # --- What the application does instead of asking a database

    def insert(self, connection: object, jobs: Sequence[NewJob]) -> list[Inserted]:
        """Take `jobs` in, and run those that are new."""
        done = []
        for new in jobs:
            job, inserted = self._take(new)
            done.append(inserted)
            if self._run and inserted.created:
                self._execute(job)
        return done

    async def insert_async(self, connection: object, jobs: Sequence[NewJob]) -> list[Inserted]:
        """Take `jobs` in, and run those that are new: async tasks on the running event loop."""
        done = []
        for new in jobs:
            job, inserted = self._take(new)
            done.append(inserted)
            if self._run and inserted.created:
                await self._execute_async(job)
        return done

    def insert_own(self, jobs: Sequence[NewJob]) -> list[Inserted]:
        """Take in what `submit` gives."""
        return self.insert(None, jobs)

    async def insert_own_async(self, jobs: Sequence[NewJob]) -> list[Inserted]:
        """Take in what `submit_async` gives."""
        return await self.insert_async(None, jobs)

    def enqueue_many(self, connection: object, jobs: Iterable[NewJob]) -> list[JobRef[Any]]:
        listed = list(jobs)
        return self._references(listed, self.insert(connection, listed))

    async def enqueue_many_async(self, connection: object, jobs: Iterable[NewJob]) -> list[JobRef[Any]]:
        listed = list(jobs)
        return self._references(listed, await self.insert_async(connection, listed))

    def look_up(self, job_id: int) -> Found | None:
        job = self._find(job_id)
        return None if job is None else Found(state=job.state, result=job.result_json, error=job.error)

    async def look_up_async(self, job_id: int) -> Found | None:
        return self.look_up(job_id)

    def report(self, job_id: int) -> JobReport | None:
        job = self._find(job_id)
        if job is None:
            return None
        due_in = 0.0 if job.state == "ready" else None
        return JobReport(
            state=job.state,
            attempt=job.attempt,
            max_attempts=job.options.max_attempts,
            due_in=due_in,
            progress=job.progress,
            error=job.error,
        )

    async def report_async(self, job_id: int) -> JobReport | None:
        return self.report(job_id)

    def cancel_job(self, job_id: int, reason: str | None) -> bool | None:
        job = self._find(job_id)
        if job is None:
            return None
        if job.state != "ready":
            return False
        job.state, job.error = "cancelled", f"cancelled by the test{f': {reason}' if reason else ''}"
        return True

    async def cancel_job_async(self, job_id: int, reason: str | None) -> bool | None:
        return self.cancel_job(job_id, reason)

    def connection(self) -> NoReturn:
        raise ConfigurationError(
            "eager mode has no database: what needs one (connections, queues, schedules) is tested with the fixture jobq"
        )

    # --- Taking in and running

    def _find(self, job_id: int) -> EagerJob | None:
        return self.jobs[job_id - 1] if 0 < job_id <= len(self.jobs) else None

    def _references(self, jobs: list[NewJob], inserted: list[Inserted]) -> list[JobRef[Any]]:
        return [
            self._app.get_task(job.options.task).reference(job, done) for job, done in zip(jobs, inserted, strict=True)
        ]

    def _take(self, new: NewJob) -> tuple[EagerJob, Inserted]:
        """Return the job that `new` becomes, or the one that holds its key."""
        options = new.options
        task = self._app.get_task(options.task)
        if task.transactional and self._run:
            raise NotTransactional(
                f"task {task.name!r} is transactional and needs a database: test it with the fixture jobq, or give eager(…) "
                "run=False, which records jobs only"
            )
        name = (options.task, options.key or "")
        holder = self._keys.get(name) if options.key is not None else None
        if holder is not None and self._holds(holder):
            if options.on_conflict == "raise":
                raise KeyConflict(name[1], holder.id)
            replaced = options.on_conflict == "replace" and holder.state == "ready" and not holder.attempt
            if replaced:
                holder.args_json, holder.args = new.args_json, json.loads(new.args_json)
            return holder, Inserted(holder.id, False, replaced)
        job = EagerJob(
            id=len(self.jobs) + 1,
            task=options.task,
            options=options,
            args=json.loads(new.args_json),
            args_json=new.args_json,
        )
        self.jobs.append(job)
        if options.key is not None:
            self._keys[name] = job
        return job, Inserted(job.id, True, False)

    @staticmethod
    def _holds(holder: EagerJob) -> bool:
        match holder.options.key_holds:
            case "until_started":
                return holder.attempt == 0 and holder.state == "ready"
            case "until_finished":
                return holder.state in ("ready", "running")
            case _:
                return True

    def _execute(self, job: EagerJob) -> None:
        while True:
            self._raised.clear()
            outcome = self._executor.execute(self._begin(job), time.monotonic())
            if not self._end(job, outcome):
                return

    async def _execute_async(self, job: EagerJob) -> None:
        if not self._app.get_task(job.task).is_async:
            self._execute(job)
            return
        while True:
            self._raised.clear()
            running = self._executor.execute_async(self._begin(job), time.monotonic())
            outcome = await asyncio.create_task(running, context=contextvars.copy_context())
            if not self._end(job, outcome):
                return

    def _begin(self, job: EagerJob) -> Execution:
        job.attempt += 1
        job.state = "running"
        options = job.options
        given = Job(
            job.id,
            job.attempt,
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

    def _end(self, job: EagerJob, outcome: Outcome) -> bool:
        """Write down what an attempt came to; return whether another follows at once."""
        job.exception = self._raised[-1] if self._raised else None
        if isinstance(outcome, Success):
            job.state, job.result_json, job.error = "succeeded", outcome.result.decode(), None
            job.result = json.loads(job.result_json)
            return False
        assert not isinstance(outcome, Recorded)  # only transactional tasks record
        if outcome.ending is Ending.SNOOZE:
            job.attempt -= 1
            job.state = "ready"
            return False
        told = outcome.message or ""
        job.error = told if told == outcome.error_type else f"{outcome.error_type}: {told}"
        # What other code could run would be parked: here is no other code.
        job.state = "failed" if outcome.ending is Ending.PARK else _ENDINGS.get(outcome.ending, "ready")
        if job.state == "failed" and self._propagate and job.exception is not None:
            raise job.exception
        return job.state == "ready"

    def _report_progress(self, job: Job, done: int, total: int | None) -> None:
        self.jobs[job.id - 1].progress = JobProgress(done, total)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Executor(Executor):
    """Remembers what tasks raise."""

    raised: list[BaseException]

    def _setback(self, execution: Execution, task: BaseTask[..., Any], error: BaseException, seconds: float) -> Any:
        self.raised.append(error)
        # Not super(): the class that it would mean is not the one that slots make of this.
        return Executor._setback(self, execution, task, error, seconds)


class _NoTransactions:
    def begin(self, execution: Execution, *, is_async: bool) -> NoReturn:
        raise NotTransactional("eager mode has no database, and so no transaction")


# What of a JobQ goes to the database.
_REPLACED = (
    "insert",
    "insert_async",
    "insert_own",
    "insert_own_async",
    "enqueue_many",
    "enqueue_many_async",
    "look_up",
    "look_up_async",
    "report",
    "report_async",
    "cancel_job",
    "cancel_job_async",
    "connection",
)


@contextmanager
def eager(app: JobQ, *, run: bool = True, propagate: bool = False) -> Iterator[EagerJobs]:
    """Run each job of `app` when it is enqueued, in this thread and without a database; yield the jobs::

        with eager(q) as jobs:
            place_order(7)
        assert jobs.assert_enqueued(send_receipt, order_id=7).state == "succeeded"

    :param run: False records the jobs and runs none, until ``jobs.drain()``.
    :param propagate: raise from ``enqueue`` and ``submit`` what the last attempt of a job raised (as Celery's
        ``task_eager_propagates``). By default the job is ``failed``, and ``ref.result()`` raises JobFailed.

    Arguments and results go through JSON as ever, and ``current_job()`` works. A job that fails is tried again at once, up to
    ``max_attempts``; a snoozed one stays ``ready``.

    Not as with a database: jobs run before your transaction commits, and stay when it is rolled back; connections that are
    passed are not looked at; delays, priorities, limits, groups, expiries and timeouts of ``def`` tasks have no effect; keys
    are held within the block; schedules do not tick. Transactional tasks raise NotTransactional. Test what depends on any of
    this with the fixture ``jobq``. One thread at a time.
    """
    jobs = EagerJobs(app, run=run, propagate=propagate)
    own = vars(app)
    before = {name: own[name] for name in (*_REPLACED, "connection_async", "waiting_helps") if name in own}
    own.update({name: getattr(jobs, name) for name in _REPLACED})
    own.update(connection_async=jobs.connection, waiting_helps=False)
    try:
        yield jobs
    finally:
        for name in (*_REPLACED, "connection_async", "waiting_helps"):
            own.pop(name, None)
        own.update(before)
        jobs.close()
