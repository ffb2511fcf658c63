"""Whose turn it is among queues: jobs by weight while all have some, and nothing saved up by those that have none.

Each queue advances by jobs / weight; the one that is least advanced comes first. That counts jobs, not claims, so a claim of
500 that one queue fills is answered by as many of the others' before it is that queue's turn again. A queue that had no job
to give starts at the point where the one stands that was served in its place: it is first when it has jobs again, and has
no claim on what it missed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence


class Shares:
    """How far each queue is advanced, in jobs for each unit of its weight."""

    def __init__(self, weights: Mapping[str, int]) -> None:
        self._weights = weights
        self._advanced: dict[str, float] = {}
        self._start = 0.0
        """Where a queue starts that has had no jobs: no queue with jobs is less advanced."""
        self._waiting: set[str] = set()
        """The queues that have due jobs, as far as is known."""
        self._prune_at = 100

    def at(self, queue: str) -> float:
        """Return how far the queue is advanced."""
        return max(self._advanced.get(queue, 0.0), self._start)

    def advanced(self, queue: str) -> float:
        """Return how far the queue is advanced by what it had, not by what it missed."""
        return self._advanced.get(queue, 0.0)

    def expect(self, queue: str) -> None:
        """There may be due jobs in this queue."""
        self._waiting.add(queue)

    def drained(self, queue: str) -> None:
        """There is no due job left in this queue."""
        self._waiting.discard(queue)

    def nothing_left(self) -> None:
        """No queue is left waiting, so none is behind."""
        self._advanced.clear()
        self._start = 0.0
        self._waiting.clear()

    def first(self, order: Sequence[str], want: int) -> int:
        """Return how many of `want` jobs to ask for, so that the queue that comes first gets no more than its share.

        `order`: the queues that the claim looks at, the least advanced first. The next claim then begins with the queue that is
        behind. Only queues that are known to have jobs have a share: where one alone has some, it is everything.
        """
        waiting = [queue for queue in order if queue in self._waiting]
        if len(waiting) < 2:
            return want
        # Water is poured until all those below the surface stand at one level.
        weights, filled, level = 0, float(want), 0.0
        for queue in waiting:
            at, weight = self.at(queue), self._weights.get(queue, 1)
            if weights and at >= filled / weights:
                break
            weights += weight
            filled += at * weight
        level = filled / weights
        head = waiting[0]
        share = math.ceil((level - self.at(head)) * self._weights.get(head, 1) - 1e-6)
        return min(want, max(share, 1))

    def took(self, order: Sequence[str], jobs: Mapping[str, int], last: str | None) -> None:
        """Take note of how many jobs a claim found in the queues of `order`, which it read in that order.

        `last`: where it had as many as it wanted, so that those behind were not looked at; None: all were read to their ends.
        """
        start = self._start if last is None else self.at(last)
        if last is None:
            self._waiting.difference_update(order)
        else:
            self._waiting.difference_update(order[: order.index(last)])
            self._waiting.add(last)
        for queue, count in jobs.items():
            self._advanced[queue] = self.at(queue) + count / self._weights.get(queue, 1)
        self._start = start
        if len(self._advanced) > self._prune_at:
            # Queues that have gone, or had no jobs for long.
            self._advanced = {queue: at for queue, at in self._advanced.items() if at > start}
            self._prune_at = 2 * len(self._advanced) + 100
