"""Executes one call of a batch task, and returns an outcome for each of its jobs."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from jobq._core.logs import context as log_context
from jobq._core.storable import storable_text
from jobq._worker.ipc import unexecuted
from jobq._worker.ipc.messages import Failure, Job
from jobq._worker.runner.batch_execution import BatchExecution
from jobq._worker.runner.execution import Tracebacks
from jobq._worker.runner.executor import Executor, Outcome, in_time, succeeded, within
from jobq._worker.runner.interpreter import tracing
from jobq._worker.runner.interpreter.forks import end_fork
from jobq._worker.runner.unawaited import check_done
from jobq.batch import BatchJobs, CurrentBatch, set_current_batch
from jobq.batch_task import AnyBatchTask
from jobq.context import CurrentJob, current_job

# Bytes of the tracebacks, and of the logs, that the jobs of one failed call may store in total.
_SHARED_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchExecutor(Executor):
    """Calls tasks, batch tasks too."""

    batch_body: Callable[[str], Callable[..., Any]]
    """Returns the callable of a batch task: see `TaskBodies`."""

    def execute_batch(self, execution: BatchExecution, started: float) -> list[Outcome]:
        """Run the jobs to the end of their call, in a context of its own.

        Raises nothing: any error of user code becomes an outcome.
        """
        outcomes: list[Outcome] = self.context().run(self._execute_batch, execution, started)
        return outcomes

    def _execute_batch(self, execution: BatchExecution, started: float) -> list[Outcome]:
        if not isinstance(task := self.tasks.get(execution.job.task), AnyBatchTask):
            return self._others(execution, started)
        log_context.begin(execution)
        call = _BatchCall(self, execution, task, started)
        if not call.jobs:
            return call.refused
        try:
            body = self.batch_body(task.name)
            if task.is_async:
                value = self.run_coroutine(execution, within(execution, body(**call.arguments)))
            else:
                value = execution.call(body, call.arguments)
            return call.returned(value)
        except BaseException as error:
            return call.failed(error)

    async def execute_batch_async(self, execution: BatchExecution, started: float) -> list[Outcome]:
        """Run the jobs of an async batch task, as `Executor.execute_async` runs one."""
        task = self.tasks[execution.job.task]
        if not isinstance(task, AnyBatchTask):
            return [await self.execute_async(execution, started)]
        log_context.begin(execution)
        process = os.getpid()
        call = _BatchCall(self, execution, task, started)
        if not call.jobs:
            return call.refused
        try:
            body = self.batch_body(task.name)
            try:
                value = await in_time(execution, body(**call.arguments))
            finally:
                if os.getpid() != process:
                    end_fork(sys.exc_info()[1])
                if sys.gettrace() is not None or sys.getprofile() is not None:
                    tracing.restore()
            return call.returned(value)
        except BaseException as error:
            return call.failed(error)

    def cancelled_batch(self, execution: BatchExecution, started: float) -> list[Outcome]:
        """Return the outcomes of a batch whose coroutine was cancelled before its first step."""
        task = self.tasks[execution.job.task]
        seconds = time.monotonic() - started
        return [self._setback(execution.of(job), task, asyncio.CancelledError(), seconds) for job in execution.jobs]

    def _others(self, execution: BatchExecution, started: float) -> list[Outcome]:
        """Run jobs of a task that is no batch task in this runner, or unknown."""
        # Their limit is 1, since this runner knows no size for them: see `BatchQueue`.
        if execution.job.task in self.tasks and len(execution.jobs) == 1:
            return [self._execute(execution, started)]
        return [unexecuted.unknown(job, self.tasks) for job in execution.jobs]


class _BatchCall:
    """One call of a batch task: what its function is called with, and the outcomes of its jobs.

    A new one decodes the items, and sets the current batch of the calling context. The caller then calls the
    function with `arguments`, unless there are no `jobs`. `returned` or `failed` gives the outcomes of all
    jobs, including the `refused` ones; `failed` may follow a `returned` that has raised an error.
    """

    def __init__(
        self, executor: BatchExecutor, execution: BatchExecution, task: AnyBatchTask[Any, Any], started: float
    ) -> None:
        self._executor = executor
        self._execution = execution
        self._task = task
        self._started = started
        self.jobs: list[Job] = []
        """The jobs whose items the function is called with."""
        self.refused: list[Outcome] = []
        """The outcomes of the other jobs, whose arguments do not fit."""
        self._arguments: list[Mapping[str, Any]] = []
        for job in execution.jobs:
            try:
                self._arguments.append(task.decode_arguments(job.args))
            except BaseException as error:  # validators belong to the application
                self.refused.append(executor._setback(execution.of(job), task, error, 0.0))
            else:
                self.jobs.append(job)
        timeout = execution.job.timeout
        left = None if timeout is None else started + timeout - time.monotonic()
        self._batch = CurrentBatch(
            task=task.name,
            jobs=BatchJobs(len(self.jobs), self._current),
            deadline=None if left is None else datetime.now(UTC) + timedelta(seconds=left),
        )
        set_current_batch(self._batch)

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of the call, without resources."""
        item = self._task.item
        return {item: [arguments[item] for arguments in self._arguments]}

    def _current(self, place: int) -> CurrentJob:
        execution, job = self._execution, self.jobs[place]
        current = self._executor._current(execution.of(job), None, self._started, self._arguments[place])
        return replace(
            current,
            is_cancelled=lambda: execution.cancelled or execution.timed_out or job.id in execution.cancelled_ids,
        )

    def returned(self, value: object) -> list[Outcome]:
        """Return the outcomes, given what the function has returned. Raises BatchResultError, NotAwaited."""
        check_done(self._task, value)
        executor, task, failures = self._executor, self._task, self._batch.failures
        entries = task.outcomes(value, len(self.jobs))
        seconds = time.monotonic() - self._started
        outcomes, tracebacks = list(self.refused), Tracebacks()
        for place, (job, entry) in enumerate(zip(self.jobs, entries, strict=True)):
            error = failures.get(place)
            if error is None and issubclass(type(entry), BaseException):
                error = entry  # type: ignore[assignment]  # isinstance would ask the value for its class
            if error is not None:
                outcomes.append(self._failure(job, error, seconds, tracebacks))
            else:
                outcomes.append(succeeded(job, *executor._encoded(task, entry), seconds))
        return outcomes

    def failed(self, error: BaseException) -> list[Outcome]:
        """Return the outcomes of a call that raised `error`: it is the failure of every job."""
        failures, seconds = self._batch.failures, time.monotonic() - self._started
        outcomes, tracebacks = list(self.refused), Tracebacks()
        for place, job in enumerate(self.jobs):
            outcomes.append(self._failure(job, failures.get(place, error), seconds, tracebacks))
        return outcomes

    # `tracebacks` is a local of the callers, and no attribute: an error's traceback refers to this call and
    # its execution, and a reference cycle would keep the items until the garbage collector comes.
    def _failure(self, job: Job, error: BaseException, seconds: float, tracebacks: Tracebacks) -> Failure:
        found = self._executor._setback(self._execution.of(job, tracebacks), self._task, error, seconds)
        if (count := len(self.jobs)) == 1 or not (found.traceback or found.log):
            return found
        # Each job stores a copy of the same text.
        most = max(1024, _SHARED_BYTES // count)
        return msgspec.structs.replace(found, traceback=_cut(found.traceback, most), log=_cut(found.log, most))


def _cut(text: str | None, most: int) -> str | None:
    return None if text is None else storable_text(text, most)


def single(task: AnyBatchTask[Any, Any], body: Callable[..., Any]) -> Callable[..., Any]:
    """Return a callable that runs one job of a batch task: its `body` with a list of one item.

    A job that must not share a runner, or a call, is executed like that of any other task.
    """

    def begin(arguments: Mapping[str, Any]) -> tuple[CurrentBatch, dict[str, Any]]:
        job = current_job()
        batch = CurrentBatch(task=task.name, jobs=[job], deadline=job.deadline)
        set_current_batch(batch)
        return batch, {task.item: [arguments[task.item]]}

    def end(batch: CurrentBatch, value: object) -> object:
        check_done(task, value)
        [entry] = task.outcomes(value, 1)
        if (error := batch.failures.get(0)) is not None:
            raise error
        if issubclass(type(entry), BaseException):
            raise entry  # type: ignore[misc]  # it is one
        return entry

    def call(**arguments: Any) -> object:
        batch, items = begin(arguments)
        return end(batch, body(**items))

    async def call_async(**arguments: Any) -> object:
        batch, items = begin(arguments)
        return end(batch, await body(**items))

    return call_async if task.is_async else call
