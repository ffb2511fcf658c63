"""Fair turns among queues: jobs by weight while all have some, and no credit for empty queues.

Each queue advances by jobs / weight, and the least advanced queue comes first. The count is of
jobs, not claims: if one queue fills a claim of 500, the others get as many jobs before it is that
queue's turn again. A queue that had no jobs restarts at the position of the queue that was served
in its place. When it has jobs again, it is first, but it has no claim on what it missed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence


class FairShare:
    """How far each queue is advanced, in jobs per unit of its weight."""

    def __init__(self, weights: Mapping[str, int]) -> None:
        self._weights = weights
        self._advanced: dict[str, float] = {}
        self._start = 0.0
        """Where a queue without jobs starts: no queue with jobs is less advanced."""
        self._waiting: set[str] = set()
        """The queues that are known to have due jobs."""
        self._prune_at = 100

    def at(self, queue: str) -> float:
        """Return how far the queue is advanced."""
        return max(self._advanced.get(queue, 0.0), self._start)

    def advanced(self, queue: str) -> float:
        """Return how far the queue is advanced by its own jobs, without what it missed."""
        return self._advanced.get(queue, 0.0)

    def expect(self, queue: str) -> None:
        """Record that there may be due jobs in this queue."""
        self._waiting.add(queue)

    def drained(self, queue: str) -> None:
        """Record that no due job is left in this queue."""
        self._waiting.discard(queue)

    def nothing_left(self) -> None:
        """Record that no queue has due jobs, so none is behind."""
        self._advanced.clear()
        self._start = 0.0
        self._waiting.clear()

    def first(self, order: Sequence[str], want: int) -> int:
        """Return how many of `want` jobs to ask for: the share of the first queue.

        The next claim then begins with the queue that is behind. Only queues that are known to have
        jobs have a share. If only one queue has jobs, its share is everything. `order`: the queues
        that the claim looks at, the least advanced first.
        """
        waiting = [queue for queue in order if queue in self._waiting]
        if len(waiting) < 2:
            return want
        # Like pouring water until all queues below the surface stand at one level.
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
        """Record how many jobs a claim found in the queues of `order`, which it read in that order.

        `last`: the queue where it had as many jobs as it wanted; later queues were not looked at.
        None: it read all queues to their ends.
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
            # These queues are gone, or have had no jobs for long.
            self._advanced = {queue: at for queue, at in self._advanced.items() if at > start}
            self._prune_at = 2 * len(self._advanced) + 100
