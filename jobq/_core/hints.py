"""Annotations: resolve them, and choose a concrete type for an abstract one."""

from __future__ import annotations

import collections
import dataclasses
import inspect
import typing
from collections import abc
from collections.abc import Callable, Mapping
from types import UnionType
from typing import Annotated, Any

from pydantic import BeforeValidator

from jobq._core import callables
from jobq.errors import TaskDefinitionError

UNIONS = (typing.Union, UnionType)
_AS_LIST = frozenset({abc.Sequence, abc.MutableSequence, abc.Iterable, abc.Collection, abc.Reversible, abc.Container})
_AS_SET = frozenset({abc.Set, abc.MutableSet})
_AS_DICT = frozenset({abc.Mapping, abc.MutableMapping})
# Containers that may hold abstract types. Sets and dict keys cannot: a list cannot be in them.
_REBUILT = frozenset({list, tuple, dict, collections.deque, collections.defaultdict, collections.OrderedDict})


def resolve(
    task: str, function: Callable[..., Any], name: str, annotation: Any, local_names: Mapping[str, Any] | None
) -> Any:
    """Return the type of `annotation`, or Any without one.

    Raises TaskDefinitionError, also for a NameError.
    """
    if annotation is inspect.Parameter.empty:
        return Any

    def holder() -> None: ...

    holder.__annotations__ = {name: annotation}
    inner = callables.innermost(function)
    known = {**dict(local_names or {}), **callables.closure(inner)}
    try:
        return typing.get_type_hints(holder, getattr(inner, "__globals__", {}), known, include_extras=True)[name]
    except NameError as error:
        raise TaskDefinitionError(
            f"{task}: the annotation {annotation!r} of {name} cannot be resolved ({error}): "
            "import it outside of `if TYPE_CHECKING`"
        ) from error
    except Exception as error:
        raise TaskDefinitionError(
            f"{task}: the annotation {annotation!r} of {name} is no type: {type(error).__name__}: {error}"
        ) from error


def concrete(hint: Any) -> Any:
    """Return `hint` with abstract types replaced by the types that JSON gives back.

    They are list, set and dict.

    Values are converted at the call: a range for a ``Sequence``, a generator for an ``Iterable``.
    """
    origin, args = typing.get_origin(hint) or hint, typing.get_args(hint)
    if origin is Annotated:
        inner, *metadata = args
        return Annotated[(concrete(inner), *metadata)] if concrete(inner) is not inner else hint
    if origin in UNIONS:
        parts = tuple(concrete(part) for part in args)
        return typing.Union[parts] if _differ(parts, args) else hint  # noqa: UP007  # of a tuple
    try:
        if origin in _AS_LIST:
            return _made(origin, list, (concrete(args[0]),) if args else (Any,))
        if origin in _AS_SET:
            return _made(origin, set, args or (Any,))
        if origin in _AS_DICT:
            return _made(origin, dict, (args[0], concrete(args[1])) if args else (Any, Any))
        if origin in _REBUILT and args:
            keys = 1 if issubclass(origin, dict) else 0
            parts = (*args[:keys], *(part if part is ... else concrete(part) for part in args[keys:]))
            return origin[parts] if _differ(parts, args) else hint
    except TypeError:  # not hashable, or not composed of types
        return hint
    return hint


@dataclasses.dataclass(frozen=True)
class _Made:
    """Converts a value of an abstract type to a value that JSON gives back."""

    abstract: type
    kind: Callable[[Any], Any]

    def __call__(self, value: Any) -> Any:
        # Text is a sequence of text, and a dict is a collection of keys, but callers rarely mean
        # that.
        others = (str, bytes, bytearray) if self.kind is dict else (str, bytes, bytearray, abc.Mapping)
        if type(value) is self.kind or isinstance(value, others) or not isinstance(value, self.abstract):
            return value
        return self.kind(value)


def _made(abstract: Any, kind: Any, args: tuple[Any, ...]) -> Any:
    return Annotated[kind[args], BeforeValidator(_Made(abstract, kind))]


def _differ(parts: tuple[Any, ...], args: tuple[Any, ...]) -> bool:
    return any(part is not arg for part, arg in zip(parts, args, strict=True))
