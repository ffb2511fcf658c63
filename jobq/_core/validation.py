"""Checks of callers' values before anything is sent.

This is because a refused statement would abort the transaction.

Unless stated otherwise, each check raises InvalidOption with the option's name, its value and what
to pass instead. The limits are those of the constraints in `jobq._postgres.tables`;
tests/app/test_bounds.py compares the two.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any, TypeGuard

from jobq._core.durations import DAY, to_seconds
from jobq._core.text import brief, unstorable
from jobq.errors import InvalidOption

LONGEST = 100 * 365.25 * DAY
"""Seconds in 100 years: the longest delay, timeout, key period and time to expiry."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST = datetime(9999, 1, 1, tzinfo=UTC)
# For a key and its scope in one index entry.
_KEY_BYTES = 2600


def check_text(name: str, value: object, longest: int, *, least: int = 1, printable: bool = False) -> str:
    """Return `value` as plain text.

    It must have `least` to `longest` characters that PostgreSQL can store. If `printable`, control
    characters and text of white space alone are refused, too.
    """
    if not isinstance(value, str) or not least <= len(value) <= longest or (printable and not value.strip()):
        shown = f" of {len(value)} characters" if isinstance(value, str) and len(value) > 60 else f"={brief(value)}"
        wanted = f"text of {least} to {longest} characters" if least else f"text of at most {longest} characters"
        raise InvalidOption(f"{name}{shown}: expected {wanted}")
    if not (value.isascii() and value.isprintable()) and (fault := unstorable(value)) is not None:
        raise InvalidOption(f"{name}={brief(value)} {fault}")
    if printable and not value.isprintable():
        raise InvalidOption(f"{name}={brief(value)} contains a control character: remove it")
    # An enumeration of texts has its own form of str().
    return str.__str__(value)


def check_key(value: object, task: str, kind: str = "task") -> str:
    """Return an idempotency key as plain text of 1 to 500 characters.

    `task` is the name of the task, or of the workflow if `kind` says so; '' for a key of all tasks.
    """
    found = check_text("key", value, 500)
    size = len(found) + len(task)
    if size * 4 > _KEY_BYTES and (size := len(found.encode()) + len(task.encode())) > _KEY_BYTES:
        raise InvalidOption(
            f"key of {len(found)} characters and {kind} {task!r} have {size} bytes together, and at most {_KEY_BYTES} can be "
            "stored: use a shorter key, such as a hash of it"
        )
    return found


def check_int(name: str, value: object, least: int, most: int, *, zero_hint: str = "") -> int:
    """Return `value`, which must be a whole number from `least` to `most`, and not a bool.

    `zero_hint`: what to do instead of giving 0, for the error message.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        more = f"; {zero_hint}" if zero_hint and value == 0 else ""
        raise InvalidOption(f"{name}={brief(value)}: expected a whole number from {least} to {most}{more}")
    return value


def check_choice(name: str, value: object, choices: Collection[str]) -> None:
    """Raise InvalidOption unless `value` is one of `choices`."""
    if not isinstance(value, str) or value not in choices:
        raise InvalidOption(f"{name}={brief(value)}: expected one of {', '.join(choices)}")


def check_seconds(name: str, value: object) -> float:
    """Return `value`, a number of seconds or a timedelta, in seconds. It must be finite."""
    found = to_seconds(value)
    if found is None:
        raise InvalidOption(f"{name}={brief(value)}: expected a number of seconds or a timedelta")
    return found


def check_duration(
    name: str, value: object, *, zero: bool = False, most: float = LONGEST, most_said: str = "100 years", none: str = ""
) -> None:
    """Raise InvalidOption unless `value` is a number of seconds above 0, up to `most`.

    If `zero`, 0 is valid, too.

    `most_said` is `most` in words. `none` is the meaning of None, if None is allowed.
    """
    good = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not (good and (0 < value <= most or (zero and value == 0))):  # type: ignore[operator]  # a number, or `good` is false
        wanted = f"between 0 and {most_said}" if zero else f"above 0, at most {most_said}"
        raise InvalidOption(
            f"{name}={brief(value)}: expected a number of seconds {wanted}{f', or None for {none}' if none else ''}"
        )


def check_aware(name: str, value: object, *, none: str = "") -> datetime:
    """Return an aware time, in UTC.

    A time before 1970 is returned as 1970, because all past times mean the same: at once. A time
    after 9998 is refused. `none` is the meaning of None, if None is allowed.
    """
    if not isinstance(value, datetime):
        raise InvalidOption(f"{name}={brief(value)}: expected a datetime with a time zone")
    if value.utcoffset() is None:
        raise InvalidOption(
            f"{name}={value!r} has no time zone: expected an aware datetime, such as datetime.now(timezone.utc)"
        )
    try:
        found = value.astimezone(UTC)
    except OverflowError:
        # Within a day of the first or last possible time.
        found = _EPOCH if value.year == 1 else _LATEST
    if found < _EPOCH:
        return _EPOCH
    if not found < _LATEST:
        raise InvalidOption(
            f"{name}={value!r}: expected a time before the year 9999 in UTC{f', or None to {none}' if none else ''}"
        )
    return found


def parse_time(text: str, *, zone_needed: bool = False) -> datetime:
    """Return the time for a text in ISO 8601.

    Without a zone it is UTC, or refused if `zone_needed`.

    Raises ValueError, whose message says what to write.
    """
    hint = "2030-01-31T08:00:00+01:00" if zone_needed else "2030-01-31T08:00, in UTC or with its zone"
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or (zone_needed and found.utcoffset() is None):
        what = "a time with its zone, as in" if zone_needed else "a time such as"
        raise ValueError(f"{text[:50]!r}: expected {what} {hint}")
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def is_by_name(value: object) -> TypeGuard[Mapping[str, Any]]:
    """Return whether `value` is a mapping with text keys, which arguments and headers must be."""
    return isinstance(value, Mapping) and all(isinstance(name, str) for name in value)
