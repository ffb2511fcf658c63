"""When producers should send no notifications, and how often the lead poller then polls.

This module only decides, without a database. Times are time.monotonic() seconds.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum

from jobq._worker.lanes.live_lanes import Lane

# From this many notifying commits a second, inserts should send none. The commit pays for a
# notification, so a bulk insert counts once, and a backlog by itself costs nothing.
POLL_FROM = 100.0
# Below this many jobs a second, inserts may notify again. It is a fifth, so that a load near the
# limit does not switch back and forth.
QUIET_BELOW = 20.0
# Seconds of notifications that suffice to detect a high rate, and of silence to detect a low one.
_HEAR = 1.0
_CALM = 2.0
# Seconds between two polls of the heads: while jobs arrive, and after none has arrived for a while.
SOONEST = 0.002
LATEST = 0.010
# Seconds between two calls of a queue's workers: at first, doubled while the same jobs stay at the
# heads; the maximum; and the maximum while further jobs arrive.
_CALL_AGAIN = 0.005
_CALL_AT_LEAST = 1.0
_CALL_ARRIVED = 0.05
# If the own loop has not taken a head for this many seconds, other workers are called, too.
_OVERDUE = 0.02


class NotifyMode(IntEnum):
    """How workers learn of new jobs: the notify mode, stored in the sequence `notify_mode`."""

    NOTIFY = 1
    """The insert notifies."""
    POLL = 2
    """Notify mode POLL: the insert does not notify, and the lead poller polls."""
    DRAINING = 3
    """Notify mode DRAINING: the insert notifies again.

    The lead poller polls until every transaction that may have read POLL has ended.
    """


class InsertRate:
    """How fast jobs arrive: counted by notifications if there are any, else by inserted ids."""

    def __init__(self) -> None:
        self._heard: deque[float] = deque(maxlen=int(POLL_FROM * _HEAR))
        self._since: float | None = None
        self._id = 0

    def heard(self) -> None:
        """Record a notification from an insert."""
        self._heard.append(time.monotonic())

    @property
    def many(self) -> bool:
        """Whether notifications are so frequent that inserts should send none."""
        return len(self._heard) == self._heard.maxlen and time.monotonic() - self._heard[0] <= _HEAR

    def begin(self) -> None:
        """Count ids, starting with the next one reported."""
        self._since = None
        self._heard.clear()

    def calm(self, last_id: int | None) -> bool:
        """Record the last inserted id (None: there is none).

        Return whether the rate was low for long enough.
        """
        now, last_id = time.monotonic(), last_id or 0
        if self._since is None or last_id - self._id > QUIET_BELOW * _CALM:
            self._since, self._id = now, last_id
        return now - self._since >= _CALM


class LastClaim:
    """The result of the own loop's last claim.

    While it claims continuously, its claims are the polls.
    """

    def __init__(self) -> None:
        self.begun = 0.0
        self.full = False
        """Whether it got as many jobs as it wanted, so jobs may be left."""
        self.found = 0.0
        """When the last claim that got jobs began."""

    def made(self, begun: float, *, want: int, got: int, complete: bool = True) -> None:
        """Record a successful claim. `complete`: it covered every lane that had jobs recently."""
        if complete:
            self.begun = begun
        self.full = got >= want
        if got:
            self.found = begun


class PollInterval:
    """Seconds between polls: `SOONEST` while jobs are found, growing to `LATEST` while none are.

    If polling is slow, the interval is longer: the database must not be busy with polls for more
    than half of the time.
    """

    def __init__(self) -> None:
        self._pause = SOONEST
        self._took = 0.0

    @property
    def pause(self) -> float:
        """Seconds from the beginning of the last poll to the next."""
        return max(self._pause, 2 * self._took)

    def looked(self, *, found: bool, took: float) -> None:
        """Record a poll that took `took` seconds."""
        self._pause = SOONEST if found else min(self._pause * 1.5, LATEST)
        self._took = took


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneHead:
    """The first job of a lane."""

    lane: Lane
    id: int
    seconds: float
    """Seconds until it is due; 0 or less if it is due."""


@dataclass(slots=True)
class _Waiting:
    head: int
    since: float
    """When this head was first seen."""
    next: float
    told: float
    """When other workers were last called."""
    called: float = 0.0
    gap: float = _CALL_AGAIN


class WakeupTargets:
    """The queues whose workers are called, from one poll to the next.

    Workers that come by themselves are not called, and no worker is called again and again.
    """

    def __init__(self) -> None:
        self._lanes: dict[Lane, _Waiting] = {}
        """The lanes that had due jobs at their last poll."""
        self.news = False
        """Whether the last poll found due heads that the previous one had not."""

    def __len__(self) -> int:
        """Number of lanes that wait for a worker."""
        return len(self._lanes)

    def look(
        self, lanes: Iterable[Lane], heads: Iterable[LaneHead], *, arrived: bool, take: Callable[[Lane], bool]
    ) -> list[str]:
        """Call the own loop for lanes with due jobs; return the queues whose other workers to call.

        If the head of a lane stays the same, no worker has room for it, or it is locked. It is then
        called less and less often, but more often if new jobs may be behind it.

        Args:
            lanes: the lanes that were polled; other lanes were not looked at.
            heads: all heads of `lanes`.
            arrived: whether ids were used since the last poll.
            take: calls the own loop for a lane; returns whether the loop will take all its jobs.
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
