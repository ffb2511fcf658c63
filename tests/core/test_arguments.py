"""Arguments: from the call to JSON and back, and every way in which they cannot go."""

from __future__ import annotations

import enum
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AfterValidator, BaseModel, Field, PlainSerializer, create_model

from jobq._core.arguments import Arguments
from jobq.errors import InvalidArguments, ResultError, TaskDefinitionError

if TYPE_CHECKING:
    from nowhere import Invisible  # type: ignore[import-not-found]

LIMIT = 1024 * 1024


class Colour(enum.Enum):
    RED = "red"


@dataclass
class Point:
    x: int
    y: float = 0.0


class Order(BaseModel):
    id: UUID
    price: Decimal
    placed: datetime


def there_and_back(function: Callable[..., Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
    arguments = Arguments("task", function)
    return arguments.decode(arguments.encode(args, kwargs, LIMIT).encode())


def pair(a: int, b: str = "x", *, c: float = 1.0) -> str:
    return b


def test_only_what_was_given_is_stored_by_name() -> None:
    arguments = Arguments("task", pair)
    assert json.loads(arguments.encode((1,), {}, LIMIT)) == {"a": 1}
    assert json.loads(arguments.encode((1, "y"), {"c": 2.5}, LIMIT)) == {"a": 1, "b": "y", "c": 2.5}
    assert json.loads(arguments.encode((), {"b": "x", "a": 1}, LIMIT)) == {"a": 1, "b": "x"}


def everything(
    when: datetime,
    day: date,
    wait: timedelta,
    ident: UUID,
    price: Decimal,
    colour: Colour,
    point: Point,
    order: Order,
    data: bytes,
    pairs: list[tuple[int, str]],
    names: frozenset[str],
    table: dict[int, list[Point]],
    either: int | None,
    anything: Any,
    small: Annotated[int, Field(le=9)],
) -> None: ...


def test_every_kind_of_value_comes_back() -> None:
    order = Order(id=UUID(int=5), price=Decimal("1.10"), placed=datetime(2026, 1, 2, tzinfo=UTC))
    given_ = {
        "when": datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
        "day": date(2026, 1, 2),
        "wait": timedelta(days=1, microseconds=3),
        "ident": UUID(int=7),
        "price": Decimal("0.10"),
        "colour": Colour.RED,
        "point": Point(1, 2.5),
        "order": order,
        "data": b"\x00\xff",
        "pairs": [(1, "a"), (2, "b")],
        "names": frozenset({"a", "ü"}),
        "table": {3: [Point(1)]},
        "either": None,
        "anything": {"a": [1, 2.5, None, True, "ß"]},
        "small": 9,
    }
    assert there_and_back(everything, **given_) == given_


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(min_value=-(10**30), max_value=10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=10,
)


@given(json_values)
def test_any_json_comes_back(value: Any) -> None:
    def take(value) -> None: ...  # type: ignore[no-untyped-def]

    assert there_and_back(take, value) == {"value": value}


plain_values = st.fixed_dictionaries(
    {
        "number": st.integers(min_value=-(10**30), max_value=10**30),
        "fraction": st.floats(),
        "text": st.text(max_size=20) | st.sampled_from(["NaN", "Infinity", r"\u0000", "\0", "\ud800"]),
        "many": st.lists(st.floats() | st.none(), max_size=3),
        "table": st.dictionaries(st.text(max_size=5), st.uuids() | st.none(), max_size=3),
        "price": st.decimals(allow_nan=False, allow_infinity=False),
        "when": st.datetimes(timezones=st.sampled_from([None, UTC])),
        "data": st.binary(max_size=9),
    }
)


@given(plain_values)
def test_the_short_way_stores_what_the_long_way_stores(values: dict[str, Any]) -> None:
    """Plain types are serialised in one step; what comes of it, an error too, must be the same as step by step."""

    def take(
        number: int,
        fraction: float,
        text: str,
        many: list[float | None],
        table: dict[str, UUID | None],
        price: Decimal,
        when: datetime,
        data: bytes,
    ) -> None: ...

    short, long = Arguments("task", take), Arguments("task", take)
    assert short._parameters._lossless
    long._parameters._lossless = False

    def outcome(arguments: Arguments) -> Any:
        try:
            return json.loads(arguments.encode((), values, LIMIT))
        except InvalidArguments as error:
            return str(error)

    assert outcome(short) == outcome(long)


def take_float(number: float) -> None: ...
def take_text(text: str) -> None: ...
def take_any(thing: Any) -> None: ...
def take_colour(colour: Colour) -> None: ...
def take_point(point: Point) -> None: ...
def take_small(small: Annotated[int, Field(le=9)]) -> None: ...


class Loud:
    def __repr__(self) -> str:
        raise RuntimeError("no repr of mine")


def deep(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "said"),
    [
        (pair, (), {}, "missing a required argument: 'a'"),
        (pair, (1, "b", 2.0), {}, "too many positional arguments"),
        (pair, (1,), {"d": 2}, "unexpected keyword argument 'd'"),
        (pair, (1,), {"a": 2}, "multiple values for argument 'a'"),
        (pair, ("1",), {}, "a='1': Input should be a valid integer"),
        (pair, (True,), {}, "a=True"),
        (pair, (1.0,), {}, "a=1.0"),
        (pair, (1,), {"b": 5, "c": "x"}, "b=5: .*; c='x'"),
        (take_float, (math.nan,), {}, r"number=nan: JSON has no NaN.*pass None"),
        (take_any, (math.inf,), {}, r"thing=inf: JSON has no NaN"),
        (take_any, ([1, {"a": math.nan}],), {}, r"thing\[1\]\['a'\]=nan"),
        (take_point, (Point(1, math.nan),), {}, r"point\['y'\]=nan"),
        (take_text, ("a\0b",), {}, "text contains a NUL character.*remove it"),
        (take_any, ({"a\0": 1},), {}, r"thing, key 'a\\x00', contains a NUL character"),
        (take_any, (["\ud800"],), {}, r"thing\[0\] contains a lone surrogate"),
        (take_text, ("\ud800",), {}, "text"),
        (take_any, (object(),), {}, "thing=<object object .*cannot be stored as JSON"),
        (take_any, (Loud(),), {}, "thing=<Loud>"),
        (take_any, (deep(5000),), {}, "thing"),
        (take_any, (10**5000,), {}, "thing"),
        (take_text, ("x" * LIMIT,), {}, rf"text: {LIMIT + 2} bytes as JSON.*pass its id"),
        (take_colour, ("red",), {}, "colour='red'"),
        (take_point, ({"x": 1},), {}, r"point=\{'x': 1\}"),
        (take_small, (10,), {}, "small=10: Input should be less than or equal to 9"),
    ],
)
def test_a_wrong_call_names_the_parameter(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], said: str
) -> None:
    with pytest.raises(InvalidArguments, match=f"task: .*{said}") as raised:
        Arguments("task", function).encode(args, kwargs, LIMIT)
    assert isinstance(raised.value, TypeError)
    assert len(str(raised.value)) < 500


def test_the_limit_is_of_the_whole() -> None:
    def two(a: str, b: str) -> None: ...

    arguments = Arguments("task", two)
    with pytest.raises(InvalidArguments, match="task: arguments: 75 bytes"):
        arguments.encode(("x" * 30, "y" * 30), {}, 70)
    # Bytes, not characters.
    with pytest.raises(InvalidArguments, match="a: 42 bytes"):
        arguments.encode(("ü" * 20, ""), {}, 40)
    assert arguments.encode(("ü" * 5, ""), {}, 40)


def test_text_that_only_looks_like_nul_is_fine() -> None:
    assert there_and_back(take_text, r"\u0000") == {"text": r"\u0000"}


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b'{"a":1,"d":2}', "there is no parameter 'd'"),
        (b"{}", "a is missing"),
        (b'{"a":"one"}', "a='one': Input should be a valid integer"),
        (b'{"a":null}', "a=None"),
        (b"[1]", "(valid dictionary|an object)"),
        (b'{"a":', "JSON"),
    ],
)
def test_stored_arguments_that_do_not_fit(raw: bytes, said: str) -> None:
    with pytest.raises(InvalidArguments, match=f"task: stored arguments do not fit: .*{said}"):
        Arguments("task", pair).decode(raw)


def test_stored_arguments_may_come_from_other_languages() -> None:
    assert Arguments("task", everything).decode(
        json.dumps(
            {
                "when": "2026-01-02T03:04:05Z",
                "day": "2026-01-02",
                "wait": 90,
                "ident": str(UUID(int=7)),
                "price": 0.5,
                "colour": "red",
                "point": {"x": 1},
                "order": {"id": str(UUID(int=1)), "price": 1, "placed": "2026-01-02T03:04:05+01:00"},
                "data": "AP8=",
                "pairs": [[1, "a"]],
                "names": ["a"],
                "table": {"3": []},
                "either": 5,
                "anything": [],
                "small": 1,
            }
        )
    )["wait"] == timedelta(seconds=90)


def var_positional(*numbers: int) -> None: ...
def var_keyword(**numbers: int) -> None: ...
def positional_only(a: int, /, b: int) -> None: ...
def unknown_class(thing: Loud) -> None: ...
def generator() -> Any:
    yield 1


async def async_generator() -> Any:
    yield 1


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (var_positional, r"\*numbers has no fixed name.*take a list"),
        (var_keyword, r"\*\*numbers has no fixed name"),
        (positional_only, "a is positional-only.*remove the `/`"),
        (unknown_class, "annotation"),
        (generator, "generator"),
        (async_generator, "generator"),
        (Loud, "is no function"),
        (staticmethod(pair), "is no function"),
        (17, "is no function"),
    ],
)
def test_signatures_that_cannot_be_stored(function: Any, said: str) -> None:
    with pytest.raises(TaskDefinitionError, match=f"task: .*{said}"):
        Arguments("task", function)


def later(thing: Later) -> Later:
    return thing


def invisible(thing: Invisible) -> None: ...


def test_annotations_may_be_defined_later() -> None:
    arguments = Arguments("task", later)
    assert arguments.decode(arguments.encode((Later(3),), {}, LIMIT)) == {"thing": Later(3)}
    assert arguments.decode_result(arguments.encode_result(Later(3), LIMIT).decode()) == Later(3)


def test_an_annotation_that_nobody_defines_is_told_at_the_call() -> None:
    arguments = Arguments("task", invisible)
    with pytest.raises(
        TaskDefinitionError, match=r"'Invisible' of thing cannot be resolved.*outside of `if TYPE_CHECKING`"
    ):
        arguments.encode((1,), {}, LIMIT)


def test_annotations_may_mean_local_names() -> None:
    @dataclass
    class Local:
        n: int

    def take(thing: Local) -> list[Local]:
        return [thing]

    arguments = Arguments("task", take, locals())
    assert arguments.decode(arguments.encode((Local(3),), {}, LIMIT)) == {"thing": Local(3)}
    assert arguments.decode_result('[{"n":4}]') == [Local(4)]

    def uses(thing: Local) -> Local:
        return Local(thing.n)

    closure = Arguments("task", uses)
    assert closure.decode('{"thing":{"n":1}}') == {"thing": Local(1)}


def test_parameters_may_have_any_name() -> None:
    def odd(self: int, model_config: int, _hidden: int, schema: int, connection: int, json: int) -> None: ...

    values = {"self": 1, "model_config": 2, "_hidden": 3, "schema": 4, "connection": 5, "json": 6}
    assert there_and_back(odd, **values) == values


def give_point() -> Point:
    return Point(1)


def give_nothing() -> None: ...
def give_float() -> float: ...  # type: ignore[empty-body]
def give_any(): ...  # type: ignore[no-untyped-def]


@pytest.mark.parametrize(
    ("function", "value", "stored"),
    [
        (give_point, Point(1, 2.5), b'{"x":1,"y":2.5}'),
        (give_nothing, None, b"null"),
        (give_any, {"a": [1, 2], "at": "2026-01-02"}, b'{"a":[1,2],"at":"2026-01-02"}'),
    ],
)
def test_results_are_stored_as_annotated(function: Callable[..., Any], value: Any, stored: bytes) -> None:
    arguments = Arguments("task", function)
    assert arguments.encode_result(value, LIMIT) == stored
    assert arguments.decode_result(stored.decode()) == value


@pytest.mark.parametrize(
    ("function", "value", "said"),
    [
        (give_point, {"x": 1}, "return annotation"),
        (give_point, None, "result=None: .*return annotation"),
        (give_nothing, 17, "result=17"),
        (give_any, object(), "result=<object.*cannot be stored as JSON"),
        (give_any, (1, 2), r"result=\(1, 2\) \(tuple\) would be read as \[1, 2\] \(list\)"),
        (give_any, {"at": date(2026, 1, 2)}, r"result\['at'\]=.*annotate date"),
        (give_float, 2**70 + 1, "result=.* would be rounded"),
        (give_any, [math.nan], r"result\[0\]=nan"),
        (give_any, "a\0", "NUL"),
        (give_any, "x" * 200, "202 bytes"),
        (give_any, deep(5000), "result"),
    ],
)
def test_results_that_cannot_be_stored(function: Callable[..., Any], value: Any, said: str) -> None:
    with pytest.raises(ResultError, match=f"task: .*{said}"):
        Arguments("task", function).encode_result(value, 100)


def test_nothing_takes_the_short_way_only_where_nothing_is_to_be_checked() -> None:
    def returns_nothing() -> None: ...

    def says_nothing(): ...  # type: ignore[no-untyped-def]

    def returns_a_number() -> int: ...  # type: ignore[empty-body]

    def becomes(value: int | None) -> Annotated[int | None, PlainSerializer(lambda value: value or 7)]:
        return value

    for function in (returns_nothing, says_nothing):
        arguments = Arguments("task", function)
        assert arguments.decode(b"{}") == {}
        assert arguments.encode_result(None, LIMIT) == b"null"
        with pytest.raises(ResultError, match="4 bytes as JSON, and at most 3"):
            arguments.encode_result(None, 3)
    with pytest.raises(ResultError, match="result=None"):
        Arguments("task", returns_a_number).encode_result(None, LIMIT)
    with pytest.raises(ResultError, match=r"result=None .* would be read as 7"):
        Arguments("task", becomes).encode_result(None, LIMIT)
    with pytest.raises(InvalidArguments, match="value is missing"):
        Arguments("task", becomes).decode(b"{}")


def test_a_stored_result_that_does_not_fit() -> None:
    with pytest.raises(ResultError, match="task: stored result"):
        Arguments("task", give_point).decode_result('"x"')


@dataclass
class Later:
    n: int


def test_a_signature_names_what_arguments_must_fit() -> None:
    def one(order: int, copy_to: str = "") -> None: ...

    def same(order: "int", copy_to: "str" = "x") -> str:  # noqa: UP037  (as text, which it may be)
        return ""

    def more(order: int, copy_to: str = "", urgent: bool = False) -> None: ...

    def needed(order: int, copy_to: str) -> None: ...

    def other_type(order: int, copy_to: bytes = b"") -> None: ...

    def renamed(order: int, to: str = "") -> None: ...

    names = {f.__name__: Arguments("t", f).fingerprint for f in (one, same, more, needed, other_type, renamed)}
    assert names["one"] == names["same"]
    assert len(set(names.values())) == 5
    assert all(re.fullmatch("[0-9a-f]{16}", name) for name in names.values())


def test_a_signature_names_what_types_consist_of() -> None:
    def fingerprint(hint: Any) -> str:
        def task(value: Any) -> None: ...

        task.__annotations__["value"] = hint
        return Arguments("t", task).fingerprint

    def model(**fields: Any) -> Any:
        return create_model("Order", **fields)

    def kind(*members: str) -> Any:
        return enum.Enum("Kind", [(member, member) for member in members])

    assert fingerprint(model(id=(int, ...))) == fingerprint(model(id=(int, ...)))
    assert fingerprint(model(id=(int, ...))) != fingerprint(model(id=(int, ...), gift=(bool, False)))
    assert fingerprint(model(id=(int, ...))) != fingerprint(model(id=(int, ...), default=(bool, False)))
    assert fingerprint(model(id=(int, 1))) == fingerprint(model(id=(int, 2)))
    assert fingerprint(list[kind("a")]) != fingerprint(list[kind("a", "b")])  # type: ignore[misc]
    assert fingerprint(Later) == fingerprint(Later)


def test_a_signature_is_the_same_in_every_process() -> None:
    """Neither addresses nor the order of a hash are in it."""

    def annotated(value: Annotated[int, AfterValidator(lambda value: value)]) -> None: ...

    def again(value: Annotated[int, AfterValidator(lambda value: value)]) -> None: ...

    first, second = (Arguments("t", f).fingerprint for f in (annotated, again))
    assert first == second


def test_the_checks_of_some_parameters_are_made_once() -> None:
    """Pydantic takes milliseconds to make them, and each of a workflow's 100,000 nodes needs them."""

    def add(left: int, right: int) -> int:
        return left + right

    arguments = Arguments("add", add)
    assert arguments._some(["right"]) is arguments._some(("right",))
    assert arguments.encode_some({"right": 2}) == '{"right":2}'
    assert arguments._some([]) is not arguments._some(["right"])
