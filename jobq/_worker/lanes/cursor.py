"""Where a claim begins to read: a hint in memory for each lane, so that claims step over the dead entries of an index.

What was claimed leaves dead entries in job_claim_idx, and while some transaction pins the xmin horizon nothing removes
them: a claim that reads its lane from the beginning walks over all of them, each time. So a lane is read from where the
last claim ended (`at`). What could still surface below that is bounded, too: a job's run_at is never earlier than the
moment of its insert, so when all transactions that had begun to write before that moment have ended, nothing can surface
below it any more (`low`). As long as few dead entries lie between the two, every claim begins at `low`; else only one in
`NEAR_EVERY`. A job that is given back keeps its run_at: the worker that gives it back tells all to read from there (`lower`).

Neither is a truth. A plain INSERT may give a run_at in the past, a row may have been locked by a transaction that
was undone: from time to time everything is read from the beginning (`survey.py`). Ids and run_at are not in the order of
commits; tests/unit/test_cursor.py plays that out.

There is a cursor for each lane that lives, and none for the others (`keep`, `_forget_ended`). The last reading of all lanes
from their beginnings found nothing in those, so what they get later has a run_at that was not past then: they begin at `_base`.

Positions are (microseconds since 1970, id), by the database's clock.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

Position = tuple[int, int]
BEGINNING: Position = (0, 0)

# Seconds between two looks at what has surfaced below the last claim, where that is costly.
NEAR_EVERY = 0.25
# How many dead entries a claim may walk over without being costly: some 0.1 µs each.
NEAR_ENTRIES = 1_000
# A job takes its run_at from the clock just before its transaction is given the id by which we see it: microseconds, or
# what the machine lets pass between two instructions.
_MARGIN = 100_000
_SAMPLES = 128
# Most claims of one lane that are remembered apart.
_MOST_CLAIMS = 64
# When more lanes than this are known, those that are read to their ends are forgotten at once, unless more dead entries lie in
# them than `_FEW`: a claim that begins at `_base` again walks over those.
MOST_LANES = 2_000
_FEW = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What a claim saw: its time, and its snapshot's bounds; and where it ended."""

    at: int
    """When the statement began, in microseconds."""
    xmin: int
    """Every transaction below this one had ended."""
    following: int
    """The next transaction id: every transaction that had begun to write has one below. Not the snapshot's xmax, which is only
    the first id after the last one that has *ended*: any number above it may be writing."""
    cut: int | None = None
    """The lane, by its place from 0, in which it had found as many jobs as it wanted; None: it read all lanes to their ends."""
    last: Position = BEGINNING
    """The last job that it found in that lane."""
    counts: tuple[tuple[int, int], ...] = ()
    """How many jobs it found, by the lane's place."""


def next_transaction(above: int, given: int) -> int:
    """Return the next transaction id, by a snapshot's xmax and age('3'::xid), which is 32 bits of it less 3."""
    return above + ((given + 3 - above) & 0xFFFFFFFF)


class Horizon:
    """Remembers the bounds of snapshots, and tells below which run_at nothing can surface any more."""

    def __init__(self) -> None:
        self.floor = 0
        """In microseconds; 0: nothing is known."""
        self._samples: deque[tuple[int, int]] = deque()
        """(next id, time), oldest first: those who had not begun to write at that time have ids from there on."""
        self._apart = 0
        """The least time between two samples: while a writer stays at it, they become more, and coarser."""
        self._last = 0

    def saw(self, at: int, xmin: int, following: int) -> None:
        """Take note of a snapshot's lower bound, the next transaction id, and the time of the database just before."""
        samples = self._samples
        if at < self._last:
            # The database's clock was set back: what comes has earlier times than what we know.
            samples.clear()
            self.floor = 0
        self._last = at
        if following <= xmin:
            # No transaction was writing.
            samples.clear()
            self.floor = max(self.floor, at - _MARGIN)
            return
        while samples and samples[0][0] <= xmin:
            self.floor = max(self.floor, samples.popleft()[1] - _MARGIN)
        if not samples:
            self._apart = 0
        elif samples[-1][0] == following:
            samples.pop()
        if not samples or at - samples[-1][1] >= self._apart:
            samples.append((following, at))
        if len(samples) > _SAMPLES:
            self._apart = max(1000, 2 * self._apart)
            self._samples = deque(sample for place, sample in enumerate(samples) if place % 2 == 0)


@dataclass(slots=True)
class _Lane:
    low: Position = BEGINNING
    """Nothing is left below, and nothing can surface below, but for what only a full reading finds."""
    at: Position = BEGINNING
    """Nothing that was visible is left below."""
    near_due: float = 0.0
    dead: int = 0
    """How many dead entries of ours lie above `low`."""
    claims: list[tuple[int, int]] = field(default_factory=list)
    """(time, jobs) of the claims that left them."""

    def claimed(self, at: int, jobs: int) -> None:
        if not jobs:
            return
        if len(self.claims) >= _MOST_CLAIMS:
            # Those of both go when the later one may.
            jobs_before = self.claims.pop()[1]
            self.dead -= jobs_before
            jobs += jobs_before
        self.claims.append((at, jobs))
        self.dead += jobs

    def rise(self, low: Position) -> None:
        self.low = low
        claims = self.claims
        # A job was claimed no earlier than it was due: what was claimed before `low` lies below it.
        while claims and claims[0][0] <= low[0]:
            self.dead -= claims.pop(0)[1]
        if low == self.at:
            # In a backlog, far below the time of its claims: nothing lies between.
            claims.clear()
            self.dead = 0


class Cursor:
    """Where each lane of one worker is read from."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._horizon = Horizon()
        self._lanes: dict[tuple[str, int], _Lane] = {}
        self._base: Position = BEGINNING
        """Where lanes begin that are not known: nothing was left below in them, and nothing can surface below."""
        self.words = 0
        """Counts the calls of `lower`."""
        self._lowered: dict[str, int] = {}
        """Queues that were lowered since the last `keep`, and by which call."""
        self.epoch = 0
        """Goes up whenever a reading of all lanes that is under way says nothing of those that it does not find."""

    def __len__(self) -> int:
        """How many lanes are known."""
        return len(self._lanes)

    def forget(self) -> None:
        """Read everything from the beginning: the connection was lost, and who knows what with it."""
        self._horizon = Horizon()
        self._lanes.clear()
        self.doubt()

    def doubt(self) -> None:
        """Queues are served that were not: lanes that are not known are read from the beginning, until all have been again."""
        self._base = BEGINNING
        self.epoch += 1

    def lower(self, queue: str, run_at: int = 0) -> None:
        """Jobs of `queue` have become claimable again at their old places, the first at this run_at in microseconds."""
        for priority in range(10):
            known = self._lanes.get((queue, priority))
            low = min(known.low, known.at) if known is not None else min(self._base, self.floor)
            low = min(low, (max(run_at, 0), 0))
            # In place of the old one: a claim that is under way, and may not see them, must not raise this.
            self._lanes[(queue, priority)] = _Lane(low=low, at=low)
        self.words += 1
        self._lowered[queue] = self.words

    @property
    def floor(self) -> Position:
        """Nothing surfaces below this any more, in any lane."""
        return (self._horizon.floor, 0)

    def found(self, lane: tuple[str, int], head: Position, floor: Position) -> bool:
        """A reading from the beginning has found `head` as the lane's first job. Return whether claims would have missed it.

        `floor`: what `floor` was before that reading.
        """
        known = self._lanes.get(lane)
        if known is None:
            self._lanes[lane] = _Lane(low=min(head, floor), at=head)
            return False
        if head >= min(known.low, known.at):
            return False
        known.low = known.at = head
        return True

    def keep(self, known: Callable[[tuple[str, int]], bool], floor: Position, words: int | None = None) -> None:
        """All lanes were read from their beginnings. Forget the lanes that are not `known`: they had no job, or have none left.

        `floor`, `words`: what these were before that reading. Lanes that were lowered since are kept, for it may have
        missed their jobs; with None, none were.
        """
        since = self.words if words is None else words
        self._lowered = {queue: word for queue, word in self._lowered.items() if word > since}
        for lane in [lane for lane in self._lanes if not known(lane) and lane[0] not in self._lowered]:
            del self._lanes[lane]
        self._base = floor

    def plan(self, queues: list[str], priorities: list[int], *, remember: bool = True) -> Scan:
        """Return from where the next claim should read these lanes.

        Without `remember`, for a look whose finds are not told to `read`: lanes that are not known stay so.
        """
        now = self._clock()
        # After the database's clock was set back, nothing is known of those either.
        base = min(self._base, self.floor)
        since: list[Position] = []
        near: list[bool] = []
        lanes: list[_Lane] = []
        for name in zip(queues, priorities, strict=True):
            lane = self._lanes.get(name)
            if lane is None:
                lane = _Lane(low=base, at=base)
                if remember:
                    self._lanes[name] = lane
            low = lane.dead <= NEAR_ENTRIES or now >= lane.near_due or lane.low >= lane.at
            since.append(min(lane.low, lane.at) if low else lane.at)
            near.append(low)
            lanes.append(lane)
        return Scan(queues=queues, priorities=priorities, since=since, near=near, lanes=lanes)

    def read(self, scan: Scan, sight: Sight) -> None:
        """Take note of what the claim saw that was made by `scan`."""
        self._horizon.saw(sight.at, sight.xmin, sight.following)
        floor = (self._horizon.floor, 0)
        for place, jobs in sight.counts:
            scan.lanes[place].claimed(sight.at, jobs)
        due = self._clock() + NEAR_EVERY * random.uniform(0.8, 1.2)
        for place, (lane, near) in enumerate(zip(scan.lanes, scan.near, strict=True)):
            if lane.at < scan.since[place]:
                # Sunk while the claim was on its way, to where it has not looked.
                continue
            if sight.cut is None or place < sight.cut:
                lane.at = (sight.at, 0)
            elif place == sight.cut:
                lane.at = (sight.last[0], sight.last[1] + 1)
            else:
                # Not reached: what it was to find below has still to be looked for.
                lane.at = min(lane.at, scan.since[place])
                continue
            if near:
                lane.near_due = due
                lane.rise(min(floor, lane.at))
        if len(self._lanes) > MOST_LANES:
            self._forget_ended(scan, len(scan.lanes) if sight.cut is None else sight.cut)

    def _forget_ended(self, scan: Scan, ended: int) -> None:
        """Forget the first `ended` lanes of a scan, in which nothing is left: queues that came and went.

        What they get later begins at `_base`: nothing surfaces below that but what `lower` tells of.
        """
        for name, lane in zip(zip(scan.queues, scan.priorities, strict=True), scan.lanes[:ended], strict=False):
            if self._lanes.get(name) is lane and lane.dead <= _FEW and name[0] not in self._lowered:
                del self._lanes[name]

    def looked(self, scan: Scan, sight: Sight, heads: Mapping[int, Position], *, gone: int) -> None:
        """Take note of a look at the lanes' first jobs, by their places, that took none of them.

        `gone`: how many jobs may have come and gone since the last look.
        """
        self._horizon.saw(sight.at, sight.xmin, sight.following)
        floor, now = (self._horizon.floor, 0), (sight.at, 0)
        due = self._clock() + NEAR_EVERY
        for place, (lane, near) in enumerate(zip(scan.lanes, scan.near, strict=True)):
            lane.claimed(sight.at, gone)
            lane.at = min(heads.get(place, now), now)
            if near:
                lane.near_due = due
                lane.rise(min(floor, lane.at))


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """The lanes of one claim, each with where it begins."""

    queues: list[str] = field(default_factory=list)
    priorities: list[int] = field(default_factory=list)
    since: list[Position] = field(default_factory=list)
    near: list[bool] = field(default_factory=list)
    """Whether the lane is read from as low as anything can surface."""
    lanes: list[_Lane] = field(default_factory=list)


NOWHERE = Scan()
"""The scan of a statement that claims nothing."""


def everything(lanes: tuple[list[str], list[int]]) -> Scan:
    """Return a scan of these lanes from their beginnings."""
    queues, priorities = lanes
    return Scan(queues=queues, priorities=priorities, since=[BEGINNING] * len(queues))
