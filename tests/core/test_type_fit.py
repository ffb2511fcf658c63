"""Types of references: a refusal is never wrong, and the mistakes that people make are refused."""

from __future__ import annotations

import json
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, Optional, TypeVar, Union
from uuid import UUID

import pytest
import typing_extensions
from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    RootModel,
    TypeAdapter,
    ValidationError,
    computed_field,
    field_serializer,
    model_serializer,
    model_validator,
)
from pydantic.dataclasses import dataclass as pydantic_dataclass

from jobq._core.graphs.type_fit import NoSuchPart, element, fits, name, part
from jobq._core.hints import concrete

T = TypeVar("T")
Number = NewType("Number", int)
Maybe = NewType("Maybe", "int | None")  # type: ignore[valid-newtype]  # it works at run time
Names = typing_extensions.TypeAliasType("Names", list[str])


class Color(Enum):
    RED = "red"


class Level(IntEnum):
    LOW = 1


class Word(StrEnum):
    A = "a"


@dataclass
class Point:
    x: int
    y: int = 0
    made: str = field(default="", init=False)
    kind: typing.ClassVar[str] = "point"


@dataclass
class Box(Generic[T]):
    inside: T


class Row(typing_extensions.TypedDict):
    name: str
    sizes: typing.NotRequired[list[int]]


class NewRow(typing_extensions.TypedDict):
    name: typing_extensions.Required[str]


class Pair(NamedTuple):
    left: int
    right: str


class Model(BaseModel):
    number: int
    label: str = "a"
    small: Annotated[int, Field(ge=0)] = 1

    @computed_field  # type: ignore[prop-decorator]  # pydantic's documented form
    @property
    def twice(self) -> int:
        return self.number * 2


class Aliased(BaseModel):
    model_config = ConfigDict(serialize_by_alias=True)
    number: int = Field(serialization_alias="No", validation_alias=AliasChoices("number", "No"))


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    number: int


class Numbers(RootModel[list[int]]):
    pass


class AsText(BaseModel):
    number: int

    @model_serializer
    def write(self) -> str:
        return str(self.number)


class FieldAsText(BaseModel):
    number: int

    @field_serializer("number")
    def write(self, value: int) -> str:
        return str(value)


class FromText(BaseModel):
    number: int

    @model_validator(mode="before")
    @classmethod
    def read(cls, value: Any) -> Any:
        return {"number": int(value)} if isinstance(value, str) else value


@pydantic_dataclass
class Checked:
    number: int


Converted = Annotated[int, BeforeValidator(lambda value: len(value) if isinstance(value, (str, list)) else value)]
Written = Annotated[int, PlainSerializer(str)]
Small = Annotated[int, Field(ge=0, le=9), "a note"]

# For each type, values that show what it may be in JSON.
SAMPLES: list[tuple[Any, list[Any]]] = [
    (int, [1]),
    (float, [1.5]),
    (bool, [True]),
    (str, ["a"]),
    (type(None), [None]),
    (bytes, [b"a"]),
    (int | None, [1, None]),
    (Optional[str], ["a", None]),  # noqa: UP045  # the other form
    (Union[int, str], [1, "a"]),  # noqa: UP007
    (list[int], [[1]]),
    (list[str], [["a"]]),
    (list[int | None], [[1, None]]),
    (list[list[int]], [[[1]]]),
    (Sequence[int], [[1]]),
    (Iterable[str], [["a"]]),
    (set[int], [{1}]),
    (frozenset[str], [frozenset("a")]),
    (tuple[int, ...], [(1, 2)]),
    (tuple[int, str], [(1, "a")]),
    (dict[str, int], [{"1": 1}]),
    (dict[int, int], [{1: 1}]),
    (dict[str, str], [{"1": "a"}]),
    (Mapping[str, list[int]], [{"a": [1]}]),
    (Literal["a", "b"], ["a"]),
    (Literal[1], [1]),
    (Literal[1, "a"], [1, "a"]),
    (Literal[True], [True]),
    (Color, [Color.RED]),
    (Level, [Level.LOW]),
    (Word, [Word.A]),
    (Point, [Point(1)]),
    (Box[int], [Box(1)]),
    (Row, [{"name": "a"}]),
    (NewRow, [{"name": "a"}]),
    (Pair, [Pair(1, "a")]),
    (Model, [Model(number=1)]),
    (Aliased, [Aliased(number=1)]),
    (Open, [Open(number=1)]),
    (Numbers, [Numbers([1])]),
    (AsText, [AsText(number=1)]),
    (FromText, [FromText(number=1)]),
    (Checked, [Checked(1)]),
    (Number, [Number(1)]),
    (Maybe, [1, None]),
    (Names, [["a"]]),
    (Converted, [1]),
    (Written, [1]),
    (Small, [1]),
    (datetime, [datetime(2026, 1, 1, tzinfo=UTC)]),
    (date, [date(2026, 1, 1)]),
    (timedelta, [timedelta(1)]),
    (Decimal, [Decimal("1.5")]),
    (UUID, [UUID(int=1)]),
    (Any, [1, "a", None, [1], {"a": 1}]),
]


def accepted(produced: Any, values: list[Any], expected: Any) -> bool:
    """Whether each of the values, as JSON, is read as `expected`, as strictly as an argument is."""
    writer, reader = TypeAdapter(concrete(produced)), TypeAdapter(concrete(expected))
    try:
        for value in values:
            reader.validate_json(writer.dump_json(value), strict=True)
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize(("produced", "values"), SAMPLES, ids=lambda value: str(value)[:40])
def test_a_refusal_is_never_wrong(produced: Any, values: list[Any]) -> None:
    refused = [expected for expected, _ in SAMPLES if not fits(produced, expected)]
    wrong = [name(expected) for expected in refused if accepted(produced, values, expected)]
    assert wrong == []
    assert fits(produced, produced)
    assert fits(produced, Any)
    assert fits(Any, produced)
    assert fits(T, produced)  # a type variable is not known


def test_refusals_are_many() -> None:
    """Otherwise the property above would hold for a function that refuses nothing."""
    pairs = [(produced, values, expected) for produced, values in SAMPLES for expected, _ in SAMPLES]
    refused = sum(not fits(produced, expected) for produced, _, expected in pairs)
    not_accepted = sum(not accepted(*pair) for pair in pairs)
    assert refused > 900
    assert refused > not_accepted * 0.35


@pytest.mark.parametrize(
    ("produced", "expected"),
    [
        (str, int),
        (int, str),
        (int, bool),
        (bool, int),
        (float, int),
        (None, int),
        (int | None, int),
        (str | int, int),
        (list[int], int),
        (int, list[int]),
        (list[int], list[str]),
        (list[list[int]], list[int]),
        (list[int | None], Sequence[int]),
        (Sequence[str], list[int]),
        (dict[str, int], dict[str, str]),
        (dict[str, int], list[int]),
        (Point, int),
        (Point, list[int]),
        (Point, str | None),
        (Model, str),
        (Row, list[str]),
        (Literal["a"], int),
        (Number, str),
        (Names, list[int]),
        (Small, str),
        (Pair, dict[str, int]),
    ],
)
def test_what_does_not_fit(produced: Any, expected: Any) -> None:
    assert not fits(produced, expected)


@pytest.mark.parametrize(
    ("hint", "key", "found"),
    [
        (Point, "x", (int, "x")),
        (Point, "made", (str, "made")),
        (Point | None, "x", (int, "x")),
        (Annotated[Point, "note"], "x", (int, "x")),
        (Row, "name", (str, "name")),
        (Row, "sizes", (typing.NotRequired[list[int]], "sizes")),
        (Model, "number", (int, "number")),
        (Aliased, "number", (int, "number")),
        (Open, "anything", (Any, "anything")),
        (FieldAsText, "number", (Any, "number")),
        (Checked, "anything", (Any, "anything")),
        (Pair, "right", (str, 1)),
        (Pair, 1, (Any, 1)),
        (Box[int], "inside", (T, "inside")),
        (dict[str, int], "a", (int, "a")),
        (list[int], 0, (int, 0)),
        (list[int], -1, (int, -1)),
        (Point | Row, "z", (Any, "z")),
        (Numbers, 0, (Any, 0)),
        (Any, "a", (Any, "a")),
    ],
)
def test_parts(hint: Any, key: str | int, found: tuple[Any, str | int]) -> None:
    assert part(hint, key) == found


@pytest.mark.parametrize(
    ("hint", "key", "text"),
    [
        (Point, "z", "Point has no field 'z' in JSON; it has x, y, made"),
        (Point, "kind", "Point has no field 'kind' in JSON"),
        (Point, 0, "Point has fields, not items: x, y, made"),
        (Model, "twice", "Model has no field 'twice' in JSON"),
        (Model, "model_dump", "Model has no field 'model_dump' in JSON; it has number, label, small"),
        (str, "upper", "str has no parts in JSON: pass it on whole"),
        (datetime, "year", "datetime has no parts in JSON"),
        (Color, "value", "Color is its value in JSON, without parts"),
        (list[int], "length", r"list\[int\] has no field 'length': it is a list"),
        (None, "a", "None has no parts"),
    ],
)
def test_parts_that_there_are_not(hint: Any, key: str | int, text: str) -> None:
    with pytest.raises(NoSuchPart, match=text):
        part(hint, key)


@pytest.mark.parametrize(
    ("hint", "found"),
    [
        (list[int], int),
        (Sequence[Point], Point),
        (set[str], str),
        (tuple[int, ...], int),
        (tuple[int, str], Any),
        (list, Any),
        (list[int] | None, Any),
        (Numbers, Any),
        (Names, str),
        (Any, Any),
    ],
)
def test_elements(hint: Any, found: Any) -> None:
    assert element(hint) == found


@pytest.mark.parametrize("hint", [str, bytes, int, bool, None, dict[str, int], Point, Model, Row])
def test_what_has_no_elements(hint: Any) -> None:
    with pytest.raises(NoSuchPart, match="is no list"):
        element(hint)


def test_a_type_whose_names_cannot_be_resolved() -> None:
    @dataclass
    class Later:
        other: NotThere  # type: ignore[name-defined]  # noqa: F821

    assert part(Later, "other") == (Any, "other")
    assert fits(Later, int)
    assert json.dumps(name(Later)) == '"Later"'


@pytest.mark.parametrize(
    ("hint", "text"),
    [
        (int | None, "int | None"),
        (Optional[list[str]], "list[str] | None"),  # noqa: UP045
        (Sequence[Point], "Sequence[Point]"),
        (tuple[int, ...], "tuple[int, ...]"),
        (Literal["a", 1], "Literal['a', 1]"),
        (Any, "Any"),
    ],
)
def test_how_types_are_written(hint: Any, text: str) -> None:
    assert name(hint) == text
