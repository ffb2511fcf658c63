"""Careful reading of values from user code.

An attribute may be a property that raises, and a number may be no number at all.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from jobq._core.storable import LONGEST_DELAY
from jobq.errors import Retry, Snooze
from jobq.retry import Backoff

_DEFAULT = Backoff()


def snooze_seconds(error: Snooze) -> float:
    """Return the number of seconds that a task wants to be snoozed.

    Raises ValueError if the task has changed `seconds` to an invalid duration.
    """
    seconds = _number(lambda: error.seconds)
    if seconds is None or not 0 <= seconds <= LONGEST_DELAY:
        raise ValueError(
            f"Snooze: its `seconds` is no number of seconds between 0 and ten years ({_shown(lambda: error.seconds)})"
        )
    return seconds


def retry_seconds(error: Retry) -> float | None:
    """Return the number of seconds until the task wants its next attempt; None to use its backoff.

    Raises ValueError as `snooze_seconds` does.
    """
    try:
        if error.after is None:
            return None
    except BaseException:  # noqa: S110  # a property that raises: reported below
        pass
    seconds = _number(lambda: error.after)
    if seconds is None or not 0 <= seconds <= LONGEST_DELAY:
        raise ValueError(
            f"Retry: its `after` is no number of seconds between 0 and ten years ({_shown(lambda: error.after)})"
        )
    return seconds


def retry_delay(ask: Callable[[], float | None], attempt: int) -> float | None:
    """Return the delay in seconds that a task's own rule sets; None for no further attempt.

    If the rule raises, or returns an invalid duration, the default backoff replaces it.
    """
    try:
        said = ask()
    except BaseException:  # an application's `Backoff` or exception class may raise SystemExit too
        return _DEFAULT.delay(attempt)
    if said is None:
        return None
    delay = _number(lambda: said)
    if delay is None or delay < 0:
        return _DEFAULT.delay(attempt)
    return min(delay, LONGEST_DELAY)


def _number(ask: Callable[[], Any]) -> float | None:
    try:
        number = float(ask())
    except BaseException:
        return None
    return None if math.isnan(number) else number


def _shown(ask: Callable[[], Any]) -> str:
    try:
        return repr(ask())[:100]
    except BaseException as error:
        return f"it raises {type(error).__name__}"
