"""Functions of an application that run when workers and runners start and stop."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from jobq._core import callables
from jobq.errors import TaskDefinitionError

Hook = Callable[[], Any]


@dataclass(slots=True)
class Hooks:
    """The functions of one application, in the order of their declaration."""

    worker_start: list[Hook] = field(default_factory=list)
    runner_start: list[Hook] = field(default_factory=list)
    runner_stop: list[Hook] = field(default_factory=list)


def add_hook(hooks: list[Hook], decorator: str, function: Hook) -> None:
    """Add a function.

    If a notebook cell or a reload declares a function again, it replaces the old one. Raises
    TaskDefinitionError if the function cannot be called without arguments.
    """
    checked = checked_hook(decorator, function)
    again = (n for n, known in enumerate(hooks) if known is checked or callables.is_redefined(known, checked))
    place = next(again, len(hooks))
    hooks[place : place + 1] = [checked]


def checked_hook(decorator: str, function: Hook) -> Hook:
    """Return `function`. Raises TaskDefinitionError if it cannot be called without arguments."""
    if not callable(function) or isinstance(function, type):
        raise TaskDefinitionError(f"{decorator}: {function!r} is no function: decorate a `def` or `async def`")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TaskDefinitionError(
            f"{decorator}: {name_of(function)} is a generator: for what is to be closed, use @q.resource"
        )
    try:
        inspect.signature(function).bind()
    except TypeError as error:
        raise TaskDefinitionError(f"{decorator}: {name_of(function)} is called without arguments: {error}") from None
    return function


def name_of(function: Hook) -> str:
    """Return the name of a function for messages."""
    return str(getattr(function, "__qualname__", function))
