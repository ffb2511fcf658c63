"""When to claim from each limited queue. All times are time.monotonic() seconds.

No code here walks over all queues: each call costs only the queues that have something to do.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
import time
from collections.abc import Callable

# Retries for a queue whose lock is held: first pause, growth factor, longest pause (seconds).
BUSY_RETRY = (0.002, 1.3, 1.0)


class LimitedSchedule:
    """The queues that are due, now or later. Queues without a known due time are not here."""

    def __init__(self, room: Callable[[str], float]) -> None:
        """`room` returns how many more jobs of a queue this worker may hold."""
        self._room = room
        self._at: dict[str, tuple[float, int]] = {}
        """When to claim from a queue, and the number of its valid entry in `_order`."""
        self._order: list[tuple[float, int, str]] = []
        """A heap of the current and former times of `_at`. Entries are numbered."""
        self._entries = itertools.count()
        self._full: set[str] = set()
        """Queues that are due while this worker holds as many of their jobs as it may."""
        self._pauses: dict[str, tuple[float, float]] = {}
        """Queues whose locks were held: the end of the pause, and its length."""

    def sooner(self, queue: str, at: float) -> None:
        """Claim from `queue` at `at` or earlier, or when its pause is over."""
        at = max(at, self._pauses.get(queue, (0.0, 0.0))[0])
        if queue not in self._at or at < self._at[queue][0]:
            number = next(self._entries)
            self._at[queue] = at, number
            heapq.heappush(self._order, (at, number, queue))

    def begun(self, queue: str) -> None:
        """A claim from `queue` is about to be made. It may not see jobs of later notifications."""
        self._at.pop(queue, None)

    @property
    def next_at(self) -> float:
        """When the next queue with room is due.

        Queues without room are set apart until a job ends.
        """
        while self._order:
            at, number, queue = self._order[0]
            if self._at.get(queue) == (at, number):
                if self._room(queue) > 0:
                    return at
                self._full.add(queue)
                del self._at[queue]
            heapq.heappop(self._order)
        return math.inf

    def due(self) -> list[str]:
        """Return the queues to claim from now, in an order that favours none."""
        now = time.monotonic()
        found: list[tuple[float, int, str]] = []
        while self.next_at <= now:
            found.append(heapq.heappop(self._order))
        # The queues stay due until the next claim from them.
        for entry in found:
            heapq.heappush(self._order, entry)
        queues = [queue for _, _, queue in found]
        random.shuffle(queues)
        return queues

    # --- pauses --------------------

    def pause(self, queue: str, pauses: tuple[float, float, float] = BUSY_RETRY) -> None:
        """Leave `queue` alone, each time for longer, whatever notifications arrive."""
        first, factor, longest = pauses
        pause = min(longest, max(first, factor * self._pauses[queue][1])) if queue in self._pauses else first
        # Two workers that have collided must not collide again.
        self._pauses[queue] = (time.monotonic() + pause * random.uniform(0.5, 1.0), pause)
        self._at.pop(queue, None)

    def is_open(self, queue: str) -> bool:
        """Whether `queue` has no pause at present."""
        return self._pauses.get(queue, (0.0, 0.0))[0] <= time.monotonic()

    def resumed(self, queue: str) -> bool:
        """Record a successful claim from `queue`. Return whether there had been a pause."""
        return self._pauses.pop(queue, None) is not None

    # --- full queues --------------------

    def freed(self, queue: str) -> bool:
        """A job of `queue` has ended. Return whether the queue was due and had no room."""
        if queue not in self._full:
            return False
        self._full.discard(queue)
        return True

    def nothing_is_full(self) -> None:
        """Record that this worker holds no job any more."""
        self._full.clear()

    def drop(self, queue: str) -> None:
        """Remove `queue`: it is no longer served as a limited queue."""
        self._full.discard(queue)
        self._at.pop(queue, None)
        self._pauses.pop(queue, None)
