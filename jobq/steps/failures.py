"""Exceptions of steps, stored as JSON and raised again when the task is called again."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from jobq._core import json_text
from jobq._core.storable import storable_text
from jobq.errors import StepFailed

_LONGEST_MESSAGE = 2000


def encode(error: BaseException) -> str:
    """Return an exception as JSON text: its class, its message, and its arguments if they are JSON."""
    kind = type(error)
    try:
        message = str(error)
    except Exception:  # a class whose __str__ raises
        message = ""
    found: dict[str, Any] = {
        "type": f"{kind.__module__}:{kind.__qualname__}",
        "message": storable_text(message, _LONGEST_MESSAGE),
    }
    for name, value in (("args", list(error.args)), ("attributes", vars(error))):
        try:
            text = json_text.encode({name: value}, "an exception", 8192)
        except (ValueError, RecursionError):
            continue
        # Only what comes back as it was.
        if (read := json.loads(text)[name]) == value and read:
            found[name] = value
    return json_text.encode(found, "an exception")


def causes(error: BaseException) -> list[BaseException]:
    """Return `error`, and the errors from which it was raised or while which were handled, and those in groups."""
    found: dict[int, BaseException] = {}
    left: list[BaseException | None] = [error]
    while left:
        each = left.pop()
        if each is None or id(each) in found:
            continue
        found[id(each)] = each
        left += [each.__cause__, None if each.__suppress_context__ else each.__context__]
        if isinstance(each, BaseExceptionGroup):
            left += each.exceptions
    return list(found.values())


def rebuild(step: str, stored: Mapping[str, Any]) -> BaseException:
    """Return the exception that was stored: of the class that it had, so that the task's ``except`` still fits.

    If its class is not there, or is no Exception, it is a StepFailed.
    """
    module, _, name = str(stored.get("type", "")).partition(":")
    message = str(stored.get("message", ""))
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    failed = StepFailed(step, name or "Exception", message)
    if not (isinstance(found, type) and issubclass(found, Exception)):
        return failed
    try:
        error: Exception = found.__new__(found, *stored.get("args", [message]))
        error.args = tuple(stored.get("args", [message]))
        vars(error).update(stored.get("attributes", {}))
        error.add_note(f"This is the stored failure of step {step!r}: the step was not run again.")
    except Exception:  # a class with a __new__ of its own
        return failed
    return error
