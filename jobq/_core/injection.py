"""How a parameter is marked as filled by a runner: annotation `Resource` and default `injected`."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from typing import Annotated, Any, TypeAlias, TypeVar

from jobq.errors import ResourceNotInjected

T = TypeVar("T")


class _Marker:
    def __repr__(self) -> str:
        return "jobq.Resource"


_MARKER = _Marker()

Resource: TypeAlias = Annotated[T, _MARKER]
"""Annotates a parameter that a runner fills: ``client: Resource[Client] = injected``."""


class _Injected:
    """The type of `injected`. Using it as a value raises an error that says what is missing."""

    def __repr__(self) -> str:
        return "injected"

    def __reduce__(self) -> str:
        return "injected"

    def __getattr__(self, name: str) -> Any:
        raise _not_injected(repr(name))

    def __setattr__(self, name: str, value: object) -> None:
        raise _not_injected(repr(name))

    def __bool__(self) -> bool:
        return True


def _not_injected(what: str) -> ResourceNotInjected:
    return ResourceNotInjected(
        f"{what} of a resource that was not injected: only workers and jobq.testing inject resources; "
        "pass one in this call"
    )


def _refusing(what: str) -> Callable[..., Any]:
    def refuse(*args: object, **kwargs: object) -> Any:
        raise _not_injected(what)

    return refuse


# Python looks up these methods in the class, not with `__getattr__`.
for _method, _what in {
    "__call__": "a call",
    "__getitem__": "an item",
    "__setitem__": "an item",
    "__delitem__": "an item",
    "__contains__": "an item",
    "__len__": "the length",
    "__iter__": "an iteration",
    "__aiter__": "an iteration",
    "__enter__": "a `with`",
    "__exit__": "a `with`",
    "__aenter__": "an `async with`",
    "__aexit__": "an `async with`",
    "__await__": "an `await`",
}.items():
    setattr(_Injected, _method, _refusing(_what))


injected: Any = _Injected()
"""The default of a parameter that is a resource: ``client: Resource[Client] = injected``."""


def is_injected(parameter: inspect.Parameter) -> bool:
    """Return whether a parameter of a task is a resource, by its default."""
    return parameter.default is injected


def marked_type(hint: Any) -> Any | None:
    """Return ``Client`` for ``Resource[Client]``, and None for any other annotation."""
    if typing.get_origin(hint) is Annotated:
        inner, *metadata = typing.get_args(hint)
        if any(data is _MARKER for data in metadata):
            return inner
    return None
