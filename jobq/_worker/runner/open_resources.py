"""The resources of one process.

They are created once, in the order of their dependencies, and closed in reverse order.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from typing import Any

from jobq._app.resources import ResourceFunction, Resources
from jobq.errors import TaskDefinitionError

logger = logging.getLogger("jobq.runner")

_NOTHING = object()


class OpenResources:
    """The values of an application's resources.

    `run` runs a coroutine to its end on the event loop of async tasks.
    """

    def __init__(self, declared: Resources, run: Callable[[Coroutine[Any, Any, Any]], Any]) -> None:
        self._declared = declared
        self._run = run
        self._values: dict[ResourceFunction, Any] = {}
        self._generators: dict[ResourceFunction, Any] = {}
        self.doing = ""
        """The resource being created or closed, as text for progress messages."""

    def open(self, wanted: Iterable[ResourceFunction]) -> None:
        """Create the missing resources of `wanted` with all their dependencies.

        Raises whatever a resource raises.
        """
        for resource, generator in self._missing(wanted):
            with _Making(self, resource):
                value = self._run(_next_async(generator)) if resource.is_async else next(generator, _NOTHING)
            self._keep(resource, generator, value)

    async def open_async(self, wanted: Iterable[ResourceFunction]) -> list[ResourceFunction]:
        """Create resources like `open`, but on the running event loop; return the created ones."""
        made = []
        for resource, generator in self._missing(wanted):
            with _Making(self, resource):
                value = await _next_async(generator) if resource.is_async else next(generator, _NOTHING)
            self._keep(resource, generator, value)
            made.append(resource)
        return made

    def values(self, parameters: Mapping[str, ResourceFunction]) -> dict[str, Any]:
        """Return the value for each parameter."""
        return {name: self._value(resource) for name, resource in parameters.items()}

    def close(self) -> None:
        """Close all resources, in reverse order of creation.

        If a resource raises an error, it is logged, and the others are still closed.
        """
        for resource, generator in self._taken(list(self._generators)):
            with _Closing(self, resource):
                if resource.is_async:
                    self._run(_end_async(generator))
                else:
                    _end(generator)

    async def close_async(self, resources: Iterable[ResourceFunction]) -> None:
        """Close `resources`, which are in the order returned by `open_async`, like `close`."""
        for resource, generator in self._taken(resources):
            with _Closing(self, resource):
                if resource.is_async:
                    await _end_async(generator)
                else:
                    _end(generator)

    def _missing(self, wanted: Iterable[ResourceFunction]) -> Iterator[tuple[ResourceFunction, Any]]:
        for resource in self._declared.in_order(wanted):
            if resource not in self._values and resource.function not in self._declared.overrides:
                yield resource, resource.function(**self.values(self._declared.dependencies(resource)))

    def _taken(self, resources: Iterable[ResourceFunction]) -> Iterator[tuple[ResourceFunction, Any]]:
        for resource in reversed(list(resources)):
            self._values.pop(resource, None)
            if (generator := self._generators.pop(resource, None)) is not None:
                yield resource, generator

    def _keep(self, resource: ResourceFunction, generator: Any, value: Any) -> None:
        if value is _NOTHING:
            raise TaskDefinitionError(f"resource {resource.name} has yielded nothing: yield the value, once")
        self._values[resource], self._generators[resource] = value, generator

    def _value(self, resource: ResourceFunction) -> Any:
        overrides = self._declared.overrides
        return overrides[resource.function] if resource.function in overrides else self._values[resource]


class _Making:
    """Shows that a resource is being created, and adds its name to an error."""

    def __init__(self, resources: OpenResources, resource: ResourceFunction) -> None:
        self._resources = resources
        self._resource = resource

    def __enter__(self) -> None:
        self._resources.doing = f"making resource {self._resource.name}"

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._resources.doing = ""
        if error is not None:
            error.add_note(f"raised while resource {self._resource.name} was being made")


class _Closing:
    """Shows that a resource is being closed, and logs an error, so that the others can be closed."""

    def __init__(self, resources: OpenResources, resource: ResourceFunction) -> None:
        self._resources = resources
        self._resource = resource

    def __enter__(self) -> None:
        self._resources.doing = f"closing resource {self._resource.name}"

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        self._resources.doing = ""
        if error is not None:
            logger.error("resource %s raised while it was being closed", self._resource.name, exc_info=error)
        return True


async def _next_async(generator: Any) -> Any:
    return await anext(generator, _NOTHING)


def _end(generator: Any) -> None:
    if next(generator, _NOTHING) is not _NOTHING:
        generator.close()
        raise TaskDefinitionError("it has yielded a second time: yield once")


async def _end_async(generator: Any) -> None:
    if await _next_async(generator) is not _NOTHING:
        await generator.aclose()
        raise TaskDefinitionError("it has yielded a second time: yield once")
