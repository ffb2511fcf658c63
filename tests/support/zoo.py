"""Types of every kind that an argument may have, tame and odd."""

from __future__ import annotations

import dataclasses
import enum
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Generic, NamedTuple, NotRequired, TypeVar

import pydantic.dataclasses
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    Json,
    PrivateAttr,
    RootModel,
    SerializeAsAny,
    computed_field,
    field_serializer,
    field_validator,
)
from pydantic.alias_generators import to_camel
from typing_extensions import TypedDict

T = TypeVar("T")


class Colour(enum.Enum):
    RED = "red"
    BLUE = "b"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Word(enum.StrEnum):
    A = "a"
    RED = "red"


class Odd(enum.Enum):
    PAIR = (1, 2)
    PRICE = Decimal("1.10")
    DAY = date(2026, 1, 2)
    NOTHING = None


class Right(enum.Flag):
    READ = 1
    WRITE = 2


class Spot(NamedTuple):
    x: int
    label: str = ""


class Options(TypedDict):
    depth: int
    name: NotRequired[str]


@dataclasses.dataclass
class Point:
    x: int
    y: float = 0.0


@dataclasses.dataclass
class Point3(Point):
    z: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Line:
    start: Point
    end: Point | None
    tags: frozenset[str] = frozenset()


@dataclasses.dataclass
class Price:
    amount: float


@dataclasses.dataclass
class Area:
    width: int
    size: int = dataclasses.field(init=False, default=0)

    def __post_init__(self) -> None:
        self.size = self.width * self.width


@pydantic.dataclasses.dataclass
class Strict:
    when: date
    share: Decimal = Decimal(0)


class Plain(BaseModel):
    id: int
    name: str = "x"
    when: datetime | None = None


class Sub(Plain):
    cents: int = 0


class Camel(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel)
    order_id: int
    line_items: list[Plain] = []


class Swapped(BaseModel):
    model_config = ConfigDict(populate_by_name=True)
    a: int = Field(alias="b")
    b: int = Field(alias="a")


class Computed(BaseModel):
    model_config = ConfigDict(extra="forbid")
    net: int

    @computed_field  # type: ignore[prop-decorator]
    @property
    def gross(self) -> int:
        return self.net * 2


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    id: int


class Quoted(BaseModel):
    v: str

    @field_validator("v")
    @classmethod
    def quote(cls, v: str) -> str:
        return f"<{v}>"


class German(BaseModel):
    day: date

    @field_serializer("day")
    def german(self, value: date) -> str:
        return value.strftime("%d.%m.%Y")


class Raw(BaseModel):
    rows: Json[list[int]]


class Hidden(BaseModel):
    a: int
    _seen: int = PrivateAttr(0)


class Holder(BaseModel):
    one: Plain
    any: SerializeAsAny[Plain]
    free: Any = None


class Numbers(RootModel[list[float]]):
    pass


class Box(BaseModel, Generic[T]):
    content: T
