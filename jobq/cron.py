"""When a schedule ticks: cron expressions in a zone, and intervals. Pure: no clock is read here, no database.

A tick is an aware datetime in UTC. One rule for daylight saving, whatever the expression and the zone:

- An expression of *fixed times* (neither its minutes nor its hours begin with ``*``) ticks once for each time of the wall clock
  that it names. One that the clock skips comes at the moment after the gap; of one that the clock shows twice the first
  counts. Two that fall on one moment are one tick.
- Any other is an expression of *recurring times*: it ticks at every moment at which the wall clock shows a time that fits. A
  time that is skipped is no tick, and one that is shown twice is two.
- An interval knows no wall clock: its ticks are multiples of itself since 1970-01-01 00:00 UTC, so that all workers agree.

cronsim (the expressions of Debian's cron, with seconds) is asked for times of the wall clock only; what they are in UTC is
found here, since its own arithmetic loses ticks where a zone shifts by half an hour.
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

from jobq.errors import InvalidOption

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LEAST_INTERVAL = timedelta(seconds=1)
LONGEST_INTERVAL = timedelta(days=36525)
LONGEST_EXPRESSION = 200

_SECOND = timedelta(seconds=1)
# No zone's clock was ever put forward or back by more (Samoa left out a day).
_LARGEST_SHIFT = timedelta(hours=25)
# Two changes of a zone's offset within this time that undo each other would go unseen.
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


class NeverAgain(Exception):
    """An expression does not tick within the next 50 years."""


@dataclass(frozen=True, slots=True)
class Cron:
    """A cron expression in a zone. Raises InvalidOption for either, and for an expression that never ticks.

    Five fields (minute, hour, day of month, month, day of week), or six with seconds before them; or ``@yearly``,
    ``@monthly``, ``@weekly``, ``@daily``, ``@hourly``. ``L`` is a month's last day, ``LW`` its last weekday, ``MON#1`` its
    first Monday, ``5L`` its last Friday.
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
        """Return the first tick after `after`, an aware datetime. Raises NeverAgain."""
        return self._next_fixed(after) if self._fixed else self._next_recurring(after)

    def words(self) -> str:
        """Return what the expression says, in words, with its zone."""
        return f"{_explained(self._fields)}, {self.timezone}"

    @property
    def zone(self) -> zoneinfo.ZoneInfo:
        """The zone."""
        return self._zone

    def _wall(self, after: datetime) -> Iterator[datetime]:
        """Yield the times of the wall clock that fit, after the naive `after`."""
        try:
            yield from CronSim(self._fields, after)
        except (OverflowError, ValueError):  # the end of the calendar
            return

    def _next_fixed(self, after: datetime) -> datetime:
        here = after.astimezone(self._zone)
        since = here.replace(tzinfo=None)
        if (after - _LARGEST_SHIFT).astimezone(self._zone).utcoffset() != here.utcoffset():
            # What the clock skipped or repeated a moment ago may name moments that are still to come.
            since -= _LARGEST_SHIFT
        for wall in self._wall(since):
            if (moment := self._moment(wall)) > after:
                return moment
        raise NeverAgain(self.expression)

    def _moment(self, wall: datetime) -> datetime:
        """Return the moment at which the clock first shows `wall`, or, if it skips that, the one after the gap."""
        moment = wall.replace(tzinfo=self._zone, fold=0).astimezone(UTC)
        if moment.astimezone(self._zone).replace(tzinfo=None) == wall:
            return moment
        # By the offset before the gap (fold=0) it lies behind the change, by the offset after it before.
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
            # From the change on the clock shows other times; what it shows at that very moment counts.
            begin, offset = change, self._offset(change)
            since = change - _SECOND + offset
        raise NeverAgain(self.expression)

    def _offset(self, moment: datetime) -> timedelta:
        return moment.astimezone(self._zone).utcoffset() or timedelta(0)

    def _change(self, after: datetime, until: datetime) -> datetime | None:
        """Return the first moment after `after`, and up to `until`, from which on the zone's offset is another."""
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
            raise InvalidOption(f"every={self.interval!r}: give a timedelta, such as timedelta(minutes=5)")
        if not LEAST_INTERVAL <= self.interval <= LONGEST_INTERVAL:
            raise InvalidOption(
                f"every={duration(self.interval)}: give a timedelta between one second and 100 years: each tick is a job"
            )

    def next(self, after: datetime) -> datetime:
        """Return the first tick after `after`, an aware datetime. Raises NeverAgain at the end of the calendar."""
        try:
            return EPOCH + ((after - EPOCH) // self.interval + 1) * self.interval
        except OverflowError:
            raise NeverAgain(f"every {self.interval}") from None

    def words(self) -> str:
        """Return the interval in words."""
        words = duration(self.interval)
        one = words.removeprefix("1 ")
        return f"every {words if ' ' in one else one}"

    @property
    def zone(self) -> zoneinfo.ZoneInfo:
        """UTC, by which its ticks are counted."""
        return zone("UTC")


When = Cron | Every


def when(cron: str | None, every: timedelta | None, timezone: str | None = None) -> When:
    """Return what is given of an expression (in `timezone`, UTC by default) and an interval. Raises InvalidOption."""
    if (cron is None) == (every is None):
        raise InvalidOption("give either a cron expression, such as '0 7 * * mon-fri', or every=timedelta(…)")
    if cron is not None:
        return Cron(cron, "UTC" if timezone is None else timezone)
    if timezone not in (None, "UTC"):
        raise InvalidOption(
            f"timezone={timezone!r}: an interval is counted in UTC and knows no zone; give a cron expression, or no timezone"
        )
    assert every is not None
    return Every(every)


def following(rule: When, after: datetime, number: int) -> list[datetime]:
    """Return the next ticks after `after`, `number` of them, or fewer where the expression ends."""
    found: list[datetime] = []
    try:
        while len(found) < number:
            found.append(rule.next(found[-1] if found else after))
    except NeverAgain:
        pass
    return found


def latest(rule: When, since: datetime, until: datetime, number: int) -> list[datetime]:
    """Return the last ticks from `since` to `until`, both included, at most `number` of them, in order.

    Takes no longer for a long time than for a short one: an ever longer end of it is looked at until it holds enough.
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
    except NeverAgain:
        return None


def duration(interval: timedelta) -> str:
    """Return an interval in words: ``90 seconds``, ``5 minutes``, ``1 hour``, ``1 day 12 hours``."""
    microseconds = interval // timedelta(microseconds=1)
    if microseconds <= 0 or microseconds % 1_000_000:
        return f"{microseconds / 1e6:g} seconds"
    left, parts = microseconds // 1_000_000, []
    for size, unit in ((86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second")):
        number, left = divmod(left, size)
        if number:
            parts.append(f"{number} {unit}" + ("" if number == 1 else "s"))
    return " ".join(parts)


def zone(name: str) -> zoneinfo.ZoneInfo:
    """Return the zone of an IANA name. Raises InvalidOption with names that are near."""
    if not isinstance(name, str) or not 1 <= len(name) <= 100:
        raise InvalidOption(f"timezone={name!r}: give an IANA name, such as 'Europe/Berlin'")
    known = _zones()
    if name in known:
        return zoneinfo.ZoneInfo(name)
    by_case = {other.lower(): other for other in known}
    cities = {other.rpartition("/")[2].lower(): other for other in sorted(known) if "/" in other}
    wanted = name.lower().replace(" ", "_")
    near = [by_case[wanted]] if wanted in by_case else []
    near += [cities[city] for city in difflib.get_close_matches(wanted.rpartition("/")[2], cities, n=2, cutoff=0.75)]
    near += [by_case[other] for other in difflib.get_close_matches(wanted, by_case, n=2, cutoff=0.75)]
    hint = f"did you mean {' or '.join(dict.fromkeys(near))}?" if near else "give an IANA name, such as 'Europe/Berlin'"
    raise InvalidOption(f"timezone={name!r} is no zone that is known here; {hint}")


@lru_cache(maxsize=1)
def _zones() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones())


def _fields(expression: str) -> str:
    """Return the fields of a cron expression that ticks. Raises InvalidOption."""
    if not isinstance(expression, str) or not 1 <= len(expression) <= LONGEST_EXPRESSION:
        raise InvalidOption(
            f"cron={expression!r}: give an expression of at most {LONGEST_EXPRESSION} characters, such as '0 7 * * mon-fri'"
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
    except (ValueError, AssertionError, TypeError):  # of input that cronsim's parser does not expect
        raise InvalidOption(f"cron={expression!r} cannot be read; {_EXAMPLE}") from None
    return text


_EXAMPLE = "give minute, hour, day of month, month and day of week, as in '0 7 * * mon-fri'"
_DAYS = "give a day that its months have (1 to 31), L for the last one, or * for each"
_FIXES = {
    "second": "give 0 to 59",
    "minute": "give 0 to 59, as in 0, */15 or 10-20",
    "hour": "give 0 to 23, as in 7, */2 or 9-17",
    "day-of-month": _DAYS,
    "month": "give 1 to 12 or jan to dec",
    "day-of-week": "give 0 to 7 (0 and 7 are Sunday) or sun to sat, as in mon-fri",
}


def _fault(said: str, text: str) -> str:
    name = said.removeprefix("Bad ")
    parts = text.split()
    if name not in _FIXES:
        return f"it has {len(parts)} fields instead of 5, or 6 with seconds first; {_EXAMPLE}"
    place = list(_FIXES).index(name) - (6 - len(parts))
    return f"its {name.replace('-', ' ')} {parts[place]!r} cannot be; {_FIXES[name]}"


@lru_cache(maxsize=1024)
def _explained(fields: str) -> str:
    try:
        words = CronSim(fields, datetime(2000, 1, 1)).explain()
    except Exception:  # words are a courtesy: an expression that ticks must not fail without them
        return fields
    return words[:1].lower() + words[1:]
