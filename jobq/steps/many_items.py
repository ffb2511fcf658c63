"""The methods of `step` for many items."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import Any, TypeVar, overload

from jobq._core.validation import check_int, check_text
from jobq.errors import NotDurable
from jobq.steps.current import step_log
from jobq.steps.drive import drive, drive_async
from jobq.steps.iteration import AsyncIteration, Iteration

T = TypeVar("T")
C = TypeVar("C")


class ManyItems:
    """The methods of ``step`` that go through many items."""

    def iterate(
        self,
        fetch: Callable[[C | None], Iterable[T]],
        /,
        *,
        cursor: Callable[[T], C],
        every: int = 1_000,
        name: str | None = None,
    ) -> Iterator[T]:
        """Return an iterator over many items, whose position is stored: the job goes on there::

            def orders_after(last: int | None) -> list[Order]:
                return load("SELECT … WHERE id > %s ORDER BY id LIMIT 500", last or 0)

            @q.task(durable=True)
            def recalculate() -> None:
                for order in step.iterate(orders_after, cursor=lambda order: order.id):
                    update_total(order)

        The position is one row, however many items there are. It is stored after each second, after
        `every` items, and whenever the execution ends: an error, a timeout, a cancellation. If the
        worker stops, the execution ends before the next item, and another worker goes on with it.
        Only a crash loses a part: then the items since the last write come again, at most `every` of
        them, and not more than those of about a second. The item at which an error is raised comes
        again.

        The body of the loop is no step: it must tolerate that an item comes twice. In it, steps are refused.
        A loop that is left by ``break`` is over when the task comes to its next step.

        Args:
            fetch: called with the cursor of the last item, at first with None; returns the items behind
                it, in an order that does not change: a page, or all of them. It is called again until
                it returns none.
            cursor: returns where an item is: a value of the type of the parameter of `fetch`, which
                should be annotated. No two items may have the same.
            every: most items between two writes, from 1.
            name: the step's name (default: the name of `fetch`).

        Raises:
            InvalidArguments: a cursor does not fit the annotation.
            InvalidOption: an option has an unusable value, or `fetch` returns an item again.
            StepChanged: the stored cursor does not fit the present code.
        """
        log = step_log("iterate", is_async=False)
        if inspect.iscoroutinefunction(fetch) or inspect.isasyncgenfunction(fetch):
            raise NotDurable(f"step.iterate({fetch!r}): it is async: use `async for … in step.iterate_async(…)`")
        return Iteration(log, drive, fetch, cursor, every=check_int("every", every, 1, 2**31 - 1), name=_named(name))

    @overload
    def iterate_async(
        self,
        fetch: Callable[[C | None], AsyncIterator[T]],
        /,
        *,
        cursor: Callable[[T], C],
        every: int = 1_000,
        name: str | None = None,
    ) -> AsyncIterator[T]: ...

    @overload
    def iterate_async(
        self,
        fetch: Callable[[C | None], Awaitable[Iterable[T]]],
        /,
        *,
        cursor: Callable[[T], C],
        every: int = 1_000,
        name: str | None = None,
    ) -> AsyncIterator[T]: ...

    @overload
    def iterate_async(
        self,
        fetch: Callable[[C | None], Iterable[T]],
        /,
        *,
        cursor: Callable[[T], C],
        every: int = 1_000,
        name: str | None = None,
    ) -> AsyncIterator[T]: ...

    def iterate_async(
        self,
        fetch: Callable[[Any], Any],
        /,
        *,
        cursor: Callable[[Any], Any],
        every: int = 1_000,
        name: str | None = None,
    ) -> AsyncIterator[Any]:
        """Return an iterator for ``async for``, like `iterate`.

        `fetch` is an ``async def`` that returns a page, an async generator, or a ``def``, which is
        called in a thread and whose items are read as a whole.
        """
        log = step_log("iterate_async", is_async=True)
        return AsyncIteration(
            log, drive_async, fetch, cursor, every=check_int("every", every, 1, 2**31 - 1), name=_named(name)
        )


def _named(name: str | None) -> str | None:
    return None if name is None else check_text("name", name, 200)
