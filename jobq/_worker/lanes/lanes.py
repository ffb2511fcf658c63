"""The queues that a worker serves, and the order in which a claim looks at them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from jobq._worker.lanes.aging import PRIORITIES, Aging
from jobq._worker.lanes.cursor import ClaimPlan, ClaimSnapshot
from jobq._worker.lanes.fair_share import FairShare
from jobq._worker.lanes.lane_line import LaneLine, by_age
from jobq._worker.lanes.live_lanes import Lane, LiveLanes
from jobq._worker.lanes.queue_parts import QueueParts
from jobq._worker.options import WorkerOptions
from jobq._worker.queue_spec import QueueOrder

# Most lanes in one claim. Each lane costs PostgreSQL 1.5 to 2 µs even without a job.
MOST_LANES = 256
# Most queues whose notifications are kept until the next claim. Beyond that, the worker reads which
# queues have jobs.
MOST_HEARD = 100


class Lanes:
    """The lanes (queue, priority) of a claim: live ones (`live_lanes.py`), ordered by `QueueOrder`.

    A notification of a job only marks its queue. The order is kept in one place (`lane_line.py`),
    and a claim takes as many lanes from it as it looks at. So each operation costs only the lanes
    that it concerns, however many exist.
    """

    def __init__(
        self,
        only: tuple[str, ...] | None,
        *,
        order: QueueOrder = QueueOrder.PRIORITY,
        weights: Mapping[str, int] | None = None,
        caps: Mapping[str, int] | None = None,
        aging: Aging | None = None,
        live: LiveLanes | None = None,
    ) -> None:
        self.only = only
        self._named = {queue: place for place, queue in enumerate(only or ())}
        self._how = order
        self._paused: frozenset[str] = frozenset()
        self._shares = FairShare(weights or {})
        self._aging = aging
        self.caps: Mapping[str, int] = caps or {}
        """Most jobs of a queue that this worker may hold at a time, by queue."""
        self._limited: frozenset[str] = frozenset(self.caps)
        self.limited: frozenset[str] = frozenset()
        """The limited queues that are served now, each by itself (`limited/queues.py`).

        No lane includes them.
        """
        self._serve()
        self.live = live if live is not None else LiveLanes()
        self.many = False
        """Whether more queues were notified than are kept: a scan must read which have jobs."""
        self._heard: dict[str, None] = {}
        """Queues that were notified since the last claim was planned."""
        self._asked: dict[str, None] = {}
        """The same, for queues that need a look before a claim."""
        self._line = LaneLine(order, self._named, self._shares, self.live)
        self.parts = QueueParts(only, order, weights or {}, self.serves)
        """Which part of the free slots is for limited queues."""
        self._planned = 0
        self._queues: list[str] = []
        """The queues of the last `arrays`, the least advanced first."""
        self.complete = True
        """Whether the last `arrays` had all lanes with possible due jobs, and all warm lanes."""
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

    # --- served queues --------------------

    def serves(self, queue: str) -> bool:
        """Return whether plain claims look at this queue now."""
        return queue not in self._paused and queue not in self._limited and (self.only is None or queue in self._named)

    def refresh(self, rows: Iterable[tuple[str, bool, bool]]) -> list[str]:
        """Take the rows of queue_rules.sql. Return the queues that claims look at again."""
        found = list(rows)
        # Only claims of a single queue can keep a cap.
        limited = frozenset({queue for queue, _, limited in found if limited} | self.caps.keys())
        return self._changed(limited, frozenset(queue for queue, paused, _ in found if paused))

    def pause(self, queues: Iterable[str]) -> list[str]:
        """Replace the paused queues with `queues`. Return the queues that claims look at again."""
        return self._changed(self._limited, frozenset(queues))

    def _changed(self, limited: frozenset[str], paused: frozenset[str]) -> list[str]:
        if limited == self._limited and paused == self._paused:
            return []
        before, now = self._limited | self._paused, limited | paused
        self._limited, self._paused = limited, paused
        self._serve()
        for queue in now - before:
            self.live.drop(queue)
            self._shares.drained(queue)
        return [queue for queue in before - now if self.hear(queue)]

    def _serve(self) -> None:
        named = self._limited if self.only is None else self._limited & self._named.keys()
        self.limited = frozenset(named - self._paused)

    # --- knowledge of jobs --------------------

    def hear(self, queue: str, *, ask: bool = False) -> bool:
        """Record that a queue has jobs. Return whether claims look at it now.

        `ask`: another worker is likely to take the jobs, so look before a claim.
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
        """Record that the lane's first job is due in `seconds`.

        Return whether the job is due and claims look at the lane.
        """
        if not self.serves(queue):
            return False
        if seconds > 0:
            self.live.sleep((queue, priority), seconds)
            return False
        self._shares.expect(queue)
        self._heat(queue, priority)
        return True

    def wake(self) -> None:
        """Wake lanes whose next job is due by now."""
        for queue, priority in self.live.awake():
            self.found(queue, priority, 0)

    def poll(self) -> None:
        """Look at the warm lanes, although no notification named them."""
        for queue, priority in self.live.warm(MOST_LANES):
            self.found(queue, priority, 0)

    @property
    def more(self) -> bool:
        """Whether there may be due jobs."""
        return bool(self._heard) or self.live.any_hot

    def to_look_up(self) -> list[Lane]:
        """Return some of the lanes whose first jobs must be looked up."""
        asked, self._asked = self._asked, {}
        for queue in asked:
            for priority in PRIORITIES:
                self.live.ask((queue, priority))
        return self.live.to_look_up()

    @property
    def unread(self) -> bool:
        """Whether there are such lanes."""
        return bool(self._asked) or self.live.unread

    def looked_up(self, lane: Lane, seconds: float | None) -> None:
        """Record the seconds until a lane's first job is due. None: the lane has no job."""
        if self.live.looked_up(lane, seconds):
            self.found(*lane, 0)

    # --- order of a claim --------------------

    def _heat(self, queue: str, priority: int) -> None:
        self.live.heat(queue, priority)
        member = (queue, priority if self._how is QueueOrder.PRIORITY else -1)
        if member not in self._line.numbers:
            self._line.join(member)

    def _tidy(self) -> None:
        """If no lane has jobs any more, drop the bookkeeping of lanes that had some."""
        if not self.live.any_hot:
            self._line.clear()
            self._shares.nothing_left()

    def arrays(self, most: int = MOST_LANES, *, warm: int = 0) -> tuple[list[str], list[int]]:
        """Return the lanes for the next claim as parallel arrays of queues and priorities.

        They are `most` of the lanes with possible due jobs, then `warm` of the lanes that had some
        recently. Queues that are owed equally much take turns at being first, so that a full queue
        cannot keep the others waiting.
        """
        # Members that the last claim took, if they still have jobs, and queues that were notified.
        self._line.line_up()
        heard, self._heard = self._heard, {}
        for queue in heard:
            if self.serves(queue):
                self._shares.expect(queue)
                for priority in PRIORITIES:
                    self._heat(queue, priority)
        self._tidy()
        self._planned = self.live.stamp
        lanes: dict[Lane, int] = {}
        while len(lanes) < most and (member := self._line.take()) is not None:
            queue, priority = member
            if priority >= 0:
                lanes[member] = len(lanes)
            else:
                # All hot lanes of the queue, even if they exceed `most` by a few.
                lanes.update({(queue, hot): len(lanes) for hot in sorted(self.live.hot(queue), reverse=True)})
        self.complete = len(lanes) < most and self.live.warm_lanes <= warm
        if self._aging is not None and lanes:
            if len(lanes) >= most:
                # Each claim includes some of the lanes beyond `most`.
                for lane in self._line.oldest(most // 4):
                    lanes.setdefault(lane, len(lanes))
            lanes = by_age(lanes, self._aging, by_queue=self._how is not QueueOrder.PRIORITY)
        self._queues = sorted({queue: None for queue, _ in lanes}, key=self._shares.at)
        for lane in self.live.warm(warm):
            if self.serves(lane[0]):
                lanes.setdefault(lane, len(lanes))
        return [queue for queue, _ in lanes], [priority for _, priority in lanes]

    def first(self, want: int) -> int:
        """Return how many of `want` jobs to ask for: the share of the first of the last queues.

        For jobs that take long: if one queue filled a claim, the others would have no slot for that
        time.
        """
        return want if self._how is QueueOrder.STRICT else self._shares.first(self._queues, want)

    def claimed(self, scan: ClaimPlan, sight: ClaimSnapshot) -> None:
        """Record what a claim of `scan` found."""
        if self._aging is not None:
            self._aging.claimed(scan, sight)
        live, single = self.live, self._how is QueueOrder.PRIORITY
        found = {place for place, _ in sight.counts}
        lanes = list(zip(scan.queues, scan.priorities, strict=True))
        for place in found:
            live.brought(lanes[place])
            self._line.served(lanes[place] if single else (scan.queues[place], -1))
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
