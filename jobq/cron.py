"""When a schedule ticks: cron expressions in a time zone, and intervals.

This module is pure: it reads no clock and no database.

A tick is an aware datetime in UTC. One rule covers daylight saving in every zone:

- If neither the minutes nor the hours of an expression begin with ``*``, it has *fixed times*.
  It ticks once for each wall-clock time that it names. If the clock skips such a time, the tick
  comes at the moment after the gap. If the clock shows it twice, the first one counts. Two times
  that fall on one moment are one tick.
- Any other expression has *recurring times*. It ticks at every moment at which the wall clock
  shows a matching time. A skipped time is no tick, and a time that is shown twice is two ticks.
- An interval does not depend on a wall clock: its ticks are multiples of the interval since
  1970-01-01 00:00 UTC. All workers therefore agree on them.

cronsim (the expressions of Debian's cron, with seconds) computes wall-clock times only. This
module converts them to UTC, because cronsim's own conversion loses ticks where a zone shifts by
half an hour.
"""

from __future__ import annotations

import difflib
import zoneinfo
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from cronsim import CronSim, CronSimError

from jobq._core.durations import in_words
from jobq.errors import InvalidOption

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LEAST_INTERVAL = timedelta(seconds=1)
LONGEST_INTERVAL = timedelta(days=36525)
LONGEST_EXPRESSION = 200

_SECOND = timedelta(seconds=1)
# No zone's clock was ever moved by more than this (Samoa left out a day).
_LARGEST_SHIFT = timedelta(hours=25)
# Two offset changes within this time that cancel each other are not detected.
_STEP = timedelta(hours=12)
_ALIASES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}


class NoNextRun(Exception):
    """An expression has no tick within the next 50 years."""


@dataclass(frozen=True, slots=True)
class Cron:
    """A cron expression in a time zone.

    It has five fields (minute, hour, day of month, month, day of week), or six with seconds
    first; or it is ``@yearly``, ``@monthly``, ``@weekly``, ``@daily`` or ``@hourly``. ``L`` is the
    last day of a month, ``LW`` its last weekday, ``MON#1`` its first Monday, ``5L`` its last
    Friday.

    Raises InvalidOption if the expression or the zone is invalid, or the expression never ticks.
    """

    expression: str
    timezone: str = "UTC"
    _zone: zoneinfo.ZoneInfo = field(init=False, repr=False, compare=False)
    _fields: str = field(init=False, repr=False, compare=False)
    _fixed: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_zone", zone(self.timezone))
        fields = _fields(self.expression)
        object.__setattr__(self, "_fields", fields)
        minutes, hours = fields.split()[-5:-3]
        object.__setattr__(self, "_fixed", not minutes.startswith("*") and not hours.startswith("*"))

    def next(self, after: datetime) -> datetime:
        """Return the first tick after `after`, an aware datetime. Raises NoNextRun."""
        return self._next_fixed(after) if self._fixed else self._next_recurring(after)

    def describe(self) -> str:
        """Return a description of the expression in words, with its zone."""
        return f"{_explained(self._fields)}, {self.timezone}"

    @property
    def zone(self) -> zoneinfo.ZoneInfo:
        """The time zone."""
        return self._zone

    def _wall(self, after: datetime) -> Iterator[datetime]:
        """Yield the matching wall-clock times after the naive `after`."""
        try:
            yield from CronSim(self._fields, after)
        except (OverflowError, ValueError):  # the end of the calendar
            return

    def _next_fixed(self, after: datetime) -> datetime:
        here = after.astimezone(self._zone)
        since = here.replace(tzinfo=None)
        if (after - _LARGEST_SHIFT).astimezone(self._zone).utcoffset() != here.utcoffset():
            # Times that the clock skipped or repeated shortly before `after` may map to later
            # moments.
            since -= _LARGEST_SHIFT
        for wall in self._wall(since):
            if (moment := self._moment(wall)) > after:
                return moment
        raise NoNextRun(self.expression)

    def _moment(self, wall: datetime) -> datetime:
        """Return the first moment at which the clock shows `wall`.

        If the clock skips `wall`, return the moment after the gap.
        """
        moment = wall.replace(tzinfo=self._zone, fold=0).astimezone(UTC)
        if moment.astimezone(self._zone).replace(tzinfo=None) == wall:
            return moment
        # With the offset before the gap (fold=0) it is after the change, with the offset after it
        # before.
        before = wall.replace(tzinfo=self._zone, fold=1).astimezone(UTC)
        return self._change(before, moment) or moment

    def _next_recurring(self, after: datetime) -> datetime:
        begin = after.astimezone(UTC)
        offset = self._offset(begin)
        since = begin + offset
        while (wall := next(self._wall(since.replace(tzinfo=None)), None)) is not None:
            moment = wall.replace(tzinfo=UTC) - offset
            if (change := self._change(begin, moment)) is None:
                return moment
            # From the change on, the clock shows other times. The time at the change itself counts.
            begin, offset = change, self._offset(change)
            since = change - _SECOND + offset
        raise NoNextRun(self.expression)

    def _offset(self, moment: datetime) -> timedelta:
        return moment.astimezone(self._zone).utcoffset() or timedelta(0)

    def _change(self, after: datetime, until: datetime) -> datetime | None:
        """Return the first change of the offset after `after`, up to `until`, or None."""
        low, offset = after, self._offset(after)
        while low < until:
            high = min(low + _STEP, until)
            if self._offset(high) != offset:
                return self._bisected(low, high, offset)
            low = high
        return None

    def _bisected(self, low: datetime, high: datetime, offset: timedelta) -> datetime:
        while high - low > _SECOND:
            middle = low + ((high - low) / 2)
            low, high = (middle, high) if self._offset(middle) == offset else (low, middle)
        # Changes come at whole seconds.
        return high.replace(microsecond=0)


@dataclass(frozen=True, slots=True)
class Every:
    """An interval of a second or more. Raises InvalidOption."""

    interval: timedelta

    def __post_init__(self) -> None:
        if not isinstance(self.interval, timedelta):
            raise InvalidOption(f"every={self.interval!r}: expected a timedelta, such as timedelta(minutes=5)")
        if not LEAST_INTERVAL <= self.interval <= LONGEST_INTERVAL:
            raise InvalidOption(
                f"every={in_words(self.interval)}: expected a timedelta between one second and 100 years: each tick is a job"
            )

    def next(self, after: datetime) -> datetime:
        """Return the first tick after `after`, an aware datetime.

        Raises NoNextRun at the end of the calendar.
        """
        try:
            return EPOCH + ((after - EPOCH) // self.interval + 1) * self.interval
        except OverflowError:
            raise NoNextRun(f"every {self.interval}") from None

    def describe(self) -> str:
        """Return the interval in words."""
        words = in_words(self.interval)
        one = words.removeprefix("1 ")
        return f"every {words if ' ' in one else one}"

    @property
    def zone(self) -> zoneinfo.ZoneInfo:
        """UTC, which the ticks are counted in."""
        return zone("UTC")


When = Cron | Every


def when(cron: str | None, every: timedelta | None, timezone: str | None = None) -> When:
    """Return the rule for a cron expression (in `timezone`, default UTC) or an interval.

    Raises InvalidOption.
    """
    if (cron is None) == (every is None):
        raise InvalidOption("expected either a cron expression, such as '0 7 * * mon-fri', or every=timedelta(…)")
    if cron is not None:
        return Cron(cron, "UTC" if timezone is None else timezone)
    if timezone not in (None, "UTC"):
        raise InvalidOption(
            f"timezone={timezone!r}: an interval is counted in UTC and has no time zone; use a cron expression, or no timezone"
        )
    assert every is not None
    return Every(every)


def following(rule: When, after: datetime, number: int) -> list[datetime]:
    """Return the next `number` ticks after `after`, or fewer if the expression ends."""
    found: list[datetime] = []
    try:
        while len(found) < number:
            found.append(rule.next(found[-1] if found else after))
    except NoNextRun:
        pass
    return found


def latest(rule: When, since: datetime, until: datetime, number: int) -> list[datetime]:
    """Return the last `number` ticks from `since` to `until`, both included, in order.

    There may be fewer ticks. A long period takes no more time than a short one: the search looks
    at a growing part of its end until that holds enough ticks.
    """
    span = timedelta(minutes=1)
    while True:
        begin = max(since, until - span)
        found: deque[datetime] = deque(maxlen=number)
        count = 0
        tick = _next(rule, begin - timedelta(microseconds=1))
        while tick is not None and tick <= until:
            found.append(tick)
            count += 1
            tick = _next(rule, tick)
        if count >= number or begin == since:
            return list(found)
        span *= 4


def _next(rule: When, after: datetime) -> datetime | None:
    try:
        return rule.next(after)
    except NoNextRun:
        return None


def zone(name: str) -> zoneinfo.ZoneInfo:
    """Return the zone with an IANA name. Raises InvalidOption, which suggests similar names."""
    if not isinstance(name, str) or not 1 <= len(name) <= 100:
        raise InvalidOption(f"timezone={name!r}: expected an IANA name, such as 'Europe/Berlin'")
    known = _zones()
    if name in known:
        return zoneinfo.ZoneInfo(name)
    by_case = {other.lower(): other for other in known}
    cities = {other.rpartition("/")[2].lower(): other for other in sorted(known) if "/" in other}
    wanted = name.lower().replace(" ", "_")
    near = [by_case[wanted]] if wanted in by_case else []
    near += [cities[city] for city in difflib.get_close_matches(wanted.rpartition("/")[2], cities, n=2, cutoff=0.75)]
    near += [by_case[other] for other in difflib.get_close_matches(wanted, by_case, n=2, cutoff=0.75)]
    hint = (
        f"did you mean {' or '.join(dict.fromkeys(near))}?"
        if near
        else "expected an IANA name, such as 'Europe/Berlin'"
    )
    raise InvalidOption(f"timezone={name!r} is no zone that is known here; {hint}")


@lru_cache(maxsize=1)
def _zones() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones())


def _fields(expression: str) -> str:
    """Return the fields of a cron expression. Raises InvalidOption if it never ticks."""
    if not isinstance(expression, str) or not 1 <= len(expression) <= LONGEST_EXPRESSION:
        raise InvalidOption(
            f"cron={expression!r}: expected an expression of at most {LONGEST_EXPRESSION} characters, such as '0 7 * * mon-fri'"
        )
    return _checked(expression)


@lru_cache(maxsize=1024)
def _checked(expression: str) -> str:
    text = " ".join(expression.split())
    if text.startswith("@"):
        if text.lower() not in _ALIASES:
            raise InvalidOption(f"cron={expression!r}: of the words with @, {', '.join(_ALIASES)} are known")
        text = _ALIASES[text.lower()]
    try:
        next(CronSim(text, datetime(2000, 1, 1)))
    except CronSimError as error:
        raise InvalidOption(f"cron={expression!r}: {_fault(str(error), text)}") from None
    except StopIteration:
        raise InvalidOption(f"cron={expression!r} never ticks: no day fits; {_DAYS}") from None
    except (ValueError, AssertionError, TypeError):  # cronsim's parser raises these, too
        raise InvalidOption(f"cron={expression!r} cannot be read; {_EXAMPLE}") from None
    return text


_EXAMPLE = "expected minute, hour, day of month, month and day of week, as in '0 7 * * mon-fri'"
_DAYS = "expected a day that its months have (1 to 31), L for the last one, or * for each"
_FIXES = {
    "second": "expected 0 to 59",
    "minute": "expected 0 to 59, as in 0, */15 or 10-20",
    "hour": "expected 0 to 23, as in 7, */2 or 9-17",
    "day-of-month": _DAYS,
    "month": "expected 1 to 12 or jan to dec",
    "day-of-week": "expected 0 to 7 (0 and 7 are Sunday) or sun to sat, as in mon-fri",
}


def _fault(said: str, text: str) -> str:
    name = said.removeprefix("Bad ")
    parts = text.split()
    if name not in _FIXES:
        return f"it has {len(parts)} fields instead of 5, or 6 with seconds first; {_EXAMPLE}"
    place = list(_FIXES).index(name) - (6 - len(parts))
    return f"its {name.replace('-', ' ')} {parts[place]!r} is invalid; {_FIXES[name]}"


@lru_cache(maxsize=1024)
def _explained(fields: str) -> str:
    try:
        words = CronSim(fields, datetime(2000, 1, 1)).explain()
    except Exception:  # the description is optional: a valid expression must not fail without it
        return fields
    return words[:1].lower() + words[1:]
