"""What the database refuses, or takes too long over, is left out, and tried again by itself after pauses that grow.

What only is refused costs little to try. What takes too long holds up everything else on its connection, so it is tried more
rarely, and at first for a second only: each time for longer, so that what takes some seconds gets through at last.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import psycopg

from jobq.worker.database import Overdue

Key = TypeVar("Key")

# Seconds until something is tried again: doubled each time.
FIRST_PAUSE = 1.0
FIRST_PAUSE_SLOW = 60.0
LONGEST_PAUSE = 300.0
# How long a statement may take, in seconds, while it is known that one took too long; and what is tried alone, at most.
BRIEF = 1.0
LONGEST_TRY = 8.0
# Between two tries of what takes too long there are so many times the seconds that the first one took.
SHARE = 10
# A statement that has failed so many times in a row because of locks or resources, or has lost its session so many times, is
# taken to be refused: one row may be the reason.
PATIENCE = 3
# So many in a row, with no success between them: it is no matter of single ones.
MOST_IN_A_ROW = 20
# As many are left out, at most: they are named in each statement.
MOST = 1_000
# What is not met when it is tried, for it is gone or has no room: for so many seconds, and so many times.
UNMET_PAUSE, UNMET = 5.0, 10


def is_slow(error: BaseException) -> bool:
    """Tell whether `error` says that the statement took too long."""
    return isinstance(error, (psycopg.errors.QueryCanceled, Overdue))


@dataclass(slots=True)
class Pause:
    """When something is tried again that is left out."""

    due: float = 0.0
    tries: int = 0
    slow: bool = False
    unmet: int = 0

    @property
    def within(self) -> float:
        """How long the next try may take, in seconds."""
        return min(BRIEF * 2.0 ** max(min(self.tries, 10) - 1, 0), LONGEST_TRY) if self.slow else BRIEF

    def again(self, error: BaseException) -> None:
        """It has failed again."""
        self.slow = is_slow(error)
        first = FIRST_PAUSE_SLOW if self.slow else FIRST_PAUSE
        self.due = time.monotonic() + min(first * 2.0 ** min(self.tries, 20), LONGEST_PAUSE)
        self.tries += 1
        self.unmet = 0


class Suspects(Generic[Key]):
    """What one kind of statement leaves out."""

    def __init__(self) -> None:
        self._pauses: dict[Key, Pause] = {}
        self._slow_from = 0.0
        """Before this nothing slow is tried."""

    def __len__(self) -> int:
        """How many there are."""
        return len(self._pauses)

    def __contains__(self, key: object) -> bool:
        """Tell whether `key` is left out."""
        return key in self._pauses

    @property
    def keys(self) -> list[Key]:
        """Return all of them."""
        return list(self._pauses)

    @property
    def slow(self) -> bool:
        """Whether one of them takes too long: statements that may meet another such one are to be brief."""
        return any(pause.slow for pause in self._pauses.values())

    def _due(self, pause: Pause) -> float:
        return max(pause.due, self._slow_from) if pause.slow else pause.due

    @property
    def due_at(self) -> float:
        """When to try one of them again, in time.monotonic(); infinity: there is none."""
        return min(map(self._due, self._pauses.values()), default=float("inf"))

    def next(self) -> Key | None:
        """Return the one to be tried now, if there is one."""
        if self.due_at > time.monotonic():
            return None
        return min(self._pauses, key=lambda key: self._due(self._pauses[key]))

    def within(self, key: Key) -> float:
        """Return how long the next try of `key` may take, in seconds."""
        pause = self._pauses.get(key)
        return BRIEF if pause is None else pause.within

    def leave_out(self, key: Key, error: BaseException) -> None:
        """Leave out `key` from now on, for longer than the last time."""
        pause = self._pauses.setdefault(key, Pause())
        if is_slow(error):
            self._slow_from = time.monotonic() + SHARE * pause.within
        pause.again(error)

    def unmet(self, key: Key) -> bool:
        """It was not met when it was tried. Return whether it is left out no longer."""
        pause = self._pauses[key]
        pause.unmet += 1
        pause.due = time.monotonic() + UNMET_PAUSE
        if pause.unmet < UNMET:
            return False
        del self._pauses[key]
        return True

    def sooner(self, key: Key, seconds: float) -> None:
        """Try `key` again in so many seconds at the latest."""
        if (pause := self._pauses.get(key)) is not None:
            pause.due = min(pause.due, time.monotonic() + seconds)

    def let_in(self, key: Key) -> None:
        """It went well, or it is gone."""
        if self._pauses.pop(key, None) is None:
            return
        # What stood in its way may have stood in another's.
        if others := [pause for pause in self._pauses.values() if not pause.slow]:
            min(others, key=lambda pause: pause.due).due = 0.0


_TRIED = re.compile(r"jobq (?:job (\d+) (-?\d+) (\d+)|turn (-?\d+) (.*))", re.DOTALL)
# Later than anything, in microseconds since 1970, for lines that are not to be read.
_NEVER = 2**53
_LANES = 10


@dataclass(frozen=True, slots=True)
class Tried:
    """What a claim of a managed queue tried: a job of a lane (its place from 0), or the turn of a group, at its time."""

    key: int | str
    at: int
    lane: int = 0

    @classmethod
    def read(cls, text: str | None) -> Tried | None:
        """Return what claim_managed says in `text`; None: it is about something else."""
        found = _TRIED.fullmatch(text or "")
        if found is None:
            return None
        lane, run_at, job, due_at, group = found.groups()
        return cls(int(job), int(run_at), int(lane)) if job is not None else cls(group, int(due_at))

    @property
    def subject(self) -> dict[str, Any]:
        """Return what names it in a problem."""
        return {"job": self.key} if isinstance(self.key, int) else {"group": self.key}

    @property
    def since(self) -> dict[str, Any]:
        """Return the parameters of claim_managed.sql by which it is the first that is found."""
        at, ids = [_NEVER] * _LANES, [0] * _LANES
        if isinstance(self.key, str):
            return {"turns_since": self.at, "lanes_since": at, "lanes_since_ids": ids}
        at[self.lane], ids[self.lane] = self.at, self.key
        return {"turns_since": _NEVER, "lanes_since": at, "lanes_since_ids": ids}


@dataclass(slots=True)
class QueueTrouble:
    """What is wrong with the claims of one managed queue, until a claim of all that is wanted goes well and leaves out none.

    After a few failures at most its jobs are claimed one by one, so that it is known which is refused; then twice as many each
    time, without those. Groups are left out as a whole: jobs behind the one that is refused are not to overtake it.
    """

    suspects: Suspects[int | str] = field(default_factory=Suspects)
    tried: dict[int | str, Tried] = field(default_factory=dict)
    most: int | None = None
    """How many jobs to claim at a time; None: any number, nothing has failed often enough."""
    slow: bool = False
    failures: int = 0
    losses: int = 0
    in_a_row: int = 0
    retrying: bool = False

    def retry(self) -> Tried | None:
        """Return what is to be tried again now: every other time, at most."""
        key = None if self.retrying else self.suspects.next()
        self.retrying = key is not None
        return self.tried[key] if key is not None else None

    def parameters(self, retry: Tried | None) -> dict[str, Any]:
        """Return what a careful claim is to leave out, and from where it is to read."""
        keys = [key for key in self.suspects.keys if retry is None or key != retry.key]
        return {
            "left_out": [key for key in keys if isinstance(key, int)],
            "left_out_groups": [key for key in keys if isinstance(key, str)],
            "one_by_one": retry is not None or self.most == 1,
            **(retry.since if retry is not None else {}),
        }

    def within(self, retry: Tried | None) -> float | None:
        """Return how long the claim may take, in seconds; None: as long as ever."""
        if retry is not None:
            return self.suspects.within(retry.key)
        return BRIEF if self.slow or self.suspects.slow else None

    def failed(self, error: BaseException, *, lost: bool, refused: bool) -> bool:
        """A claim has failed. Return whether to find out which job is the reason."""
        self.failures += not refused and not lost
        self.losses += lost
        self.slow = self.slow or is_slow(error)
        if refused or self.slow or self.failures > PATIENCE or self.losses >= PATIENCE:
            self.most = 1
        return self.most is not None

    def leave_out(self, tried: Tried, error: BaseException) -> bool:
        """Leave out what was `tried`. Return False when too many are: it is no matter of single jobs."""
        if tried.key not in self.suspects and len(self.suspects) >= MOST:
            return False
        self.tried[tried.key] = tried
        self.suspects.leave_out(tried.key, error)
        self.in_a_row += 1
        if self.in_a_row < MOST_IN_A_ROW:
            return True
        self.in_a_row = 0
        return False

    def went_well(self, most: int) -> bool:
        """A claim has gone well. Return whether the trouble is over: `most` can be claimed, and nothing is left out."""
        self.failures = self.losses = self.in_a_row = 0
        self.most = min(2 * (self.most or most), most)
        if self.most < most:
            return False
        self.slow = False
        return not self.suspects
