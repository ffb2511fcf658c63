"""Which lanes (queue, priority) a claim should look at: those that have due jobs, as far as is known, and no others.

A lane is *hot* when there was word of a job in it, or a claim has left some there. A claim that reads it to its end makes it
*unread ahead*: nothing is due there, and when its next job will be is to be looked up. Then it is *asleep* until that
time, or it is forgotten. Lanes that brought jobs lately are *warm*: a claim that is made anyway looks at them, too, and so
does a poll. What no word tells of is found by reading which lanes there are (`survey.py`).

Nothing here costs more than the lanes that it is about. All times are of time.monotonic(), in seconds.
"""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Callable, Iterable
from itertools import islice

Lane = tuple[str, int]

# How long a lane stays warm, and how many lanes stay so for as long as the worker lives.
WARM_FOR = 60.0
WARM_LEAST = 256
# Most lanes that one step wakes, looks up or drops.
STEP = 256
# Seconds until a lane is looked at again whose first job is due and was not claimed: its row is locked. Doubled each
# time, up to the second.
_BLOCKED = 0.005
_BLOCKED_MOST = 1.0


class Live:
    """The lanes of one worker that live."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.stamp = 0
        """Counts the times that a lane became hot: what a claim reads to its end stays hot if that came after its plan."""
        self._hot: dict[str, dict[int, int]] = {}
        """For each queue its hot lanes, by priority, each with the stamp of the last word of it."""
        self._asleep: dict[Lane, float] = {}
        self._alarms: list[tuple[float, Lane]] = []
        """A heap of when lanes wake; those of lanes that sleep no more, or until another time, do not count."""
        self._unread: dict[Lane, bool] = {}
        """Lanes whose first job is to be looked up, and whether a claim has read them to their ends before."""
        self._warm: dict[Lane, float] = {}
        """When the lane last brought a job, the longest ago first."""
        self._blocked: dict[Lane, float] = {}
        """How long the lane was let alone the last time that its first job was due and not claimed."""

    def __contains__(self, lane: object) -> bool:
        """Whether anything is known of the lane."""
        return (
            lane in self._warm or lane in self._asleep or lane in self._unread or self.is_hot(*lane)  # type: ignore[misc]
        )

    def __len__(self) -> int:
        """How many entries are kept."""
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
        """Whether some lane may have due jobs."""
        return bool(self._hot)

    def is_hot(self, queue: str, priority: int) -> bool:
        """Whether that lane may have due jobs."""
        return priority in self._hot.get(queue, ())

    def hot(self, queue: str) -> Iterable[int]:
        """Return the priorities of which the queue may have due jobs."""
        return self._hot.get(queue, ())

    def heat(self, queue: str, priority: int) -> None:
        """There may be due jobs in this lane."""
        self.stamp += 1
        self._hot.setdefault(queue, {})[priority] = self.stamp
        lane = (queue, priority)
        self._asleep.pop(lane, None)
        self._unread.pop(lane, None)

    def ask(self, lane: Lane) -> None:
        """There may be jobs in this lane, and that is to be looked up before a claim looks at it."""
        if not self.is_hot(*lane):
            self._unread.setdefault(lane, False)

    def drop(self, queue: str) -> None:
        """Forget all lanes of the queue: they are not served any more."""
        self._hot.pop(queue, None)
        for priority in range(10):
            lane = (queue, priority)
            for known in (self._asleep, self._unread, self._warm, self._blocked):
                known.pop(lane, None)

    # --- what claims tell --------------------

    def brought(self, lane: Lane) -> None:
        """A claim has found jobs in this lane."""
        self._warm.pop(lane, None)
        self._warm[lane] = self._clock()
        self._blocked.pop(lane, None)

    def ended(self, lane: Lane, planned: int, *, brought: bool) -> bool:
        """A claim has read this lane to its end. Return whether it was the queue's last hot lane.

        `planned`: `stamp` when the claim was planned.
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

    # --- what is to come --------------------

    @property
    def unread(self) -> bool:
        """Whether the first jobs of some lanes are to be looked up."""
        return bool(self._unread)

    def to_look_up(self) -> list[Lane]:
        """Return some of the lanes whose first jobs are to be looked up."""
        return list(islice(self._unread, STEP))

    def looked_up(self, lane: Lane, seconds: float | None) -> bool:
        """Take note of the seconds until the lane's first job is due; None: it has none. Return whether it is to be hot."""
        read = self._unread.pop(lane, None)
        if read is None:
            # There was word of it meanwhile.
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
        """The lane's first job is due in so many seconds."""
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
        """When the next lane wakes; infinity: none sleeps."""
        alarms = self._alarms
        while alarms and self._asleep.get(alarms[0][1]) != alarms[0][0]:
            heapq.heappop(alarms)
        return alarms[0][0] if alarms else math.inf

    def awake(self) -> list[Lane]:
        """Return some of the lanes whose time has come, which are to be hot."""
        now = self._clock()
        lanes: list[Lane] = []
        while len(lanes) < STEP and self.alarm_at <= now:
            _, lane = heapq.heappop(self._alarms)
            del self._asleep[lane]
            lanes.append(lane)
        return lanes

    # --- what brought jobs lately --------------------

    @property
    def warm_lanes(self) -> int:
        """How many lanes are warm."""
        return len(self._warm)

    def warm(self, most: int) -> list[Lane]:
        """Return the lanes that brought jobs last."""
        return list(islice(reversed(self._warm), most))

    def cool(self) -> None:
        """Let some lanes be warm no more that have brought nothing for long."""
        limit = self._clock() - WARM_FOR
        while len(self._warm) > WARM_LEAST:
            lane = next(iter(self._warm))
            if self._warm[lane] > limit:
                return
            del self._warm[lane]
