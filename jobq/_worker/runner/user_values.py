"""What user code hands over, taken with care: an attribute may be a property that raises, and a number none at all."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from jobq.backoff import Backoff
from jobq.errors import Retry, Snooze
from jobq.worker.texts import LONGEST_DELAY

_DEFAULT = Backoff()


def snooze_seconds(error: Snooze) -> float:
    """Return for how long a task wants to be snoozed. Raises ValueError: it has changed `seconds` to what is no duration."""
    seconds = _number(lambda: error.seconds)
    if seconds is None or not 0 <= seconds <= LONGEST_DELAY:
        raise ValueError(
            f"Snooze: its `seconds` is no number of seconds between 0 and ten years ({_shown(lambda: error.seconds)})"
        )
    return seconds


def retry_seconds(error: Retry) -> float | None:
    """Return in how many seconds a task wants its next attempt; None: as its backoff says. Raises ValueError as
    `snooze_seconds` does.
    """
    try:
        if error.after is None:
            return None
    except BaseException:  # noqa: S110  # a property that raises: told below
        pass
    seconds = _number(lambda: error.after)
    if seconds is None or not 0 <= seconds <= LONGEST_DELAY:
        raise ValueError(
            f"Retry: its `after` is no number of seconds between 0 and ten years ({_shown(lambda: error.after)})"
        )
    return seconds


def retry_delay(ask: Callable[[], float | None], attempt: int) -> float | None:
    """Return what a task's own rule says of the next attempt: seconds, or None for none. A rule that raises, or says what is
    no duration, is not asked again: the default backoff stands in for it.
    """
    try:
        said = ask()
    except BaseException:  # a `Backoff` of the application's, or the class of an exception; SystemExit too
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
