"""The results of a map, as the argument of a task: a sequence that is read in parts."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, Protocol, TypeVar, cast, get_args, get_origin, overload

from pydantic import TypeAdapter, ValidationError

from jobq._core.arguments import Arguments
from jobq._core.fields import explain
from jobq._core.validation import is_by_name
from jobq.errors import InvalidArguments
from jobq.workflow.node import NodeOutcome

T = TypeVar("T")

# What workflow_value.sql puts in place of the results of a map: {"$results": node}.
RESULTS, OUTCOMES = "$results", "$outcomes"
WINDOW = 1000
"""How many results are read at a time."""
_LAZY = (Sequence, Iterable, Collection)


class MapSource(Protocol):
    """Where the results are read."""

    def map_results(self, node: int, from_item: int, most: int, failures: bool) -> list[tuple[int, str, Any, Any]]: ...

    def map_count(self, node: int, failures: bool) -> int: ...


class MapResults(Sequence[T]):
    """The results of a map's jobs, or how they ended, in the order of the items.

    It reads `WINDOW` results at a time on a connection of jobq's own, and keeps only these. Going
    through it again reads them again. In an async task, each read blocks the event loop for some
    milliseconds.
    """

    def __init__(self, source: MapSource, node: int, item: TypeAdapter[Any], outcomes: bool) -> None:
        self._source = source
        self._node = node
        self._item = item
        self._outcomes = outcomes
        self._count: int | None = None
        self._window: list[tuple[int, str, Any, Any]] = []
        self._start = 0

    def __len__(self) -> int:
        if self._count is None:
            self._count = self._source.map_count(self._node, self._outcomes)
        return self._count

    def __iter__(self) -> Iterator[T]:
        item = 0
        while rows := self._source.map_results(self._node, item, WINDOW, self._outcomes):
            for row in rows:
                yield self._value(row)
            item = rows[-1][0] + 1

    @overload
    def __getitem__(self, index: int) -> T: ...

    @overload
    def __getitem__(self, index: slice) -> list[T]: ...

    def __getitem__(self, index: int | slice) -> T | list[T]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(f"index {index} of {len(self)} results")
        if place < self._start:
            self._start, self._window = 0, []
        while place >= self._start + len(self._window):
            self._start += len(self._window)
            after = self._window[-1][0] + 1 if self._window else 0
            self._window = self._source.map_results(self._node, after, WINDOW, self._outcomes)
            if not self._window:
                raise IndexError(f"index {index}: the results have been removed")
        return self._value(self._window[place - self._start])

    def __repr__(self) -> str:
        return f"<{'outcomes' if self._outcomes else 'results'} of map {self._node}>"

    def _value(self, row: tuple[int, str, Any, Any]) -> T:
        item, state, result, error = row
        if not self._outcomes:
            return cast(T, self._parsed(item, "null" if result is None else result))
        value = None if result is None else self._parsed(item, result)
        return cast(T, NodeOutcome(cast(Any, state), value, error))

    def _parsed(self, item: int, raw: str | bytes) -> Any:
        try:
            return self._item.validate_json(raw)
        except ValidationError as error:
            raise InvalidArguments(f"the result of item {item} does not fit the parameter: {explain(error)}") from None


def is_in(raw: bytes | str) -> bool:
    """Return whether stored arguments may name the results of a map. Text of a user may look so, too."""
    if isinstance(raw, str):
        return RESULTS in raw or OUTCOMES in raw
    return RESULTS.encode() in raw or OUTCOMES.encode() in raw


def decode(arguments: Arguments, raw: bytes | str, source: MapSource) -> dict[str, Any]:
    """Return stored arguments as keyword arguments, with results of maps in place of their names.

    A parameter whose type is a Sequence, Collection or Iterable gets a `MapResults`; one of another
    type, such as a list, gets all results at once. Raises InvalidArguments.
    """
    values: dict[str, Any] = json.loads(raw)
    lazy: dict[str, Any] = {}
    for name, value in list(values.items()):
        if (found := _marker(value)) is None or name not in arguments.names:
            continue
        node, outcomes = found
        hint = arguments.hint(name)
        if get_origin(hint) in _LAZY or hint in _LAZY:
            [inner] = get_args(hint) or [Any]
            if outcomes:
                inner = (get_args(inner) or (Any,))[0]
            lazy[name] = MapResults(source, node, TypeAdapter(inner), outcomes)
            del values[name]
        else:
            values[name] = [_json_of(row, outcomes) for row in _rows(source, node, outcomes)]
    if not lazy:
        return arguments.decode(json.dumps(values))
    return arguments.decode_some(values) | lazy


def _rows(source: MapSource, node: int, outcomes: bool) -> Iterator[tuple[int, str, Any, Any]]:
    item = 0
    while rows := source.map_results(node, item, WINDOW, outcomes):
        yield from rows
        item = rows[-1][0] + 1


def _json_of(row: tuple[int, str, Any, Any], outcomes: bool) -> Any:
    _, state, result, error = row
    value = None if result is None else json.loads(result)
    return {"state": state, "result": value, "error": error} if outcomes else value


def _marker(value: object) -> tuple[int, bool] | None:
    if not is_by_name(value) or len(value) != 1:
        return None
    [(kind, node)] = value.items()
    # Not isinstance: True is no id.
    if kind not in (RESULTS, OUTCOMES) or type(node) is not int:
        return None
    return node, kind == OUTCOMES
