"""The order in which claims look at lanes: one line, kept in a heap."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from itertools import islice

from jobq._worker.lanes.aging import Aging
from jobq._worker.lanes.fair_share import FairShare
from jobq._worker.lanes.live_lanes import Lane, LiveLanes
from jobq._worker.queue_spec import QueueOrder

Place = tuple[int, float, int, Lane]
"""Rank, advance of the queue, number in the line, and the lane (priority -1: a whole queue)."""


class LaneLine:
    """Lanes that may have due jobs, or whole queues if priorities do not order the queues."""

    def __init__(self, order: QueueOrder, named: Mapping[str, int], shares: FairShare, live: LiveLanes) -> None:
        """Create an empty line.

        Args:
            order: The order among queues.
            named: The position of each queue in the worker's list of queues.
            shares: How far each queue is advanced.
            live: Knows which lanes have jobs.
        """
        self._how = order
        self._named = named
        self._shares = shares
        self._live = live
        self._heap: list[Place] = []
        self.numbers: dict[Lane, int] = {}
        """The number of each member in the line or taken by the last claim. Oldest first."""
        self._taken: list[Place] = []
        """The places that the last claim took."""
        self._served: set[Lane] = set()
        """Members that gave jobs to the last claim. They go to the end of their equals."""
        self._number = 0

    def __len__(self) -> int:
        """Number of entries that are kept."""
        return len(self._heap) + len(self.numbers)

    def join(self, member: Lane) -> None:
        """Add `member` at the end of its equals. Only for members that are not in `numbers`."""
        self._number += 1
        self.numbers[member] = self._number
        self._stand(member, self._number)

    def _stand(self, member: Lane, number: int) -> None:
        queue, priority = member
        match self._how:
            case QueueOrder.PRIORITY:
                rank, at = 9 - priority, self._shares.at(queue)
            case QueueOrder.SHARES:
                rank, at = 0, self._shares.at(queue)
            case QueueOrder.STRICT:
                rank, at = self._named.get(queue, 0), 0.0
        heapq.heappush(self._heap, (rank, at, number, member))

    def _waits(self, member: Lane) -> bool:
        queue, priority = member
        return self._live.is_hot(queue, priority) if priority >= 0 else bool(self._live.hot(queue))

    def line_up(self) -> None:
        """Put back the members that the last claim took, if they still have jobs."""
        taken, served = self._taken, self._served
        self._taken, self._served = [], set()
        for *_, member in taken:
            if not self._waits(member):
                self.numbers.pop(member, None)
                continue
            if member in served:
                self._number += 1
                self.numbers[member] = self._number
            self._stand(member, self.numbers[member])

    def take(self) -> Lane | None:
        """Take the next member from the line. None: the line is empty."""
        heap = self._heap
        while heap:
            rank, at, _, member = heap[0]
            if not self._waits(member):
                heapq.heappop(heap)
                self.numbers.pop(member, None)
                continue
            now = self._shares.advanced(member[0])
            if self._how is not QueueOrder.STRICT and now > at:
                # The queue was served through its other lanes since then. If all other queues were,
                # too, equals keep their order.
                heapq.heapreplace(heap, (rank, now, heap[0][2], member))
                continue
            self._taken.append(heapq.heappop(heap))
            return member
        return None

    def oldest(self, most: int) -> Iterator[Lane]:
        """Return up to `most` of the longest-waiting lanes. The next call returns others."""
        for member in list(islice(self.numbers, most)):
            self.numbers[member] = self.numbers.pop(member)
            queue, priority = member
            for hot in (priority,) if priority >= 0 else self._live.hot(queue):
                if self._live.is_hot(queue, hot):
                    yield queue, hot

    def served(self, member: Lane) -> None:
        """Record that the last claim got jobs from `member`."""
        self._served.add(member)

    def clear(self) -> None:
        """Remove all members: no lane has jobs any more."""
        for kept in (self._heap, self.numbers, self._taken, self._served):
            kept.clear()


def by_age(lanes: dict[Lane, int], aging: Aging, *, by_queue: bool) -> dict[Lane, int]:
    """Return the lanes ordered by age.

    With `by_queue`, queues keep their order, and ages order each queue's lanes.
    """
    if not (orders := aging.order({queue: None for queue, _ in lanes})):
        return lanes
    ranks = {queue: {priority: rank for rank, priority in enumerate(order)} for queue, order in orders.items()}

    def rank(lane: Lane) -> int:
        queue, priority = lane
        return ranks[queue][priority] if queue in ranks else 9 - priority

    if not by_queue:
        # Aging applies within one queue. It must not take the other queues' turns.
        turns = {queue: turn for turn, queue in enumerate(dict.fromkeys(queue for queue, _ in lanes))}
        return dict.fromkeys(sorted(lanes, key=lambda lane: (rank(lane), turns[lane[0]])), 0)
    queues: dict[str, list[Lane]] = {}
    for lane in lanes:
        queues.setdefault(lane[0], []).append(lane)
    return dict.fromkeys((lane for own in queues.values() for lane in sorted(own, key=rank)), 0)
