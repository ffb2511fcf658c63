"""Durations: parse them from text, and format them for people. All values are in seconds."""

from __future__ import annotations

import math
import re
from datetime import timedelta
from decimal import Decimal

MINUTE = 60
HOUR = 3600
DAY = 86_400
WEEK = 604_800
YEAR = 365 * DAY

UNITS = {
    "s": 1, "sec": 1, "second": 1, "seconds": 1,
    "m": MINUTE, "min": MINUTE, "minute": MINUTE, "minutes": MINUTE,
    "h": HOUR, "hour": HOUR, "hours": HOUR,
    "d": DAY, "day": DAY, "days": DAY,
    "w": WEEK, "week": WEEK, "weeks": WEEK,
}  # fmt: skip
"""Seconds in each unit that may be written."""

HINT = "expected seconds, or a number with s, m, h, d or w, as in 15m or 1.5h"
"""What to do about text that is not a duration."""

# The number of digits is bounded: Python refuses to parse very long numbers.
_DURATION = re.compile(r"([0-9]{1,20}(?:\.[0-9]{0,20})?|\.[0-9]{1,20})\s*([a-z]*)", re.ASCII)
# The limit of a timedelta.
_LONGEST = 8e13
FOREVER = 6e10
"""A larger value was written without the tables' constraints, such as infinity, NaN or 1e300."""


def parse_duration(text: str) -> float:
    """Return the seconds of ``90``, ``15m``, ``1.5h`` or ``2 days``. Without a unit, it is seconds.

    Raises ValueError for anything else, such as a negative number, two units (``1h30m``), or millions of years.

        >>> parse_duration("1.5h")
        5400.0
    """
    found = _DURATION.fullmatch(text.strip().lower())
    unit = None if found is None else UNITS.get(found[2] or "s")
    if found is None or unit is None or not float(found[1]) * unit < _LONGEST:
        raise ValueError(f"{text[:50]!r} is no duration: {HINT}")
    return float(found[1]) * unit


def to_seconds(value: object) -> float | None:
    """Return a number of seconds or a timedelta in seconds.

    The result is None if `value` is neither, or not finite.

    True, False and text are not accepted as numbers.
    """
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, (bool, str, bytes)):
        return None
    try:
        number = float(value)  # type: ignore[arg-type]  # what is no number is refused
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def format_duration(seconds: float | None, *, rough: bool = False) -> str:
    """Return `seconds` in one or two units: ``850 ms``, ``1.5 s``, ``12 s``, ``3 min 20 s``, ``5 h 2 min``, ``3 d``.

    None gives ''. If `rough`, minutes have no seconds. The page's times.js does the same in an open
    page.
    """
    if seconds is None:
        return ""
    if not abs(seconds) < FOREVER:
        return "-∞" if seconds < 0 else "∞"
    if seconds < 0:
        return f"-{format_duration(-seconds, rough=rough)}"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 9.95:
        # A whole number of seconds, common in settings, needs no tenths.
        return f"{seconds:.0f} s" if seconds == round(seconds) else f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 90:
        return f"{whole} s"
    if whole < 10 * MINUTE:
        return f"{whole // 60} min" + (f" {whole % 60} s" if whole % 60 and not rough else "")
    if whole < 90 * MINUTE:
        return f"{whole // 60} min"
    if whole < 36 * HOUR:
        return f"{whole // HOUR} h" + (f" {minutes} min" if (minutes := whole % HOUR // 60) else "")
    return f"{whole // DAY} d"


def roughly(seconds: float) -> str:
    """Return `seconds` (at least 0) for a sentence.

    From 2 s on it has no tenths, and minutes have no seconds.
    """
    shown = max(seconds, 0)
    return format_duration(round(shown) if 2 <= shown < FOREVER else shown, rough=True)


def in_words(interval: timedelta) -> str:
    """Return an interval exactly: ``1 minute 30 seconds``; ``1 day 12 hours``, ``0.5 seconds``."""
    microseconds = interval // timedelta(microseconds=1)
    if microseconds <= 0 or microseconds % 1_000_000:
        return f"{microseconds / 1e6:g} seconds"
    left, parts = microseconds // 1_000_000, []
    for size, unit in ((DAY, "day"), (HOUR, "hour"), (MINUTE, "minute"), (1, "second")):
        number, left = divmod(left, size)
        if number:
            parts.append(f"{number} {unit}" + ("" if number == 1 else "s"))
    return " ".join(parts)


def in_largest_unit(seconds: float, units: tuple[str, ...]) -> tuple[Decimal, str]:
    """Return `seconds` exactly in the largest of `units` that gives a whole number.

    `units` are names from UNITS, the largest first.

        >>> in_largest_unit(7200, ("d", "h"))
        (Decimal('2'), 'h')
    """
    exact = Decimal(str(seconds))
    if not abs(seconds) < FOREVER:
        return exact, "s"
    unit = next((unit for unit in units if exact and exact % UNITS[unit] == 0), "s")
    number = exact / UNITS[unit]
    # No trailing zeros and no exponent.
    return (Decimal(int(number)) if number == int(number) else number.normalize()), unit
