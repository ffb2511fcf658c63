"""One application in several versions, by ROLLING in the environment: for rolling deployments."""

from __future__ import annotations

import os
from enum import StrEnum
from typing import Any

from pydantic import BaseModel

from jobq import JobQ
from jobq.task import Task

OLD, NEW, OTHER = JobQ(), JobQ(), JobQ()

for each in (OLD, NEW, OTHER):

    @each.task
    def always() -> int:
        return 1


@NEW.task
def fresh() -> int:
    return 2


@NEW.task(queue="in-order", groups="ordered")
def fresh_in_order(number: int) -> int:
    return number


@OLD.task(name="send")
def send_old(order: int) -> str:
    return "old"


@NEW.task(name="send")
def send_new(order: int, copy_to: str = "") -> str:
    return "new"


@OTHER.task(name="send")
def send_other(order: int, priority: int = 0) -> str:
    return "other"


@OLD.task(name="count")
def count_old(number: int) -> int:
    return number


@NEW.task(name="count")
def count_new(number: int | str) -> int | str:
    return number


class _OldColour(StrEnum):
    RED = "red"


class _NewColour(StrEnum):
    RED = "red"
    GREEN = "green"


class _OldOrder(BaseModel, extra="forbid"):
    id: int


class _NewOrder(BaseModel, extra="forbid"):
    id: int
    gift: bool = False


def _paint_and_pack(version: str) -> tuple[Task[[Any], str], Task[[Any], str]]:
    """Tasks whose parameters' types have grown under their names, as in two versions of one module."""
    Colour: Any = _OldColour if version == "old" else _NewColour
    Order: Any = _OldOrder if version == "old" else _NewOrder
    app = OLD if version == "old" else NEW

    @app.task(name="paint")
    def paint(colour: Colour) -> str:
        return version

    @app.task(name="pack")
    def pack(order: Order) -> str:
        return version

    return paint, pack


paint_old, pack_old = _paint_and_pack("old")
paint_new, pack_new = _paint_and_pack("new")
GREEN, GIFT = _NewColour.GREEN, _NewOrder(id=1, gift=True)

q = {"old": OLD, "new": NEW, "other": OTHER, "none": JobQ()}[os.environ.get("ROLLING", "old")]
