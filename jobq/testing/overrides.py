"""Replacement values for resources in tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, overload

from jobq.errors import InvalidOption

if TYPE_CHECKING:
    from jobq.app import JobQ

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


# Protocols instead of `Callable`: mypy would infer the type from `value` alone, and reject a
# value of a subclass.
class _Yields(Protocol[T_co]):
    def __call__(self, *args: Any, **kwargs: Any) -> Iterator[T_co]: ...


class _YieldsAsync(Protocol[T_co]):
    def __call__(self, *args: Any, **kwargs: Any) -> AsyncIterator[T_co]: ...


@overload
def override_resource(app: JobQ, resource: _Yields[T], value: T) -> AbstractContextManager[None]: ...


@overload
def override_resource(app: JobQ, resource: _YieldsAsync[T], value: T) -> AbstractContextManager[None]: ...


def override_resource(app: JobQ, resource: Callable[..., Any], value: Any) -> AbstractContextManager[None]:
    """Replace a resource by `value` for tasks inside the with block::

        fake = FakeClient()
        with override_resource(q, client, fake), eager(q):
            fetch.submit("/")
        assert fake.paths == ["/"]

    `resource` is the function that ``@q.resource`` has registered. Neither it nor the resources
    that only it needs are called. This works for `eager`, the fixtures and `on`, not for a worker
    in another process. Raises InvalidOption for any other function.
    """
    if not app.resources.has(resource):
        raise InvalidOption(
            f"override_resource: {resource!r} is no resource of this application: @q.resource is missing"
        )
    return _overridden(app.resources.overrides, resource, value)


@contextmanager
def _overridden(overrides: dict[Callable[..., Any], Any], resource: Callable[..., Any], value: Any) -> Iterator[None]:
    before = dict(overrides)
    overrides[resource] = value
    try:
        yield
    finally:
        overrides.clear()
        overrides.update(before)
