"""Making text of values. Nothing here is marked as safe: the templates escape all of it."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta
from typing import Any

from jobq.queries import COUNT_LIMIT

LONGEST = 20_000
_LONGEST_TEXT = 2_000
# Control and direction characters can make a line look like another one.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)

# Each of these has a sign of its own (templates/jobq/icons.html).
STATES = frozenset((
    "ready", "scheduled", "running", "parked", "waiting", "succeeded", "failed", "cancelled", "expired",
    "error", "timeout", "crashed", "released", "paused", "open", "alive", "late", "silent", "done", "draft", "starting",
    "unserved", "quiet", "draining", "refused", "ticking", "withdrawn", "undeclared", "broken",
))  # fmt: skip


def visible(text: Any, longest: int = LONGEST) -> str:
    """Return `text` with invisible characters spelled out, shortened to `longest` characters."""
    found = str(text)
    shown = _INVISIBLE.sub(lambda match: f"\\u{ord(match[0]):04x}", found[:longest])
    return shown if len(found) <= longest else f"{shown}… ({len(found) - longest:,} more characters)"


def line(text: Any, longest: int = LONGEST) -> str:
    """Return :func:`visible` in one line: a name with a line break in it must not look like another."""
    return visible(text, longest).replace("\n", "\\n").replace("\t", "\\t")


def pretty(value: Any) -> str:
    """Return JSON over several lines: each text in it shortened to 2,000 characters, the whole to 20,000."""
    return visible(json.dumps(_short(value), ensure_ascii=False, indent=2))


def _short(value: Any) -> Any:
    # One long text must not push everything else out of sight.
    if isinstance(value, str) and len(value) > _LONGEST_TEXT:
        return f"{value[:_LONGEST_TEXT]}… ({len(value) - _LONGEST_TEXT:,} more characters)"
    if isinstance(value, list):
        return [_short(item) for item in value]
    return {name: _short(item) for name, item in value.items()} if isinstance(value, dict) else value


def brief(value: Any, longest: int = 120) -> str:
    """Return JSON, or a text's first line, in one short line."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    line = text.strip().split("\n", 1)[0]
    return visible(line[:longest]) + ("…" if len(line) > longest or line != text.strip() else "")


def count(number: int, limit: int = COUNT_LIMIT) -> str:
    """Return a count as a person reads it; one that stopped at `limit` has a plus."""
    return f"{limit:,}+" if number > limit else f"{number:,}"


def runs(ids: list[int]) -> list[tuple[int, int]]:
    """Return ascending ids as runs without a gap: the first and the last of each."""
    found: list[tuple[int, int]] = []
    for id in ids:
        if found and id == found[-1][1] + 1:
            found[-1] = found[-1][0], id
        else:
            found.append((id, id))
    return found


def rounded(number: int) -> str:
    """Return an estimate with as many digits as it deserves."""
    if number < 1_000_000:
        return f"{round(number, -3):,}" if number >= 10_000 else f"{number:,}"
    return f"{number / 1e6:.1f}M" if number < 99_950_000 else f"{number / 1e6:,.0f}M"


# Infinity, NaN, 1e300: of a value that was written past the tables' constraints.
_EVER = 6e10


def duration(seconds: float | None, *, rough: bool = False) -> str:
    """Return a duration in its largest one or two units; `rough`: minutes without seconds."""
    if seconds is None:
        return "–"
    if not seconds < _EVER:
        return "∞"
    seconds = max(seconds, 0.0)
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 90:
        return f"{whole} s"
    if whole < 600:
        return f"{whole // 60} min" + (f" {whole % 60} s" if whole % 60 and not rough else "")
    if whole < 5400:
        return f"{whole // 60} min"
    if whole < 129_600:
        return f"{whole // 3600} h" + (f" {minutes} min" if (minutes := whole % 3600 // 60) else "")
    return f"{whole // 86400} d"


def ago(then: datetime | None, now: datetime) -> str:
    """Return how far `then` is from `now`, in either direction."""
    if then is None:
        return "–"
    seconds = (now - then).total_seconds()
    if abs(seconds) < 1:
        return "now"
    text = duration(abs(seconds), rough=True)
    return f"{text} ago" if seconds > 0 else f"in {text}"


def back(now: datetime, seconds: float) -> datetime:
    """Return when that was, to the second: each answer says the same then, while it grows older by itself."""
    if not seconds < _EVER:
        seconds = (now - datetime(1, 1, 2, tzinfo=now.tzinfo)).total_seconds()
    return (now - timedelta(seconds=seconds) + timedelta(milliseconds=500)).replace(microsecond=0)


def moment(then: datetime) -> str:
    """Return a time to the millisecond, with its offset."""
    return then.strftime("%Y-%m-%d %H:%M:%S.") + f"{then.microsecond // 1000:03d} " + (then.strftime("%Z") or "UTC")


def size(count: int | None) -> str:
    """Return a number of bytes as a person reads it."""
    if count is None:
        return "–"
    if count < 1000:
        return f"{count} B"
    number = float(count)
    for unit in ("kB", "MB", "GB"):
        number /= 1000
        if number < 999.5:
            return f"{number:.1f} {unit}" if number < 9.95 else f"{number:.0f} {unit}"
    return f"{number / 1000:,.1f} TB"
