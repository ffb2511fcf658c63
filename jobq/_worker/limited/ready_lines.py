"""Where a limited queue's lines are read from: its ready groups, and its ready jobs by priority.

As in `cursor.py`, these are hints in memory. With them a claim steps over the dead index entries
that a pinned xmin horizon keeps. They are never facts. Here each claim returns the first entry that
it leaves, so a line that a claim does not reach, or a locked entry, moves nothing.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from jobq._worker.lanes.cursor import BEGINNING, NEAR_ENTRIES, NEAR_EVERY, Position
from jobq._worker.lanes.horizon import VisibilityHorizon, next_transaction

PRIORITIES = 10
# Seconds between two readings from the beginning, at random in this range. They are at least SHARE
# times the duration of one reading.
FULL_EVERY = (10.0, 30.0)
SHARE = 50
# Number of claims that one line remembers with their dead entries. Older claims are merged.
_CLAIMS = 512


@dataclass(slots=True)
class ReadyLine:
    """One range of an index that is read in order."""

    low: Position = BEGINNING
    """No entry is left or can appear below, except those that only a full reading finds."""
    at: Position = BEGINNING
    """No entry that was visible is left below."""
    near: bool = True
    """Whether the claim that is under way reads from `low`."""
    near_due: float = 0.0
    dead: int = 0
    """Number of dead entries of ours above `low`."""
    claims: deque[tuple[int, int]] = field(default_factory=deque)
    """(time, entries) of the claims that left them."""

    def since(self, now: float, *, full: bool) -> Position:
        """Return the position from which the next claim reads."""
        self.near = full or self.dead <= NEAR_ENTRIES or now >= self.near_due or self.low >= self.at
        return BEGINNING if full else min(self.low, self.at) if self.near else self.at

    def read(self, at: int, floor: int, head: Position | None, gone: int, now: float) -> None:
        """Record a claim at time `at` that took `gone` entries.

        `head`: the first due entry that it left. None: there is none.
        """
        if gone:
            self.dead += gone
            self.claims.append((at, gone))
            if len(self.claims) > _CLAIMS:
                self._halve()
        self.at = min(head, (at, 0)) if head is not None else (at, 0)
        if not self.near:
            return
        self.near_due = now + NEAR_EVERY * random.uniform(0.8, 1.2)
        self.low = min((floor, 0), self.at)
        # An entry was taken no earlier than it was due. So entries that were taken before `low` lie
        # below it.
        while self.claims and self.claims[0][0] <= self.low[0]:
            self.dead -= self.claims.popleft()[1]
        if self.low == self.at:
            # In a backlog, the line is far below the time of its claims: nothing lies between.
            self.claims.clear()
            self.dead = 0

    def _halve(self) -> None:
        """Merge claims in pairs, at the time of the later one."""
        pairs = list(self.claims)
        self.claims = deque(
            (later[0], earlier[1] + later[1]) for earlier, later in zip(pairs[::2], pairs[1::2], strict=False)
        )
        if len(pairs) % 2:
            self.claims.append(pairs[-1])


@dataclass(slots=True)
class ReadyLines:
    """The lines of one limited queue."""

    turns: ReadyLine = field(default_factory=ReadyLine)
    lanes: list[ReadyLine] = field(default_factory=lambda: [ReadyLine() for _ in range(PRIORITIES)])
    """From priority 9 down to 0."""
    full_due: float = 0.0
    full: bool = False
    """Whether the claim that is under way reads everything from the beginning."""
    lowered: bool = False
    """Whether to read everything again, whatever the claim that is under way sees."""
    begun: float = 0.0

    def begin(self) -> Mapping[str, object]:
        """Return the parameters that say from where the next claim reads."""
        self.begun = now = time.monotonic()
        self.full, self.lowered = now >= self.full_due, False
        since = [lane.since(now, full=self.full) for lane in self.lanes]
        return {
            "turns_since": self.turns.since(now, full=self.full)[0],
            "lanes_since": [position[0] for position in since],
            "lanes_since_ids": [position[1] for position in since],
        }

    def lower(self) -> None:
        """Entries have appeared below the read range.

        Read everything next, as the current claim may miss them.
        """
        self.full_due, self.lowered = 0.0, True

    def read(self, seen: str, horizon: VisibilityHorizon) -> None:
        """Record what the claim saw: the text that claim_limited returns."""
        snapshot, turns, counts, lanes = seen.split("|")
        at, xmin, xmax, given = map(int, snapshot.split())
        horizon.saw(at, xmin, next_transaction(xmax, given))
        now = time.monotonic()
        gone, *first = map(int, turns.split())
        self.turns.read(at, horizon.floor, (first[0], 0) if first else None, gone, now)
        heads = list(map(int, lanes.split()))
        left = {place: (run_at, id_) for place, run_at, id_ in zip(heads[::3], heads[1::3], heads[2::3], strict=True)}
        for place, count in enumerate(map(int, counts.split())):
            self.lanes[place].read(at, horizon.floor, left.get(place), count, now)
        if self.full and not self.lowered:
            self.full_due = now + max(random.uniform(*FULL_EVERY), min(SHARE * (now - self.begun), 600.0))
