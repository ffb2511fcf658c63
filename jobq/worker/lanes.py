"""Which queues a worker serves, and in which order a claim looks at them."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterable, Mapping

from jobq.worker.aging import PRIORITIES, Aging
from jobq.worker.cursor import Scan, Sight
from jobq.worker.database import Connection, fetch
from jobq.worker.options import WorkerOptions
from jobq.worker.served import QueueOrder
from jobq.worker.shares import Shares

logger = logging.getLogger("jobq.worker")


class Lanes:
    """The lanes (queue, priority) of a claim, in the order in which it looks at them (`QueueOrder`)."""

    def __init__(
        self,
        only: tuple[str, ...] | None,
        *,
        order: QueueOrder = QueueOrder.PRIORITY,
        weights: Mapping[str, int] | None = None,
        caps: Mapping[str, int] | None = None,
        aging: Aging | None = None,
    ) -> None:
        self._only = only
        self._how = order
        self._known: set[str] = set(only or ())
        self._paused: frozenset[str] = frozenset()
        self._turn = 0
        self._order: list[str] = []
        self._queues: list[str] = []
        """The queues of the last `arrays`, in their order."""
        self._shares = Shares(weights or {})
        self._aging = aging
        self._weights = weights or {}
        self.caps: Mapping[str, int] = caps or {}
        """Most jobs of a queue that this worker may hold at a time, by the queue's name."""
        self._managed: frozenset[str] = frozenset(self.caps)
        for queue in self._known:
            self._shares.expect(queue)
        self._rebuild()

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

    def _rebuild(self) -> None:
        named = self._only if self._how is QueueOrder.STRICT and self._only is not None else sorted(self._known)
        self._order = [queue for queue in named if queue not in self._paused and queue not in self._managed]

    def hear(self, queue: str) -> bool:
        """Take note of a queue that has jobs. Return whether this worker serves it now."""
        if self._only is not None and queue not in self._only:
            return False
        self._shares.expect(queue)
        if queue not in self._known:
            self._known.add(queue)
            self._rebuild()
        return queue not in self._paused

    def refresh(self, rows: Iterable[tuple[str, bool, bool]]) -> bool:
        """Replace what is known by the rows of lanes.sql. Return whether a queue can be served that could not before."""
        found = list(rows)
        known = set(self._only) if self._only is not None else {queue for queue, _, _ in found}
        # A cap is kept by claims of one queue at a time.
        self._managed = frozenset({queue for queue, _, managed in found if managed} | self.caps.keys())
        return self._serve(known, frozenset(queue for queue, paused, _ in found if paused))

    def pause(self, queues: Iterable[str]) -> bool:
        """These queues are paused, and no others. Return whether a queue can be served that could not before."""
        paused = frozenset(queues)
        return paused != self._paused and self._serve(self._known, paused)

    def _serve(self, known: set[str], paused: frozenset[str]) -> bool:
        before = set(self._order)
        self._known, self._paused = known, paused
        self._rebuild()
        new = set(self._order) - before
        for queue in new:
            self._shares.expect(queue)
        return bool(new)

    @property
    def managed(self) -> set[str]:
        """The queues that are served now, each by itself (`managed.py`), and are in none of the lanes."""
        return self._known & self._managed - self._paused

    def arrays(self) -> tuple[list[str], list[int]]:
        """Return the lanes for the next claim as parallel arrays.

        Queues that are owed equally much take turns at being first, so that a full one cannot keep the others waiting.
        """
        if not self._order:
            self._queues = []
            return [], []
        queues = self._order
        if self._how is not QueueOrder.STRICT:
            self._turn = (self._turn + 1) % len(queues)
            queues = self._shares.order(queues[self._turn :] + queues[: self._turn])
        self._queues = queues
        aged = self._aging.order(queues) if self._aging is not None else {}
        ranks = range(len(PRIORITIES))
        if self._how is not QueueOrder.PRIORITY:
            return (
                [queue for queue in queues for _ in ranks],
                [priority for queue in queues for priority in aged.get(queue, PRIORITIES)],
            )
        if not aged:
            return queues * len(ranks), [priority for priority in PRIORITIES for _ in queues]
        # Aging is a matter of each queue's own: it must not take the other queues' turns.
        orders = [aged.get(queue, PRIORITIES) for queue in queues]
        return queues * len(ranks), [order[rank] for rank in ranks for order in orders]

    def among(self, due: list[str], beside: str | None) -> list[tuple[str, float]]:
        """Return which of the managed queues in `due` to claim from, in their order, each with its part of what is free at
        its turn. What is for `beside`, which is claimed from after them, is left.
        """
        if self._how is QueueOrder.STRICT and self._only is not None:
            before = self._only[: self._only.index(beside)] if beside in self._only else self._only
            return [(queue, 1.0) for queue in before if queue in due]
        found: list[tuple[str, float]] = []
        rest = self._weights.get(beside, 1) if beside is not None else 0
        for queue in reversed([queue for queue in due if queue != beside]):
            rest += self._weights.get(queue, 1)
            found.append((queue, self._weights.get(queue, 1) / rest))
        return found[::-1]

    def part(self, queue: str, busy: frozenset[str]) -> float:
        """Return which part of the free slots is a managed queue's, 0 to 1, while the plain queues in `busy` have jobs, too.

        Empty: some may have, and it is not known which.
        """
        if self._how is QueueOrder.STRICT and self._only is not None:
            before = self._only[: self._only.index(queue)]
            return 0.0 if any(other in (busy or self._order) for other in before) else 1.0
        weight = self._weights.get(queue, 1)
        return weight / (weight + (sum(self._weights.get(other, 1) for other in busy) or 1))

    def first(self, want: int) -> int:
        """Return how many of `want` jobs to ask for in the lanes of the last `arrays`: the share of whoever comes first.

        For jobs that take long: one claim that one queue fills would leave the others without a slot for as long.
        """
        return want if self._how is QueueOrder.STRICT else self._shares.first(self._queues, want)

    def claimed(self, scan: Scan, sight: Sight) -> None:
        """Take note of what a claim of `scan` found."""
        if self._aging is not None:
            self._aging.claimed(scan, sight)
        if self._how is QueueOrder.STRICT:
            return
        jobs: dict[str, int] = {}
        for place, count in sight.counts:
            queue = scan.queues[place]
            jobs[queue] = jobs.get(queue, 0) + count
        queues = list(dict.fromkeys(scan.queues))
        self._shares.took(queues, jobs, None if sight.cut is None else scan.queues[sight.cut])


async def warn_of_unknown_queues(connection: Connection, options: WorkerOptions, of_tasks: Iterable[str]) -> None:
    """Say which of the worker's queues nobody else has named: they may be misspelt, or their first job still to come."""
    if options.queues is None:
        return
    known = {*of_tasks, *(row[0] for row in await fetch(connection, options.settings.schema, "lanes"))}
    for queue in sorted(set(options.queues) - known):
        near = difflib.get_close_matches(queue, sorted(known), n=3)
        logger.warning(
            "no task and no job names this queue: it is served all the same",
            extra={"queue": queue, "near": ", ".join(near) or None, "known": ", ".join(sorted(known)[:20])},
        )
