"""Text for people: durations, counts, lists of names. All of it fits on one line."""

from __future__ import annotations

from collections.abc import Sequence

NAMED = 3


def visible(text: str) -> str:
    """Return `text` with every control and direction character escaped, newlines included."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def one_line(text: str | None, limit: int = 70) -> str:
    """Return the first line of `text`, cut to `limit` characters."""
    line = (text or "").strip().partition("\n")[0]
    return line if len(line) <= limit else line[: limit - 1] + "…"


def name(text: str, limit: int = 60) -> str:
    """Return a name whole, on one line: control characters are escaped, and what exceeds `limit` characters is cut."""
    shown = visible(text)
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


# Infinity, NaN, 1e300: of a value that was written past the tables' constraints.
_EVER = 1e12


def duration(seconds: float | None) -> str:
    """Return `seconds` for people: ``850 ms``, ``12 s``, ``3 m 20 s``, ``5 h 2 m``; '' for None."""
    if seconds is None:
        return ""
    if not abs(seconds) < _EVER:
        return "-∞" if seconds < 0 else "∞"
    if seconds < 0:
        return f"-{duration(-seconds)}"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    for size, unit, smaller, smaller_unit in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "m"),
        (60, "m", 1, "s"),
    ):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size} {unit}" + (f" {rest} {smaller_unit}" if rest else "")
    raise AssertionError(whole)


def plural(count: int, noun: str) -> str:
    """Return ``1 job`` or ``1,234 jobs``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def be(count: int) -> str:
    """Return ``is`` for one and ``are`` for any other number."""
    return "is" if count == 1 else "are"


def wait(count: int) -> str:
    """Return ``waits`` for one and ``wait`` for any other number."""
    return "waits" if count == 1 else "wait"


def listed(items: Sequence[str], most: int = NAMED) -> str:
    """Return the first `most` items with commas, and how many more there are."""
    shown = ", ".join(items[:most])
    return shown + (f" and {len(items) - most:,} more" if len(items) > most else "")
