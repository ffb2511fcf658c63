"""Checks of options: each names the option and its value, says what to do, and is defined once."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest

import jobq
from jobq._core.text import brief, unstorable
from jobq._core.validation import (
    check_aware,
    check_choice,
    check_duration,
    check_int,
    check_key,
    check_seconds,
    check_text,
    is_by_name,
    parse_time,
)
from jobq.errors import InvalidOption


class Word(StrEnum):
    MAIL = "mail"


class Broken:
    def __repr__(self) -> str:
        raise RuntimeError


def test_what_is_given_back() -> None:
    text = check_text("queue", Word.MAIL, 100)
    assert (text, type(text)) == ("mail", str)
    assert check_text("reason", "", 10, least=0) == ""
    assert check_text("name", "a\nb ü", 10) == "a\nb ü"
    assert check_key("k" * 500, "t" * 200) == "k" * 500
    assert check_int("priority", 9, 0, 9) == 9
    assert check_seconds("delay", timedelta(minutes=1)) == 60.0
    check_duration("delay", 0, zero=True)
    check_choice("missed", "all", ("skip", "all"))
    assert check_aware("run_at", datetime(2030, 1, 1, 1, tzinfo=timezone(timedelta(hours=1)))) == datetime(
        2030, 1, 1, tzinfo=UTC
    )
    assert check_aware("run_at", datetime.min.replace(tzinfo=UTC)) == datetime(1970, 1, 1, tzinfo=UTC)
    values: list[object] = [{"a": 1}, {1: 1}, [], None]
    assert [is_by_name(value) for value in values] == [True, False, False, False]


@pytest.mark.parametrize(
    ("check", "says"),
    [
        (lambda: check_text("queue", "", 100), "queue='': expected text of 1 to 100 characters"),
        (lambda: check_text("queue", 5, 100), "queue=5: expected text of 1 to 100 characters"),
        (lambda: check_text("queue", "x" * 101, 100), "queue of 101 characters: expected text of 1 to 100 characters"),
        (lambda: check_text("reason", "x" * 11, 10, least=0), "reason='xxxxxxxxxxx': expected text of at most 10 characters"),
        (lambda: check_text("queue", "a\0", 100), r"queue='a\\x00' contains a NUL character, .*: remove it"),
        (lambda: check_text("queue", "\ud800", 100), r"queue='\\ud800' contains a lone surrogate, .*: decode it"),
        (lambda: check_text("name", "a\nb", 9, printable=True), r"name='a\\nb' contains a control character: remove it"),
        (lambda: check_text("name", "  ", 9, printable=True), "name='  ': expected text of 1 to 9 characters"),
        (lambda: check_key("ü" * 500, "ü" * 200 + "t" * 2000), r"key of 500 characters and task .* a hash of it"),
        (lambda: check_int("priority", 10, 0, 9), "priority=10: expected a whole number from 0 to 9$"),
        (lambda: check_int("priority", True, 0, 9), "priority=True: expected a whole number"),
        (lambda: check_int("limit", 0, 1, 5, zero_hint="pause it"), "limit=0: .* from 1 to 5; pause it$"),
        (lambda: check_int("limit", 10**5000, 1, 5), "limit=<int>: expected a whole number"),
        (lambda: check_choice("missed", "no", ("skip", "all")), "missed='no': expected one of skip, all$"),
        (lambda: check_choice("missed", ["all"], ("skip", "all")), r"missed=\['all'\]: expected one of skip, all$"),
        (lambda: check_seconds("delay", math.nan), "delay=nan: expected a number of seconds or a timedelta"),
        (lambda: check_duration("timeout", 0, none="no limit"), "timeout=0: .*above 0, .* or None for no limit"),
        (lambda: check_duration("delay", -1, zero=True), "delay=-1: expected a number of seconds between 0 and 100 years$"),
        (lambda: check_duration("seconds", 9, most=8, most_said="8 s"), "seconds=9: .* above 0, at most 8 s$"),
        (lambda: check_aware("run_at", "now"), "run_at='now': expected a datetime with a time zone"),
        (lambda: check_aware("run_at", datetime(2030, 1, 1)), "run_at=.* has no time zone: expected an aware datetime"),
        (lambda: check_aware("run_at", datetime.max.replace(tzinfo=UTC), none="go"), "before the year 9999 .*, or None to go"),
    ],
)  # fmt: skip
def test_what_is_refused(check: Callable[[], Any], says: str) -> None:
    with pytest.raises(InvalidOption, match=says):
        check()


def test_times_as_text() -> None:
    noon = datetime(2030, 1, 31, 12, tzinfo=UTC)
    assert parse_time("2030-01-31T12:00") == parse_time("2030-01-31T13:00+01:00", zone_needed=True) == noon
    with pytest.raises(ValueError, match=r"'soon': expected a time such as 2030-01-31T08:00, in UTC or with its zone"):
        parse_time("soon")
    for text in ("soon", "2030-01-31T12:00"):
        with pytest.raises(
            ValueError, match=rf"'{text}': expected a time with its zone, as in 2030-01-31T08:00:00\+01:00"
        ):
            parse_time(text, zone_needed=True)


def test_values_in_messages() -> None:
    assert brief("x" * 61) == repr("x" * 60 + "…")
    assert brief([1] * 100, 9) == "[1, 1, 1,…"
    assert brief(Broken()) == "<Broken>"
    assert unstorable("ü\n") is None


def test_checks_are_defined_once() -> None:
    """No other module looks for a NUL character, a lone surrogate, or a whole number that is none of True and False."""
    root = Path(jobq.__file__).parent
    wrong = re.compile(
        r"isinstance\(\w+(\.\w+)*, bool\) or not isinstance\(\w+(\.\w+)*, int\)|contains a NUL|contains a lone surrogate"
    )
    found = [
        f"{path.relative_to(root)}:{number}"
        for folder in (root, root / "web")
        for path in folder.rglob("*.py")
        if path.name not in ("validation.py", "text.py")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if wrong.search(line)
    ]
    assert not found
