"""Limits, rates and group rules as values: parsed from text, and described in words.

This module defines which values are valid. `jobq._postgres.tables.limits` and the function
claim_limited define what they mean and how they are enforced.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal, TypeAlias, TypeVar, get_args

from jobq._core.durations import DAY, UNITS, in_largest_unit
from jobq._core.text import brief
from jobq._core.validation import check_int
from jobq.errors import InvalidOption

T = TypeVar("T")
GroupMode: TypeAlias = Literal["ordered", "limited", "fair"]
GroupRetry: TypeAlias = Literal["hold", "pass"]

MAX_NUMBER = 2**31 - 1
"""The largest limit, number of jobs and burst: the maximum of PostgreSQL's type integer."""
MAX_PERIOD = 366.0 * DAY
"""The longest period of a rate, and the longest time that a burst may cover, in seconds."""
MAX_STARTS = 10_000
"""The highest rate in starts a second: the time for each start is kept in whole microseconds."""

GROUP_MODES = get_args(GroupMode)
GROUP_RETRIES = get_args(GroupRetry)
SETTINGS_COLUMNS = (
    "max_running", "rate_jobs", "rate_seconds", "rate_burst", "group_mode", "group_limit", "group_retry",
    "group_rate_jobs", "group_rate_seconds", "group_rate_burst",
)  # fmt: skip
"""The columns of `queue` that hold its settings."""

_RATE = re.compile(r"([0-9]{1,20})\s*/\s*([0-9]{1,20}(?:\.[0-9]{1,9})?)?\s*([a-z]+)", re.ASCII)
_RULE = re.compile(r"([a-z]+)(?:\s*[:=]\s*([a-z0-9+.-]+))?", re.ASCII)
_RATE_HINT = "write jobs/period, such as 50/s, 5/10s, 100/min, 1000/h or 3/day"
_GROUPS_HINT = "expected ordered, ordered:pass, limited:N, fair or fair:N"


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `jobs` starts in `seconds`, spread evenly.

    After an idle time, up to `burst` jobs may start at once. With the default of 1, no window has
    more starts than the rate allows, except for one. A larger burst makes it easier to reach the
    rate if jobs arrive in batches, but the service that the jobs call gets batches, too. Raises
    InvalidOption.
    """

    jobs: int
    seconds: float = 1.0
    burst: int = 1

    def __post_init__(self) -> None:
        check_int("rate", self.jobs, 1, MAX_NUMBER, zero_hint="a rate of 0 starts nothing: pause the queue for that")
        check_int("burst", self.burst, 1, MAX_NUMBER)
        if isinstance(self.seconds, bool) or not isinstance(self.seconds, (int, float)):
            raise InvalidOption(f"rate: the period is {self.seconds!r}: expected a number of seconds")
        if not (math.isfinite(self.seconds) and 0 < self.seconds <= MAX_PERIOD):
            raise InvalidOption(f"rate: the period is {self.seconds!r} s: expected one above 0 and at most 366 days")
        object.__setattr__(self, "seconds", float(self.seconds))
        if self.jobs / self.seconds > MAX_STARTS:
            raise InvalidOption(
                f"rate={str(self)!r}: expected at most {MAX_STARTS:,} starts a second; faster queues need no rate"
            )
        # `share` is rounded: with it, the longest period itself would be refused for some numbers.
        if self.burst * self.seconds > MAX_PERIOD * self.jobs:
            raise InvalidOption(
                f"burst={self.burst}: at a rate of {self} it takes more than a year to refill; use a smaller burst"
            )

    @classmethod
    def parse(cls, text: str, *, burst: int = 1, name: str = "rate") -> Rate:
        """Return the rate for a text: ``50/s``, ``5/10s``, ``100/min``, ``1000/h``, ``3/day``.

        Args:
            text: the rate.
            burst: how many jobs may start at once after an idle time.
            name: name of the field for the error message.

        Raises:
            InvalidOption: with `name`, the text and what to do.
        """
        found = _RATE.fullmatch(text.strip().lower()) if isinstance(text, str) else None
        if found is None or found[3] not in UNITS:
            raise InvalidOption(f"{name}={brief(text)}: {_RATE_HINT}")
        seconds = UNITS[found[3]] * (1.0 if found[2] is None else float(found[2]))
        try:
            return cls(int(found[1]), seconds, burst)
        except InvalidOption as error:
            said = str(error)
            raise InvalidOption(said if said.startswith("burst") else f"{name}={brief(text)}: {said}") from None

    @property
    def share(self) -> float:
        """Seconds of the rate that one start uses. The function admits says how claims use this."""
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
        shown = "" if period == 1 else f"{period:f}"
        return f"{self.jobs}/{shown}{unit}"


@dataclass(frozen=True, slots=True)
class Groups:
    """How the groups of a queue's jobs run. Raises InvalidOption.

    `mode` is one of:

    - ``ordered``: in the order of enqueuing, one job of a group at a time;
    - ``limited``: at most `limit` jobs of a group at a time;
    - ``fair``: workers take the groups in turn; also at most `limit` jobs of each, if given.

    `retry` applies to ``ordered``. With ``hold``, the default, a job that waits for its retry
    holds back its group: the order is strict, and one job that cannot succeed stops its group
    until its last attempt. With ``pass``, the other jobs of the group overtake it.
    """

    mode: GroupMode
    limit: int | None = None
    retry: GroupRetry | None = None

    def __post_init__(self) -> None:
        if self.mode not in GROUP_MODES:
            raise InvalidOption(f"groups={brief(self.mode)}: {_GROUPS_HINT}")
        if self.limit is not None:
            check_int("group limit", self.limit, 1, MAX_NUMBER)
            if self.mode == "ordered":
                raise InvalidOption(
                    f"groups={self}: an ordered group runs one job at a time; omit the limit, or use limited:N"
                )
        elif self.mode == "limited":
            raise InvalidOption("groups='limited': say how many of a group may run at a time, as in limited:3")
        if self.retry is not None:
            if self.retry not in GROUP_RETRIES:
                raise InvalidOption(f"groups: retry={brief(self.retry)}: expected hold or pass")
            if self.mode != "ordered":
                raise InvalidOption(f"groups={self.mode!r}: hold and pass are for ordered groups only")
            if self.retry == "hold":
                # Each rule has only one value.
                object.__setattr__(self, "retry", None)

    @classmethod
    def parse(cls, text: str) -> Groups:
        """Return the rule for a text.

        Rules are ``ordered``, ``ordered:pass``, ``limited:3``, ``fair``, ``fair:5``.

        ``=`` may replace the colon, and ``limit`` may replace ``limited``. Raises InvalidOption
        with the text and what to do.
        """
        found = _RULE.fullmatch(text.strip().lower()) if isinstance(text, str) else None
        if found is None:
            raise InvalidOption(f"groups={brief(text)}: {_GROUPS_HINT}")
        mode = "limited" if found[1] == "limit" else found[1]
        detail = found[2]
        if detail is None:
            return cls(mode)  # type: ignore[arg-type]  # looked at by the class
        if detail in GROUP_RETRIES:
            return cls(mode, retry=detail)  # type: ignore[arg-type]  # as above
        if not (detail.isascii() and detail.isdigit() and len(detail) <= 20):
            raise InvalidOption(f"groups={brief(text)}: {_GROUPS_HINT}, N a whole number")
        try:
            return cls(mode, limit=int(detail))  # type: ignore[arg-type]  # as above
        except InvalidOption as error:
            raise InvalidOption(f"groups={brief(text)}: {error}") from None

    def limit_of(self, own: int | None) -> int | None:
        """Return how many jobs of a group claims may run at a time; None: no limit.

        `own` is the limit set for this group alone. An ordered group always runs one job.
        """
        if self.mode == "ordered":
            return 1
        return self.limit if own is None else own

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
    """The stored settings of one queue. If all are None, jobs start whenever a slot is free.

    `limit`: most jobs that run at a time, over all workers. `rate`: starts over all workers.
    `groups`: how its groups run. `group_rate`: starts of each group. `paused_at`: when the queue
    was paused, or None. `changed_at`: the last change that was not a pause. Workers follow a
    change within a heartbeat.
    """

    limit: int | None = None
    rate: Rate | None = None
    groups: Groups | None = None
    group_rate: Rate | None = None
    paused_at: datetime | None = None
    changed_at: datetime | None = None

    def __post_init__(self) -> None:
        if self.limit is not None:
            check_int(
                "limit",
                self.limit,
                1,
                MAX_NUMBER,
                zero_hint="to start nothing, pause the queue; to clear the limit, use none",
            )
        if self.group_rate is not None and self.groups is None:
            raise InvalidOption(
                f"group_rate={str(self.group_rate)!r}: the queue has no rule for its groups; set groups as well, such as fair"
            )

    @property
    def limited(self) -> bool:
        """Whether claims of the queue run one at a time.

        A limit, a rate and a group rule need this.
        """
        return self.limit is not None or self.rate is not None or self.groups is not None

    def fields(self) -> dict[str, Any]:
        """Return the settings as plain values, named and written as users give them."""
        return {
            "limit": self.limit,
            "rate": None if self.rate is None else str(self.rate),
            "burst": None if self.rate is None else self.rate.burst,
            "groups": None if self.groups is None else str(self.groups),
            "group_rate": None if self.group_rate is None else str(self.group_rate),
            "group_burst": None if self.group_rate is None else self.group_rate.burst,
        }

    def sentences(self) -> Iterator[str]:
        """Yield each setting in words; nothing if no setting is given."""
        if self.limit is not None:
            yield f"at most {self.limit:,} {'job runs' if self.limit == 1 else 'jobs run'} at a time"
        if self.rate is not None:
            yield f"at most {self.rate.describe()}"
        if self.groups is not None:
            yield self.groups.describe()
        if self.group_rate is not None:
            yield f"of each group at most {self.group_rate.describe()}"

    def describe(self) -> str:
        """Return the settings as one sentence.

        For example: ``At most 20 jobs run at a time; at most 50 starts a second.``
        """
        said = "; ".join(self.sentences()) or "no limit, no rate and no rule for groups"
        return f"{said[0].upper()}{said[1:]}."


def settings_of(row: Any) -> QueueSettings:
    """Return the settings in a row of `queue`, a mapping by column names.

    A row that was not written by jobq is accepted, too.
    """
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
    """Return a time that a statement may give as ISO 8601 text.

    A time that Python cannot represent, such as infinity, becomes None.
    """
    if not isinstance(value, str):
        return value
    try:
        return datetime.fromisoformat(value)
    except ValueError:
        return None


def _stored_rate(row: Any, name: str) -> Rate | None:
    jobs = row[f"{name}_jobs"]
    if jobs is None:
        return None
    return _stored(Rate, jobs=jobs, seconds=row[f"{name}_seconds"], burst=row[f"{name}_burst"])


def _stored(kind: type[T], **values: Any) -> T:
    # Rows written in SQL satisfy the table's constraints only. Displaying them must not fail.
    made = object.__new__(kind)
    for name, value in values.items():
        object.__setattr__(made, name, value)
    return made


def _period(seconds: float) -> tuple[Decimal, str]:
    """Return the period in the largest unit that gives a whole number."""
    return in_largest_unit(seconds, ("day", "h", "min"))
