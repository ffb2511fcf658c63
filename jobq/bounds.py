"""What the tables can store, checked before anything is sent: a statement that a constraint refuses costs the transaction.

The limits are those of the constraints in `jobq.schema`; tests/integration/test_bounds.py holds the two together.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

from jobq.errors import InvalidOption

LONGEST = 100 * 365.25 * 86400
"""Seconds in 100 years: the longest delay, timeout, period of a key and time to expiry."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST = datetime(9999, 1, 1, tzinfo=UTC)
# Of a key and its scope in one entry of an index.
_KEY_BYTES = 2600


def text(name: str, value: object, longest: int) -> str:
    """Return `value` as plain text. Raises InvalidOption unless it has 1 to `longest` characters that PostgreSQL can store."""
    if not isinstance(value, str) or not 1 <= len(value) <= longest:
        shown = f"of {len(value)} characters" if isinstance(value, str) and value else brief(value)
        raise InvalidOption(f"{name} {shown}: give text of 1 to {longest} characters")
    if "\0" in value:
        raise InvalidOption(f"{name}={value!r} contains a NUL character, which PostgreSQL cannot store: remove it")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise InvalidOption(f"{name}={value!r} contains a lone surrogate: give Unicode text") from None
    # An enumeration of texts has a form of its own for str().
    return str.__str__(value)


def key(value: object, task: str) -> str:
    """Return an idempotency key, of a task or of all tasks (''), as plain text. Raises InvalidOption."""
    found = text("key", value, 500)
    size = len(found) + len(task)
    if size * 4 > _KEY_BYTES and (size := len(found.encode()) + len(task.encode())) > _KEY_BYTES:
        raise InvalidOption(
            f"key of {len(found)} characters and task {task!r} have {size} bytes together, and at most {_KEY_BYTES} can be "
            "stored: give a shorter key, such as a hash of it"
        )
    return found


def whole(name: str, value: object, least: int, most: int) -> None:
    """Raise InvalidOption unless `value` is a whole number from `least` to `most`."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise InvalidOption(f"{name}={brief(value)}: give a whole number between {least} and {most}")


def seconds(name: str, value: float | timedelta) -> float:
    """Return `value` in seconds. Raises InvalidOption, naming the option, unless it is a finite number."""
    if isinstance(value, timedelta):
        return value.total_seconds()
    try:
        if not isinstance(value, bool) and isinstance(value, (int, float)) and math.isfinite(value):
            return float(value)
    except OverflowError:
        pass
    raise InvalidOption(f"{name}={brief(value)}: give a number of seconds or a timedelta")


def duration(name: str, value: object, hint: str, *, zero: bool = False) -> None:
    """Raise InvalidOption, with `hint`, unless `value` is seconds above 0 (or 0, with `zero`) and at most 100 years."""
    good = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not (good and (0 < value <= LONGEST or (zero and value == 0))):  # type: ignore[operator]
        raise InvalidOption(f"{name}={brief(value)}: {hint}")


def moment(name: str, value: object) -> datetime:
    """Return a time in UTC; one before 1970 as 1970, since all past times mean at once. Raises InvalidOption."""
    if not isinstance(value, datetime):
        raise InvalidOption(f"{name}={brief(value)}: give a datetime with a time zone")
    if value.utcoffset() is None:
        raise InvalidOption(
            f"{name}={value!r} has no time zone: give an aware datetime, such as datetime.now(timezone.utc)"
        )
    try:
        found = value.astimezone(UTC)
    except OverflowError:
        # Within a day of the first or the last time that there is.
        found = _EPOCH if value.year == 1 else _LATEST
    if found < _EPOCH:
        return _EPOCH
    if not found < _LATEST:
        raise InvalidOption(f"{name}={value!r}: give a time before the year 9999 in UTC, or None to run at once")
    return found


def brief(value: object) -> str:
    """Return `value` for a message: no longer than a line, and never an error of its own."""
    try:
        shown = repr(value)
    except Exception:  # a number of too many digits, or a class of the user's
        shown = f"<{type(value).__name__}>"
    return shown if len(shown) <= 100 else f"{shown[:100]}…"
