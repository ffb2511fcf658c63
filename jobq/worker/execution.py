"""One execution of one job: its arguments decoded, its task called, what happened turned into a value.

Knows neither sockets nor SQL, so the runner process and the in-process runner share it.
"""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from jobq.errors import Cancel, Fail, InvalidArguments, ResultError, Snooze
from jobq.jobs import CurrentJob, use_current_job
from jobq.tasks import BaseTask
from jobq.worker.frames import Ending, Job, Setback, Success

# How soon a job comes back whose task this worker does not know: soon enough for the worker that does, late enough not to
# spin when there is none.
UNKNOWN_TASK_DELAY = 15.0

Outcome = Success | Setback
_decode_headers = msgspec.json.Decoder(dict[str, Any]).decode


@dataclass(slots=True, kw_only=True)
class Execution:
    """An execution under way: what may be asked of it from outside."""

    job: Job
    cancelled: bool = False
    stopping: bool = False
    """The worker shuts down: however the task reacts, the job goes back unpunished unless it succeeds."""
    interrupt: Callable[[], object] | None = None
    """Cancels the coroutine of an async task."""

    def cancel(self, *, stopping: bool) -> None:
        """Tell the task that it should stop. Told again, it is not interrupted again: it may be cleaning up."""
        self.stopping = self.stopping or stopping
        already, self.cancelled = self.cancelled, True
        if self.interrupt is not None and not already:
            self.interrupt()


@dataclass(frozen=True, slots=True, kw_only=True)
class Executor:
    """Calls tasks. `run_coroutine` runs a coroutine to its end on an event loop, from a thread that is not the loop's."""

    tasks: Mapping[str, BaseTask[..., Any]]
    run_coroutine: Callable[[Execution, Coroutine[Any, Any, Any]], Any]
    report_progress: Callable[[Job, int, int | None], None]
    max_result_bytes: int
    max_error_bytes: int

    def execute(self, execution: Execution, started: float) -> Outcome:
        """Run the job to its end. Never raises an Exception: whatever user code does becomes an outcome."""
        job = execution.job
        task = self.tasks.get(job.task)
        if task is None:
            return Setback(
                job.id, job.claims, Ending.RELEASE, delay=UNKNOWN_TASK_DELAY, message=f"no task {job.task!r} here"
            )
        try:
            arguments = task.decode_arguments(job.args)
            with use_current_job(self._current(execution)):
                if task.is_async:
                    value = self.run_coroutine(execution, _within(task.function(**arguments), job.timeout))
                else:
                    value = task.function(**arguments)
            result = task.encode_result(value, self.max_result_bytes)
        except BaseException as error:
            # SystemExit and KeyboardInterrupt too: a task that calls sys.exit() ends its job, not its runner.
            return self._setback(execution, task, error, time.monotonic() - started)
        return Success(job.id, job.claims, result, time.monotonic() - started)

    def _current(self, execution: Execution) -> CurrentJob:
        job = execution.job
        return CurrentJob(
            id=job.id,
            task=job.task,
            queue=job.queue,
            attempt=job.attempt,
            max_attempts=job.max_attempts,
            headers=_decode_headers(job.headers),
            deadline=None if job.timeout is None else datetime.now(UTC) + timedelta(seconds=job.timeout),
            is_cancelled=lambda: execution.cancelled,
            report_progress=lambda done, total: self.report_progress(job, done, total),
        )

    def _setback(self, execution: Execution, task: BaseTask[..., Any], error: BaseException, seconds: float) -> Setback:
        job = execution.job

        def setback(ending: Ending, recorded: str | None, delay: float = 0.0) -> Setback:
            return Setback(
                job.id,
                job.claims,
                ending,
                delay=delay,
                seconds=seconds,
                recorded=recorded,
                error_type=_type_name(error),
                message=clean(_text(error) or _type_name(error), 2000),
                traceback=clean(_traceback(error), self.max_error_bytes) if recorded else None,
            )

        match error:
            case Snooze():
                return setback(Ending.SNOOZE, None, error.seconds)
            case Cancel() if not execution.stopping:
                return setback(Ending.CANCEL, None)
            case Fail() | InvalidArguments() | ResultError():
                return setback(Ending.FAIL, "failed")
            case asyncio.CancelledError() if execution.stopping:
                return setback(Ending.RELEASE, None)
            case asyncio.CancelledError() if execution.cancelled:
                return setback(Ending.CANCEL, "cancelled")
        if execution.stopping:
            return setback(Ending.RELEASE, None)
        recorded = "timeout" if isinstance(error, TimedOut) else "error"
        if job.attempt >= job.max_attempts:
            return setback(Ending.FAIL, recorded)
        delay = task.retry_delay(error, job.attempt)
        return setback(Ending.FAIL, recorded) if delay is None else setback(Ending.RETRY, recorded, delay)


class TimedOut(TimeoutError):
    """The job's `timeout` passed."""


async def _within(coroutine: Coroutine[Any, Any, Any], limit: float | None) -> Any:
    if limit is None:
        return await coroutine
    timer = asyncio.timeout(limit)
    try:
        async with timer:
            return await coroutine
    except TimeoutError:
        if timer.expired():
            raise TimedOut(f"timed out after {limit:g} s") from None
        raise


def clean(text: str, limit: int) -> str:
    """Return `text` as Postgres can store it, at most `limit` bytes, its middle cut out when it is longer."""
    data = text.replace("\x00", "\\x00").encode("utf-8", "backslashreplace")
    if len(data) > limit:
        half = (limit - 40) // 2
        data = data[:half] + f"\n… {len(data) - 2 * half} bytes cut …\n".encode() + data[-half:]
    return data.decode("utf-8", "replace")


def _type_name(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as fault:  # the user's __str__ must not turn an error into a crash
        return f"{_type_name(error)}, whose text cannot be had: its __str__ raised {_type_name(fault)}"


def _traceback(error: BaseException) -> str:
    try:
        # Without the frame of `execute`: it tells the reader nothing of his task.
        inner = error.__traceback__.tb_next if error.__traceback__ else None
        return "".join(traceback.format_exception(type(error), error, inner, limit=-50))
    except Exception as failure:
        return f"{_type_name(error)} (its traceback cannot be formatted: {_type_name(failure)})"
