"""Where an iteration of a durable job is (`step.iterate`)."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from jobq.steps.store import NewStep, StepKey


@dataclass(slots=True, kw_only=True, eq=False)
class Position:
    """Where an iteration is."""

    key: StepKey
    place: int
    stored_at: float
    """When it was stored, by `StepLog.clock`."""
    encode: Callable[[Any], str]
    """Returns a cursor as JSON text."""
    cursor: Any = None
    """The cursor of the last item that was handled."""
    next: Any = None
    """The cursor of the item that the task has."""
    handled: int = 0
    """Number of items since it was stored."""
    is_out: bool = False
    """Whether the task has an item, and has not asked for the next one."""
    is_finished: bool = False

    def row(self, state: str) -> NewStep:
        """Return it as a step in this state."""
        text = None if self.cursor is None else self.encode(self.cursor)
        return NewStep(key=self.key, place=self.place, state=state, result=text)

    def saved(self, now: float) -> None:
        """Note that it is stored."""
        self.handled, self.stored_at = 0, now


current_position: ContextVar[Position | None] = ContextVar("jobq_step_position", default=None)
"""The innermost iteration that has given an item to the code that runs."""
