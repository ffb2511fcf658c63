"""What this worker cannot do at present: written into its row with each heartbeat, for the page and `jobq doctor`.

A part that fails notes the problem at each try, and clears it once it has succeeded. A problem that
is not noted again is forgotten.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from jobq.worker.texts import clean

# The row is rewritten at each heartbeat: it must stay small, whatever fails.
MOST = 20
MOST_TEXT = 300
# Seconds after which a problem is forgotten that is not said again: longer than the longest pause between two tries.
FORGET_AFTER = 900.0


@dataclass(slots=True)
class _Problem:
    what: str
    subject: dict[str, Any]
    error: str
    since: datetime
    seen: float
    tries: int = field(default=1)


class Problems:
    """The problems of one worker, at most `MOST`: those that began first."""

    def __init__(self) -> None:
        self._problems: dict[tuple[Any, ...], _Problem] = {}

    def note(self, what: str, error: BaseException | str, **subject: Any) -> None:
        """`what` cannot be done with `subject` (a job, a queue, …), for `error`'s sake."""
        text = clean(" ".join(str(error).split()) or type(error).__name__, MOST_TEXT)
        now = time.monotonic()
        problem = self._problems.get(key := _key(what, subject))
        if problem is not None:
            problem.error, problem.seen = text, now
            problem.tries += 1
            return
        self._forget(now)
        if len(self._problems) < MOST:
            self._problems[key] = _Problem(what, subject, text, datetime.now(UTC), now)

    def clear(self, what: str, **subject: Any) -> None:
        """That is over."""
        self._problems.pop(_key(what, subject), None)

    def rows(self) -> list[dict[str, Any]]:
        """Return what is to be written: ``what``, ``error``, ``since`` (ISO 8601), ``tries``, and the subject's names."""
        self._forget(time.monotonic())
        return [
            {
                **p.subject,
                "what": p.what,
                "error": p.error,
                "since": p.since.isoformat(timespec="seconds"),
                "tries": p.tries,
            }
            for p in self._problems.values()
        ]

    def _forget(self, now: float) -> None:
        self._problems = {key: p for key, p in self._problems.items() if now - p.seen < FORGET_AFTER}


def _key(what: str, subject: dict[str, Any]) -> tuple[Any, ...]:
    return (what, *sorted(subject.items()))
