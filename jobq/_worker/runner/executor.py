"""Executes one job: decodes its arguments, calls its task, and returns the outcome.

This module knows neither sockets nor SQL, so the runner process and the in-process runner share it.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import os
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from types import MappingProxyType
from typing import Any, Protocol

import msgspec

from jobq._core.logs import context as log_context
from jobq._core.storable import storable_text
from jobq._worker.ipc import unexecuted
from jobq._worker.ipc.messages import AlreadyCommitted, Disposition, Failure, Job, Success
from jobq._worker.runner import verdict
from jobq._worker.runner.additions import Additions
from jobq._worker.runner.error_report import text_of, type_name
from jobq._worker.runner.execution import Execution
from jobq._worker.runner.interpreter import recursion, tracing
from jobq._worker.runner.interpreter.forks import end_fork
from jobq._worker.runner.unawaited import check_done
from jobq._worker.runner.undoing import steps_to_undo, undo, undo_async
from jobq.context import CurrentJob, JobTransaction, set_current_job
from jobq.errors import Fail, ResultError, TimedOut
from jobq.middleware import Middlewares
from jobq.steps.log import StepLog, UndoNow
from jobq.steps.store import Holder, StepStore
from jobq.task import BaseTask

# Seconds until a transactional job comes back if its transaction could not be begun. The job has
# not run.
NO_TRANSACTION_DELAY = 1.0

Outcome = Success | Failure | AlreadyCommitted
Before = Callable[[Callable[[bytes, dict[str, Any]], Any]], None]
_OURS = frozenset({__file__, Execution.call.__code__.co_filename, Middlewares.around.__code__.co_filename})
_decode_headers = msgspec.json.Decoder(dict[str, Any]).decode


class Transaction(JobTransaction, Protocol):
    """The transaction of one execution, driven from the thread that executes the task."""

    def succeed(
        self, result: bytes | None, seconds: float, unstored: str | None = None, before: Before | None = None
    ) -> Outcome:
        """Commit the task's effects together with the job's success.

        Without a result, `unstored` says why there is none. `before` is called in the transaction, just
        before the success is written, with a function that executes a statement. Raises TransactionEnded, ResultError,
        CommitUnknown, and any error that made the success impossible.
        """

    def abandon(self) -> None:
        """Roll back an open transaction. Raises nothing."""


class TransactionSource(Protocol):
    """A source of transactions."""

    def begin(self, execution: Execution, *, is_async: bool) -> Transaction:
        """Begin a transaction for this execution. Raises psycopg.Error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Executor:
    """Calls tasks.

    `run_coroutine` runs a coroutine to its end on an event loop. A thread other than the loop's
    calls it.
    """

    tasks: Mapping[str, BaseTask[..., Any]]
    bodies: Mapping[str, Callable[..., Any]]
    """The callable for each task: see `TaskBodies`."""
    run_coroutine: Callable[[Execution, Coroutine[Any, Any, Any]], Any]
    report_progress: Callable[[Job, int, int | None], None]
    max_result_bytes: int
    max_error_bytes: int
    transactions: TransactionSource
    steps: StepStore | None = None
    """Where the steps of durable tasks are stored; None: there are none."""
    step_host: Any = None
    """The application, as the steps of its durable tasks use it."""
    context: Callable[[], Context] = Context
    """Creates the context variables with which a job begins."""

    def execute(self, execution: Execution, started: float) -> Outcome:
        """Run the job to its end, in its own context.

        Raises nothing: any error of user code becomes an outcome.
        """
        return self.context().run(self._execute, execution, started)

    def _execute(self, execution: Execution, started: float) -> Outcome:
        job = execution.job
        execution.flow = threading.get_ident()
        log_context.begin(execution)
        task = self.tasks.get(job.task)
        if task is None:
            return unexecuted.unknown(job, self.tasks)
        process = os.getpid() if task.transactional else 0
        transaction: Transaction | None = None
        try:
            arguments = task.decode_arguments(job.args)
            if task.transactional:
                try:
                    transaction = self.transactions.begin(execution, is_async=task.is_async)
                except Exception as error:
                    return _no_transaction(job, error)
            added = Additions(task, execution)
            set_current_job(partial(self._current, execution, transaction, started, arguments, added))
            body = self.bodies[job.task]
            if task.is_async:
                value = self.run_coroutine(execution, within(execution, body(**arguments)))
            else:
                value = execution.call(body, arguments)
                if task.may_return_coroutine and inspect.iscoroutine(value):
                    value = self.run_coroutine(execution, within(execution, value))
            _check_end(execution, task, value)
            result, unstored = self._encoded(task, value)
            if transaction is not None:
                if os.getpid() != process:
                    end_fork(None)
                before = None if added.workflow is None else added.insert
                return transaction.succeed(result, time.monotonic() - started, unstored, before)
            if added.workflow is not None:
                added.insert(None)
        except BaseException as error:
            if transaction is not None:
                if os.getpid() != process:
                    end_fork(error)
                transaction.abandon()
            # This includes SystemExit and KeyboardInterrupt: a task that calls sys.exit() ends its
            # job, not its runner.
            return self._ended_by(error, execution, task, started)
        return succeeded(job, result, unstored, time.monotonic() - started)

    def _ended_by(
        self, error: BaseException, execution: Execution, task: BaseTask[..., Any], started: float
    ) -> Failure:
        """Return the outcome of a task that has raised `error`, after its steps are undone if that is due."""
        outcome = self._setback(execution, task, error, time.monotonic() - started)
        if not task.durable or execution.steps is None:
            return outcome
        # Coroutines that the task has left behind take no more steps.
        execution.steps.ended = True
        if (log := steps_to_undo(execution, error, outcome)) is None:
            concurrent.futures.wait(_at_end(execution, outcome, error))
            return outcome
        judge = self._judging(execution, task, started)
        if not task.is_async:
            return undo(execution, task, log, outcome, judge)
        ended: Failure = self.run_coroutine(execution, undo_async(execution, task, log, outcome, judge))
        return ended

    def _judging(
        self, execution: Execution, task: BaseTask[..., Any], started: float
    ) -> Callable[[BaseException], Failure]:
        return lambda error: self._setback(execution, task, error, time.monotonic() - started)

    async def execute_async(self, execution: Execution, started: float) -> Outcome:
        """Run the job of an async task without a transaction, in its own asyncio task and context.

        Returns an outcome whatever user code does, with one exception: for a cancellation before
        the first step, see `cancelled`.
        """
        job = execution.job
        execution.flow = asyncio.current_task()
        log_context.begin(execution)
        task = self.tasks[job.task]
        process = os.getpid()
        try:
            arguments = task.decode_arguments(job.args)
            added = Additions(task, execution)
            set_current_job(partial(self._current, execution, None, started, arguments, added))
            body = self.bodies[job.task]
            try:
                if job.timeout is None:
                    value = await body(**arguments)
                else:
                    value = await in_time(execution, body(**arguments))
            finally:
                if sys.gettrace() is not None or sys.getprofile() is not None:
                    tracing.restore()
            _check_end(execution, task, value)
            result, unstored = self._encoded(task, value)
            if added.workflow is not None and os.getpid() == process:
                await added.insert_async()
        except BaseException as error:
            # This includes SystemExit, which would end the loop.
            if os.getpid() != process:
                end_fork(error)
            outcome = self._setback(execution, task, error, time.monotonic() - started)
            if execution.steps is None:
                return outcome
            execution.steps.ended = True
            if (log := steps_to_undo(execution, error, outcome)) is not None:
                return await undo_async(execution, task, log, outcome, self._judging(execution, task, started))
            for stored in _at_end(execution, outcome, error):
                with suppress(BaseException):  # if it cannot be stored, the outcome is the same
                    await asyncio.wrap_future(stored)
            return outcome
        if os.getpid() != process:
            end_fork(None)
        return succeeded(job, result, unstored, time.monotonic() - started)

    def cancelled(self, execution: Execution, started: float) -> Outcome:
        """Return the outcome of a job whose coroutine was cancelled before its first step."""
        task = self.tasks[execution.job.task]
        return self._setback(execution, task, asyncio.CancelledError(), time.monotonic() - started)

    def _encoded(self, task: BaseTask[..., Any], value: object) -> tuple[bytes | None, str | None]:
        """Return the JSON of a result, or None and why it cannot be stored.

        The job has succeeded either way.
        """
        try:
            return task.encode_result(value, self.max_result_bytes), None
        except BaseException as error:  # serializers belong to the application and may do anything
            recursion.restore()
            return None, storable_text(text_of(error) or type_name(error), 2000)

    def _current(
        self,
        execution: Execution,
        transaction: Transaction | None,
        started: float,
        arguments: Mapping[str, Any],
        added: Additions | None = None,
    ) -> CurrentJob:
        job = execution.job
        left = None if job.timeout is None else started + job.timeout - time.monotonic()
        return CurrentJob(
            id=job.id,
            task=job.task,
            queue=job.queue,
            attempt=job.attempt,
            max_attempts=job.max_attempts,
            headers=_decode_headers(job.headers),
            args=MappingProxyType(arguments),
            deadline=None if left is None else datetime.now(UTC) + timedelta(seconds=left),
            is_cancelled=lambda: execution.cancelled or execution.timed_out,
            report_progress=lambda done, total: self.report_progress(job, done, total),
            begin_additions=None if added is None else added.begin,
            transaction=transaction,
            steps=self._step_log(execution),
        )

    def _step_log(self, execution: Execution) -> StepLog | None:
        """Return the steps of a durable job, as this execution sees them; None for other jobs."""
        job = execution.job
        task = self.tasks[job.task]
        if not task.durable or self.steps is None:
            return None
        execution.steps = StepLog(
            holder=Holder(job.id, job.claims, execution.worker, job.started, job.attempt),
            task=job.task,
            store=self.steps,
            is_async=task.is_async,
            max_result_bytes=self.max_result_bytes,
            is_cancelled=lambda: execution.cancelled,
            is_stopping=lambda: execution.stopping,
            is_draining=lambda: execution.draining,
            is_aside=execution.is_aside,
            host=self.step_host,
        )
        return execution.steps

    def _setback(self, execution: Execution, task: BaseTask[..., Any], error: BaseException, seconds: float) -> Failure:
        return verdict.failure(execution, task, error, seconds, max_error_bytes=self.max_error_bytes, hidden=_OURS)


def _at_end(execution: Execution, outcome: Failure, error: BaseException) -> list[Future[Any]]:
    """Store what a durable job needs after this execution: its iterations' positions, and which steps run again.

    The caller waits for what is returned before it reports the outcome.
    """
    steps = execution.steps
    if steps is None:
        return []
    stored = [steps.save_positions()]
    if outcome.ending in (Disposition.FAIL, Disposition.RETRY):
        stored.append(steps.run_again(error, at_once=outcome.ending is Disposition.RETRY))
    return [each for each in stored if each is not None]


def _check_end(execution: Execution, task: BaseTask[..., Any], value: object) -> None:
    """Raise NotAwaited if the task has returned what is never run.

    For a durable task, raise Fail if it has caught the end of its execution and returned, and UndoNow
    if its steps are being undone.
    """
    check_done(task, value)
    steps = execution.steps
    if steps is None:
        return
    if steps.verdict is not None:
        raise UndoNow
    if steps.suspended is not None:
        raise Fail(
            f"the task has caught the exception with which a step waits, and returned: let BaseException through, "
            f"and do not return in a `finally` ({steps.suspended})"
        )
    steps.ended = True


def succeeded(job: Job, result: bytes | None, unstored: str | None, seconds: float) -> Success | Failure:
    """Return the outcome of a task that has returned.

    Without a `result`, `unstored` says why there is none.
    """
    if result is not None:
        return Success(job.id, job.claims, job.started, result, seconds)
    ending, error_type = Disposition.SUCCEED, type_name(ResultError())
    return Failure(job.id, job.claims, job.started, ending, seconds=seconds, error_type=error_type, message=unstored)


def _no_transaction(job: Job, error: Exception) -> Failure:
    message = f"its transaction could not be begun: {text_of(error)}"
    return Failure(
        job.id,
        job.claims,
        job.started,
        Disposition.RELEASE,
        delay=NO_TRANSACTION_DELAY,
        message=storable_text(message, 2000),
    )


async def within(execution: Execution, coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Await a task's coroutine within its timeout. A process that it forks ends with it."""
    process = os.getpid()
    execution.flow = asyncio.current_task()
    try:
        return await in_time(execution, coroutine)
    finally:
        if os.getpid() != process:
            end_fork(sys.exc_info()[1])


async def in_time(execution: Execution, coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Await a task's coroutine within its timeout. Raises TimedOut."""
    limit = execution.job.timeout
    if limit is None:
        return await coroutine
    timer = asyncio.timeout(limit)
    try:
        async with timer:
            return await coroutine
    except TimeoutError as error:
        if timer.expired():
            execution.timed_out = True
            # This is where the task was interrupted. The error is the cause only since Python
            # 3.11.4.
            raise TimedOut from error.__cause__ or error.__context__
        raise
