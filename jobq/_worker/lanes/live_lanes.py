"""Which lanes (queue, priority) a claim should look at: only lanes known to have due jobs.

A lane is *hot* if a notification named it, or if a claim has left jobs there. A claim that reads it
to its end makes it *unread*: nothing is due there, and the due time of its next job must be looked
up. After that it is *asleep* until that time, or it is forgotten. Lanes that gave jobs recently are
*warm*: a claim that is made anyway also looks at them, and so does a poll. Jobs without a
notification are found by a scan of all lanes (`full_scan.py`).

Each operation costs only the lanes that it concerns. All times are time.monotonic() seconds.
"""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Callable, Iterable
from itertools import islice

Lane = tuple[str, int]

# Seconds that a lane stays warm, and the number of lanes that stay warm as long as the worker
# lives.
WARM_FOR = 60.0
WARM_LEAST = 256
# Most lanes that one step wakes, looks up or drops.
STEP = 256
# Seconds until the next look at a lane whose first job is due and was not claimed, because its row
# is locked. Doubled each time, up to the second value.
_BLOCKED = 0.005
_BLOCKED_MOST = 1.0


class LiveLanes:
    """The live lanes of one worker."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.stamp = 0
        """Counts how often a lane became hot.

        If a lane became hot after a claim was planned, it stays hot when the claim reads it to its
        end.
        """
        self._hot: dict[str, dict[int, int]] = {}
        """The hot lanes by queue and priority, with the stamp of the last notification."""
        self._asleep: dict[Lane, float] = {}
        self._alarms: list[tuple[float, Lane]] = []
        """A heap of wake times.

        Entries of lanes that no longer sleep until that time are ignored.
        """
        self._unread: dict[Lane, bool] = {}
        """Lanes to look up the first job of. Value: whether a claim has read them to the end."""
        self._warm: dict[Lane, float] = {}
        """When the lane last gave a job, the oldest first."""
        self._blocked: dict[Lane, float] = {}
        """Seconds of the lane's last pause, made because its due first job was not claimed."""

    def __contains__(self, lane: object) -> bool:
        """Return whether anything is known of the lane."""
        return (
            lane in self._warm or lane in self._asleep or lane in self._unread or self.is_hot(*lane)  # type: ignore[misc]  # a pair
        )

    def __len__(self) -> int:
        """Number of entries that are kept."""
        return (
            sum(map(len, self._hot.values()))
            + len(self._asleep)
            + len(self._alarms)
            + len(self._unread)
            + len(self._warm)
            + len(self._blocked)
        )

    @property
    def any_hot(self) -> bool:
        """Whether any lane may have due jobs."""
        return bool(self._hot)

    def is_hot(self, queue: str, priority: int) -> bool:
        """Return whether that lane may have due jobs."""
        return priority in self._hot.get(queue, ())

    def hot(self, queue: str) -> Iterable[int]:
        """Return the priorities where the queue may have due jobs."""
        return self._hot.get(queue, ())

    def heat(self, queue: str, priority: int) -> None:
        """Record that there may be due jobs in this lane."""
        self.stamp += 1
        self._hot.setdefault(queue, {})[priority] = self.stamp
        lane = (queue, priority)
        self._asleep.pop(lane, None)
        self._unread.pop(lane, None)

    def ask(self, lane: Lane) -> None:
        """Record that there may be jobs in this lane.

        A look-up comes before a claim looks at it.
        """
        if not self.is_hot(*lane):
            self._unread.setdefault(lane, False)

    def drop(self, queue: str) -> None:
        """Forget all lanes of the queue: they are not served any more."""
        self._hot.pop(queue, None)
        for priority in range(10):
            lane = (queue, priority)
            for known in (self._asleep, self._unread, self._warm, self._blocked):
                known.pop(lane, None)

    # --- results of claims --------------------

    def brought(self, lane: Lane) -> None:
        """Record that a claim has found jobs in this lane."""
        self._warm.pop(lane, None)
        self._warm[lane] = self._clock()
        self._blocked.pop(lane, None)

    def ended(self, lane: Lane, planned: int, *, brought: bool) -> bool:
        """Record that a claim has read this lane to its end.

        Return whether it was the queue's last hot lane.

        `planned`: the value of `stamp` when the claim was planned.
        """
        queue, priority = lane
        hot = self._hot.get(queue)
        if hot is None or priority not in hot:
            if brought and lane not in self._asleep:
                self._unread[lane] = True
            return False
        if hot[priority] > planned:
            return False
        del hot[priority]
        self._unread[lane] = True
        if hot:
            return False
        del self._hot[queue]
        return True

    # --- future jobs --------------------

    @property
    def unread(self) -> bool:
        """Whether the first jobs of some lanes must be looked up."""
        return bool(self._unread)

    def to_look_up(self) -> list[Lane]:
        """Return some of the lanes whose first jobs must be looked up."""
        return list(islice(self._unread, STEP))

    def looked_up(self, lane: Lane, seconds: float | None) -> bool:
        """Record the seconds until the lane's first job is due. None: the lane has no job.

        Return whether the caller must make the lane hot.
        """
        read = self._unread.pop(lane, None)
        if read is None:
            # A notification for the lane arrived in the meantime.
            return False
        if seconds is None:
            self._blocked.pop(lane, None)
            return False
        if seconds > 0:
            self._blocked.pop(lane, None)
            self.sleep(lane, seconds)
            return False
        if not read:
            return True
        pause = self._blocked[lane] = min(2 * self._blocked.get(lane, _BLOCKED / 2), _BLOCKED_MOST)
        self.sleep(lane, pause)
        return False

    def sleep(self, lane: Lane, seconds: float) -> None:
        """Record that the lane's first job is due in `seconds`."""
        if self.is_hot(*lane):
            return
        at = self._clock() + seconds
        self._unread.pop(lane, None)
        self._asleep[lane] = at
        heapq.heappush(self._alarms, (at, lane))
        if len(self._alarms) > 2 * len(self._asleep) + STEP:
            self._alarms = [(when, which) for which, when in self._asleep.items()]
            heapq.heapify(self._alarms)

    @property
    def alarm_at(self) -> float:
        """When the next lane wakes. Infinity: none sleeps."""
        alarms = self._alarms
        while alarms and self._asleep.get(alarms[0][1]) != alarms[0][0]:
            heapq.heappop(alarms)
        return alarms[0][0] if alarms else math.inf

    def awake(self) -> list[Lane]:
        """Return some of the lanes whose time has come. The caller makes them hot."""
        now = self._clock()
        lanes: list[Lane] = []
        while len(lanes) < STEP and self.alarm_at <= now:
            _, lane = heapq.heappop(self._alarms)
            del self._asleep[lane]
            lanes.append(lane)
        return lanes

    # --- warm lanes --------------------

    @property
    def warm_lanes(self) -> int:
        """Number of warm lanes."""
        return len(self._warm)

    def warm(self, most: int) -> list[Lane]:
        """Return up to `most` of the lanes that gave jobs last."""
        return list(islice(reversed(self._warm), most))

    def cool(self) -> None:
        """Drop some lanes from the warm ones that have given no job for long."""
        limit = self._clock() - WARM_FOR
        while len(self._warm) > WARM_LEAST:
            lane = next(iter(self._warm))
            if self._warm[lane] > limit:
                return
            del self._warm[lane]
