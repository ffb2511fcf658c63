"""The functions that steps call: their names, and their arguments and results as JSON."""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
from collections import OrderedDict
from collections.abc import Callable, Mapping
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

from jobq._core import callables
from jobq._core.arguments import Arguments
from jobq._core.text import brief
from jobq._core.validation import check_text
from jobq.errors import InvalidOption, TaskDefinitionError

_KEPT = 1024
_LONGEST_ARGS = 1000


class StepFunction:
    """One function as a step. Raises TaskDefinitionError if its annotations are not those of stored values."""

    def __init__(self, function: Callable[..., Any], name: str | None) -> None:
        own = name_of(function)
        _check(function)
        if name is None and own is None:
            raise InvalidOption(
                f"step.run({function!r}): a step is found again by its name, and this has none: "
                "use step.options(name=…).run(…)"
            )
        self.identity = _identity(function)
        self.name = check_text("name", name if name is not None else own, 200)
        self.arguments = Arguments(f"step {self.name}", function, callables.local_names(function, None))

    def encode(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], limit: int) -> str:
        """Return the arguments as JSON text, in one order of the names. Raises InvalidArguments."""
        text = self.arguments.encode(args, kwargs, limit)
        return text if len(kwargs) < 2 else json.dumps(json.loads(text), sort_keys=True, ensure_ascii=False)


def step_function(function: Callable[..., Any], name: str | None) -> StepFunction:
    """Return `function` as a step, with this name or its own. Raises InvalidOption and TaskDefinitionError."""
    key = (_identity(function), name)
    try:
        found = _made.get(key)
    except TypeError:  # a callable object that cannot be hashed
        return StepFunction(function, name)
    if found is None:
        found = _made[key] = StepFunction(function, name)
        while len(_made) > _KEPT:
            _made.popitem(last=False)
    return found


_made: OrderedDict[Any, StepFunction] = OrderedDict()


def hash_of(text: str) -> str:
    """Return a short hash of arguments."""
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:16]


def shown(args: str) -> str:
    """Return arguments for people and for messages."""
    return brief(json.loads(args), _LONGEST_ARGS) if len(args) > _LONGEST_ARGS else args


def _identity(function: Any) -> Any:
    """Return what tells the signature: a function made within the task is another object at each call."""
    if isinstance(function, FunctionType):
        return function.__code__
    if isinstance(function, MethodType):
        return ("method", _identity(function.__func__))
    return function


def whole_call(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[Callable[..., Any], tuple[Any, ...], Mapping[str, Any]]:
    """Return the call of the function below partials: what they bind is part of the step's arguments."""
    while isinstance(function, functools.partial):
        args, kwargs, function = (*function.args, *args), {**function.keywords, **kwargs}, function.func
    return function, args, kwargs


def _check(function: Any) -> None:
    """Raise TaskDefinitionError for callables that are no functions, in the words of steps."""
    if isinstance(function, type):
        fault = "it is a class: pass a function that makes the object, and returns what can be stored"
    elif isinstance(function, BuiltinFunctionType):
        fault = "it is written in C and has no annotations: call it in a `def` of yours"
    elif inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        fault = "it is a generator: return a list, or take a step for each element"
    elif isinstance(function, FunctionType) and next(iter(inspect.signature(function).parameters), "") == "self":
        fault = "it is a method without its object: pass the method of an object that the task makes each time"
    else:
        return
    raise TaskDefinitionError(f"step.run({brief(function)}): {fault}")


def name_of(function: Any) -> str | None:
    """Return the name of a step that calls `function`; None: it has none. Raises TaskDefinitionError."""
    while isinstance(function, functools.partial):
        function = function.func
    if isinstance(function, MethodType):
        owner = function.__self__
        return f"{(owner if isinstance(owner, type) else type(owner)).__name__}.{function.__name__}"
    name = getattr(function, "name", None) or getattr(function, "__name__", None)
    if not callable(function):
        raise TaskDefinitionError(f"step.run({function!r}): expected a function")
    return name if isinstance(name, str) and name != "<lambda>" else None
