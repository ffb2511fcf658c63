"""When producers had better not notify, and how often the sentinel then looks: what it decides by, without a database.

All times are of time.monotonic(), in seconds.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum

from jobq.worker.live import Lane

# Commits that notify, from which on they should not: what a notification costs is paid by the commit, so a bulk insert
# counts once, and a backlog by itself costs nothing.
BRISK_FROM = 100.0
# Jobs a second below which they may again. A fifth, so that a load about the limit does not flap.
QUIET_BELOW = 20.0
# Seconds of notifications that are enough to tell the one, and of silence to tell the other.
_HEAR = 1.0
_CALM = 2.0
# Seconds between two looks at the heads: while jobs come, and when none has come for a while.
SOONEST = 0.002
LATEST = 0.010
# Seconds between two calls for a queue's workers, at first, doubled for as long as the same jobs stay at the heads; the
# most that becomes, and the most while further jobs arrive.
_CALL_AGAIN = 0.005
_CALL_AT_LEAST = 1.0
_CALL_ARRIVED = 0.05
# A head that our own loop ought to take and has not taken for so long is for the others, too.
_OVERDUE = 0.02


class Mode(IntEnum):
    """How workers learn of new jobs: the values of the sequence `wake`."""

    QUIET = 1
    """The insert notifies."""
    BRISK = 2
    """The insert is silent, and the sentinel polls."""
    SETTLING = 3
    """The insert notifies again; the sentinel polls until no transaction is left that may have read BRISK."""


class Arrivals:
    """How thick and fast jobs come: by notifications while there are some, else by the ids given out."""

    def __init__(self) -> None:
        self._heard: deque[float] = deque(maxlen=int(BRISK_FROM * _HEAR))
        self._since: float | None = None
        self._id = 0

    def heard(self) -> None:
        """An insert has notified."""
        self._heard.append(time.monotonic())

    @property
    def many(self) -> bool:
        """Whether notifications come so fast that there should be none."""
        return len(self._heard) == self._heard.maxlen and time.monotonic() - self._heard[0] <= _HEAR

    def begin(self) -> None:
        """Count by ids from the next one told."""
        self._since = None
        self._heard.clear()

    def calm(self, last_id: int | None) -> bool:
        """Take note of the last id given out; tell whether few enough were, for long enough. None: none ever was."""
        now, last_id = time.monotonic(), last_id or 0
        if self._since is None or last_id - self._id > QUIET_BELOW * _CALM:
            self._since, self._id = now, last_id
        return now - self._since >= _CALM


class LastClaim:
    """What the own loop's last claim tells: while it goes round after round, its claims are the poll."""

    def __init__(self) -> None:
        self.begun = 0.0
        self.full = False
        """Whether it got as many jobs as it wanted, so that it may have left some behind."""
        self.found = 0.0
        """When the last one was begun that got any."""

    def made(self, begun: float, *, want: int, got: int, complete: bool = True) -> None:
        """Take note of a claim that has succeeded. `complete`: it looked at every lane that had jobs lately."""
        if complete:
            self.begun = begun
        self.full = got >= want
        if got:
            self.found = begun


class Rhythm:
    """Seconds between the beginnings of looks: `SOONEST` while something is found, growing to `LATEST` while nothing is.

    Longer when looking takes long: the database is not to be busy with it more than half the time.
    """

    def __init__(self) -> None:
        self._pause = SOONEST
        self._took = 0.0

    @property
    def pause(self) -> float:
        """How long after the beginning of the last look to begin the next."""
        return max(self._pause, 2 * self._took)

    def looked(self, *, found: bool, took: float) -> None:
        """Take note of a look that took so many seconds."""
        self._pause = SOONEST if found else min(self._pause * 1.5, LATEST)
        self._took = took


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The first job of a lane."""

    lane: Lane
    id: int
    seconds: float
    """Until it is due; 0 or less: it is."""


@dataclass(slots=True)
class _Waiting:
    head: int
    since: float
    """When this head was first seen."""
    next: float
    told: float
    """When the others were last called."""
    called: float = 0.0
    gap: float = _CALL_AGAIN


class Calls:
    """Which queues' workers to call, from one look to the next: not those who come by themselves, nor again and again."""

    def __init__(self) -> None:
        self._lanes: dict[Lane, _Waiting] = {}
        """The lanes that had due jobs when they were last looked at."""
        self.news = False
        """Whether the last look found due heads that the one before had not."""

    def __len__(self) -> int:
        """How many lanes wait for a worker."""
        return len(self._lanes)

    def look(
        self, lanes: Iterable[Lane], heads: Iterable[Head], *, arrived: bool, take: Callable[[Lane], bool]
    ) -> list[str]:
        """Call the own loop by `take` to the lanes that have due jobs; return the queues whose other workers are to be called.

        `heads` are all that `lanes` have; other lanes were not looked at. `take` returns whether the own loop will take all
        there is. `arrived`: ids were given out since the last look. A lane whose head stays the same is one that no worker
        has room for, or its head is locked: it is called ever more seldom, less so when there may be something new behind it.
        """
        now = time.monotonic()
        found = {head.lane: head.id for head in heads if head.seconds <= 0}
        for lane in lanes:
            if lane not in found:
                self._lanes.pop(lane, None)
        self.news = False
        others: dict[str, None] = {}
        for lane, head in found.items():
            waiting = self._lanes.get(lane)
            if waiting is None or waiting.head != head:
                self.news = True
                told = waiting.told if waiting is not None else 0.0
                waiting = self._lanes[lane] = _Waiting(head, since=now, next=now, told=told)
            if now < waiting.next and not (arrived and now - waiting.called >= _CALL_ARRIVED):
                continue
            waiting.called = now
            if not take(lane) or now - waiting.since >= _OVERDUE:
                if now - waiting.told < _CALL_AGAIN:
                    waiting.next = waiting.told + _CALL_AGAIN
                    continue
                waiting.told = now
                others[lane[0]] = None
            waiting.next = now + waiting.gap
            waiting.gap = min(waiting.gap * 2, _CALL_AT_LEAST)
        return list(others)
