"""Waiting for a condition, instead of sleeping for a guess."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(predicate: Callable[[], T], *, timeout: float = 20, what: str) -> T:
    """Call `predicate` until it returns something true, and return that.

    Fails after `timeout` seconds, naming `what` was waited for.
    """
    deadline = time.monotonic() + timeout
    pause = 0.002
    while not (found := predicate()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {timeout} s (last: {found!r})")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)
    return found
