"""Suspects: items that the database refuses or handles too slowly.

They are left out of the normal statements and tried again separately, at growing intervals. A
refused item costs little to try. A slow item holds up everything else on its connection. So it is
tried more rarely, and at first for one second only. Each try may take longer, so that an item that
needs some seconds succeeds in the end.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import psycopg

from jobq._worker.database import ServerTimeout

Key = TypeVar("Key")

# Seconds until an item is tried again; doubled each time.
FIRST_PAUSE = 1.0
FIRST_PAUSE_SLOW = 60.0
LONGEST_PAUSE = 300.0
# Maximum seconds for a statement while it is known that one took too long, and maximum seconds for
# a single try of an item.
BRIEF = 1.0
LONGEST_TRY = 8.0
# The pause between two tries of slow items is this multiple of the seconds that the first try took.
SHARE = 10
# If a statement has failed this many times in a row for lack of locks or resources, or has lost its
# session this many times, it is treated as refused: one row may be the reason.
PATIENCE = 3
# After this many consecutive refusals without a success, the cause is not a single item.
MOST_IN_A_ROW = 20
# Maximum number of items left out, because each statement names them.
MOST = 1_000
# Seconds between tries of an item that a try did not meet, because it is gone or has no free place;
# and the number of such tries.
UNMET_PAUSE, UNMET = 5.0, 10


def is_slow(error: BaseException) -> bool:
    """Return whether `error` says that the statement took too long."""
    return isinstance(error, (psycopg.errors.QueryCanceled, ServerTimeout))


@dataclass(slots=True)
class Pause:
    """When an item that is left out is tried again."""

    due: float = 0.0
    tries: int = 0
    slow: bool = False
    unmet: int = 0

    @property
    def within(self) -> float:
        """Maximum seconds for the next try."""
        return min(BRIEF * 2.0 ** max(min(self.tries, 10) - 1, 0), LONGEST_TRY) if self.slow else BRIEF

    def again(self, error: BaseException) -> None:
        """Note another failure."""
        self.slow = is_slow(error)
        first = FIRST_PAUSE_SLOW if self.slow else FIRST_PAUSE
        self.due = time.monotonic() + min(first * 2.0 ** min(self.tries, 20), LONGEST_PAUSE)
        self.tries += 1
        self.unmet = 0


class Suspects(Generic[Key]):
    """The items that one kind of statement leaves out."""

    def __init__(self) -> None:
        self._pauses: dict[Key, Pause] = {}
        self._slow_from = 0.0
        """Time before which no slow item is tried, in time.monotonic() seconds."""

    def __len__(self) -> int:
        """Return the number of items left out."""
        return len(self._pauses)

    def __contains__(self, key: object) -> bool:
        """Return whether `key` is left out."""
        return key in self._pauses

    @property
    def keys(self) -> list[Key]:
        """All items left out."""
        return list(self._pauses)

    @property
    def slow(self) -> bool:
        """Whether an item is slow. Then statements that may meet another slow item must be short."""
        return any(pause.slow for pause in self._pauses.values())

    def _due(self, pause: Pause) -> float:
        return max(pause.due, self._slow_from) if pause.slow else pause.due

    @property
    def due_at(self) -> float:
        """When to try an item again, in time.monotonic() seconds; infinity if there is none."""
        return min(map(self._due, self._pauses.values()), default=float("inf"))

    def next(self) -> Key | None:
        """Return the item to try now; None if there is none."""
        if self.due_at > time.monotonic():
            return None
        return min(self._pauses, key=lambda key: self._due(self._pauses[key]))

    def within(self, key: Key) -> float:
        """Return the maximum seconds for the next try of `key`."""
        pause = self._pauses.get(key)
        return BRIEF if pause is None else pause.within

    def leave_out(self, key: Key, error: BaseException) -> None:
        """Leave out `key` from now on, for longer than the last time."""
        pause = self._pauses.setdefault(key, Pause())
        if is_slow(error):
            self._slow_from = time.monotonic() + SHARE * pause.within
        pause.again(error)

    def unmet(self, key: Key) -> bool:
        """Note that a try did not meet `key`. Return whether the item is no longer left out."""
        pause = self._pauses[key]
        pause.unmet += 1
        pause.due = time.monotonic() + UNMET_PAUSE
        if pause.unmet < UNMET:
            return False
        del self._pauses[key]
        return True

    def sooner(self, key: Key, seconds: float) -> None:
        """Try `key` again after at most `seconds`."""
        if (pause := self._pauses.get(key)) is not None:
            pause.due = min(pause.due, time.monotonic() + seconds)

    def let_in(self, key: Key) -> None:
        """Remove `key`: it succeeded, or it is gone."""
        if self._pauses.pop(key, None) is None:
            return
        # The obstacle of this item may have been the obstacle of another item too.
        if others := [pause for pause in self._pauses.values() if not pause.slow]:
            min(others, key=lambda pause: pause.due).due = 0.0


_TRIED = re.compile(r"jobq (?:job (\d+) (-?\d+) (\d+)|turn (-?\d+) (.*))", re.DOTALL)
# Later than any time, in microseconds since 1970, for index ranges that must not be read.
_NEVER = 2**53
_LANES = 10


@dataclass(frozen=True, slots=True)
class Tried:
    """The item that a claim of a limited queue tried.

    The item is a job of a lane (numbered from 0), or a ready group with its time.
    """

    key: int | str
    at: int
    lane: int = 0

    @classmethod
    def read(cls, text: str | None) -> Tried | None:
        """Return the item that claim_limited names in `text`; None for other texts."""
        found = _TRIED.fullmatch(text or "")
        if found is None:
            return None
        lane, run_at, job, due_at, group = found.groups()
        return cls(int(job), int(run_at), int(lane)) if job is not None else cls(group, int(due_at))

    @property
    def subject(self) -> dict[str, Any]:
        """The names of the item in a problem."""
        return {"job": self.key} if isinstance(self.key, int) else {"group": self.key}

    @property
    def since(self) -> dict[str, Any]:
        """The parameters of claim_limited.sql with which this item is found first."""
        at, ids = [_NEVER] * _LANES, [0] * _LANES
        if isinstance(self.key, str):
            return {"turns_since": self.at, "lanes_since": at, "lanes_since_ids": ids}
        at[self.lane], ids[self.lane] = self.at, self.key
        return {"turns_since": _NEVER, "lanes_since": at, "lanes_since_ids": ids}


@dataclass(slots=True)
class QueueTrouble:
    """The state of failing claims of one limited queue.

    It ends when a claim of the full number of jobs succeeds and leaves out none. After a few
    failures the jobs are claimed one by one, so that it is known which job is refused. Then the
    number doubles each time, without the refused jobs. A group is left out as a whole, because jobs
    behind the refused one must not overtake it.
    """

    suspects: Suspects[int | str] = field(default_factory=Suspects)
    tried: dict[int | str, Tried] = field(default_factory=dict)
    most: int | None = None
    """Number of jobs to claim at a time; None for any number, because too few claims have failed."""
    slow: bool = False
    failures: int = 0
    losses: int = 0
    in_a_row: int = 0
    retrying: bool = False

    def retry(self) -> Tried | None:
        """Return the item to try again now. At most every second call returns one."""
        key = None if self.retrying else self.suspects.next()
        self.retrying = key is not None
        return self.tried[key] if key is not None else None

    def parameters(self, retry: Tried | None) -> dict[str, Any]:
        """Return the parameters for a careful claim: items to leave out, positions to read from."""
        keys = [key for key in self.suspects.keys if retry is None or key != retry.key]
        return {
            "left_out": [key for key in keys if isinstance(key, int)],
            "left_out_groups": [key for key in keys if isinstance(key, str)],
            "one_by_one": retry is not None or self.most == 1,
            **(retry.since if retry is not None else {}),
        }

    def within(self, retry: Tried | None) -> float | None:
        """Return the maximum seconds for the claim; None for the usual limit."""
        if retry is not None:
            return self.suspects.within(retry.key)
        return BRIEF if self.slow or self.suspects.slow else None

    def failed(self, error: BaseException, *, lost: bool, refused: bool) -> bool:
        """Note that a claim has failed. Return whether to find out which job is the reason."""
        self.failures += not refused and not lost
        self.losses += lost
        self.slow = self.slow or is_slow(error)
        if refused or self.slow or self.failures > PATIENCE or self.losses >= PATIENCE:
            self.most = 1
        return self.most is not None

    def leave_out(self, tried: Tried, error: BaseException) -> bool:
        """Leave out the item that was `tried`.

        Return False if too many are left out: the cause is then not a single job.
        """
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
        """Note that a claim has succeeded.

        Return whether `most` jobs can be claimed and nothing is left out.
        """
        self.failures = self.losses = self.in_a_row = 0
        self.most = min(2 * (self.most or most), most)
        if self.most < most:
            return False
        self.slow = False
        return not self.suspects
