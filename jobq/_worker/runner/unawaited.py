"""Detection of work that a task returned instead of doing it.

Examples are a coroutine that nothing awaits and a generator that nothing runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from types import CoroutineType, GeneratorType
from typing import Any

from jobq._core import callables
from jobq.errors import NotAwaited
from jobq.task import BaseTask


def check_done(task: BaseTask[..., Any], value: object) -> None:
    """If `task` returned work that was not done, close it and raise NotAwaited."""
    if value is None:
        return
    if isinstance(value, GeneratorType):
        # Only the task's own generator, behind a wrapper, is an error. Another generator may be a
        # value, for an annotation such as Iterable.
        if value.gi_code is not getattr(callables.innermost(task.function), "__code__", None):
            return
        advice = "return a list, or loop over it in the wrapper"
    elif _is_awaitable(value):
        advice = "await it in the task" if task.is_async else "make the task an `async def`, which awaits it"
    else:
        return
    if isinstance(value, (GeneratorType, CoroutineType)):
        value.close()
    raise NotAwaited(f"{task.name} returned a {type(value).__name__} that nothing has run: {advice}")


def _is_awaitable(value: object) -> bool:
    try:
        return isinstance(value, (Coroutine, AsyncGenerator, asyncio.Future))
    except Exception:  # the application may define its __class__
        return False
