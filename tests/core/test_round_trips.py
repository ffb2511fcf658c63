"""What a call stores is what the task gets, or the call is refused: by many types and values, and case by case."""

from __future__ import annotations

import json
import random
import re
import uuid
import warnings
from collections import OrderedDict, deque
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Final, Literal, NewType
from zoneinfo import ZoneInfo

import pytest
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Secret,
    SecretBytes,
    SecretStr,
    TypeAdapter,
    field_serializer,
)

from jobq._core.arguments import Arguments
from jobq._core.fields import Fields
from jobq.errors import InvalidArguments, TaskDefinitionError
from tests.support import zoo
from tests.support.checks import some
from tests.support.pairs import Form, pairs

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from pydantic.v1 import BaseModel as BaseModelV1

LIMIT = 1024 * 1024


def task_with(hint: Any) -> Any:
    def task(x: Any) -> None: ...

    task.__annotations__["x"] = hint
    return task


def test_twelve_thousand_pairs_come_back_or_are_refused_at_the_call() -> None:
    counts = dict.fromkeys(("accepted", "refused", "undefined"), 0)
    for hint, values in some(pairs(random.Random(14), types=700, values=20)):
        try:
            arguments = Arguments("task", task_with(hint))
        except TaskDefinitionError:
            counts["undefined"] += len(values)
            continue
        form = Form(hint)
        for value in some(values):
            try:
                text = arguments.encode((value,), {}, LIMIT)
            except InvalidArguments:
                counts["refused"] += 1
                continue
            counts["accepted"] += 1
            read = arguments.decode(text.encode())["x"]
            assert form.of(read) == form.of(value), (hint, value, text, read)
    assert counts["accepted"] + counts["refused"] >= 10_000, counts
    assert counts["accepted"] >= 6_000, counts


class OldModel(BaseModelV1):
    a: int


class Login(BaseModel):
    user: str
    token: SecretStr


class Shown(BaseModel):
    token: SecretStr

    @field_serializer("token", when_used="json")
    def show(self, value: SecretStr) -> str:
        return value.get_secret_value()


class Excluded(BaseModel):
    a: int
    b: int = Field(exclude=True)


class ExcludedByDefault(BaseModel):
    a: int
    b: int = Field(default=0, exclude=True)


class ByAlias(BaseModel):
    model_config = ConfigDict(serialize_by_alias=True)
    order_id: int = Field(serialization_alias="orderId")


class Positive(BaseModel):
    n: int = Field(gt=0)


class Lazy(BaseModel):
    numbers: Iterable[int]


@dataclass
class Cat:
    name: str


@dataclass
class Dog:
    name: str


@dataclass
class Bird:
    kind: Literal["bird"]
    name: str


@dataclass
class Fish:
    kind: Literal["fish"]
    name: str


def changed(model: Any, **values: Any) -> Any:
    for name, value in values.items():
        setattr(model, name, value)
    return model


def deep(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


BERLIN = ZoneInfo("Europe/Berlin")
ODD = timezone(timedelta(hours=1, seconds=30))
UNDEFINED = [
    (SecretStr, r"x: SecretStr is stored as asterisks.*pass its name or id"),
    (SecretBytes, "SecretBytes"),
    (Secret[int], "Secret is stored"),
    (Login, r"x\.token: SecretStr is stored as asterisks"),
    (list[Login | None], r"x\.token"),
    (NewType("Token", SecretStr), "SecretStr"),
    (dict[str, tuple[SecretStr, int]], "SecretStr"),
    (Excluded, r"x\.b has exclude=True"),
    (ExcludedByDefault, r"x\.b has exclude=True"),
    (Annotated[int, Field(exclude=True)], "x has exclude=True"),
    (Cat | Dog, "Cat and Dog have the same fields.*kind: Literal"),
    (bytes | str, r"bytes are stored as text \(base64\), so bytes \| str has one form"),
    (list[str | bytes | None], r"base64"),
    (OldModel, r"OldModel is a model of pydantic's version 1"),
    (list[OldModel], "version 1"),
    (Final[int], "x: Final is for variables"),
    (ClassVar[int], "x"),
    (Iterator[int], "Iterator can be read only once: annotate list"),
    (Generator[int, None, None], "Generator can be read only once"),
    (Lazy, r"x\.numbers: Iterable can be read only once: annotate list"),
]


@pytest.mark.parametrize(("hint", "said"), UNDEFINED)
def test_what_never_comes_back_is_refused_at_the_definition(hint: Any, said: str) -> None:
    with pytest.raises(TaskDefinitionError, match=f"^task: .*{said}"):
        Arguments("task", task_with(hint))

    def gives() -> None: ...

    gives.__annotations__["return"] = hint
    with pytest.raises(TaskDefinitionError, match=r"^task: .*"):
        Arguments("task", gives)


REFUSED = [
    (zoo.Plain, zoo.Sub(id=1, cents=500), r"x=Sub\(.*\) \(Sub\) would be read as Plain\(.*annotate Sub"),
    (list[zoo.Plain], [zoo.Sub(id=1, cents=500)], r"x\[0\]=Sub"),
    (zoo.Point, zoo.Point3(1, 2.0, 3), r"x=Point3.*would be read as Point\("),
    (zoo.Holder, zoo.Holder(one=zoo.Plain(id=1), any=zoo.Sub(id=1, cents=5)), r"x\.any=Sub"),
    (uuid.UUID | str, "12345678123456781234567812345678", r"\(str\) would be read as UUID"),
    (zoo.Colour | str, zoo.Colour.RED, r"\(Colour\) would be read as 'red' \(str\): annotate Colour"),
    (dict[int | str, int], {1: 1, "1": 2}, "x has the key 1"),
    (dict, {1: "a", "1": "b"}, r"key 1 \(int\).*two of them have the same text"),
    (dict, {1: "a"}, "x has the key 1 .*annotate the type of its keys"),
    (dict[str | None, int], {None: 1}, "x has the key None"),
    (dict[tuple[int, int], str], {(1, 2): "x"}, "x"),
    (dict[frozenset[int], int], {frozenset([1]): 1}, "x=.*cannot be stored as JSON"),
    (Annotated[int, AfterValidator(lambda v: v + 1)], 1, r"x=2 \(int\) would be read as 3: a validator"),
    (zoo.Quoted, zoo.Quoted(v="x"), r"x\.v='<x>'.*would be read as '<<x>>'"),
    (Annotated[list[str], BeforeValidator(lambda v: v.split(","))], "a,b", "to read x again raises AttributeError"),
    (
        zoo.German,
        zoo.German(day=date(2026, 1, 2)),
        r"x\['day'\]='02.01.2026'.*a serializer writes what its type does not read",
    ),
    (zoo.Odd, zoo.Odd.PAIR, "x"),
    (zoo.Odd, zoo.Odd.PRICE, "x"),
    (Literal[zoo.Colour.RED], zoo.Colour.RED, "x"),
    (zoo.Hidden, changed(zoo.Hidden(a=1), _seen=5), r"x\._seen is a private attribute, which is not stored"),
    (zoo.Swapped, zoo.Swapped(a=1, b=2), r"x\.a=2 \(int\) would be read as 1"),
    (zoo.Open, zoo.Open(id=1, day=date(2026, 1, 2)), r"x\['day'\]=.*\(date\) would be read as '2026-01-02'"),  # type: ignore[call-arg]
    (
        Positive,
        changed(Positive(n=1), n=-5),
        r"x\['n'\]=-5: Input should be greater than 0.*changed after it was checked",
    ),
    (Positive, Positive.model_construct(), r"x\['n'\]"),
    (zoo.Plain, changed(zoo.Plain(id=1), id="one"), "x=.*cannot be stored as JSON"),
    (datetime, datetime(2026, 1, 1, tzinfo=ODD), r"x=.* has an offset of 1:00:30.*astimezone\(timezone.utc\)"),
    (datetime, datetime(1850, 1, 1, tzinfo=BERLIN), "has an offset of 0:53:28"),
    (list[datetime], [datetime(2026, 1, 1, tzinfo=ODD)], r"x\[0\]=.* has an offset"),
    (time, time(12, tzinfo=BERLIN), "no offset without a date"),
    (OrderedDict[str, int], OrderedDict(b=1, a=2), "the order of an OrderedDict's keys is not stored"),
    (deque[int], deque([1], maxlen=2), "maxlen"),
    (re.Pattern[str], re.compile("x", re.IGNORECASE), "x=re.compile"),
    (dict[str, int], {"\ud800": 1}, r"x has the key '\\ud800'"),
    (float, 2**70 + 1, "would be rounded to 1.18.*: pass a float"),
    (list[float], [2**70 + 1], "would be rounded"),
    (float, Decimal("0.1"), "would be rounded"),
    (Sequence[str], "abc", "valid list"),
    (Sequence[int], {1: 2}, "valid list"),
    (int, True, "valid integer"),
    (date, datetime(2026, 1, 1), "valid date"),
    (Iterable[int], ["a"], r"x\[0\]='a': Input should be a valid integer"),
    (Any, deep(202), "x is nested too deeply: pass a flatter value"),
]
UNTYPED = [
    datetime(2026, 1, 1),
    date(2026, 1, 1),
    uuid.UUID(int=5),
    Decimal("1.1"),
    timedelta(1),
    (1, 2),
    {1},
    frozenset({1}),
    b"x",
    zoo.Colour.RED,
    zoo.Level.LOW,
    zoo.Word.A,
    zoo.Plain(id=1),
    zoo.Point(1),
    zoo.Spot(1),
    PurePosixPath("/x"),
    SecretStr("hunter2"),
    (n for n in (1, 2)),
    OrderedDict(a=1),
]


@pytest.mark.parametrize(("hint", "value", "said"), REFUSED)
def test_what_would_arrive_changed_is_refused_at_the_call(hint: Any, value: Any, said: str) -> None:
    with pytest.raises(InvalidArguments, match=f"^task: .*{said}") as raised:
        Arguments("task", task_with(hint)).encode((value,), {}, LIMIT)
    assert "x" in str(raised.value)


@pytest.mark.parametrize("value", UNTYPED, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize(
    ("hint", "inside"),
    [
        (Any, lambda value: value),
        (object, lambda value: value),
        (list, lambda value: [value]),
        (dict, lambda value: {"a": value}),
        (dict[str, Any], lambda value: {"a": [value]}),
        (list[object], lambda value: [value]),
    ],
)
def test_without_a_type_only_what_json_has_is_taken(hint: Any, inside: Any, value: Any) -> None:
    with pytest.raises(InvalidArguments, match=rf"^task: x.*({type(value).__name__}|cannot be stored)") as raised:
        Arguments("task", task_with(hint)).encode((inside(value),), {}, LIMIT)
    assert "hunter2" not in str(raised.value)


SAME = [
    (zoo.Camel, zoo.Camel(orderId=1, lineItems=[zoo.Plain(id=2)])),  # type: ignore[call-arg]
    (list[zoo.Camel], [zoo.Camel(orderId=1)]),  # type: ignore[call-arg]
    (ByAlias, ByAlias(order_id=1)),
    (zoo.Computed, zoo.Computed(net=1)),
    (zoo.Raw, zoo.Raw(rows="[1]")),  # type: ignore[arg-type]
    (zoo.Right, zoo.Right.READ | zoo.Right.WRITE),
    (Shown, Shown(token=SecretStr("hunter2"))),
    (Bird | Fish, Fish("fish", "x")),
    (zoo.Plain | zoo.Sub, zoo.Sub(id=1, cents=2)),
    (uuid.UUID | str, uuid.UUID(int=7)),
    (uuid.UUID | str, "seven"),
    (PurePosixPath | str, PurePosixPath("/x")),
    (int | float, 1e22),
    (int | float, 1),
    (int | float, 1.0),
    (int | str | None, "5"),
    (bool | int, True),
    (bool | int, 1),
    (date | datetime, datetime(2026, 1, 1)),
    (Any, {"a": [1, 2.5, -0.0, 1e22, 1e300, None, True, "ß", {"b": {}}]}),
    (object, 10**300),
    (float, -0.0),
    (dict[str, float], {"-0.0": -0.0, "1e+22": 1e22}),
    (datetime, datetime(2026, 7, 1, tzinfo=BERLIN)),
    (datetime | None, datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN, fold=1)),
    (zoo.Price, zoo.Price(5)),
    (zoo.Area, zoo.Area(3)),
    (list[zoo.Area | None], [zoo.Area(3)]),
    (Annotated[int, Field(alias="y")], 1),
    (zoo.Hidden, zoo.Hidden(a=1)),
    (OrderedDict[str, int], OrderedDict(a=1, b=2)),
    (Annotated[str, AfterValidator(str.lower)], "abc"),
]
ABSTRACT = [
    (AbstractSet[int], {1}, {1}),
    (Sequence[int], range(3), [0, 1, 2]),
    (Sequence[int], (1, 2), [1, 2]),
    (Sequence[Sequence[int]], ((1,),), [[1]]),
    (Sequence[int] | None, (1,), [1]),
    (Mapping[str, int], MappingProxyType({"a": 1}), {"a": 1}),
    (Mapping[str, Sequence[int]], {"a": range(2)}, {"a": [0, 1]}),
    (dict[str, Sequence[int]], {"a": (1,)}, {"a": [1]}),
    (Iterable[int], (n for n in (1, 2)), [1, 2]),
    (Iterable[int], {1: "a"}.keys(), [1]),
    (Collection[int], {1}, [1]),
]


@pytest.mark.parametrize(("hint", "value"), SAME)
def test_what_has_a_lossless_form_comes_back(hint: Any, value: Any) -> None:
    arguments = Arguments("task", task_with(hint))
    read = arguments.decode(arguments.encode((value,), {}, LIMIT))["x"]
    assert type(read) is type(value)
    assert Form(hint).of(read) == Form(hint).of(value)


@pytest.mark.parametrize(("hint", "value", "arrives"), ABSTRACT)
def test_values_of_abstract_types_arrive_as_lists_sets_and_dicts(hint: Any, value: Any, arrives: Any) -> None:
    arguments = Arguments("task", task_with(hint))
    read = arguments.decode(arguments.encode((value,), {}, LIMIT))["x"]
    assert (type(read), read) == (type(arrives), arrives)


def test_aliases_are_read_as_well() -> None:
    """As other producers write them."""
    assert Arguments("task", task_with(zoo.Camel)).decode('{"x": {"orderId": 1, "lineItems": []}}')["x"].order_id == 1


def test_an_error_of_a_validator_is_an_error_of_the_call() -> None:
    def broken(value: Any) -> Any:
        raise KeyError("not there")

    with pytest.raises(InvalidArguments, match="task: checking the arguments raised KeyError"):
        Arguments("task", task_with(Annotated[int, AfterValidator(broken)])).encode((1,), {}, LIMIT)


def test_plain_types_are_written_in_one_step() -> None:
    for hint in (
        int,
        str | None,
        dict[str, int],
        list[tuple[float, ...]],
        int | str,
        datetime,
        datetime | None,
        uuid.UUID,
    ):
        assert Arguments("task", task_with(hint))._parameters._lossless, hint
    for other in (
        Any,
        dict,
        bytes | int,
        dict[int | str, int],
        dict[str | None, int],
        list[datetime],
        zoo.Plain,
        float | int,
    ):
        assert not Arguments("task", task_with(other))._parameters._lossless, other


def test_items_of_an_iterable_are_checked_before_the_run() -> None:
    with pytest.raises(InvalidArguments, match=r"stored arguments do not fit: x\[0\]='b'"):
        Arguments("task", task_with(Iterable[int])).decode('{"x": ["b"]}')


def test_what_is_taken_for_an_abstract_type_is_not_in_the_signature() -> None:
    """Workers of before would else park jobs of now."""
    for hint in (Sequence[int], Iterable[int], AbstractSet[int], Mapping[str, int]):
        shape = Fields({"x": (hint, True)}).schema
        assert json.loads(shape)["properties"]["x"] == {"title": "X", **TypeAdapter(hint).json_schema()}
