"""Which queues a worker serves, and in which order a claim looks at them."""

from __future__ import annotations

import difflib
import heapq
import logging
from collections.abc import Iterable, Mapping
from itertools import islice

from jobq.worker.aging import PRIORITIES, Aging
from jobq.worker.cursor import Scan, Sight
from jobq.worker.database import Connection, fetch
from jobq.worker.live import Lane, Live
from jobq.worker.options import WorkerOptions
from jobq.worker.served import QueueOrder
from jobq.worker.shares import Shares

logger = logging.getLogger("jobq.worker")

_Place = tuple[int, float, int, Lane]
"""Rank, how far its queue is advanced, number in the line, and who: a lane, or a queue with -1."""


# Most lanes of one claim. Each costs Postgres 1.5 to 2 µs though it has no job.
MOST_LANES = 256
# Most queues of which single words are kept until the next claim; of more, the worker reads for itself which have jobs.
MOST_HEARD = 100


class Lanes:
    """The lanes (queue, priority) of a claim: those that may have due jobs (`live.py`), in the order of `QueueOrder`.

    A word of a job only marks its queue. The order is kept in one place, a heap, from which a claim takes as many lanes as it
    looks at: nothing here costs more than the lanes that it is about, however many there are.
    """

    def __init__(
        self,
        only: tuple[str, ...] | None,
        *,
        order: QueueOrder = QueueOrder.PRIORITY,
        weights: Mapping[str, int] | None = None,
        caps: Mapping[str, int] | None = None,
        aging: Aging | None = None,
    ) -> None:
        self.only = only
        self._named = {queue: place for place, queue in enumerate(only or ())}
        self._how = order
        self._paused: frozenset[str] = frozenset()
        self._shares = Shares(weights or {})
        self._aging = aging
        self._weights = weights or {}
        self.caps: Mapping[str, int] = caps or {}
        """Most jobs of a queue that this worker may hold at a time, by the queue's name."""
        self._managed: frozenset[str] = frozenset(self.caps)
        self.managed: frozenset[str] = frozenset()
        """The queues that are served now, each by itself (`managed.py`), and are in none of the lanes."""
        self._serve()
        self.live = Live()
        self.many = False
        """Whether there was word of more queues than is kept: which have jobs is to be read."""
        self._heard: dict[str, None] = {}
        """Queues of which there was word since the last claim was planned."""
        self._asked: dict[str, None] = {}
        """The same, where a look is to come before a claim."""
        self._line: list[_Place] = []
        """A heap of the places of those that may have due jobs."""
        self._in_line: dict[Lane, int] = {}
        """The lanes that stand in the line, or were taken from it by the last claim, with their numbers; oldest first."""
        self._taken: list[_Place] = []
        """The places that the last `arrays` took."""
        self._served: set[Lane] = set()
        """Those of them that gave jobs, and go to the end of their equals."""
        self._number = 0
        self._planned = 0
        self._queues: list[str] = []
        """The queues of the last `arrays`, the least advanced first."""
        self.complete = True
        """Whether the last `arrays` had all lanes that may have due jobs, and those that had some lately."""
        for queue in only or ():
            self.hear(queue)

    @classmethod
    def of(cls, options: WorkerOptions, aging: Aging | None = None) -> Lanes:
        """Return the lanes that a worker with these options serves."""
        return cls(
            options.queues,
            order=options.queues_by,
            weights=options.queue_weights,
            caps=options.queue_caps,
            aging=aging,
        )

    # --- which queues are served --------------------

    def serves(self, queue: str) -> bool:
        """Whether plain claims look at this queue now."""
        return queue not in self._paused and queue not in self._managed and (self.only is None or queue in self._named)

    def refresh(self, rows: Iterable[tuple[str, bool, bool]]) -> list[str]:
        """Replace what is known by the rows of queue_rules.sql. Return the queues that claims look at again."""
        found = list(rows)
        # A cap is kept by claims of one queue at a time.
        managed = frozenset({queue for queue, _, managed in found if managed} | self.caps.keys())
        return self._changed(managed, frozenset(queue for queue, paused, _ in found if paused))

    def pause(self, queues: Iterable[str]) -> list[str]:
        """These queues are paused, and no others. Return the queues that claims look at again."""
        return self._changed(self._managed, frozenset(queues))

    def _changed(self, managed: frozenset[str], paused: frozenset[str]) -> list[str]:
        if managed == self._managed and paused == self._paused:
            return []
        before, now = self._managed | self._paused, managed | paused
        self._managed, self._paused = managed, paused
        self._serve()
        for queue in now - before:
            self.live.drop(queue)
            self._shares.drained(queue)
        return [queue for queue in before - now if self.hear(queue)]

    def _serve(self) -> None:
        named = self._managed if self.only is None else self._managed & self._named.keys()
        self.managed = frozenset(named - self._paused)

    # --- what is known of jobs --------------------

    def hear(self, queue: str, *, ask: bool = False) -> bool:
        """Take note of a queue that has jobs. Return whether claims look at it now.

        `ask`: another worker is likely to take them: look before a claim.
        """
        if not self.serves(queue):
            return False
        marked = self._asked if ask else self._heard
        if queue in marked or len(marked) < MOST_HEARD:
            marked[queue] = None
        else:
            self.many = True
        return True

    def found(self, queue: str, priority: int, seconds: float) -> bool:
        """The lane's first job was seen, which is due in so many seconds. Return whether claims look at it, and it is due."""
        if not self.serves(queue):
            return False
        if seconds > 0:
            self.live.sleep((queue, priority), seconds)
            return False
        self._shares.expect(queue)
        self._heat(queue, priority)
        return True

    def wake(self) -> None:
        """Look at lanes whose next job is due by now."""
        for queue, priority in self.live.awake():
            self.found(queue, priority, 0)

    def poll(self) -> None:
        """Look at the lanes that brought jobs last, though nothing was heard of them."""
        for queue, priority in self.live.warm(MOST_LANES):
            self.found(queue, priority, 0)

    @property
    def more(self) -> bool:
        """Whether there may be due jobs."""
        return bool(self._heard) or self.live.any_hot

    def to_look_up(self) -> list[Lane]:
        """Return some of the lanes whose first jobs are to be looked up."""
        asked, self._asked = self._asked, {}
        for queue in asked:
            for priority in PRIORITIES:
                self.live.ask((queue, priority))
        return self.live.to_look_up()

    @property
    def unread(self) -> bool:
        """Whether there are such."""
        return bool(self._asked) or self.live.unread

    def looked_up(self, lane: Lane, seconds: float | None) -> None:
        """Take note of the seconds until the first job of a lane is due; None: it has none."""
        if self.live.looked_up(lane, seconds):
            self.found(*lane, 0)

    # --- the order of a claim --------------------

    def _heat(self, queue: str, priority: int) -> None:
        self.live.heat(queue, priority)
        member = (queue, priority if self._how is QueueOrder.PRIORITY else -1)
        if member not in self._in_line:
            self._number += 1
            self._in_line[member] = self._number
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
        heapq.heappush(self._line, (rank, at, number, member))

    def _waits(self, member: Lane) -> bool:
        queue, priority = member
        return self.live.is_hot(queue, priority) if priority >= 0 else bool(self.live.hot(queue))

    def _line_up(self) -> None:
        """Put back whom the last claim took, if they still wait, and add those of whom there was word."""
        taken, served = self._taken, self._served
        self._taken, self._served = [], set()
        for *_, member in taken:
            if not self._waits(member):
                self._in_line.pop(member, None)
                continue
            if member in served:
                self._number += 1
                self._in_line[member] = self._number
            self._stand(member, self._in_line[member])
        heard, self._heard = self._heard, {}
        for queue in heard:
            if self.serves(queue):
                self._shares.expect(queue)
                for priority in PRIORITIES:
                    self._heat(queue, priority)
        self._tidy()

    def _tidy(self) -> None:
        """When no lane has jobs any more, keep nothing of those that had."""
        if not self.live.any_hot:
            for kept in (self._line, self._in_line, self._taken, self._served):
                kept.clear()
            self._shares.nothing_left()

    def _next(self) -> _Place | None:
        """Take the next place of the line."""
        line = self._line
        while line:
            rank, at, _, member = line[0]
            if not self._waits(member):
                heapq.heappop(line)
                self._in_line.pop(member, None)
                continue
            now = self._shares.advanced(member[0])
            if self._how is not QueueOrder.STRICT and now > at:
                # It was served by its other lanes since. That all others were is no reason: equals keep their order.
                heapq.heapreplace(line, (rank, now, line[0][2], member))
                continue
            return heapq.heappop(line)
        return None

    def arrays(self, most: int = MOST_LANES, *, warm: int = 0) -> tuple[list[str], list[int]]:
        """Return the lanes for the next claim as parallel arrays: `most` of those that may have due jobs, and after them `warm`
        of those that had some lately.

        Queues that are owed equally much take turns at being first, so that a full one cannot keep the others waiting.
        """
        self._line_up()
        self._planned = self.live.stamp
        lanes: dict[Lane, int] = {}
        while len(lanes) < most and (place := self._next()) is not None:
            self._taken.append(place)
            queue, priority = place[3]
            if priority >= 0:
                lanes[place[3]] = len(lanes)
            else:
                # All of the queue's, though that may be a few more.
                lanes.update({(queue, hot): len(lanes) for hot in sorted(self.live.hot(queue), reverse=True)})
        self.complete = len(lanes) < most and self.live.warm_lanes <= warm
        if self._aging is not None and lanes:
            lanes = self._aged(lanes, most, self._aging)
        self._queues = sorted({queue: None for queue, _ in lanes}, key=self._shares.at)
        for lane in self.live.warm(warm):
            if self.serves(lane[0]):
                lanes.setdefault(lane, len(lanes))
        return [queue for queue, _ in lanes], [priority for _, priority in lanes]

    def _aged(self, lanes: dict[Lane, int], most: int, aging: Aging) -> dict[Lane, int]:
        """Return the lanes in the order that their ages make; of those that are beyond `most`, some at each claim."""
        if len(lanes) >= most:
            for member in list(islice(self._in_line, most // 4)):
                self._in_line[member] = self._in_line.pop(member)
                queue, priority = member
                for hot in (priority,) if priority >= 0 else self.live.hot(queue):
                    if self.live.is_hot(queue, hot):
                        lanes.setdefault((queue, hot), len(lanes))
        if not (orders := aging.order({queue: None for queue, _ in lanes})):
            return lanes
        ranks = {queue: {priority: rank for rank, priority in enumerate(order)} for queue, order in orders.items()}

        def rank(lane: Lane) -> int:
            queue, priority = lane
            return ranks[queue][priority] if queue in ranks else 9 - priority

        if self._how is QueueOrder.PRIORITY:
            # Aging is a matter of each queue's own: it must not take the other queues' turns.
            turns = {queue: turn for turn, queue in enumerate(dict.fromkeys(queue for queue, _ in lanes))}
            return dict.fromkeys(sorted(lanes, key=lambda lane: (rank(lane), turns[lane[0]])), 0)
        queues: dict[str, list[Lane]] = {}
        for lane in lanes:
            queues.setdefault(lane[0], []).append(lane)
        return dict.fromkeys((lane for own in queues.values() for lane in sorted(own, key=rank)), 0)

    def among(self, due: list[str], beside: str | None) -> list[tuple[str, float]]:
        """Return which of the managed queues in `due` to claim from, in their order, each with its part of what is free at
        its turn. What is for `beside`, which is claimed from after them, is left.
        """
        if self._how is QueueOrder.STRICT and self.only is not None:
            before = self.only[: self.only.index(beside)] if beside in self.only else self.only
            return [(queue, 1.0) for queue in before if queue in due]
        found: list[tuple[str, float]] = []
        rest = self._weights.get(beside, 1) if beside is not None else 0
        for queue in reversed([queue for queue in due if queue != beside]):
            rest += self._weights.get(queue, 1)
            found.append((queue, self._weights.get(queue, 1) / rest))
        return found[::-1]

    def against(self, queue: str, due: list[str]) -> float:
        """Return which part of what is free is for the managed queue `queue`, while those in `due` have jobs, too."""
        if self._how is QueueOrder.STRICT and self.only is not None:
            return 1.0
        weight = self._weights.get(queue, 1)
        return weight / (weight + sum(self._weights.get(other, 1) for other in due if other != queue))

    def part(self, queue: str, busy: frozenset[str]) -> float:
        """Return which part of the free slots is a managed queue's, 0 to 1, while the plain queues in `busy` have jobs, too.

        Empty: some may have, and it is not known which.
        """
        if self._how is QueueOrder.STRICT and self.only is not None:
            before = self.only[: self.only.index(queue)]
            return 0.0 if any(other in busy if busy else self.serves(other) for other in before) else 1.0
        weight = self._weights.get(queue, 1)
        return weight / (weight + (sum(self._weights.get(other, 1) for other in busy) or 1))

    def first(self, want: int) -> int:
        """Return how many of `want` jobs to ask for in the lanes of the last `arrays`: the share of the queue that comes first.

        For jobs that take long: one claim that one queue fills would leave the others without a slot for as long.
        """
        return want if self._how is QueueOrder.STRICT else self._shares.first(self._queues, want)

    def claimed(self, scan: Scan, sight: Sight) -> None:
        """Take note of what a claim of `scan` found."""
        if self._aging is not None:
            self._aging.claimed(scan, sight)
        live, single = self.live, self._how is QueueOrder.PRIORITY
        found = {place for place, _ in sight.counts}
        lanes = list(zip(scan.queues, scan.priorities, strict=True))
        for place in found:
            live.brought(lanes[place])
            self._served.add(lanes[place] if single else (scan.queues[place], -1))
        for place in range(len(lanes) if sight.cut is None else sight.cut):
            if live.ended(lanes[place], self._planned, brought=place in found):
                self._shares.drained(lanes[place][0])
        if sight.cut is not None and not live.is_hot(*lanes[sight.cut]):
            self._heat(*lanes[sight.cut])
        live.cool()
        if self._how is QueueOrder.STRICT:
            self._tidy()
            return
        jobs: dict[str, int] = {}
        for place, count in sight.counts:
            queue = scan.queues[place]
            jobs[queue] = jobs.get(queue, 0) + count
        queues = list(dict.fromkeys(scan.queues))
        self._shares.took(queues, jobs, None if sight.cut is None else scan.queues[sight.cut])
        self._tidy()


async def warn_of_unknown_queues(connection: Connection, options: WorkerOptions, of_tasks: Iterable[str]) -> None:
    """Say which of the worker's queues are named nowhere else: they may be misspelt, or their first job still to come."""
    if options.queues is None:
        return
    schema = options.settings.schema
    named, priorities = [queue for queue in options.queues for _ in PRIORITIES], [*PRIORITIES] * len(options.queues)
    lanes = await fetch(connection, schema, "lane_heads", queues=named, priorities=priorities)
    # Those may be misspelt; of the others some are enough.
    lanes += await fetch(connection, schema, "lanes", queue="", priority=-1, most=1000)
    known = {*of_tasks, *(row[0] for row in lanes), *(row[0] for row in await fetch(connection, schema, "queue_rules"))}
    for queue in sorted(set(options.queues) - known):
        near = difflib.get_close_matches(queue, sorted(known), n=3)
        logger.warning(
            "no task and no job names this queue: it is served all the same",
            extra={"queue": queue, "near": ", ".join(near) or None, "known": ", ".join(sorted(known)[:20])},
        )
