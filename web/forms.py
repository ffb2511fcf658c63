"""Reading the fields of a form, and the redirect that follows one. Errors name the field, its value
and what is expected.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

from flask import abort, redirect, request, url_for
from werkzeug.wrappers import Response

from jobq._core.durations import HINT, parse_duration
from jobq._core.validation import parse_time
from jobq.web.context import current_page

_NUMBER = re.compile(r"[0-9]{1,18}(?:\.[0-9]{1,9})?", re.ASCII)


def text(name: str) -> str | None:
    """Return a field without surrounding white space; None if it is empty."""
    return request.form.get(name, "").strip() or None


def seconds(name: str) -> float | None:
    """Return a duration in seconds: ``90``, ``15m``, ``1.5h`` (units s, m, h, d, w)."""
    value = text(name)
    if value is None:
        return None
    try:
        return parse_duration(value)
    except ValueError:
        abort(400, f"{name}={value[:50]!r}: {HINT}.")


def time(name: str) -> datetime | None:
    """Return a time. A time without a zone, as browsers send it, is UTC."""
    value = text(name)
    if value is None:
        return None
    try:
        return parse_time(value)
    except ValueError as error:
        abort(400, f"{name}={error}.")


def whole(name: str) -> int | None:
    """Return a whole number of 0 or more. It may have commas between thousands, as the page prints
    them.
    """
    value = text(name)
    if value is None:
        return None
    digits = value.replace(",", "")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 18):
        abort(400, f"{name}={value[:50]!r}: expected a whole number of 0 or more.")
    return int(digits)


def decimal(name: str) -> float | None:
    """Return a number of 0 or more."""
    value = text(name)
    if value is None:
        return None
    if not _NUMBER.fullmatch(value) or not math.isfinite(float(value)):
        abort(400, f"{name}={value[:50]!r}: expected a number, such as 50 or 0.5.")
    return float(value)


OPTIONS: dict[str, dict[str, Callable[[str], Any]]] = {
    "snooze": {"seconds": seconds, "until": time},
    "move": {"queue": text, "priority": whole},
}


def options(action: str) -> dict[str, Any]:
    """Return the options of `action` in the form. Fields of other actions, which share the form,
    are ignored.
    """
    return {name: value for name, read in OPTIONS.get(action, {}).items() if (value := read(name)) is not None}


def redirect_with_note(endpoint: str, note: str, **where: Any) -> Response:
    """Return a redirect to the page `endpoint`, which shows `note` once."""
    signed = current_page().form_tokens.note(note[:500])
    # 303: the browser loads the next page with GET, so a reload does not send the form again.
    return redirect(url_for(f".{endpoint}", **where, note=signed), 303)
