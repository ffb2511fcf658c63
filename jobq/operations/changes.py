"""The kinds of change: which states each can change, why it refuses others, and its statements."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar

from jobq._core.durations import YEAR
from jobq._core.validation import check_aware, check_choice, check_duration, check_int, check_text, parse_time
from jobq.errors import InvalidOption
from jobq.job import (
    CANCELLABLE_STATES,
    DELETABLE_STATES,
    FINISHED_STATES,
    MOVABLE_STATES,
    RETRYABLE_STATES,
    RUN_NOW_STATES,
    SNOOZABLE_STATES,
)
from jobq.operations.audit import AuditRecord
from jobq.operations.change import Change

_HAS_RUN = {state: f"it has {state} already" for state in FINISHED_STATES}
_HAS_RUN["cancelled"] = "it is cancelled already"
_GOES_ON = {
    "waiting": "it waits for its group's turn, which comes by itself",
}


class Retry(Change):
    """Put dead jobs back under the same id with all their attempts; make waiting jobs due.

    Waiting jobs are jobs that wait for a retry, for their time, or for other code. A dead job
    takes its key again. If another job has the key, the dead job is refused.
    """

    name = "retry"
    states = RETRYABLE_STATES
    refusals: ClassVar = {
        "ready": "it is ready to run already",
        "running": "it is running",
        "succeeded": "it has succeeded",
        **_GOES_ON,
    }

    def statements(self, schema: str, note: AuditRecord) -> Sequence[tuple[str, dict[str, Any]]]:
        """Dead jobs from the history, then waiting jobs."""
        return [("retry_finished", {}), ("make_due", {"channel": schema})]


class RunNow(Change):
    """Make jobs due that wait for a retry or their time. Any worker may claim parked jobs again."""

    name = "run_now"
    states = RUN_NOW_STATES
    refusals: ClassVar = {**Retry.refusals, **_HAS_RUN}

    def statements(self, schema: str, note: AuditRecord) -> Sequence[tuple[str, dict[str, Any]]]:
        """The waiting jobs."""
        return [("make_due", {"channel": schema})]


class Cancel(Change):
    """Finish jobs that do not run as cancelled; ask running jobs to stop."""

    name = "cancel"
    states = CANCELLABLE_STATES
    refusals = _HAS_RUN

    def statements(self, schema: str, note: AuditRecord) -> Sequence[tuple[str, dict[str, Any]]]:
        """Idle jobs, then running jobs."""
        error = f"cancelled by {note.actor.name}" + (f": {note.reason}" if note.reason else "")
        return [("cancel_idle", {"error": error, "channel": schema}), ("cancel_running", {"channel": schema})]


class Snooze(Change):
    """Start jobs that do not run later, or at another time. No attempt is counted."""

    name = "snooze"
    states = SNOOZABLE_STATES
    refusals: ClassVar = {"running": "it is running", **_GOES_ON, **_HAS_RUN}

    def __init__(self, *, seconds: float | None = None, until: datetime | None = None) -> None:
        if (seconds is None) == (until is None):
            raise InvalidOption("snooze: expected either seconds or until")
        if seconds is not None:
            check_duration("seconds", seconds, most=YEAR, most_said="a year")
        self._seconds = seconds
        self._until = None if until is None else check_aware("until", until)

    def statements(self, schema: str, note: AuditRecord) -> Sequence[tuple[str, dict[str, Any]]]:
        """One statement."""
        return [("snooze", {"seconds": self._seconds, "until": self._until, "channel": schema})]

    def options(self) -> dict[str, Any]:
        """`seconds` or `until`."""
        return {"seconds": self._seconds} if self._until is None else {"until": self._until.isoformat()}


class Move(Change):
    """Move jobs that do not run to another queue or priority; they are last in their new lane."""

    name = "move"
    states = MOVABLE_STATES
    refusals: ClassVar = {"running": "it is running", **_HAS_RUN}

    def __init__(self, *, queue: str | None = None, priority: int | None = None) -> None:
        if queue is None and priority is None:
            raise InvalidOption("move: expected a queue or a priority")
        if queue is not None:
            check_text("queue", queue, 100)
        if priority is not None:
            check_int("priority", priority, 0, 9)
        self._queue = queue
        self._priority = priority

    def statements(self, schema: str, note: AuditRecord) -> Sequence[tuple[str, dict[str, Any]]]:
        """One statement."""
        return [("move", {"queue": self._queue, "priority": self._priority, "channel": schema})]

    def refusal(self, state: str | None) -> str:
        """A job in a movable state was not moved because it is there already, or locked.

        Its state now does not matter.
        """
        if state in self.states:
            return "it is there already, or a worker or another operator is changing it at this moment"
        return super().refusal(state)

    def options(self) -> dict[str, Any]:
        """The options that were given."""
        given = {"queue": self._queue, "priority": self._priority}
        return {name: value for name, value in given.items() if value is not None}


class Delete(Change):
    """Delete jobs that do not run, with their attempts.

    Their keys are deleted, too, including keys that are held for a period.
    """

    name = "delete"
    states = DELETABLE_STATES
    refusals: ClassVar = {"running": "it is running: cancel it first"}

    def statements(self, schema: str, note: AuditRecord) -> Sequence[tuple[str, dict[str, Any]]]:
        """Live jobs, then finished jobs."""
        return [("delete_live", {"channel": schema}), ("delete_finished", {})]


_KINDS: dict[str, Callable[..., Change]] = {
    "retry": Retry,
    "cancel": Cancel,
    "snooze": Snooze,
    "move": Move,
    "delete": Delete,
}


def change_of(action: str, options: Mapping[str, Any]) -> Change:
    """Return the change for `action` and its options (`Change.options`).

    Raises InvalidOption for an unknown action, an unknown option, or an unusable value.
    """
    check_choice("action", action, _KINDS)
    kind = _KINDS[action]
    known = {"snooze": ("seconds", "until"), "move": ("queue", "priority")}.get(action, ())
    given = {name: value for name, value in options.items() if value is not None}
    for name, value in given.items():
        if name not in known:
            has = f"has {' and '.join(known)}" if known else "has no options"
            raise InvalidOption(f"{name}={value!r}: {action} {has}")
    if isinstance(given.get("until"), str):
        try:
            given["until"] = parse_time(given["until"], zone_needed=True)
        except ValueError as error:
            raise InvalidOption(f"until={error}") from None
    return kind(**given)
