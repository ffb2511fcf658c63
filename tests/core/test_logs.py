"""Logs are valid, bounded and printable whatever a record carries."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobq._core.logs import formats
from jobq._core.logs.deferred import dropped_record


class Hostile:
    def __str__(self) -> str:
        raise RuntimeError("no")


@pytest.fixture
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers[:] = []
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def record(message: str = "job failed", *args: Any, **extra: Any) -> logging.LogRecord:
    made = logging.makeLogRecord(extra)
    made.name, made.levelname, made.msg, made.args = "jobq.worker", "INFO", message, args
    return made


def test_json_line_has_the_promised_fields() -> None:
    line = json.loads(formats.JsonFormatter().format(record("took %d s", 3, job=7, queue="mail")))
    moment = datetime.fromisoformat(line.pop("ts"))
    assert moment.tzinfo == UTC
    assert line == {
        "level": "info",
        "logger": "jobq.worker",
        "message": "took 3 s",
        "job": 7,
        "queue": "mail",
    }


def test_the_record_about_dropped_records_is_of_jobq() -> None:
    line = json.loads(formats.JsonFormatter().format(dropped_record(3)))
    assert (line["logger"], line["level"], line["dropped"]) == ("jobq.logs", "warning", 3)


def test_traceback_is_one_field_and_keeps_both_ends_when_long() -> None:
    try:
        raise ValueError("x" * 100_000 + " the end")
    except ValueError:
        made = record()
        made.exc_info = sys.exc_info()
    line = formats.JsonFormatter().format(made)
    assert "\n" not in line
    text = json.loads(line)["exception"]
    assert text.startswith("Traceback")
    assert text.endswith(" the end")
    assert len(text) < formats.MAX_EXCEPTION + 100


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (float("nan"), "nan"),
        (10**400, "<integer of 1329 bits>"),
        (b"\0" * 9, "<9 bytes>"),
        ("\udc80", "\\udc80"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (ValueError("bad"), "ValueError: bad"),
        (Hostile(), "<Hostile: cannot be shown, RuntimeError>"),
        ({"a": [1, (2,)]}, {"a": [1, [2]]}),
        ([[[[[1]]]]], [[[["<list of 1>"]]]]),
    ],
)
def test_values_become_plain_json(value: Any, shown: Any) -> None:
    assert formats.bounded(value) == shown
    json.loads(formats.JsonFormatter().format(record(value=value)))


def test_large_values_are_cut_and_say_so() -> None:
    assert formats.bounded("y" * 10_000).endswith("(5904 more characters)")
    assert formats.bounded(list(range(60)))[-1] == "… 10 more"
    assert formats.bounded({n: n for n in range(60)})["…"] == "10 more"


def test_arguments_that_do_not_fit_the_message_are_shown_all_the_same() -> None:
    assert json.loads(formats.JsonFormatter().format(record("%d of %d", 1)))["message"] == "%d of %d [1]"


def test_extra_cannot_overwrite_our_fields() -> None:
    line = json.loads(formats.JsonFormatter().format(record(level="loud")))
    assert (line["level"], line["field_level"]) == ("info", "loud")


def test_text_line_cannot_be_forged() -> None:
    made = record("line\nERROR forged\x1b[2J", note="two words\r", empty="", job=1, who="ann\x1b")
    line = formats.TextFormatter().format(made)
    assert line.isprintable()
    assert line.endswith(r'INFO    worker line\nERROR forged\x1b[2J note="two words\r" empty="" job=1 who=ann\x1b')


def test_text_of_several_lines_stands_below_indented() -> None:
    line = formats.TextFormatter().format(record(job=1, traceback="first\nERROR \x1b[2Jsecond\n"))
    assert line.endswith("job failed job=1\n  traceback:\n  first\n  ERROR \\x1b[2Jsecond")


def test_text_shows_a_traceback_below_and_colours_on_request() -> None:
    try:
        raise KeyError("lost")
    except KeyError:
        made = record()
        made.exc_info = sys.exc_info()
    made.levelname = "ERROR"
    line = formats.TextFormatter(colour=True).format(made)
    assert line.startswith("\x1b[31m")
    assert line.endswith("\n  KeyError: 'lost'")


_VALUES = st.text(max_size=20) | st.floats() | st.integers() | st.lists(st.text(max_size=5), max_size=3)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(max_size=50), st.dictionaries(st.text(min_size=1, max_size=10), _VALUES, max_size=4))
def test_any_record_gives_one_valid_line(message: str, extra: dict[str, Any]) -> None:
    made = record(message)
    vars(made).update({f"x{name}": value for name, value in extra.items()})
    line = formats.JsonFormatter().format(made)
    assert "\n" not in line
    json.loads(line.encode("utf-8"))
    first, *below = formats.TextFormatter().format(made).split("\n")
    assert first.isprintable()
    assert [part for part in below if not (part.startswith("  ") and part.isprintable())] == []


@pytest.mark.usefixtures("restored")
def test_configure_replaces_the_handler_and_sets_the_level() -> None:
    first, second = io.StringIO(), io.StringIO()
    formats.configure("text", "debug", stream=first)
    formats.configure("json", "warning", stream=second)
    logging.getLogger("jobq.test").info("quiet")
    logging.getLogger("jobq.test").warning("loud")
    assert first.getvalue() == ""
    assert json.loads(second.getvalue())["message"] == "loud"
    second.close()
    logging.getLogger("jobq.test").warning("a closed stream is no reason to fail")
    with pytest.raises(ValueError, match="LOUD"):
        formats.configure("json", "loud")


def test_default_format_follows_the_terminal() -> None:
    assert formats.default_format(io.StringIO()) == "json"
    closed = io.StringIO()
    closed.close()
    assert formats.default_format(closed) == "json"
