"""Which lanes (queue, priority) the sentinel looks at next: all of them at each look while they are few, else some in turn."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import islice

from jobq.worker.aging import PRIORITIES
from jobq.worker.live import Lane

# Most lanes of one look.
LOOK = 256
# Queues of which all priorities are looked at, jobs or none; of more, only the lanes that have jobs.
_WHOLE = LOOK // len(PRIORITIES)
# How long a lane is looked at after it last had a job, in seconds.
REMEMBER = 60.0


class Rota:
    """The lanes that may have jobs; all times are of time.monotonic(), in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[Lane, float] = {}
        """When the lane was last seen with a job, or its queue named; the one looked at last is at the end."""

    def __len__(self) -> int:
        """How many lanes there are."""
        return len(self._seen)

    def __contains__(self, lane: object) -> bool:
        """Whether the lane is looked at."""
        return lane in self._seen

    def name(self, queue: str) -> None:
        """There may be jobs in this queue, of whatever priority."""
        if len(self._seen) < _WHOLE * len(PRIORITIES) or (queue, PRIORITIES[0]) in self._seen:
            now = self._clock()
            for priority in PRIORITIES:
                self._seen[(queue, priority)] = now

    def seen(self, lane: Lane) -> None:
        """The lane has a job."""
        if lane not in self._seen:
            # Its queue may get jobs of other priorities.
            self.name(lane[0])
        self._seen[lane] = self._clock()

    def next(self) -> list[Lane]:
        """Return the lanes to look at now; those that have had no job for long are dropped."""
        lanes = list(islice(self._seen, LOOK))
        now, few = self._clock(), len(self._seen) <= LOOK
        for lane in lanes:
            at = self._seen[lane] if few else self._seen.pop(lane)
            if now - at >= REMEMBER:
                self._seen.pop(lane, None)
            elif not few:
                self._seen[lane] = at
        return lanes
