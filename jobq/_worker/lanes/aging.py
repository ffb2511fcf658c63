"""Aging of priorities: a due job counts as one priority higher for each `seconds` since its run_at.

A lane (queue, priority) is ordered by run_at, so its first job has the greatest age of the lane.
The lanes of a queue are ordered by their priority and the age of their heads. Neither an index nor
a claim needs to know about aging.

A claim returns how far it came in each lane. Lanes that it did not reach are looked at periodically
(_postgres/sql/claim/due_lane_heads.sql): one descent of job_claim_idx per lane, from the cursor's
position. So jobs that arrive in such a lane count as new for a quarter of `seconds` at most, and at
most one claim takes young jobs of a lane because of the age of its first job. While claims read all
lanes to their ends, no look is needed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from jobq._worker.database import Connection, fetch
from jobq._worker.lanes.cursor import ClaimPlan, ClaimSnapshot, scan_parameters

PRIORITIES = range(9, -1, -1)

# Least seconds between two looks at the heads, and the largest share of the time that the looks may
# take.
LOOK_EVERY = 0.25
LOOK_SHARE = 20


class Aging:
    """The known first jobs of the lanes, and the order of priorities that follows from them."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._step = seconds * 1_000_000
        self._every = max(LOOK_EVERY, seconds / 4)
        self._clock = clock
        self._heads: dict[str, dict[int, int]] = {}
        """For each lane known to have a due job, the run_at of the first one or of a job before it.

        In microseconds.
        """
        self._now = 0
        """The latest known time of the database. Lanes without a head have no older job."""
        self._look_at = 0.0

    @property
    def due(self) -> bool:
        """Whether it is time to look at the heads."""
        return self._clock() >= self._look_at

    def order(self, queues: Iterable[str]) -> dict[str, list[int]]:
        """Return the order of priorities for those of the queues where it is not simply 9 to 0."""
        found = {}
        for queue in queues:
            if heads := self._heads.get(queue):
                # The order depends only on differences of ages, so the current time does not
                # matter.
                found[queue] = sorted(
                    PRIORITIES, key=lambda priority: heads.get(priority, self._now) - priority * self._step
                )
        return found

    def claimed(self, scan: ClaimPlan, sight: ClaimSnapshot) -> None:
        """Record how far a claim came."""
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

    async def look(self, connection: Connection, schema: str, scan: ClaimPlan) -> None:
        """Read the heads of the lanes of `scan`. Raises psycopg.Error."""
        begun = self._clock()
        rows = await fetch(connection, schema, "due_lane_heads", **scan_parameters(scan))
        self._heads = {}
        for place, _, run_at, seconds, *_ in rows:
            if place is None:
                self._now = run_at
            elif seconds <= 0:
                self._heads.setdefault(scan.queues[place], {})[scan.priorities[place]] = run_at
        now = self._clock()
        self._look_at = now + max(self._every, LOOK_SHARE * (now - begun))
