"""Waiting for a condition, instead of sleeping for a guess."""

from __future__ import annotations

import asyncio
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


async def wait_until_async(
    predicate: Callable[[], T],
    *,
    timeout: float = 20,  # noqa: ASYNC109 - the failure names what was waited for
    what: str,
) -> T:
    """Like `wait_until`, and let the event loop go on meanwhile."""
    deadline = time.monotonic() + timeout
    pause = 0.002
    while not (found := predicate()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {timeout} s (last: {found!r})")
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, 0.05)
    return found


def hold(seconds: float) -> None:
    """Let a fault last for `seconds`. For faults whose length is the case, and never to wait for something."""
    time.sleep(seconds)
