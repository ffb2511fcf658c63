"""Callables that become tasks: their layers, their signature, and whether they are coroutines."""

from __future__ import annotations

import functools
import inspect
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from jobq.errors import TaskDefinitionError

FUNCTIONS = (types.FunctionType, types.MethodType, types.BuiltinFunctionType)


def signature(task: str, function: Callable[..., Any]) -> inspect.Signature:
    """Return the signature of a function that can be a task.

    Raises TaskDefinitionError for others.
    """
    if not callable(function) or isinstance(function, (type, staticmethod, classmethod)):
        raise TaskDefinitionError(f"{task}: {function!r} is no function: decorate a `def` or `async def`")
    if any(inspect.isgeneratorfunction(layer) or inspect.isasyncgenfunction(layer) for layer in _outer(function)):
        raise TaskDefinitionError(f"{task}: a generator cannot be a task: return a list, or split it into jobs")
    try:
        found = inspect.signature(function)
    except (TypeError, ValueError) as error:
        raise TaskDefinitionError(
            f"{task}: {function!r} does not tell its parameters ({error}): wrap it in a `def` with annotations"
        ) from error
    for parameter in found.parameters.values():
        kind, name = parameter.kind, parameter.name
        if kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            star = "*" if kind is parameter.VAR_POSITIONAL else "**"
            raise TaskDefinitionError(
                f"{task}: {star}{name} has no fixed name to store a value under: take a list or a dict as {name}"
            )
        if kind is parameter.POSITIONAL_ONLY:
            raise TaskDefinitionError(
                f"{task}: {name} is positional-only, and arguments are stored by name: remove the `/`"
            )
    if (owner := _owner(function, found)) is not None:
        first = next(iter(found.parameters))
        raise TaskDefinitionError(
            f"{task}: a method of {owner} cannot be a task: a job has no {first!r} to call it on; use a function, or a "
            "@staticmethod above @q.task, that makes or loads the object itself"
        )
    return found


def innermost(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function that a partial, wrapper, method or callable object finally calls."""
    found = function
    for layer in _layers(function):
        found = layer
    return found


def closure(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the names of the enclosing function that `function` uses."""
    names = getattr(getattr(function, "__code__", None), "co_freevars", ())
    found = {}
    for name, cell in zip(names, getattr(function, "__closure__", None) or (), strict=False):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    return found


def local_names(function: Callable[..., Any], frame: types.FrameType | None) -> Mapping[str, Any] | None:
    """Return the names around a function defined inside another function or a class.

    Its annotations may use them. `frame`: the frame in which the function was defined.
    """
    if frame is None or "." not in getattr(function, "__qualname__", ""):
        return None
    return dict(frame.f_locals)


def is_coroutine_function(function: Callable[..., Any]) -> bool:
    """Whether every call returns a coroutine.

    This is true for an ``async def``, a partial of one, and an object whose ``__call__`` is one.
    """
    return any(map(inspect.iscoroutinefunction, _outer(function)))


def wraps_coroutine_function(function: Callable[..., Any]) -> bool:
    """Whether it is a ``def`` around an ``async def``.

    Its call may return the coroutine, or run it.
    """
    return not is_coroutine_function(function) and any(map(inspect.iscoroutinefunction, _layers(function)))


def is_redefined(old: Callable[..., Any], new: Callable[..., Any]) -> bool:
    """Whether `new` is `old` defined again: by a notebook cell or by a module reload.

    This is false for two functions with the same name in one file, and for functions made by a
    function.
    """
    one, other = innermost(old), innermost(new)
    name, module = getattr(one, "__qualname__", None), getattr(one, "__module__", None)
    if (
        one is other
        or name is None
        or "<locals>" in name
        or (name, module)
        != (
            getattr(other, "__qualname__", None),
            getattr(other, "__module__", None),
        )
    ):
        return False
    first, second = getattr(one, "__code__", None), getattr(other, "__code__", None)
    if first is None or second is None:
        return True
    if first.co_filename != second.co_filename or first.co_firstlineno == second.co_firstlineno:
        return True
    spec = getattr(sys.modules.get(str(module)), "__spec__", None)
    return spec is not None and not getattr(spec, "_initializing", False)


def is_same_kind(old: Any, new: Any) -> bool:
    """Whether two objects are of one class, or two partials or closures of one function."""
    one, other = _kind(old), _kind(new)
    code = getattr(one, "__code__", None)
    return one is other or is_redefined(one, other) or (code is not None and code is getattr(other, "__code__", None))


def _kind(value: Any) -> Any:
    found = innermost(value)
    return found if isinstance(found, (type, *FUNCTIONS)) else type(found)


def _layers(function: Callable[..., Any]) -> Iterator[Any]:
    """Yield `function` and the layers below it."""
    seen: set[int] = set()
    layer: Any = function
    while layer is not None and id(layer) not in seen:
        seen.add(id(layer))
        yield layer
        layer = getattr(layer, "__wrapped__", None) or _below(layer)


def _outer(function: Callable[..., Any]) -> Iterator[Any]:
    """Yield `function` and the layers that its call passes through.

    Functions that a wrapper uses only internally are left out.
    """
    layer: Any = function
    while layer is not None:
        yield layer
        layer = _below(layer)


def _below(layer: Any) -> Any:
    if isinstance(layer, functools.partial):
        return layer.func
    if isinstance(layer, types.MethodType):
        return layer.__func__
    if isinstance(layer, (*FUNCTIONS, type)):
        return None
    call = getattr(type(layer), "__call__", None)  # noqa: B004  # not whether it can be called: what that calls
    return call if isinstance(call, types.FunctionType) else None


def _owner(function: Callable[..., Any], found: inspect.Signature) -> str | None:
    """Return the class of an unbound method; None for any other function."""
    owner = str(getattr(function, "__qualname__", "")).rpartition(".")[0].rpartition(".")[2]
    if not owner or owner == "<locals>" or next(iter(found.parameters), None) not in ("self", "cls"):
        return None
    return owner
