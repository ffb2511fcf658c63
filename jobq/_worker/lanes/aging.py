"""Priorities that grow with waiting: a due job counts as one priority higher for each `seconds` since its run_at.

A lane (queue, priority) is in the order of run_at, so its first job has the lane's greatest age: the lanes of a queue are
ordered by their priority and the age of their heads, and no index and no claim need know of it. A claim tells how far it
came in each lane; the lanes that it did not come to are looked at every so often (sql/heads.sql): one descent of
job_claim_idx for each lane, from where the cursor says. So what has come to such a lane counts as new for a quarter of
`seconds` at most, and one claim at most takes young jobs of a lane by the age of its first. While claims read all lanes to
their ends, there is nothing to look for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from jobq.worker.cursor import Scan, Sight
from jobq.worker.database import Connection, fetch
from jobq.worker.outcomes import scan_parameters

PRIORITIES = range(9, -1, -1)

# Seconds between two looks at the heads, at least; and at most this share of the time goes into them.
LOOK_EVERY = 0.25
LOOK_SHARE = 20


class Aging:
    """What is known of the lanes' first jobs, and the order of priorities that follows from it."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._step = seconds * 1_000_000
        self._every = max(LOOK_EVERY, seconds / 4)
        self._clock = clock
        self._heads: dict[str, dict[int, int]] = {}
        """run_at of the first due job of each lane that is known to have one, or of a job before it; in microseconds."""
        self._now = 0
        """The latest time of the database that is known: a lane without a head has nothing that is older."""
        self._look_at = 0.0

    @property
    def due(self) -> bool:
        """Whether it is time to look at the heads."""
        return self._clock() >= self._look_at

    def order(self, queues: Iterable[str]) -> dict[str, list[int]]:
        """Return the order of the priorities of those queues in which it is not simply 9 to 0."""
        found = {}
        for queue in queues:
            if heads := self._heads.get(queue):
                # Which is before which is a matter of the difference of their ages: what time it is does not count.
                found[queue] = sorted(
                    PRIORITIES, key=lambda priority: heads.get(priority, self._now) - priority * self._step
                )
        return found

    def claimed(self, scan: Scan, sight: Sight) -> None:
        """Take note of how far a claim came."""
        self._now = max(self._now, sight.at)
        if sight.cut is None:
            # Every lane was read to its end, which is as good as a look.
            self._heads.clear()
            self._look_at = self._clock() + self._every
            return
        for queue, priority in zip(scan.queues[: sight.cut], scan.priorities, strict=False):
            if heads := self._heads.get(queue):
                heads.pop(priority, None)
        self._heads.setdefault(scan.queues[sight.cut], {})[scan.priorities[sight.cut]] = sight.last[0]

    async def look(self, connection: Connection, schema: str, scan: Scan) -> None:
        """Read the heads of the lanes of `scan`. Raises psycopg.Error."""
        begun = self._clock()
        rows = await fetch(connection, schema, "heads", **scan_parameters(scan))
        self._heads = {}
        for place, _, run_at, seconds, *_ in rows:
            if place is None:
                self._now = run_at
            elif seconds <= 0:
                self._heads.setdefault(scan.queues[place], {})[scan.priorities[place]] = run_at
        now = self._clock()
        self._look_at = now + max(self._every, LOOK_SHARE * (now - begun))
