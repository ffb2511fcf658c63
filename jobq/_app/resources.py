"""Resources: values that a runner creates once for its tasks, such as an HTTP client or a model.

A resource is a generator function that yields one value. A task, or another resource, asks for the value by annotation::

    @q.resource
    def client() -> Iterator[Client]:
        with Client() as made:
            yield made

    @q.task
    def fetch(path: str, client: Resource[Client] = injected) -> str: ...

Type checkers cannot remove a parameter from a signature unless it is the first (`ParamSpec`,
`Concatenate`). With a default, they accept ``fetch.enqueue(connection, "/")``; `injected` is that
default. For type checkers, ``Resource[Client]`` is ``Client``. They therefore check the body of
the task, and a test that passes its own client.
"""

from __future__ import annotations

import inspect
import typing
from collections import abc
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any, TypeVar

from jobq._core import callables
from jobq._core.hints import resolve
from jobq._core.injection import is_injected, marked_type
from jobq.errors import TaskDefinitionError

T = TypeVar("T")

_SYNC = frozenset({abc.Iterator, abc.Iterable, abc.Generator})
_ASYNC = frozenset({abc.AsyncIterator, abc.AsyncIterable, abc.AsyncGenerator})


class ResourceFunction:
    """A function registered with ``@q.resource``. Raises TaskDefinitionError if it is unusable."""

    def __init__(self, function: Callable[..., Any], local_names: Mapping[str, Any] | None) -> None:
        self.function = function
        self.name = str(getattr(function, "__name__", function))
        self.is_async = inspect.isasyncgenfunction(function)
        self._local_names = local_names
        self._what = f"resource {self.name}"
        if not self.is_async and not inspect.isgeneratorfunction(function):
            raise TaskDefinitionError(
                f"@q.resource: {function!r} is no generator function: yield the value once, and close it after that "
                "(without @contextmanager)"
            )
        self._signature = inspect.signature(function)
        if self._signature.return_annotation is inspect.Signature.empty:
            raise TaskDefinitionError(
                f"{self._what}: the return annotation is missing, and tasks find it by that: -> Iterator[…], or "
                "-> AsyncIterator[…] for an `async def`"
            )
        for parameter in self._signature.parameters.values():
            if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY) or (
                parameter.annotation is parameter.empty and parameter.default is parameter.empty
            ):
                raise TaskDefinitionError(f"{self._what}: {parameter} cannot be filled: annotate it as Resource[…]")

    @cached_property
    def type(self) -> Any:
        """The type of the value that it yields. Raises TaskDefinitionError."""
        hint = self._resolve("return", self._signature.return_annotation)
        if typing.get_origin(hint) not in (_ASYNC if self.is_async else _SYNC) or not typing.get_args(hint):
            wanted = "AsyncIterator" if self.is_async else "Iterator"
            raise TaskDefinitionError(f"{self._what}: its return annotation is {hint}: write -> {wanted}[…]")
        return typing.get_args(hint)[0]

    @cached_property
    def parameters(self) -> dict[str, Any]:
        """The types of the resources that it takes, by parameter. Raises TaskDefinitionError."""
        found = {}
        for parameter in self._signature.parameters.values():
            kind = marked_type(self._resolve(parameter.name, parameter.annotation))
            if kind is not None:
                found[parameter.name] = kind
            elif parameter.default is parameter.empty or is_injected(parameter):
                raise TaskDefinitionError(
                    f"{self._what}: {parameter} cannot be filled: annotate it as Resource[…], or add a default"
                )
        return found

    def _resolve(self, name: str, annotation: Any) -> Any:
        return resolve(self._what, self.function, name, annotation, self._local_names)

    def __repr__(self) -> str:
        return f"<resource {self.name}>"


class Resources:
    """The resources of one application."""

    def __init__(self) -> None:
        self._declared: dict[str, ResourceFunction] = {}
        self.overrides: dict[Callable[..., Any], Any] = {}
        """Values that tests use instead, by function."""

    def add(self, function: Callable[..., Any], local_names: Mapping[str, Any] | None) -> None:
        """Register a function.

        Raises TaskDefinitionError if it is unusable or its name is taken.
        """
        made = ResourceFunction(function, local_names)
        taken = self._declared.get(made.name)
        if taken is not None and not callables.is_redefined(taken.function, function):
            raise TaskDefinitionError(f"resource {made.name!r} is defined twice: rename one of the functions")
        self._declared[made.name] = made

    def has(self, function: Callable[..., Any]) -> bool:
        """Return whether `function` was registered here."""
        return any(each.function is function for each in self._declared.values())

    def find(self, wanted: Mapping[str, Any], of: str) -> dict[str, ResourceFunction]:
        """Return the resource for each parameter in `wanted`.

        A resource of the parameter's type is preferred to a resource of a subclass. Among several,
        the one with the parameter's name is used.

        Args:
            wanted: the type of each parameter.
            of: the owner of the parameters, for messages.

        Raises:
            TaskDefinitionError: no resource fits, or several fit.
        """
        return {name: self._find(name, kind, of) for name, kind in wanted.items()}

    def in_order(self, wanted: Iterable[ResourceFunction]) -> list[ResourceFunction]:
        """Return `wanted` and all resources they depend on, dependencies first.

        Raises TaskDefinitionError.
        """
        found: dict[ResourceFunction, None] = {}
        for each in wanted:
            self._visit(each, found, ())
        return list(found)

    def dependencies(self, resource: ResourceFunction) -> dict[str, ResourceFunction]:
        """Return the resources that `resource` takes, by parameter. Raises TaskDefinitionError."""
        if resource.function in self.overrides:
            return {}
        return self.find(resource.parameters, f"resource {resource.name}")

    def _visit(
        self, resource: ResourceFunction, found: dict[ResourceFunction, None], path: tuple[ResourceFunction, ...]
    ) -> None:
        if resource in path:
            circle = " → ".join(each.name for each in (*path[path.index(resource) :], resource))
            raise TaskDefinitionError(f"resources depend on each other in a circle: {circle}")
        if resource not in found:
            for needed in self.dependencies(resource).values():
                self._visit(needed, found, (*path, resource))
            found[resource] = None

    def _find(self, parameter: str, kind: Any, of: str) -> ResourceFunction:
        fitting = [each for each in self._declared.values() if each.type == kind]
        fitting = fitting or [each for each in self._declared.values() if _is_subclass(each.type, kind)]
        if len(fitting) > 1:
            fitting = [each for each in fitting if each.name == parameter] or fitting
        if len(fitting) == 1:
            return fitting[0]
        name = getattr(kind, "__name__", kind) if isinstance(kind, type) else kind
        if fitting:
            names = " and ".join(each.name for each in fitting)
            raise TaskDefinitionError(
                f"{of}: resources {names} are of type {name}: rename parameter {parameter} to one of these names"
            )
        known = ", ".join(_described(self._declared.values())) or "none"
        raise TaskDefinitionError(
            f"{of}: there is no resource of type {name} for {parameter}; there are: {known}. Define one with @q.resource"
        )


def _described(resources: Iterable[ResourceFunction]) -> Iterator[str]:
    for each in resources:
        yield f"{each.name} ({getattr(each.type, '__name__', each.type)})"


def _is_subclass(kind: Any, of: Any) -> bool:
    try:
        return isinstance(kind, type) and issubclass(kind, of)
    except TypeError:  # a protocol with attributes, a generic alias
        return False
