"""Formatting of values as text. Nothing here is marked as safe: the templates escape all of it."""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from datetime import datetime, timedelta
from itertools import accumulate
from typing import Any
from unicodedata import east_asian_width

from jobq import job
from jobq._core.durations import FOREVER, format_duration
from jobq.queries import COUNT_LIMIT

LONGEST = 20_000
_LONGEST_TEXT = 2_000
# Control and direction characters can make one line look like another.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)

# Each of these has its own icon (templates/jobq/shared/icons.html).
STATES = frozenset((
    *job.STATES,
    "error", "timeout", "crashed", "released", "paused", "open", "alive", "late", "silent", "done", "draft", "starting",
    "unserved", "quiet", "draining", "refused", "ticking", "withdrawn", "undeclared", "broken",
    "blocked", "deleted", "upstream_failed", "skipped", "retrying", "timed_out", "unfinished", "unread",
))  # fmt: skip


def visible(text: Any, longest: int = LONGEST) -> str:
    """Return `text` with invisible characters spelled out, shortened to `longest` characters."""
    found = str(text)
    shown = _INVISIBLE.sub(lambda match: f"\\u{ord(match[0]):04x}", found[:longest])
    return shown if len(found) <= longest else f"{shown}… ({len(found) - longest:,} more characters)"


def newest(text: str, longest: int = LONGEST) -> str:
    """Return :func:`visible` of the last lines of `text`, at most `longest` characters."""
    if len(text) <= longest:
        return visible(text, longest)
    kept = text[-longest:]
    kept = kept[kept.find("\n") + 1 :]
    return f"… ({len(text) - len(kept):,} earlier characters)\n{visible(kept, longest)}"


def line(text: Any, longest: int = LONGEST) -> str:
    """Return :func:`visible` in one line, so that a name with a line break cannot look like
    another.
    """
    return visible(text, longest).replace("\n", "\\n").replace("\t", "\\t")


def pretty(value: Any) -> str:
    """Return indented JSON. Each text in it is shortened to 2,000 characters, and the result to
    20,000.
    """
    return visible(json.dumps(_short(value), ensure_ascii=False, indent=2))


def _short(value: Any) -> Any:
    # One long text must not push everything else out of view.
    if isinstance(value, str) and len(value) > _LONGEST_TEXT:
        return f"{value[:_LONGEST_TEXT]}… ({len(value) - _LONGEST_TEXT:,} more characters)"
    if isinstance(value, list):
        return [_short(item) for item in value]
    return {name: _short(item) for name, item in value.items()} if isinstance(value, dict) else value


def brief(value: Any, longest: int = 120) -> str:
    """Return one short line: the first line of a text, or JSON."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    line = text.strip().split("\n", 1)[0]
    return visible(line[:longest]) + ("…" if len(line) > longest or line != text.strip() else "")


def count(number: int, limit: int = COUNT_LIMIT) -> str:
    """Return a count with thousands separators, and with a plus if counting stopped at `limit`."""
    return f"{limit:,}+" if number > limit else f"{number:,}"


def middle(text: str, longest: int) -> str:
    """Return :func:`line` of at most about `longest` columns, shortened in the middle: names often
    differ at their ends. Wide characters take two columns.
    """
    shown = line(text, 1_000)
    widths = [2 if east_asian_width(one) in "WF" else 1 for one in shown]
    if sum(widths) <= longest:
        return shown
    ends = []
    for sizes, room in ((widths, (longest - 1) * 3 // 5), (widths[::-1], (longest - 1) * 2 // 5)):
        places = list(accumulate(sizes))
        ends.append(bisect_right(places, room))
    return f"{shown[: ends[0]]}…{shown[len(shown) - ends[1] :]}"


def runs(ids: list[int]) -> list[tuple[int, int]]:
    """Return ascending ids as ranges without gaps: the first and the last id of each."""
    found: list[tuple[int, int]] = []
    for id in ids:
        if found and id == found[-1][1] + 1:
            found[-1] = found[-1][0], id
        else:
            found.append((id, id))
    return found


def rounded(number: int) -> str:
    """Return an estimate, rounded to its significant digits."""
    if number < 1_000_000:
        return f"{round(number, -3):,}" if number >= 10_000 else f"{number:,}"
    return f"{number / 1e6:.1f}M" if number < 99_950_000 else f"{number / 1e6:,.0f}M"


def duration(seconds: float | None, *, rough: bool = False) -> str:
    """Return a duration in its one or two largest units; `rough`: minutes without seconds."""
    if seconds is None:
        return "–"
    return format_duration(max(seconds, 0.0), rough=rough)


def ago(then: datetime | None, now: datetime) -> str:
    """Return the distance of `then` from `now`, as "5 min ago" or "in 5 min"."""
    if then is None:
        return "–"
    seconds = (now - then).total_seconds()
    if abs(seconds) < 1:
        return "now"
    text = duration(abs(seconds), rough=True)
    return f"{text} ago" if seconds > 0 else f"in {text}"


def moment_ago(now: datetime, seconds: float) -> datetime:
    """Return the time `seconds` before `now`, rounded to a second, so that repeated responses are
    equal.
    """
    if not seconds < FOREVER:
        seconds = (now - datetime(1, 1, 2, tzinfo=now.tzinfo)).total_seconds()
    return (now - timedelta(seconds=seconds) + timedelta(milliseconds=500)).replace(microsecond=0)


def moment(then: datetime) -> str:
    """Return a time to the millisecond, with its zone."""
    return then.strftime("%Y-%m-%d %H:%M:%S.") + f"{then.microsecond // 1000:03d} " + (then.strftime("%Z") or "UTC")


def size(count: int | None) -> str:
    """Return a number of bytes with a decimal unit, such as "1.5 MB"."""
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
