"""Structured logs: one JSON object a line for machines, one readable line for people.

Modules log as ``logging.getLogger("jobq.…").info("job failed", extra={"job": 1})``: each entry of
`extra` becomes a field. Values are bounded, control characters are escaped, and no record makes
logging raise an error.
"""

from __future__ import annotations

import json
import logging
import math
import os
import sys
import traceback
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import IO, Any, Literal, cast
from uuid import UUID

from jobq._core import output
from jobq._core.logs.deferred import dropped_record
from jobq._core.output_stream import Output

LogFormat = Literal["text", "json"]

MAX_TEXT = 4_096  # characters of one value or of the message
MAX_EXCEPTION = 16_384  # characters of a traceback; its beginning and its end are kept
MAX_ITEMS = 50  # items of one collection, and extra fields of one record
MAX_DEPTH = 4

# Attributes of every LogRecord. Any other attribute came from `extra`.
_RECORD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_OURS = frozenset({"ts", "level", "logger", "exception"})
_COLOURS = {"WARNING": "\x1b[33m", "ERROR": "\x1b[31m", "CRITICAL": "\x1b[1;31m", "DEBUG": "\x1b[2m"}


def configure(
    format: LogFormat = "text", level: str = "INFO", *, stream: IO[str] | None = None, waits: bool = True
) -> None:
    """Send this process's logs to `stream` in `format`, from `level` upwards.

    This replaces the root logger's handlers, so a second call changes the format.

    Args:
        format: ``text`` or ``json``.
        level: the lowest level to log.
        stream: where to write (default: standard error).
        waits: if False, no record waits for the reader of standard error: see `output`.

    Raises:
        ValueError: `level` is unknown.
    """
    target: IO[str] | Output | None = stream
    if target is None:
        target = sys.stderr if waits else output.standard_error() or sys.stderr
    formatter = JsonFormatter() if format == "json" else TextFormatter(colour=_wants_colour(target))
    if isinstance(target, Output):
        target.note = lambda number: formatter.format(dropped_record(number)) + "\n"
    # An Output is a text stream, too.
    handler = _Handler(cast(IO[str], target))
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.setLevel(level.upper())
    for old in root.handlers[:]:
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    # Alembic logs its plugins at every import and at every connection.
    logging.getLogger("alembic").setLevel(max(logging.WARNING, root.level))


def default_format(stream: IO[str] | None = None) -> LogFormat:
    """Return ``text`` if `stream` (default: standard error) is a terminal, else ``json``."""
    return "text" if _is_terminal(sys.stderr if stream is None else stream) else "json"


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ``ts`` (UTC, ISO 8601), ``level``, ``logger``, message, fields, exception."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line. It contains no newline."""
        entry: dict[str, Any] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record),
        }
        entry.update(_extra(record))
        if text := _exception(record):
            entry["exception"] = text
        return json.dumps(entry, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


class TextFormatter(logging.Formatter):
    """One line for people: local time, level, logger, message, ``field=value``.

    Longer text follows.
    """

    def __init__(self, *, colour: bool = False) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; a traceback and fields of several lines follow it, indented."""
        moment = self.moment(record)
        parts = [
            f"{moment:%Y-%m-%d %H:%M:%S}.{moment.microsecond // 1000:03d}",
            f"{record.levelname:<7}",
            record.name.removeprefix("jobq."),
            _printable(_message(record)),
        ]
        below = []
        for name, value in self.fields(record).items():
            if isinstance(value, str) and "\n" in value:
                below += [f"{_printable(name)}:", *value.rstrip("\n").split("\n")]
            else:
                parts.append(f"{_printable(name)}={_brief(value)}")
        line = " ".join(parts)
        if self._colour and record.levelname in _COLOURS:
            line = f"{_COLOURS[record.levelname]}{line}\x1b[0m"
        if text := _exception(record):
            below += text.split("\n")
        # Indented, so a value cannot look like a log line.
        line += "".join(f"\n  {_printable(part)}" for part in below)
        return line

    def moment(self, record: logging.LogRecord) -> datetime:
        """Return the time to show."""
        return datetime.fromtimestamp(record.created).astimezone()

    def fields(self, record: logging.LogRecord) -> dict[str, Any]:
        """Return the fields to show and their values, bounded."""
        return _extra(record)


class _Handler(logging.StreamHandler[IO[str]]):
    """Drops a record that cannot be written: a full disk or closed pipe must not stop a worker."""

    def handleError(self, record: logging.LogRecord) -> None:
        pass


def bounded(value: Any, depth: int = MAX_DEPTH) -> Any:
    """Return `value` as plain JSON types of limited size. Never raises."""
    try:
        return _bounded(value, depth)
    except Exception as error:  # raised by a user's __str__ or __iter__
        return f"<{type(value).__name__}: cannot be shown, {type(error).__name__}>"


def _bounded(value: Any, depth: int) -> Any:
    match value:
        case None | bool():
            return value
        case int():
            return int(value) if value.bit_length() <= 64 else f"<integer of {value.bit_length()} bits>"
        case float():
            return float(value) if math.isfinite(value) else str(value)
        case str():
            return _shortened(value, MAX_TEXT)
        case bytes() | bytearray() | memoryview():
            return f"<{len(value)} bytes>"
        case datetime() | date():
            return value.isoformat()
        case UUID():
            return str(value)
        case BaseException():
            return _shortened(f"{type(value).__name__}: {value}", MAX_TEXT)
        case Mapping() | list() | tuple() | set() | frozenset() if depth == 0:
            return f"<{type(value).__name__} of {len(value)}>"
        case Mapping():
            shown = {
                _shortened(str(name), 200): bounded(item, depth - 1) for name, item in list(value.items())[:MAX_ITEMS]
            }
            return shown if len(value) <= MAX_ITEMS else {**shown, "…": f"{len(value) - MAX_ITEMS} more"}
        case list() | tuple() | set() | frozenset():
            items = [bounded(item, depth - 1) for item in list(value)[:MAX_ITEMS]]
            return items if len(value) <= MAX_ITEMS else [*items, f"… {len(value) - MAX_ITEMS} more"]
        case _:
            return _shortened(str(value), MAX_TEXT)


def _shortened(text: str, limit: int) -> str:
    if len(text) > limit:
        text = f"{text[:limit]}… ({len(text) - limit} more characters)"
    # A lone surrogate cannot be written as UTF-8.
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _message(record: logging.LogRecord) -> str:
    try:
        return _shortened(record.getMessage(), MAX_TEXT)
    except Exception:  # the arguments do not fit the format
        return _shortened(f"{record.msg!s} {bounded(record.args)!r}", MAX_TEXT)


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    names = [name for name in vars(record) if name not in _RECORD_FIELDS][:MAX_ITEMS]
    return {
        f"field_{name}" if name in _OURS else _shortened(str(name), 200): bounded(vars(record)[name]) for name in names
    }


def _exception(record: logging.LogRecord) -> str | None:
    try:
        if record.exc_info and record.exc_info[0] is not None:
            text = "".join(traceback.format_exception(*record.exc_info)).rstrip("\n")
        elif record.exc_text:
            text = record.exc_text
        else:
            return None
    except Exception as error:
        return f"<the exception cannot be shown: {type(error).__name__}>"
    if len(text) > MAX_EXCEPTION:
        half = MAX_EXCEPTION // 2
        text = f"{text[:half]}\n… {len(text) - MAX_EXCEPTION} characters left out …\n{text[-half:]}"
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _brief(value: Any) -> str:
    if isinstance(value, str) and value and not any(c in value for c in " =\"'"):
        return _printable(value)
    return _printable(json.dumps(value, ensure_ascii=False))


def _printable(text: str) -> str:
    """Escape control characters: a job's data must neither forge a line nor control a terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def _is_terminal(stream: IO[str] | Output | None) -> bool:
    try:
        return stream is not None and stream.isatty()
    except (AttributeError, ValueError):
        return False


def _wants_colour(stream: IO[str] | Output | None) -> bool:
    return _is_terminal(stream) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
