"""Types and values for round trips, made by chance: what a call may be given, right and wrong."""

from __future__ import annotations

import dataclasses
import enum
import ipaddress
import random
import re
import string
import typing
import uuid
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, Field

from tests.support.zoo import (
    Area,
    Box,
    Camel,
    Colour,
    Computed,
    German,
    Hidden,
    Holder,
    Level,
    Line,
    Numbers,
    Odd,
    Open,
    Options,
    Plain,
    Point,
    Point3,
    Quoted,
    Raw,
    Right,
    Spot,
    Strict,
    Sub,
    Swapped,
    Word,
)

Maker = Callable[[random.Random], Any]


def _text(r: random.Random) -> str:
    odd = [
        "",
        "NaN",
        "-0.0",
        "1e+22",
        '"',
        "\\",
        '\\"-0.0',
        "ü€😀",
        "\0",
        "\ud800",
        r"\u0000",
        "null",
        "2026-01-01",
        "5",
        "True",
    ]
    if r.random() < 0.4:
        return r.choice(odd)
    return "".join(r.choices(string.printable + "äß中😀", k=r.randrange(12)))


def _int(r: random.Random) -> int:
    return r.choice([0, 1, -1, r.randrange(-100, 100), 2**63, -(10**30), 10**400, r.getrandbits(80)])


def _float(r: random.Random) -> float:
    odd = [
        0.0,
        -0.0,
        1.0,
        1e22,
        -1e22,
        1.5e300,
        5e-324,
        1e-7,
        1.7976931348623157e308,
        float("inf"),
        float("nan"),
        0.1,
        1e16,
    ]
    return r.choice(odd) if r.random() < 0.5 else r.uniform(-1e6, 1e6)


def _decimal(r: random.Random) -> Decimal:
    return r.choice(
        [
            Decimal(0),
            Decimal("-0"),
            Decimal("1.10"),
            Decimal("1E+5"),
            Decimal("1e-30"),
            Decimal(r.randrange(10**9)) / 100,
        ]
    )


def _zone(r: random.Random) -> Any:
    odd = timezone(timedelta(hours=1, seconds=30))
    return r.choice(
        [None, UTC, timezone(timedelta(hours=-5, minutes=-30)), odd, ZoneInfo("Europe/Berlin"), ZoneInfo("UTC")]
    )


def _datetime(r: random.Random) -> datetime:
    year = r.choice([1, 1850, 1970, 2026, 9999])
    at = datetime(
        year, r.randrange(1, 13), r.randrange(1, 29), r.randrange(24), 30, r.randrange(60), r.choice([0, 1, 999999])
    )
    return at if year in (1, 9999) else at.replace(tzinfo=_zone(r))


def _time(r: random.Random) -> time:
    return time(r.randrange(24), 5, 6, r.choice([0, 1, 999000]), tzinfo=_zone(r))


SCALARS: list[tuple[Any, Maker]] = [
    (int, _int),
    (str, _text),
    (float, _float),
    (bool, lambda r: r.random() < 0.5),
    (type(None), lambda r: None),
    (bytes, lambda r: r.randbytes(r.randrange(6))),
    (Decimal, _decimal),
    (uuid.UUID, lambda r: uuid.UUID(int=r.getrandbits(128))),
    (date, lambda r: date(r.choice([1, 2026, 9999]), 1, r.randrange(1, 29))),
    (datetime, _datetime),
    (time, _time),
    (timedelta, lambda r: timedelta(r.choice([0, -1, 999999999, 5]), r.randrange(86400), r.choice([0, 1]))),
]


def _point(r: random.Random) -> Point:
    kind = r.choice([Point, Point, Point3])
    return kind(_int(r), r.choice([_float(r), 5]))


def _plain(r: random.Random) -> Plain:
    if r.random() < 0.2:
        return Sub(id=_int(r), cents=5)
    made = Plain(id=_int(r), name=_text(r).encode("utf-8", "replace").decode(), when=r.choice([None, _datetime(r)]))
    if r.random() < 0.1:
        made.id = "changed"  # type: ignore[assignment]
    return made


def _hidden(r: random.Random) -> Hidden:
    made = Hidden(a=1)
    made._seen = r.choice([0, 0, 7])
    return made


RECORDS: list[tuple[Any, Maker]] = [
    (Colour, lambda r: r.choice(list(Colour))),
    (Level, lambda r: r.choice(list(Level))),
    (Word, lambda r: r.choice(list(Word))),
    (Odd, lambda r: r.choice(list(Odd))),
    (Right, lambda r: r.choice([Right.READ, Right.READ | Right.WRITE])),
    (Literal["a", 1, True], lambda r: r.choice(["a", 1, True])),
    (Literal[Colour.RED, "x"], lambda r: r.choice([Colour.RED, "x"])),
    (Spot, lambda r: Spot(_int(r), _text(r))),
    (Options, lambda r: {"depth": 1, "name": _text(r)} if r.random() < 0.5 else {"depth": _int(r)}),
    (Point, _point),
    (Line, lambda r: Line(_point(r), r.choice([None, _point(r)]), frozenset(map(str, range(r.randrange(3)))))),
    (Area, lambda r: Area(r.randrange(9))),
    (Strict, lambda r: Strict(date(2026, 1, 2), _decimal(r))),
    (Plain, _plain),
    (Camel, lambda r: Camel(orderId=_int(r), lineItems=[_plain(r)])),  # type: ignore[call-arg]
    (Swapped, lambda r: Swapped(a=r.randrange(3), b=r.randrange(3))),
    (Computed, lambda r: Computed(net=_int(r))),
    (Open, lambda r: Open(id=1, more=r.choice([1, "a", date(2026, 1, 1), (1, 2)]))),  # type: ignore[call-arg]
    (Quoted, lambda r: Quoted(v=_text(r).encode("utf-8", "replace").decode())),
    (German, lambda r: German(day=date(2026, 1, 2))),
    (Raw, lambda r: Raw(rows="[1, 2]")),  # type: ignore[arg-type]
    (Hidden, _hidden),
    (Holder, lambda r: Holder(one=_plain(r), any=_plain(r), free=r.choice([None, [1], (1,), Colour.RED]))),
    (Numbers, lambda r: Numbers([_float(r)])),
    (Box[int], lambda r: Box[int](content=_int(r))),
    (Box[Any], lambda r: Box[Any](content=r.choice([1, "a", Decimal(1), [None], {"a": (1,)}]))),
    (Annotated[int, Field(ge=0)], _int),
    (Annotated[int, AfterValidator(lambda v: v + 1)], _int),
    (PurePosixPath, lambda r: PurePosixPath("/a") / "b"),
    (ipaddress.IPv4Address, lambda r: ipaddress.IPv4Address(r.getrandbits(32))),
    (re.Pattern[str], lambda r: re.compile("x", r.choice([0, re.IGNORECASE]))),
    (complex, lambda r: complex(r.randrange(5), r.randrange(5))),
]


def _free(r: random.Random, depth: int = 2) -> Any:
    """Something for Any: JSON's own, mostly."""
    chance = r.random()
    if depth and chance < 0.2:
        return [_free(r, depth - 1) for _ in range(r.randrange(3))]
    if depth and chance < 0.4:
        return {_text(r): _free(r, depth - 1) for _ in range(r.randrange(3))}
    if chance < 0.8:
        makers: list[Maker] = [_int, _float, _text, lambda r: None, lambda r: True]
        return r.choice(makers)(r)
    return r.choice(SCALARS + RECORDS)[1](r) if chance < 0.95 else r.choice([(1, 2), {1}, {1: 2, "1": 3}, deque([1])])


def _hashable(r: random.Random) -> tuple[Any, Maker]:
    return r.choice([*SCALARS, *RECORDS[:6], (tuple[int, str], lambda r: (_int(r), _text(r)))])


def _some(make: Maker, most: int = 4) -> Callable[[random.Random], list[Any]]:
    return lambda r: [make(r) for _ in range(r.randrange(most))]


def _mapping(key: Maker, value: Maker, kind: Any = dict) -> Maker:
    return lambda r: kind([(key(r), value(r)) for _ in range(r.randrange(4))])


def _of(kind: Any, *parts: Any) -> Any:
    return kind[parts if len(parts) > 1 else parts[0]]


def a_type(r: random.Random, depth: int = 2) -> tuple[Any, Maker]:  # one a kind of type
    """Return a type, and what makes a value of it."""
    chance = r.random()
    if depth == 0 or chance < 0.3:
        return r.choice(SCALARS)
    if chance < 0.5:
        return r.choice(RECORDS)
    if chance < 0.6:
        return r.choice(
            [
                (Any, _free),
                (object, _free),
                (list, _some(_free)),
                (dict, _mapping(_text, _free)),
                (tuple, lambda r: (1, _free(r))),
                (dict[str, Any], _mapping(_text, _free)),
            ]
        )
    if chance < 0.7:
        (one, make), (other, also) = a_type(r, depth - 1), a_type(r, depth - 1)
        both = r.choice([make, also])
        return r.choice(
            [(_of(typing.Union, one, other), both), (_of(typing.Union, one, None), r.choice([make, lambda r: None]))]
        )
    item, make = a_type(r, depth - 1)
    key, make_key = _hashable(r)
    return r.choice(
        [
            (_of(list, item), _some(make)),
            (_of(tuple, item, ...), lambda r: tuple(_some(make)(r))),
            (_of(tuple, item, int), lambda r: (make(r), _int(r))),
            (_of(set, key), lambda r: set(_some(make_key)(r))),
            (_of(frozenset, key), lambda r: frozenset(_some(make_key)(r))),
            (_of(deque, item), lambda r: deque(_some(make)(r), maxlen=r.choice([None, None, 9]))),
            (_of(dict, str, item), _mapping(_text, make)),
            (_of(dict, key, item), _mapping(make_key, make)),
            (_of(OrderedDict, str, item), _mapping(_text, make, OrderedDict)),
            (_of(defaultdict, str, int), _mapping(_text, _int, lambda pairs: defaultdict(int, pairs))),
            (Counter[str], lambda r: Counter("abca")),
            (_of(Sequence, item), lambda r: r.choice([list, tuple])(_some(make)(r))),
            (_of(Collection, item), _some(make)),
            (_of(Iterable, item), _some(make)),
            (_of(Set, key), lambda r: r.choice([set, frozenset])(_some(make_key)(r))),
            (_of(Mapping, str, item), _mapping(_text, make)),
        ]
    )


def pairs(r: random.Random, types: int, values: int) -> Iterator[tuple[Any, list[Any]]]:
    """Yield so many types, each with so many values: of ten, one is of another type."""
    for _ in range(types):
        hint, make = a_type(r)
        made = [(make if r.random() < 0.9 else a_type(r)[1])(r) for _ in range(values)]
        if hint == re.Pattern[str] or (isinstance(hint, type) and issubclass(hint, BaseModel)):
            # What they take other values for, they make of them.
            made = [value for value in made if isinstance(value, typing.get_origin(hint) or hint)]
        if "dict" in repr(hint):
            # As its annotation says; below Any it would have to come back as it is.
            made = [dict(value) if type(value) in (OrderedDict, Counter, defaultdict) else value for value in made]
        yield hint, made


class Form:
    """What a value is, types included: two are the same if their forms are.

    Where `hint` names a base, a value of a subclass is the base's.
    """

    def __init__(self, hint: Any) -> None:
        text = repr(hint)
        self._untyped = re.search(r"Any|object|class '(list|dict|tuple|set)'|Holder|Open", text) is not None
        self._abstract = "collections.abc." in text
        self._numbers = self._untyped or "int" in text
        self._named = text

    def of(self, value: Any) -> Any:  # one a kind of value
        kind = type(value)
        if isinstance(value, enum.Enum):
            base = next((base for base in (int, str) if isinstance(value, base)), None)
            if base is None or self._untyped or kind.__name__ in self._named:
                return ("enum", repr(value))
            return self.of(base(value.value))
        if kind is int and not self._numbers and abs(value) < 10**300 and float(value) == value:
            return self.of(float(value))
        if value is None or kind in (bool, int, str, bytes):
            return (kind.__name__, value)
        if kind is float:
            return ("float", value.hex())
        if kind is Decimal and "Decimal" not in self._named and "float" in self._named and float(value) == value:
            return self.of(float(value))
        if kind is Decimal:
            return ("Decimal", value.as_tuple())
        if kind in (datetime, time):
            return (kind.__name__, value.replace(tzinfo=None, fold=0), value.utcoffset(), value.tzinfo is None)
        if isinstance(value, BaseModel):
            parts = (value.__dict__, value.__pydantic_extra__, value.__pydantic_private__)
            return (kind.__name__, [self.of(part) for part in parts])
        if dataclasses.is_dataclass(value):
            return (kind.__name__, [self._field(value, field) for field in dataclasses.fields(value)])
        if isinstance(value, dict):
            items = [(self.of(key), self.of(item)) for key, item in value.items()]
            if kind is OrderedDict and "OrderedDict" in self._named:
                return (kind.__name__, items)
            return (kind.__name__ if self._untyped or kind.__name__ in self._named else "dict", sorted(items, key=repr))
        if re.search("Iterable|Collection", self._named) and isinstance(value, (list, tuple, set, frozenset, deque)):
            return ("list", sorted(map(self.of, value), key=repr))
        if isinstance(value, (set, frozenset)):
            return ("set" if self._abstract else kind.__name__, sorted(map(self.of, value), key=repr))
        if isinstance(value, (list, tuple, deque)):
            name = (
                "list" if self._abstract else "tuple" if kind is Spot and "Spot" not in self._named else kind.__name__
            )
            return (name, [*map(self.of, value)], None if self._abstract else getattr(value, "maxlen", None))
        return (kind.__name__, repr(value))

    def _field(self, value: Any, field: dataclasses.Field[Any]) -> Any:
        found = getattr(value, field.name)
        # mypy lets an int be a float, and an instance of a dataclass has what it was given.
        return self.of(float(found) if field.type in ("float", float) and type(found) is int else found)
