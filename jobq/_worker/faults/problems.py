"""Problems: the things that this worker cannot do at present.

They are written into the worker's row with each heartbeat, for the page and `jobq doctor`. A part
that fails notes the problem at each try and clears it after a success. A problem that is not noted
again is forgotten.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from jobq._core.storable import storable_text

# The row is rewritten at each heartbeat. It must stay small, whatever fails.
MOST = 20
MOST_TEXT = 300
# Seconds after which a problem that was not noted again is forgotten. This is longer than the
# longest pause between two tries.
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
    """The problems of one worker. At most `MOST` are kept, the oldest ones."""

    def __init__(self) -> None:
        self._problems: dict[tuple[Any, ...], _Problem] = {}

    def note(self, what: str, error: BaseException | str, **subject: Any) -> None:
        """Note that `what` fails because of `error`.

        `subject` names the affected job, queue and so on.
        """
        text = storable_text(" ".join(str(error).split()) or type(error).__name__, MOST_TEXT)
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
        """Remove a problem that is solved."""
        self._problems.pop(_key(what, subject), None)

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows to write.

        Each has ``what``, ``error``, ``since`` (ISO 8601), ``tries``, and the names of the subject.
        """
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
