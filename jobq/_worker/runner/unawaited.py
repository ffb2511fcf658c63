"""Work that a task has returned instead of doing it: a coroutine that nothing awaits, a generator that nothing runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from types import CoroutineType, GeneratorType
from typing import Any

from jobq import callables
from jobq.errors import NotAwaited
from jobq.tasks import BaseTask


def check_done(task: BaseTask[..., Any], value: object) -> None:
    """Close what `task` returned and raise NotAwaited when it is work that has not been done."""
    if value is None:
        return
    if isinstance(value, GeneratorType):
        # The task's own, behind a wrapper. Another may be a value, for an annotation such as Iterable.
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
    except Exception:  # its __class__ is the application's
        return False
