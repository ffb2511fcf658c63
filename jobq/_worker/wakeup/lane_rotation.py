"""The lanes (queue, priority) that the lead poller polls next.

If there are few, it polls all of them at each poll; otherwise some in rotation.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import islice

from jobq._worker.lanes.aging import PRIORITIES
from jobq._worker.lanes.live_lanes import Lane

# Most lanes of one poll.
LOOK = 256
# Up to this many queues, all priorities are polled. With more, only lanes that have jobs.
_WHOLE = LOOK // len(PRIORITIES)
# Seconds for which a lane is polled after it last had a job.
REMEMBER = 60.0


class LaneRotation:
    """The lanes that may have jobs. Times are time.monotonic() seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[Lane, float] = {}
        """When the lane last had a job, or its queue was named.

        The lane polled last is at the end.
        """

    def __len__(self) -> int:
        """Number of lanes."""
        return len(self._seen)

    def __contains__(self, lane: object) -> bool:
        """Whether the lane is polled."""
        return lane in self._seen

    def name(self, queue: str) -> None:
        """Record that this queue may have jobs of any priority."""
        if len(self._seen) < _WHOLE * len(PRIORITIES) or (queue, PRIORITIES[0]) in self._seen:
            now = self._clock()
            for priority in PRIORITIES:
                self._seen[(queue, priority)] = now

    def seen(self, lane: Lane) -> None:
        """Record that the lane has a job."""
        if lane not in self._seen:
            # Its queue may get jobs of other priorities.
            self.name(lane[0])
        self._seen[lane] = self._clock()

    def next(self) -> list[Lane]:
        """Return the lanes to poll now. Lanes without a job for a long time are dropped."""
        lanes = list(islice(self._seen, LOOK))
        now, few = self._clock(), len(self._seen) <= LOOK
        for lane in lanes:
            at = self._seen[lane] if few else self._seen.pop(lane)
            if now - at >= REMEMBER:
                self._seen.pop(lane, None)
            elif not few:
                self._seen[lane] = at
        return lanes
