"""The arguments of a workflow's node: JSON with null for each reference, and the references' places."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pydantic_core import to_jsonable_python

from jobq._core import json_text
from jobq._core.arguments import Arguments
from jobq._core.graphs.references import Reference, hidden_reference, node_of, references_in, without_references
from jobq._core.graphs.type_fit import NoSuchPart, element, fits, name, part
from jobq.errors import InvalidArguments

_SCALARS = frozenset({str, int, float, bool, type(None)})


class Input(NamedTuple):
    """A reference among the arguments of a node, and its place: the parameter's name, then keys and indices."""

    place: tuple[str | int, ...]
    reference: Reference


def template(arguments: Arguments, given: Mapping[str, Any], limit: int) -> tuple[dict[str, Any], list[Input]]:
    """Return `given` as JSON values with None for each reference, and the references.

    The type of a reference must fit its place: the annotations of both tasks are compared. What
    stands beside a reference within an argument is checked by the runner. Raises InvalidArguments.
    """
    for parameter, value in given.items():
        if type(value) not in _SCALARS and (hidden := hidden_reference(value)) is not None:
            raise InvalidArguments(
                f"{arguments.task}: {parameter}: {hidden!r} is within a {type(value).__name__}, or an object in it: references "
                "can be arguments, or stand in lists, tuples and the values of dicts; let a task make the object"
            )
    inputs = [Input(place, reference) for place, reference in references_in(given)]
    holes = {str(one.place[0]) for one in inputs}
    for one in inputs:
        _check_fit(arguments, one)
    text = arguments.encode_some({name: value for name, value in given.items() if name not in holes})
    values: dict[str, Any] = json.loads(text)
    # In the order of the call: the row of a node looks the same in every process.
    for hole in (each for each in given if each in holes):
        try:
            values[hole] = to_jsonable_python(without_references(given[hole]), bytes_mode="base64")
        except Exception as error:
            raise InvalidArguments(f"{arguments.task}: {hole}: {type(error).__name__}: {error}") from None
    try:
        json_text.encode(values, f"{arguments.task}: arguments", limit)
    except ValueError as error:
        raise InvalidArguments(str(error)) from None
    return values, inputs


def check_items(arguments: Arguments, parameter: str, items: Reference) -> None:
    """Check that the elements of `items` fit the parameter. Raises InvalidArguments."""
    try:
        produced = element(node_of(items).hint_of(items))
    except NoSuchPart as error:
        raise InvalidArguments(f"{arguments.task}.map({items!r}): {error}") from None
    if not fits(produced, expected := arguments.hint(parameter)):
        raise InvalidArguments(
            f"{arguments.task}.map({items!r}): its elements are {name(produced)}; {parameter} is {name(expected)}"
        )


def encode_items(arguments: Arguments, parameter: str, items: Sequence[Any], limit: int) -> list[Any]:
    """Return `items` as JSON values, each checked as the parameter. Raises InvalidArguments."""
    found: list[Any] = []
    encode = arguments.encoder(parameter, limit)
    for index, item in enumerate(items):
        # A million items are likely to be numbers or text.
        if type(item) not in _SCALARS and (
            any(True for _ in references_in(item)) or hidden_reference(item) is not None
        ):
            raise InvalidArguments(
                f"{arguments.task}.map: item {index} has a reference: map over a reference to a list, or make nodes"
            )
        try:
            found.append(json.loads(encode(item))[parameter])
        except InvalidArguments as error:
            raise InvalidArguments(f"{error} (item {index} of the map)") from None
    return found


def _check_fit(arguments: Arguments, one: Input) -> None:
    place, reference = one
    expected = arguments.hint(str(place[0]))
    for key in place[1:]:
        try:
            expected, _ = part(expected, key)
        except NoSuchPart:
            expected = Any  # it may be read from what is written otherwise, for example by an alias
    where = str(place[0]) + "".join(f"[{key!r}]" for key in place[1:])
    try:
        produced = node_of(reference).hint_of(reference)
    except NoSuchPart as error:
        raise InvalidArguments(f"{arguments.task}: {where}={reference!r}: {error}") from None
    if not fits(produced, expected):
        what = "the parameter" if len(place) == 1 else "what is expected there"
        raise InvalidArguments(
            f"{arguments.task}: {where}={reference!r} is {name(produced)}; {what} is {name(expected)}"
        )
