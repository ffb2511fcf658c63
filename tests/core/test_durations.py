"""Durations: one reader and one writer for settings, filters, forms, options and messages."""

from __future__ import annotations

import re
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import jobq
from jobq._core.durations import (
    FOREVER,
    UNITS,
    format_duration,
    in_largest_unit,
    in_words,
    parse_duration,
    roughly,
    to_seconds,
)
from jobq.filters import JobFilter
from jobq.limits import Rate


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("90", 90), (".5h", 1800), ("1.h", 3600), ("1.5h", 5400), ("15m", 900), ("15 min", 900), ("2D", 172_800),
     ("1w", 604_800), (" 10s ", 10), ("2 days", 172_800), ("0.25", 0.25)],
)  # fmt: skip
def test_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    ["", "h", "-1", "soon", "inf", "nan", "5y", "1h30m", "1e3", "1_0", "٥", "9" * 400, "9999999999w", "99999999999999"],
)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is no duration: expected seconds, or a number with s, m, h, d or w"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(1, 1.0), (0.5, 0.5), (timedelta(minutes=2), 120.0), (Decimal("1.5"), 1.5), (True, None), ("5", None), (b"5", None),
     (None, None), (float("inf"), None), (float("nan"), None), (10**400, None), ([], None)],
)  # fmt: skip
def test_numbers_and_timedeltas(value: Any, seconds: float | None) -> None:
    assert to_seconds(value) == seconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, ""), (0.0004, "0 ms"), (0.25, "250 ms"), (0.9996, "1.0 s"), (5, "5 s"), (9.94, "9.9 s"), (9.96, "10 s"),
     (89.4, "89 s"), (90, "1 min 30 s"), (120, "2 min"), (599, "9 min 59 s"), (600, "10 min"), (5399, "89 min"),
     (5400, "1 h 30 min"), (129_599, "35 h 59 min"), (129_600, "1 d"), (-5, "-5 s"), (float("inf"), "∞"),
     (float("-inf"), "-∞"), (float("nan"), "∞"), (1e300, "∞")],
)  # fmt: skip
def test_written(seconds: float | None, text: str) -> None:
    assert format_duration(seconds) == text


def test_written_for_a_sentence() -> None:
    assert [roughly(seconds) for seconds in (-3, 0.1, 1.26, 5.3, 200, 7260)] == [
        "0 ms",
        "100 ms",
        "1.3 s",
        "5 s",
        "3 min",
        "2 h 1 min",
    ]
    assert in_words(timedelta(days=1)) == "1 day"
    assert in_words(timedelta(seconds=3661)) == "1 hour 1 minute 1 second"
    assert in_words(timedelta(milliseconds=1500)) == "1.5 seconds"


@given(st.floats(1, FOREVER, exclude_max=True))
def test_what_is_written_in_one_unit_is_read_again(seconds: float) -> None:
    """Within what the writer leaves away: a twentieth, or a third of the shortest time in whole days."""
    text = format_duration(seconds, rough=True)
    if re.fullmatch(r"[0-9.]+ [a-z]+", text):
        assert abs(parse_duration(text) - seconds) <= max(0.05, seconds * 0.4)


@pytest.mark.parametrize(
    ("seconds", "number", "unit"),
    [(7200, "2", "h"), (5400, "90", "m"), (90, "90", "s"), (0, "0", "s"), (0.25, "0.25", "s"), (36_000_000, "10000", "h"),
     (float("inf"), "Infinity", "s"), (1e300, "1E+300", "s")],
)  # fmt: skip
def test_the_largest_unit(seconds: float, number: str, unit: str) -> None:
    assert in_largest_unit(seconds, ("d", "h", "m")) == (Decimal(number), unit)


@pytest.mark.parametrize("unit", UNITS)
def test_every_reader_knows_every_unit(unit: str) -> None:
    """Options, forms, filters and rates take the same words."""
    assert parse_duration(f"3{unit}") == 3 * UNITS[unit]
    assert Rate.parse(f"5/3{unit}").seconds == 3 * UNITS[unit]
    age = JobFilter.parse(f"age:>3{unit}").age
    assert age is not None
    assert age.number == 3 * UNITS[unit]


def test_units_are_defined_once() -> None:
    """No other module has a table of units."""
    root = Path(jobq.__file__).parent
    wrong = re.compile(r"(604_?800|86_?400|3_?600)(\.0)?\s*,\s*[\"']|\* 86_?400|[\"'](d|day|h|hour)[\"']: *(86|36)")
    found = [
        f"{path.relative_to(root)}:{number}"
        for folder in (root, root / "web")
        for path in folder.rglob("*.py")
        if path.name not in ("durations.py", "timeline.py")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if wrong.search(line)
    ]
    assert not found
