"""Limits, rates and rules for groups, as values: read from what people write, and said again in words.

What they mean, and what keeps them, is in `jobq.flowtables` and the function claim_managed; here is only what may be asked for.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypeAlias, TypeVar, get_args

from jobq.errors import InvalidOption

T = TypeVar("T")
GroupMode: TypeAlias = Literal["ordered", "limited", "fair"]
GroupRetry: TypeAlias = Literal["hold", "pass"]

MAX_NUMBER = 2**31 - 1
"""The largest limit, number of jobs and burst: what a column of Postgres' type integer holds."""
MAX_PERIOD = 366 * 86400.0
"""The longest period of a rate, and the longest time that a burst may stand for, in seconds."""
MAX_STARTS = 10_000
"""The highest rate in starts a second: each start's share of time is kept in whole microseconds."""

_MODES = get_args(GroupMode)
_RETRIES = get_args(GroupRetry)
_PERIODS = {
    "s": 1.0, "sec": 1.0, "second": 1.0, "m": 60.0, "min": 60.0, "minute": 60.0,
    "h": 3600.0, "hour": 3600.0, "d": 86400.0, "day": 86400.0,
}  # fmt: skip
_UNITS = ((86400.0, "day"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))
_RATE = re.compile(r"([0-9]{1,20})\s*/\s*([0-9]{1,20}(?:\.[0-9]{1,9})?)?\s*([a-z]+)", re.ASCII)
_RULE = re.compile(r"([a-z]+)(?:\s*[:=]\s*([a-z0-9+.-]+))?", re.ASCII)
_RATE_HINT = "write jobs/period, such as 50/s, 5/10s, 100/min, 1000/h or 3/day"
_GROUPS_HINT = "give ordered, ordered:pass, limited:N, fair or fair:N"


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `jobs` starts in `seconds`, spread evenly.

    `burst` (default 1: never more than the rate in any window, but for one) lets that many start at once after a quiet time:
    larger, the rate is reached more easily when jobs come in heaps, and what you call gets heaps. Raises InvalidOption.
    """

    jobs: int
    seconds: float = 1.0
    burst: int = 1

    def __post_init__(self) -> None:
        whole("rate", self.jobs, hint="a rate of 0 starts nothing: pause the queue for that")
        whole("burst", self.burst)
        if isinstance(self.seconds, bool) or not isinstance(self.seconds, (int, float)):
            raise InvalidOption(f"rate: the period is {self.seconds!r}: give seconds as a number")
        if not (math.isfinite(self.seconds) and 0 < self.seconds <= MAX_PERIOD):
            raise InvalidOption(f"rate: the period is {self.seconds!r} s: give one above 0 and at most 366 days")
        object.__setattr__(self, "seconds", float(self.seconds))
        if self.jobs / self.seconds > MAX_STARTS:
            raise InvalidOption(
                f"rate={str(self)!r}: give at most {MAX_STARTS:,} starts a second; faster queues need no rate"
            )
        # Not by `share`, which is rounded: the longest period itself would be refused for some numbers.
        if self.burst * self.seconds > MAX_PERIOD * self.jobs:
            raise InvalidOption(
                f"burst={self.burst}: at a rate of {self} that stands for more than a year; give a smaller burst"
            )

    @classmethod
    def parse(cls, text: str, *, burst: int = 1, name: str = "rate") -> Rate:
        """Return the rate that `text` says: ``50/s``, ``5/10s``, ``100/min``, ``1000/h``, ``3/day``.

        Raises InvalidOption with `name`, the text and what to do.
        """
        found = _RATE.fullmatch(text.strip().lower()) if isinstance(text, str) else None
        if found is None or found[3] not in _PERIODS:
            raise InvalidOption(f"{name}={_brief(text)}: {_RATE_HINT}")
        seconds = _PERIODS[found[3]] * (1.0 if found[2] is None else float(found[2]))
        try:
            return cls(int(found[1]), seconds, burst)
        except InvalidOption as error:
            said = str(error)
            raise InvalidOption(said if said.startswith("burst") else f"{name}={_brief(text)}: {said}") from None

    @property
    def share(self) -> float:
        """How many seconds of the rate one start takes."""
        return self.seconds / self.jobs

    def describe(self) -> str:
        """Return the rate in words: ``50 starts a second, up to 10 of them at once``."""
        starts = "1 start" if self.jobs == 1 else f"{self.jobs:,} starts"
        period, unit = _period(self.seconds)
        words = {"s": "second", "min": "minute", "h": "hour", "day": "day"}
        said = f"{starts} {'an' if unit == 'h' else 'a'} {words[unit]}"
        if period != 1:
            said = f"{starts} in {period:g} {words[unit]}s"
        return said if self.burst == 1 else f"{said}, up to {self.burst:,} of them at once"

    def __str__(self) -> str:
        period, unit = _period(self.seconds)
        return f"{self.jobs}/{'' if period == 1 else _plain(period)}{unit}"


@dataclass(frozen=True, slots=True)
class Groups:
    """How the groups of a queue's jobs run.

    `mode`: ``ordered`` (in the order of enqueue, one at a time per group), ``limited`` (at most `limit` of a group at a
    time) or ``fair`` (workers go round the groups, each in its turn; `limit` as well, if given). `retry`, for ``ordered``:
    a job that waits for its retry holds its group back (``hold``, the default: the order is strict, and one job that cannot
    succeed stops its group until its last attempt) or the others pass it (``pass``). Raises InvalidOption.
    """

    mode: GroupMode
    limit: int | None = None
    retry: GroupRetry | None = None

    def __post_init__(self) -> None:
        if self.mode not in _MODES:
            raise InvalidOption(f"groups={_brief(self.mode)}: {_GROUPS_HINT}")
        if self.limit is not None:
            whole("group limit", self.limit)
            if self.mode == "ordered":
                raise InvalidOption(
                    f"groups={self}: an ordered group runs one job at a time; leave the limit away, or give limited:N"
                )
        elif self.mode == "limited":
            raise InvalidOption("groups='limited': say how many of a group may run at a time, as in limited:3")
        if self.retry is not None:
            if self.retry not in _RETRIES:
                raise InvalidOption(f"groups: retry={_brief(self.retry)}: give hold or pass")
            if self.mode != "ordered":
                raise InvalidOption(f"groups={self.mode!r}: hold and pass are for ordered groups only")
            if self.retry == "hold":
                # One rule, one value.
                object.__setattr__(self, "retry", None)

    @classmethod
    def parse(cls, text: str) -> Groups:
        """Return the rule that `text` says: ``ordered``, ``ordered:pass``, ``limited:3``, ``fair``, ``fair:5``.

        ``=`` does for the colon, and ``limit`` for ``limited``. Raises InvalidOption with the text and what to do.
        """
        found = _RULE.fullmatch(text.strip().lower()) if isinstance(text, str) else None
        if found is None:
            raise InvalidOption(f"groups={_brief(text)}: {_GROUPS_HINT}")
        mode = "limited" if found[1] == "limit" else found[1]
        detail = found[2]
        if detail is None:
            return cls(mode)  # type: ignore[arg-type]  # looked at by the class
        if detail in _RETRIES:
            return cls(mode, retry=detail)  # type: ignore[arg-type]  # as above
        if not (detail.isascii() and detail.isdigit() and len(detail) <= 20):
            raise InvalidOption(f"groups={_brief(text)}: {_GROUPS_HINT}, N a whole number")
        try:
            return cls(mode, limit=int(detail))  # type: ignore[arg-type]  # as above
        except InvalidOption as error:
            raise InvalidOption(f"groups={_brief(text)}: {error}") from None

    def describe(self) -> str:
        """Return the rule in words."""
        match self.mode:
            case "ordered":
                waits = "a job that waits for its retry"
                said = f"the others pass {waits}" if self.retry == "pass" else f"{waits} holds its group back"
                return f"each group in order of enqueue, one at a time ({said})"
            case "limited":
                return "no limit" if self.limit is None else f"at most {self.limit:,} of each group at a time"
            case "fair":
                said = "the groups take turns"
                return said if self.limit is None else f"{said}, at most {self.limit:,} of each at a time"

    def __str__(self) -> str:
        detail = self.retry if self.limit is None else self.limit
        return self.mode if detail is None else f"{self.mode}:{detail}"


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSettings:
    """What is set for one queue, as it is stored; all None: jobs start as workers have slots for them.

    `limit`: most of its jobs that run at a time, over all workers. `rate`: starts over all workers. `groups`: how its groups
    run; `group_rate`: starts of each group. `paused_at`: since when no job is started. `changed_at`: the last change but
    for pauses; workers follow within a heartbeat.
    """

    limit: int | None = None
    rate: Rate | None = None
    groups: Groups | None = None
    group_rate: Rate | None = None
    paused_at: datetime | None = None
    changed_at: datetime | None = None

    def __post_init__(self) -> None:
        if self.limit is not None:
            whole("limit", self.limit, hint="to start nothing, pause the queue; to clear the limit, give none")
        if self.group_rate is not None and self.groups is None:
            raise InvalidOption(
                f"group_rate={str(self.group_rate)!r}: the queue has no rule for its groups; set groups as well, such as fair"
            )

    @property
    def managed(self) -> bool:
        """Whether the queue's claims follow one another, which a limit, a rate and a rule for groups need."""
        return self.limit is not None or self.rate is not None or self.groups is not None

    def fields(self) -> dict[str, Any]:
        """Return what is set as plain values, by the names and in the form in which it is written."""
        return {
            "limit": self.limit,
            "rate": None if self.rate is None else str(self.rate),
            "burst": None if self.rate is None else self.rate.burst,
            "groups": None if self.groups is None else str(self.groups),
            "group_rate": None if self.group_rate is None else str(self.group_rate),
            "group_burst": None if self.group_rate is None else self.group_rate.burst,
        }

    def sentences(self) -> Iterator[str]:
        """Yield what is set in words, one thing at a time; nothing where nothing is set."""
        if self.limit is not None:
            yield f"at most {self.limit:,} {'job runs' if self.limit == 1 else 'jobs run'} at a time"
        if self.rate is not None:
            yield f"at most {self.rate.describe()}"
        if self.groups is not None:
            yield self.groups.describe()
        if self.group_rate is not None:
            yield f"of each group at most {self.group_rate.describe()}"

    def describe(self) -> str:
        """Return what is set in one sentence, such as ``At most 20 jobs run at a time; at most 50 starts a second.``"""
        said = "; ".join(self.sentences()) or "no limit, no rate and no rule for groups"
        return f"{said[0].upper()}{said[1:]}."


def settings_of(row: Any) -> QueueSettings:
    """Return the settings in a row of `queue`, a mapping by the columns' names. One written past jobq is read, too."""
    mode = row["group_mode"]
    return QueueSettings(
        limit=row["max_running"],
        rate=_stored_rate(row, "rate"),
        groups=None if mode is None else _stored(Groups, mode=mode, limit=row["group_limit"], retry=row["group_retry"]),
        group_rate=_stored_rate(row, "group_rate"),
        paused_at=stored_time(row["paused_at"]),
        changed_at=stored_time(row["changed_at"]),
    )


def stored_time(value: str | datetime | None) -> datetime | None:
    """Return a time that a statement may have given as text (ISO 8601). One that Python lacks, such as infinity, is None."""
    if not isinstance(value, str):
        return value
    try:
        return datetime.fromisoformat(value)
    except ValueError:
        return None


def whole(name: str, value: object, *, hint: str = "") -> None:
    """Raise InvalidOption unless `value` is a whole number from 1 to MAX_NUMBER."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_NUMBER:
        more = f"; {hint}" if hint and value == 0 else ""
        raise InvalidOption(f"{name}={_brief(value)}: give a whole number from 1 to {MAX_NUMBER}{more}")


def _stored_rate(row: Any, name: str) -> Rate | None:
    jobs = row[f"{name}_jobs"]
    if jobs is None:
        return None
    return _stored(Rate, jobs=jobs, seconds=row[f"{name}_seconds"], burst=row[f"{name}_burst"])


def _stored(kind: type[T], **values: Any) -> T:
    # Rows that were written in SQL are held to the table's constraints alone: what shows the settings must not fail on them.
    made = object.__new__(kind)
    for name, value in values.items():
        object.__setattr__(made, name, value)
    return made


def _period(seconds: float) -> tuple[float, str]:
    """Return the period in the largest unit in which it is a whole number."""
    for size, unit in _UNITS:
        if seconds >= size and seconds % size == 0:
            return seconds / size, unit
    return seconds, "s"


def _plain(number: float) -> str:
    # Not 1e+07, which would not be read back.
    return str(int(number)) if number.is_integer() else f"{number:.9f}".rstrip("0")


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
