"""When to claim next although nothing is heard of a job: when the next known one is due, and at the poll."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

# A poll finds what no notification told of. While notifications come it is made so many times less often.
QUIET = 5
# Seconds until a job is looked at again that is due and was not claimed: somebody has it locked. Doubled each time.
_BLOCKED = 0.005


class Due:
    """The clock of one claiming loop; all times are of time.monotonic(), in seconds."""

    def __init__(self, poll_interval: float, listening: Callable[[], bool]) -> None:
        self._poll_interval = poll_interval
        self._listening = listening
        self._at: float | None = None
        """When the next job is due, as far as we know; None: look it up."""
        self._poll_at = 0.0
        self._blocked = 0

    def forget(self) -> None:
        """Something may be due sooner than what is known."""
        self._at = None

    def looked(self) -> None:
        """The database is being asked for jobs: that is as good as the poll."""
        self._poll_at = time.monotonic() + self._poll_interval * (QUIET if self._listening() else 1)

    def found(self) -> None:
        """A claim brought jobs: what is due is not all locked."""
        self._blocked = 0

    async def next(self, look_up: Callable[[], Awaitable[float]]) -> float:
        """Return when to claim next. `look_up` returns the seconds until the next job is due, or infinity."""
        if self._at is None:
            self.looked()
            due = await look_up()
            self._blocked = self._blocked + 1 if due <= 0 else 0
            pause = min(_BLOCKED * 2 ** min(self._blocked, 20), self._poll_interval)
            self._at = time.monotonic() + max(due, pause)
        return min(self._at, self._poll_at)

    def passed(self) -> bool:
        """Tell whether the next known job is due by now; at the poll, have it looked up anew."""
        now = time.monotonic()
        due = self._at is not None and now >= self._at
        if due or now >= self._poll_at:
            self._at = None
        return due
