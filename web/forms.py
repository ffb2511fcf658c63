"""Reading the fields of a form that changes something: each error names the field, its value and what to do."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from flask import abort, request

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_SECONDS = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)\s*([smhdw]?)", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,18}(?:\.[0-9]{1,9})?", re.ASCII)


def text(name: str) -> str | None:
    """Return a field without the white space around it; None where it is empty."""
    return request.form.get(name, "").strip() or None


def seconds(name: str) -> float | None:
    """Return a duration in seconds: ``90``, ``15m``, ``1.5h`` (units s, m, h, d, w)."""
    value = text(name)
    if value is None:
        return None
    found = _SECONDS.fullmatch(value)
    if found is None:
        abort(400, f"{name}={value[:50]!r}: give seconds, or a number with s, m, h, d or w, as in 15m.")
    return float(found[1]) * _UNITS[found[2] or "s"]


def time(name: str) -> datetime | None:
    """Return a time; one without its zone, as browsers' fields give it, is UTC."""
    value = text(name)
    if value is None:
        return None
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        abort(400, f"{name}={value[:50]!r}: give a time such as 2030-01-31T08:00, in UTC or with its zone.")
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def whole(name: str) -> int | None:
    """Return a whole number of 0 or more; thousands may be parted by commas, as the page writes them."""
    value = text(name)
    if value is None:
        return None
    digits = value.replace(",", "")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 18):
        abort(400, f"{name}={value[:50]!r}: give a whole number of 0 or more.")
    return int(digits)


def decimal(name: str) -> float | None:
    """Return a number of 0 or more."""
    value = text(name)
    if value is None:
        return None
    if not _NUMBER.fullmatch(value) or not math.isfinite(float(value)):
        abort(400, f"{name}={value[:50]!r}: give a number, such as 50 or 0.5.")
    return float(value)


OPTIONS: dict[str, dict[str, Callable[[str], Any]]] = {
    "snooze": {"seconds": seconds, "until": time},
    "move": {"queue": text, "priority": whole},
}


def options(action: str) -> dict[str, Any]:
    """Return what the form says of the options of `action`; fields of other actions, which share the form, say nothing."""
    return {name: value for name, read in OPTIONS.get(action, {}).items() if (value := read(name)) is not None}
