"""Executing one job: its arguments decoded, its task called, what happened turned into a value.

Knows neither sockets nor SQL, so the runner process and the in-process runner share it.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import sys
import time
from collections.abc import Callable, Coroutine, Mapping
from contextvars import Context
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Protocol

import msgspec

from jobq.current import CurrentJob, JobTransaction, set_current_job
from jobq.errors import (
    Cancel,
    Fail,
    InvalidArguments,
    NotAwaited,
    ResultError,
    Retry,
    Snooze,
    TimedOut,
    TransactionEnded,
)
from jobq.tasks import BaseTask
from jobq.worker import recursion, refusals, tracing
from jobq.worker.execution import Execution
from jobq.worker.forks import end_fork
from jobq.worker.frames import Ending, Job, Recorded, Setback, Success
from jobq.worker.handed_over import retry_delay, retry_seconds, snooze_seconds
from jobq.worker.reports import text_of, traceback_of, type_name
from jobq.worker.texts import clean
from jobq.worker.undone import check_done

# How soon a transactional job comes back whose transaction could not be begun: it has not run.
NO_TRANSACTION_DELAY = 1.0

Outcome = Success | Setback | Recorded
_OURS = frozenset({__file__, Execution.call.__code__.co_filename})
_decode_headers = msgspec.json.Decoder(dict[str, Any]).decode


class Transaction(JobTransaction, Protocol):
    """The transaction of one execution of a transactional task, driven from the thread that executes it."""

    def succeed(self, result: bytes | None, seconds: float, unstored: str | None = None) -> Outcome:
        """Commit the task's effects together with the job's success; without a result, `unstored` says why there is none.

        Raises TransactionEnded, ResultError, CommitUnknown, and whatever error made the success impossible.
        """

    def abandon(self) -> None:
        """Roll back, if there is still anything to. Raises nothing."""


class TransactionSource(Protocol):
    """Where transactions come from."""

    def begin(self, execution: Execution, *, is_async: bool) -> Transaction:
        """Begin one for this execution. Raises psycopg.Error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Executor:
    """Calls tasks. `run_coroutine` runs a coroutine to its end on an event loop, from a thread that is not the loop's."""

    tasks: Mapping[str, BaseTask[..., Any]]
    run_coroutine: Callable[[Execution, Coroutine[Any, Any, Any]], Any]
    report_progress: Callable[[Job, int, int | None], None]
    max_result_bytes: int
    max_error_bytes: int
    transactions: TransactionSource
    context: Callable[[], Context] = Context
    """Makes the context variables that a job begins with."""

    def execute(self, execution: Execution, started: float) -> Outcome:
        """Run the job to its end, in a context of its own. Raises nothing: whatever user code does becomes an outcome."""
        return self.context().run(self._execute, execution, started)

    def _execute(self, execution: Execution, started: float) -> Outcome:
        job = execution.job
        task = self.tasks.get(job.task)
        if task is None:
            return refusals.unknown(job, self.tasks)
        process = os.getpid() if task.transactional else 0
        transaction: Transaction | None = None
        try:
            arguments = task.decode_arguments(job.args)
            if task.transactional:
                try:
                    transaction = self.transactions.begin(execution, is_async=task.is_async)
                except Exception as error:
                    return _no_transaction(job, error)
            set_current_job(partial(self._current, execution, transaction, started))
            if task.is_async:
                value = self.run_coroutine(execution, _within(execution, task.function(**arguments)))
            else:
                value = execution.call(task.function, arguments)
                if task.may_return_coroutine and inspect.iscoroutine(value):
                    value = self.run_coroutine(execution, _within(execution, value))
            check_done(task, value)
            result, unstored = self._encoded(task, value)
            if transaction is not None:
                if os.getpid() != process:
                    end_fork(None)
                return transaction.succeed(result, time.monotonic() - started, unstored)
        except BaseException as error:
            if transaction is not None:
                if os.getpid() != process:
                    end_fork(error)
                transaction.abandon()
            # SystemExit and KeyboardInterrupt too: a task that calls sys.exit() ends its job, not its runner.
            return self._setback(execution, task, error, time.monotonic() - started)
        return succeeded(job, result, unstored, time.monotonic() - started)

    async def execute_async(self, execution: Execution, started: float) -> Outcome:
        """Run the job of an async task without a transaction to its end, in an asyncio task and a context of its own.

        Returns an outcome whatever user code does, but for a cancellation before the first step: see `cancelled`.
        """
        job = execution.job
        task = self.tasks[job.task]
        process = os.getpid()
        try:
            arguments = task.decode_arguments(job.args)
            set_current_job(partial(self._current, execution, None, started))
            try:
                if job.timeout is None:
                    value = await task.function(**arguments)
                else:
                    value = await _in_time(execution, task.function(**arguments))
            finally:
                if sys.gettrace() is not None or sys.getprofile() is not None:
                    tracing.restore()
            check_done(task, value)
            result, unstored = self._encoded(task, value)
        except BaseException as error:
            # SystemExit too, which would end the loop.
            if os.getpid() != process:
                end_fork(error)
            return self._setback(execution, task, error, time.monotonic() - started)
        if os.getpid() != process:
            end_fork(None)
        return succeeded(job, result, unstored, time.monotonic() - started)

    def cancelled(self, execution: Execution, started: float) -> Outcome:
        """Return the outcome of a job whose coroutine was cancelled before its first step."""
        task = self.tasks[execution.job.task]
        return self._setback(execution, task, asyncio.CancelledError(), time.monotonic() - started)

    def _encoded(self, task: BaseTask[..., Any], value: object) -> tuple[bytes | None, str | None]:
        """Return the JSON of a result, or None and why it cannot be stored: the work is done all the same."""
        try:
            return task.encode_result(value, self.max_result_bytes), None
        except BaseException as error:  # serializers are the application's, and may do what a task may do
            recursion.restore()
            return None, clean(text_of(error) or type_name(error), 2000)

    def _current(self, execution: Execution, transaction: Transaction | None, started: float) -> CurrentJob:
        job = execution.job
        left = None if job.timeout is None else started + job.timeout - time.monotonic()
        return CurrentJob(
            id=job.id,
            task=job.task,
            queue=job.queue,
            attempt=job.attempt,
            max_attempts=job.max_attempts,
            headers=_decode_headers(job.headers),
            deadline=None if left is None else datetime.now(UTC) + timedelta(seconds=left),
            is_cancelled=lambda: execution.cancelled or execution.timed_out,
            report_progress=lambda done, total: self.report_progress(job, done, total),
            transaction=transaction,
        )

    def _setback(self, execution: Execution, task: BaseTask[..., Any], error: BaseException, seconds: float) -> Setback:
        try:
            return self._judge(execution, task, error, seconds)
        except BaseException as fault:
            # The error's class is user code, too: its metaclass, its properties, what it compares to. A low recursion limit
            # would let even this fail.
            recursion.restore()
            return _unjudged(execution, task, error, fault, seconds)

    def _judge(self, execution: Execution, task: BaseTask[..., Any], error: BaseException, seconds: float) -> Setback:
        job = execution.job

        def setback(ending: Ending, recorded: str | None, delay: float = 0.0) -> Setback:
            return Setback(
                job.id,
                job.claims,
                job.started,
                ending,
                delay=delay,
                seconds=seconds,
                recorded=recorded,
                error_type=type_name(error),
                message=clean(_message(execution, error), 2000),
                traceback=clean(traceback_of(error, _OURS), self.max_error_bytes) if recorded else None,
            )

        wanted: float | None = None
        try:
            if isinstance(error, Snooze):
                return setback(Ending.SNOOZE, None, snooze_seconds(error))
            if isinstance(error, Retry):
                wanted = retry_seconds(error)
        except ValueError as wrong:
            # An ordinary failure, with what is wrong as its reason.
            error = wrong
        match error:
            case Cancel() if not execution.stopping:
                return setback(Ending.CANCEL, None)
            case InvalidArguments() if error.stored is not None:
                return refusals.misfit(job, task.arguments.fingerprint, error, type_name(error))
            case Fail() | InvalidArguments() | ResultError() | NotAwaited() | TransactionEnded():
                return setback(Ending.FAIL, "failed")
            case asyncio.CancelledError() if execution.stopping:
                return setback(Ending.RELEASE, None)
            case asyncio.CancelledError() if execution.cancelled:
                return setback(Ending.CANCEL, "cancelled")
        if execution.stopping:
            return setback(Ending.RELEASE, None, wanted or 0.0)
        recorded = "timeout" if execution.timed_out else "error"
        if job.attempt >= job.max_attempts:
            return setback(Ending.FAIL, recorded)
        wait = wanted if wanted is not None else _wait(task, error, job.attempt)
        return setback(Ending.FAIL, recorded) if wait is None else setback(Ending.RETRY, recorded, wait)


def succeeded(job: Job, result: bytes | None, unstored: str | None, seconds: float) -> Success | Setback:
    """Return the outcome of work that was done; without a `result`, `unstored` says why there is none."""
    if result is not None:
        return Success(job.id, job.claims, job.started, result, seconds)
    ending, error_type = Ending.SUCCEED, type_name(ResultError())
    return Setback(job.id, job.claims, job.started, ending, seconds=seconds, error_type=error_type, message=unstored)


def _wait(task: BaseTask[..., Any], error: BaseException, attempt: int) -> float | None:
    """Return how many seconds to wait after `attempt` failed with `error`; None: do not try again."""
    if isinstance(error, (CommitUnknown, Retry)):
        # The first is not the task's doing, so not for its retry_on to say (should it be committed, this will be refused);
        # the second asks for another attempt, and leaves the delay to the task's backoff.
        return retry_delay(partial(task.backoff.delay, attempt), attempt) or 0.0
    wait = retry_delay(partial(task.retry_delay, error, attempt), attempt)
    if wait is None and isinstance(error, asyncio.CancelledError) and not isinstance(error, task.no_retry_on):
        # That no one asked for: it leaks from a library, or comes from a job beside it. It is no Exception, so a task's
        # `retry_on` hardly ever names it.
        wait = retry_delay(partial(task.backoff.delay, attempt), attempt)
    return wait


class CommitUnknown(Exception):
    """The connection was lost during COMMIT: whether it has happened, only the database can tell."""


def _no_transaction(job: Job, error: Exception) -> Setback:
    message = f"its transaction could not be begun: {text_of(error)}"
    return Setback(
        job.id, job.claims, job.started, Ending.RELEASE, delay=NO_TRANSACTION_DELAY, message=clean(message, 2000)
    )


def _unjudged(
    execution: Execution, task: BaseTask[..., Any], error: BaseException, fault: BaseException, seconds: float
) -> Setback:
    """Return the outcome of an error that cannot be looked at without another: an ordinary one."""
    job = execution.job
    last = job.attempt >= job.max_attempts
    ending = Ending.RELEASE if execution.stopping else Ending.FAIL if last else Ending.RETRY
    delay = retry_delay(partial(task.backoff.delay, job.attempt), job.attempt) or 0.0
    return Setback(
        job.id,
        job.claims,
        job.started,
        ending,
        delay=delay if ending is Ending.RETRY else 0.0,
        seconds=seconds,
        recorded=None if execution.stopping else "timeout" if execution.timed_out else "error",
        error_type=type_name(error),
        message=f"an error of this type was raised, and to look at it raised {type_name(fault)}",
    )


async def _within(execution: Execution, coroutine: Coroutine[Any, Any, Any]) -> Any:
    process = os.getpid()
    try:
        return await _in_time(execution, coroutine)
    finally:
        if os.getpid() != process:
            end_fork(sys.exc_info()[1])


async def _in_time(execution: Execution, coroutine: Coroutine[Any, Any, Any]) -> Any:
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
            # Where it was interrupted; as the cause only since Python 3.11.4.
            raise TimedOut from error.__cause__ or error.__context__
        raise


def _retry_text(error: Retry) -> str:
    """Return the reason of a Retry, or the error that it was raised from, which tells more than its own text."""
    cause = error.__cause__
    if error.reason is None and cause is not None:
        return f"{type_name(cause)}: {text_of(cause)}; {text_of(error)}"
    return text_of(error)


def _message(execution: Execution, error: BaseException) -> str:
    """Return what the attempt's record says: the error's text, and how a timeout made itself felt."""
    text = _retry_text(error) if isinstance(error, Retry) else text_of(error)
    if not execution.timed_out:
        return text or type_name(error)
    after = f"timed out after {execution.job.timeout:g} s"
    if isinstance(error, TimedOut):
        return text or f"{after} and was interrupted"
    return f"{after}; it then raised {type_name(error)}: {text}"
