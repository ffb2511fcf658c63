"""The outcome of an execution that ended with an error: retried, failed, cancelled, released or parked."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from functools import partial
from typing import Any

import msgspec

from jobq._core.storable import storable_text
from jobq._worker.ipc import unexecuted
from jobq._worker.ipc.messages import Disposition, Failure
from jobq._worker.runner.error_report import text_of, traceback_of, type_name
from jobq._worker.runner.execution import Execution
from jobq._worker.runner.interpreter import recursion
from jobq._worker.runner.user_values import retry_delay, retry_seconds, snooze_seconds
from jobq.errors import (
    BatchResultError,
    Cancel,
    Fail,
    InvalidArguments,
    NotAwaited,
    ResultError,
    Retry,
    Snooze,
    StepChanged,
    TimedOut,
    TransactionEnded,
    UndoFailed,
)
from jobq.steps.suspension import ExecutionLost, suspension_in, without_suspensions
from jobq.task import BaseTask


class CommitUnknown(Exception):
    """The connection was lost during COMMIT. Only the database knows whether the commit happened."""


def failure(
    execution: Execution,
    task: BaseTask[..., Any],
    error: BaseException,
    seconds: float,
    *,
    max_error_bytes: int,
    hidden: Collection[str],
) -> Failure:
    """Return the outcome of an execution that ended with `error`. Raises nothing.

    Args:
        execution: The execution.
        task: Its task.
        error: What the task raised, or what kept it from being called.
        seconds: How long it took.
        max_error_bytes: The most bytes of the traceback.
        hidden: Files whose leading frames are left out of the traceback.
    """
    try:
        found = _judge(execution, task, error, seconds, max_error_bytes=max_error_bytes, hidden=hidden)
    except BaseException as fault:
        # The error's class is user code too: its metaclass, its properties, its comparisons.
        # With a low recursion limit, even this could fail.
        recursion.restore()
        found = _unjudged(execution, task, error, fault, seconds)
    if found.recorded is None or execution.log is None:
        return found
    recursion.restore()
    return msgspec.structs.replace(found, log=execution.log.text())


def _judge(
    execution: Execution,
    task: BaseTask[..., Any],
    error: BaseException,
    seconds: float,
    *,
    max_error_bytes: int,
    hidden: Collection[str],
) -> Failure:
    job = execution.job

    def setback(ending: Disposition, recorded: str | None, delay: float = 0.0) -> Failure:
        return Failure(
            job.id,
            job.claims,
            job.started,
            ending,
            delay=delay,
            seconds=seconds,
            recorded=recorded,
            error_type=type_name(error),
            message=storable_text(_message(execution, error), 2000),
            traceback=_traceback(execution, error, max_error_bytes, hidden) if recorded else None,
        )

    wanted: float | None = None
    if (waiting := suspension_in(error)) is not None:
        leaves = execution.stopping or execution.draining
        found = setback(Disposition.RELEASE if leaves else Disposition.SNOOZE, None, waiting.seconds)
        return msgspec.structs.replace(found, waits=waiting.waits)
    error = without_suspensions(error)
    if isinstance(error, ExecutionLost):
        # The fence refuses this outcome, too, unless the database was away for a moment.
        return setback(Disposition.RELEASE, None)
    try:
        if isinstance(error, Snooze):
            return setback(Disposition.SNOOZE, None, snooze_seconds(error))
        if isinstance(error, Retry):
            wanted = retry_seconds(error)
    except ValueError as wrong:
        # Treat this as an ordinary failure, with the invalid value as its reason.
        error = wrong
    match error:
        case Cancel() if not execution.stopping:
            return setback(Disposition.CANCEL, None)
        case InvalidArguments() if error.stored is not None:
            return unexecuted.misfit(job, task.arguments.fingerprint, error, type_name(error))
        case (
            Fail()
            | InvalidArguments()
            | ResultError()
            | BatchResultError()
            | NotAwaited()
            | TransactionEnded()
            | StepChanged()
            | UndoFailed()
        ):
            return setback(Disposition.FAIL, "failed")
        case asyncio.CancelledError() if execution.stopping:
            return setback(Disposition.RELEASE, None)
        case asyncio.CancelledError() if execution.cancelled:
            return setback(Disposition.CANCEL, "cancelled")
    if execution.stopping:
        return setback(Disposition.RELEASE, None, wanted or 0.0)
    recorded = "timeout" if execution.timed_out else "error"
    if job.attempt >= job.max_attempts:
        return setback(Disposition.FAIL, recorded)
    wait = wanted if wanted is not None else _wait(task, error, job.attempt)
    return setback(Disposition.FAIL, recorded) if wait is None else setback(Disposition.RETRY, recorded, wait)


def _wait(task: BaseTask[..., Any], error: BaseException, attempt: int) -> float | None:
    """Return the seconds to wait after `attempt` failed with `error`; None for no further attempt."""
    if isinstance(error, (CommitUnknown, Retry)):
        # CommitUnknown is not caused by the task, so the task's retry_on does not apply. If the
        # commit did happen, the next outcome is refused. Retry asks for another attempt and leaves
        # the delay to the task's backoff.
        return retry_delay(partial(task.backoff.delay, attempt), attempt) or 0.0
    wait = retry_delay(partial(task.retry_delay, error, attempt), attempt)
    if wait is None and isinstance(error, asyncio.CancelledError) and not isinstance(error, task.no_retry_on):
        # This cancellation was not requested: it leaks from a library, or comes from another job.
        # It is not an Exception, so a task's `retry_on` hardly ever names it.
        wait = retry_delay(partial(task.backoff.delay, attempt), attempt)
    return wait


def _unjudged(
    execution: Execution, task: BaseTask[..., Any], error: BaseException, fault: BaseException, seconds: float
) -> Failure:
    """Return an ordinary outcome for an error that raises another error when it is examined."""
    job = execution.job
    last = job.attempt >= job.max_attempts
    ending = Disposition.RELEASE if execution.stopping else Disposition.FAIL if last else Disposition.RETRY
    delay = retry_delay(partial(task.backoff.delay, job.attempt), job.attempt) or 0.0
    return Failure(
        job.id,
        job.claims,
        job.started,
        ending,
        delay=delay if ending is Disposition.RETRY else 0.0,
        seconds=seconds,
        recorded=None if execution.stopping else "timeout" if execution.timed_out else "error",
        error_type=type_name(error),
        message=f"an error of this type was raised, and to look at it raised {type_name(fault)}",
    )


def _traceback(execution: Execution, error: BaseException, max_bytes: int, hidden: Collection[str]) -> str:
    """Return the traceback for the attempt's record: the one that the execution already knows, or a new one."""
    known = execution.tracebacks
    if known is not None and id(error) in known:
        return known[id(error)][1]
    text = storable_text(traceback_of(error, hidden), max_bytes)
    if known is not None:
        known[id(error)] = error, text
    return text


def _retry_text(error: Retry) -> str:
    """Return the reason of a Retry.

    Without a reason, also describe the error that it was raised from.
    """
    cause = error.__cause__
    if error.reason is None and cause is not None:
        return f"{type_name(cause)}: {text_of(cause)}; {text_of(error)}"
    return text_of(error)


def _message(execution: Execution, error: BaseException) -> str:
    """Return the message for the attempt's record: the error, and the effect of a timeout."""
    text = _retry_text(error) if isinstance(error, Retry) else text_of(error)
    if not execution.timed_out:
        return text or type_name(error)
    after = f"timed out after {execution.job.timeout:g} s"
    if isinstance(error, TimedOut):
        return text or f"{after} and was interrupted"
    return f"{after}; it then raised {type_name(error)}: {text}"
