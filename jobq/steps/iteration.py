"""Iteration whose position is stored: a durable job over many items goes on where it was."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any, Generic, TypeVar

from jobq._core import callables
from jobq._core.arguments import Arguments
from jobq.errors import InvalidArguments, InvalidOption, StepChanged
from jobq.steps.functions import hash_of, name_of
from jobq.steps.log import Call, Perform, StepLog, Taking
from jobq.steps.position import Position, current_position

T = TypeVar("T")

SECONDS = 1.0
"""Most seconds between two writes of a position, while items come."""
# Its hash: apart from a step of the same name without arguments.
_HASH = hash_of("iterate")
_END: Any = object()


class Cursor:
    """The type of an iteration's cursor: that of the parameter of `fetch`. Raises InvalidOption."""

    def __init__(self, name: str, fetch: Callable[..., Any]) -> None:
        def after(cursor: Any) -> None: ...

        after.__annotations__ = {"cursor": _annotation(name, fetch), "return": None}
        self._name = name
        self._arguments = Arguments(f"step.iterate {name!r}", after, {})

    def encode(self, value: Any, limit: int) -> str:
        """Return a cursor as JSON text. Raises InvalidArguments if it would come back as another value."""
        try:
            return self._arguments.encode((value,), {}, limit)
        except InvalidArguments as error:
            raise InvalidArguments(
                f"{error}: expected a value of the type with which the parameter of its fetch function is annotated; "
                "without an annotation, one that is JSON"
            ) from None

    def decode(self, text: str, job: str) -> Any:
        """Return a stored cursor. Raises StepChanged if it does not fit the present code."""
        try:
            return self._arguments.decode(text)["cursor"]
        except InvalidArguments as error:
            raise StepChanged(
                self._name,
                text,
                "?",
                f"{job}: step {self._name!r} is stored with the cursor {text}, which does not fit the present fetch "
                f"function: has the code changed? ({error}) Accept the former type, or give the step another name",
            ) from None


class _Iteration(Generic[T]):
    """What both kinds of iteration share: `_next` takes the next item."""

    def __init__(
        self,
        log: StepLog,
        fetch: Callable[[Any], Any],
        cursor: Callable[[T], Any],
        *,
        every: int,
        name: str | None,
    ) -> None:
        found = name_of(fetch) if name is None else name
        if found is None:
            raise InvalidOption(
                f"step.iterate({fetch!r}): a step is found again by its name, and this has none: pass name=…"
            )
        self._log = log
        self._fetch = fetch
        self._cursor_of = cursor
        self._every = every
        self._name = found
        self._cursor = Cursor(found, fetch)
        self._position: Position | None = None
        self._page: Any = None
        self._first: str | None = None
        """The cursor of the first item of the last page."""
        self._is_new_page = False

    def _next(self) -> Taking:
        """Return the next item, or `_END`."""
        if self._position is None:
            yield from self._begin()
        position = self._position
        assert position is not None
        if position.is_out:
            position.is_out = False
            position.handled += 1
            position.cursor = position.next
        if position.is_finished:
            return _END
        log = self._log
        if log.verdict is not None or log.is_cancelling or log.is_cancelled() or log.is_draining():
            yield from self._save()
            log.check_room()
            # The worker stops: another one goes on at this item.
            log.suspend(0.0)
        if position.handled >= self._every or log.clock() - position.stored_at >= SECONDS:
            yield from self._save()
        while True:
            if self._page is None:
                yield from self._turn()
            item = yield from self._take()
            if item is not _END:
                break
            self._page = None
            if self._is_new_page:
                yield from log.write(position.row("done"))
                position.is_finished = True
                return _END
        position.next = self._cursor_of(item)
        if self._is_new_page:
            self._check_first(position)
        position.is_out = True
        current_position.set(position)
        return item

    def _begin(self) -> Taking:
        log = self._log
        yield from log.begin()
        key = log.key("run", self._name, _HASH)
        stored = log.find(key)
        if stored is None:
            log.check_same(key, "an iteration")
            log.check_room()
        position = self._position = Position(
            key=key,
            place=log.new_place() if stored is None else stored.place,
            stored_at=log.clock(),
            encode=partial(self._cursor.encode, limit=log.max_result_bytes),
        )
        if stored is not None:
            position.is_finished = stored.state == "done"
            if stored.result not in (None, "null"):
                position.cursor = self._cursor.decode(
                    stored.result or "", f"job {log.holder.job_id}, task {log.task!r}"
                )
        if not position.is_finished:
            log.positions.append(position)

    def _turn(self) -> Taking:
        """Fetch the next page."""
        assert self._position is not None
        page = yield from self._fetched(self._position.cursor)
        self._page, self._is_new_page = page, True

    def _fetched(self, cursor: Any) -> Taking:
        if self._log.is_async:
            if callables.is_coroutine_function(self._fetch):
                found = yield Call(partial(self._fetch, cursor))
            elif inspect.isasyncgenfunction(callables.innermost(self._fetch)):
                found = self._fetch(cursor)
            else:
                found = yield Call(partial(_listed, self._fetch, cursor))
            if isinstance(found, AsyncIterator):
                return found
        else:
            found = yield Call(partial(self._fetch, cursor))
        if not isinstance(found, Iterable):
            raise InvalidOption(
                f"step.iterate {self._name!r}: fetch({cursor!r}) returned {found!r}: expected an iterable"
            )
        return iter(found)

    def _take(self) -> Taking:
        if isinstance(self._page, AsyncIterator):
            item = yield Perform(partial(_anext, self._page))
        else:
            item = next(self._page, _END)
        return item

    def _check_first(self, position: Position) -> None:
        """Raise InvalidOption if `fetch` has not gone on behind its cursor."""
        self._is_new_page = False
        first = position.encode(position.next)
        if first == self._first or (position.cursor is not None and position.next == position.cursor):
            raise InvalidOption(
                f"step.iterate {self._name!r}: fetch({position.cursor!r}) returned an item with the cursor "
                f"{position.next!r} again: expected the items behind its argument only"
            )
        self._first = first

    def _save(self) -> Taking:
        position = self._position
        if position is not None and position.handled:
            yield from self._log.write(position.row("retrying"))
            position.saved(self._log.clock())

    def __del__(self) -> None:
        position = getattr(self, "_position", None)
        if position is None or not position.is_out:
            return
        # The loop was left: nothing else refers to this iterator. If the task comes to another step,
        # it is over: a later execution must not go on in it. If an error ends this execution, the
        # item comes again.
        position.is_out = False
        handled, position.cursor = position.cursor, position.next
        with suppress(Exception):
            self._log.note(position.row("done"))
        position.cursor = handled


class Iteration(_Iteration[T]):
    """The iterator that ``step.iterate`` returns."""

    def __init__(self, log: StepLog, drive: Callable[[StepLog, Taking], Any], *args: Any, **kwargs: Any) -> None:
        super().__init__(log, *args, **kwargs)
        self._drive = drive

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        item: T = self._drive(self._log, self._next())
        if item is _END:
            raise StopIteration
        return item


class AsyncIteration(_Iteration[T]):
    """The iterator that ``step.iterate_async`` returns."""

    def __init__(
        self, log: StepLog, drive: Callable[[StepLog, Taking], Awaitable[Any]], *args: Any, **kwargs: Any
    ) -> None:
        super().__init__(log, *args, **kwargs)
        self._drive = drive

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        item: T = await self._drive(self._log, self._next())
        if item is _END:
            raise StopAsyncIteration
        return item


def _annotation(name: str, fetch: Callable[..., Any]) -> Any:
    try:
        found = inspect.signature(
            fetch, eval_str=True, locals=callables.local_names(callables.innermost(fetch), None)
        ).parameters
    except (TypeError, ValueError, NameError) as error:
        raise InvalidOption(f"step.iterate {name!r}: {fetch!r} does not tell its parameters: {error}") from None
    if not found:
        raise InvalidOption(f"step.iterate {name!r}: {fetch!r} has no parameter: expected fetch(cursor)")
    annotation = next(iter(found.values())).annotation
    return Any if annotation is inspect.Parameter.empty else annotation


def _listed(fetch: Callable[[Any], Any], cursor: Any) -> Any:
    found = fetch(cursor)
    return list(found) if isinstance(found, Iterable) else found


async def _anext(page: AsyncIterator[Any]) -> Any:
    return await anext(page, _END)
