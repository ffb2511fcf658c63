"""A worker's log entries about executions that did not succeed."""

from __future__ import annotations

import logging
from typing import Any

from jobq._worker.health.stalls import RateLimitedLog
from jobq._worker.ipc.messages import Disposition, Failure
from jobq._worker.outcomes.store import UNSTORED

logger = logging.getLogger("jobq.worker")

# Number of characters of a traceback that are logged.
MOST_OF_TRACEBACK = 4000


class OutcomeLog:
    """The log entries of one worker.

    An entry that many jobs have in common is logged once in a while.
    """

    def __init__(self, repeats: RateLimitedLog, *, tracebacks: bool = False) -> None:
        """`tracebacks`: log shortened tracebacks with failures."""
        self._repeats = repeats
        self._tracebacks = tracebacks

    def ended(self, setback: Failure) -> None:
        """Log an outcome that has been written."""
        if setback.ending is Disposition.PARK:
            self._repeats.note(
                "a job waits for a worker with other code",
                setback.message or "",
                job=setback.id,
                reason=setback.message,
            )
        if setback.ending is Disposition.RELEASE and setback.message is not None and setback.recorded is None:
            # Thousands of jobs of a task that is unknown here may come back every few seconds.
            self._repeats.note("a job was put back", setback.message, job=setback.id, reason=setback.message)
        if setback.ending is Disposition.SUCCEED:
            self.unstored(setback.id, setback.message or "")
        if setback.recorded is not None:
            last = setback.ending is Disposition.FAIL
            logger.log(
                logging.ERROR if last else logging.WARNING,
                "job failed" if last else "job set back",
                extra=failure_fields(setback, tracebacks=self._tracebacks),
            )

    def refused(self, number: int, job: int) -> None:
        """Log that the fence refused `number` outcomes, among them that of `job`."""
        logger.warning("outcomes were refused: those jobs were no longer ours", extra={"refused": number, "job": job})

    def unstored(self, job: int, why: str) -> None:
        """Log that a job has succeeded and its result is not stored."""
        # If a task's annotation is wrong, every job logs this. Only the values differ.
        self._repeats.note(UNSTORED, why.split("=", 1)[0], job=job, error=why)


def failure_fields(setback: Failure, *, tracebacks: bool) -> dict[str, Any]:
    """Return the log fields of a failed attempt."""
    fields: dict[str, Any] = {"job": setback.id}
    if setback.task is not None:
        fields |= {
            "task": setback.task,
            "queue": setback.queue,
            "attempt": setback.attempt,
            "max_attempts": setback.max_attempts,
        }
    message = setback.message or ""
    fields |= {
        "outcome": setback.recorded,
        "error": message if message == setback.error_type else f"{setback.error_type}: {message}",
        "retry_in": round(setback.delay, 1) if setback.ending is not Disposition.FAIL else None,
    }
    if tracebacks and setback.traceback:
        trace = setback.traceback
        if len(trace) > MOST_OF_TRACEBACK:
            # The end of a traceback says most, and logs cut texts at their ends.
            half = MOST_OF_TRACEBACK // 2
            trace = f"{trace[:half]}\n… {len(trace) - 2 * half} characters left out …\n{trace[-half:]}"
        fields["traceback"] = trace
    return fields
