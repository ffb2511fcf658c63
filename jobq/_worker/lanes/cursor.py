"""Where a claim begins to read: one hint in memory per lane, to step over dead index entries.

Claimed jobs leave dead entries in job_claim_idx. While a transaction pins the xmin horizon, nothing
removes them, and a claim that reads its lane from the beginning walks over all of them each time.
Therefore a lane is read from where the last claim ended (`at`). New jobs may still appear below
that position, but only down to a bound: a job's run_at is never earlier than the moment of its
insert. Once all transactions have ended that had begun to write before some moment, nothing can
appear below that moment any more (`low`; see `horizon.py`). While few dead entries lie between the
two positions, every claim begins at `low`. Otherwise one claim per `NEAR_EVERY` seconds does. A job
that is put back keeps its run_at, and the worker that puts it back notifies all workers to read
from there (`lower`).

Neither position is a fact. A plain INSERT may set a run_at in the past, or a row may have been
locked by a transaction that was rolled back. Therefore everything is read from the beginning from
time to time (`full_scan.py`). Ids and run_at are not in the order of commits;
tests/worker/lanes/test_cursor.py plays that out.

Only live lanes have a cursor (`keep`, `_forget_ended`). The last reading of all lanes from their
beginnings found nothing in the other lanes, so their later jobs have a run_at that was not in the
past then: those lanes begin at `_base`.

Positions are (microseconds since 1970, id), by the database's clock.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from jobq._worker.arrays import numbers, texts_array
from jobq._worker.lanes.horizon import VisibilityHorizon

Position = tuple[int, int]
BEGINNING: Position = (0, 0)

# Seconds between two reads below the last claim's end, if such a read is costly.
NEAR_EVERY = 0.25
# Number of dead entries that a claim may walk over before it is costly: about 0.1 µs each.
NEAR_ENTRIES = 1_000
# Number of claims of one lane that are remembered separately.
_MOST_CLAIMS = 64
# If more lanes than this are known, lanes that are read to their ends are forgotten at once. Lanes
# with more dead entries than `_FEW` stay, because a claim that begins at `_base` would walk over
# those again.
MOST_LANES = 2_000
_FEW = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimSnapshot:
    """What a claim saw: its time, the bounds of its snapshot, and its end position."""

    at: int
    """When the statement began, in microseconds."""
    xmin: int
    """Every transaction with a lower id had ended."""
    following: int
    """The next transaction id: every transaction that had begun to write has a lower one.

    This is not the snapshot's xmax, which is only the first id after the last transaction that has
    *ended*. Any id above xmax may belong to a transaction that is writing.
    """
    cut: int | None = None
    """Index of the lane where the claim had found all the jobs it wanted. None: no lane.

    If None, it read all lanes to their ends.
    """
    last: Position = BEGINNING
    """The last job that it found in that lane."""
    counts: tuple[tuple[int, int], ...] = ()
    """(index of the lane, number of jobs found there)."""


@dataclass(slots=True)
class _Lane:
    low: Position = BEGINNING
    """No job is left or can appear below, except those that only a full scan finds."""
    at: Position = BEGINNING
    """No job that was visible is left below."""
    near_due: float = 0.0
    dead: int = 0
    """Number of dead entries of ours above `low`."""
    claims: list[tuple[int, int]] = field(default_factory=list)
    """(time, jobs) of the claims that left them."""

    def claimed(self, at: int, jobs: int) -> None:
        if not jobs:
            return
        if len(self.claims) >= _MOST_CLAIMS:
            # Merge two claims: the entries of both go when those of the later one may.
            jobs_before = self.claims.pop()[1]
            self.dead -= jobs_before
            jobs += jobs_before
        self.claims.append((at, jobs))
        self.dead += jobs

    def rise(self, low: Position) -> None:
        self.low = low
        claims = self.claims
        # A job was claimed no earlier than it was due. So jobs that were claimed before `low` lie
        # below it.
        while claims and claims[0][0] <= low[0]:
            self.dead -= claims.pop(0)[1]
        if low == self.at:
            # In a backlog, the lane is far below the time of its claims: nothing lies between.
            claims.clear()
            self.dead = 0


class Cursor:
    """The position from which each lane of one worker is read."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._horizon = VisibilityHorizon()
        self._lanes: dict[tuple[str, int], _Lane] = {}
        self._base: Position = BEGINNING
        """Where unknown lanes begin. No job is left or can appear below it in them."""
        self.words = 0
        """Number of calls of `lower`."""
        self._lowered: dict[str, int] = {}
        """Queues that were lowered since the last `keep`, with the number of the call."""
        self.epoch = 0
        """Increases when a current full scan no longer proves that the other lanes are empty."""

    def __len__(self) -> int:
        """Number of known lanes."""
        return len(self._lanes)

    def forget(self) -> None:
        """Read everything from the beginning: the connection was lost, its effects are unknown."""
        self._horizon = VisibilityHorizon()
        self._lanes.clear()
        self.doubt()

    def doubt(self) -> None:
        """New queues are served: read unknown lanes from the beginning until a full scan."""
        self._base = BEGINNING
        self.epoch += 1

    def lower(self, queue: str, run_at: int = 0) -> None:
        """Jobs of `queue` can be claimed again at their old places.

        `run_at`: that of the first of them, in microseconds.
        """
        for priority in range(10):
            known = self._lanes.get((queue, priority))
            low = min(known.low, known.at) if known is not None else min(self._base, self.floor)
            low = min(low, (max(run_at, 0), 0))
            # Replace the lane: a claim that is under way may not see these jobs and must not raise
            # this position.
            self._lanes[(queue, priority)] = _Lane(low=low, at=low)
        self.words += 1
        self._lowered[queue] = self.words

    @property
    def floor(self) -> Position:
        """No job appears below this any more, in any lane."""
        return (self._horizon.floor, 0)

    def found(self, lane: tuple[str, int], head: Position, floor: Position) -> bool:
        """Record that a reading from the beginning found `head` as the lane's first job.

        Return whether claims would have missed it. `floor`: the value of `floor` before that
        reading.
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
        """Record a full scan. Forget the lanes that are not `known`: they have no job.

        Args:
            known: Returns whether a lane is known to have jobs, or had some recently.
            floor: The value of `floor` before the scan.
            words: The value of `words` before the scan. Lanes that were lowered since are kept,
                because the scan may have missed their jobs. None: no lane was lowered.
        """
        since = self.words if words is None else words
        self._lowered = {queue: word for queue, word in self._lowered.items() if word > since}
        for lane in [lane for lane in self._lanes if not known(lane) and lane[0] not in self._lowered]:
            del self._lanes[lane]
        self._base = floor

    def plan(self, queues: list[str], priorities: list[int], *, remember: bool = True) -> ClaimPlan:
        """Return from where the next claim should read these lanes.

        With `remember` False, unknown lanes stay unknown: for a look whose result is not passed to
        `read`.
        """
        now = self._clock()
        # After the database's clock was set back, nothing is known of those lanes either.
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
        return ClaimPlan(queues=queues, priorities=priorities, since=since, near=near, lanes=lanes)

    def read(self, scan: ClaimPlan, sight: ClaimSnapshot) -> None:
        """Record what the claim made with `scan` saw."""
        self._horizon.saw(sight.at, sight.xmin, sight.following)
        floor = (self._horizon.floor, 0)
        for place, jobs in sight.counts:
            scan.lanes[place].claimed(sight.at, jobs)
        due = self._clock() + NEAR_EVERY * random.uniform(0.8, 1.2)
        for place, (lane, near) in enumerate(zip(scan.lanes, scan.near, strict=True)):
            if lane.at < scan.since[place]:
                # The lane was lowered while the claim was under way, to where the claim has not
                # looked.
                continue
            if sight.cut is None or place < sight.cut:
                lane.at = (sight.at, 0)
            elif place == sight.cut:
                lane.at = (sight.last[0], sight.last[1] + 1)
            else:
                # Not reached: the jobs below that this claim looked for must still be found.
                lane.at = min(lane.at, scan.since[place])
                continue
            if near:
                lane.near_due = due
                lane.rise(min(floor, lane.at))
        if len(self._lanes) > MOST_LANES:
            self._forget_ended(scan, len(scan.lanes) if sight.cut is None else sight.cut)

    def _forget_ended(self, scan: ClaimPlan, ended: int) -> None:
        """Forget the first `ended` lanes of a scan.

        They have no jobs left: their queues came and went.

        Their later jobs are read from `_base`: nothing appears below it except what `lower`
        reports.
        """
        for name, lane in zip(zip(scan.queues, scan.priorities, strict=True), scan.lanes[:ended], strict=False):
            if self._lanes.get(name) is lane and lane.dead <= _FEW and name[0] not in self._lowered:
                del self._lanes[name]

    def looked(self, scan: ClaimPlan, sight: ClaimSnapshot, heads: Mapping[int, Position], *, gone: int) -> None:
        """Record a look at the lanes' first jobs that claimed none of them.

        Args:
            scan: The lanes that were looked at.
            sight: The snapshot of the look.
            heads: The first job of each lane, by the lane's index.
            gone: How many jobs may have come and gone since the last look.
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
class ClaimPlan:
    """The lanes of one claim, each with the position where it begins."""

    queues: list[str] = field(default_factory=list)
    priorities: list[int] = field(default_factory=list)
    since: list[Position] = field(default_factory=list)
    near: list[bool] = field(default_factory=list)
    """Whether the lane is read from the lowest position where a job can appear."""
    lanes: list[_Lane] = field(default_factory=list)


NOWHERE = ClaimPlan()
"""The plan of a statement that claims nothing."""


def everything(lanes: tuple[list[str], list[int]]) -> ClaimPlan:
    """Return a plan that reads these lanes from their beginnings."""
    queues, priorities = lanes
    return ClaimPlan(queues=queues, priorities=priorities, since=[BEGINNING] * len(queues))


def scan_parameters(scan: ClaimPlan) -> dict[str, Any]:
    """Return the lanes of `scan` as parameters. Arrays are passed as text."""
    return {
        "queues": texts_array(scan.queues),
        "priorities": numbers(scan.priorities),
        "since": numbers([since for since, _ in scan.since]),
        "since_ids": numbers([since_id for _, since_id in scan.since]),
    }
