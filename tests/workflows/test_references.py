"""References to parts of results arrive as the parts that the code names, however JSON writes them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import pytest
from pydantic import BaseModel, ConfigDict, Field

from jobq import Fail, JobQ
from jobq.testing import JobqTester

q = JobQ()


class Aliased(BaseModel):
    model_config = ConfigDict(serialize_by_alias=True)
    number: int = Field(serialization_alias="No")
    rows: list[dict[str, int]] = []


class Pair(NamedTuple):
    left: int
    right: str


@dataclass
class Order:
    total: int
    lines: list[int]


@q.task
def aliased(number: int) -> Aliased:
    return Aliased(number=number, rows=[{"a": number}, {"b": number + 1}])


@q.task
def pair(number: int) -> Pair:
    return Pair(number, "right")


@q.task
def order(total: int) -> Order:
    if total < 0:
        raise Fail("below 0")
    return Order(total, [total, total + 1])


@q.task
def gather(parts: list[int | str | None]) -> list[int | str | None]:
    return parts


@pytest.fixture
def tester(database_url: str) -> Iterator[JobqTester]:
    q.configure(database_url=database_url)
    with JobqTester(q, database_url) as tester:
        yield tester
    q.close()


def test_parts_of_models_and_named_tuples(tester: JobqTester) -> None:
    with q.workflow("parts") as wf:
        one, two = aliased.node(7).result, pair.node(1).result
        end = gather.node([one.number, one.rows[-1]["b"], two.right, two.left, two[1]])
    run = wf.submit(end)
    tester.drain()
    assert run.result() == [7, 8, "right", 1, "right"]


def test_parts_of_a_default(tester: JobqTester) -> None:
    default = Order(5, [6, 7])
    with q.workflow("defaults") as wf:
        good, bad = order.node(1), order.node(-1)
        end = gather.node(
            [
                *(good.result_or(default).total, good.result_or(default).lines[1]),
                *(bad.result_or(default).total, bad.result_or(default).lines[1]),
            ]
        )
    run = wf.submit(end)
    tester.drain()
    assert run.result() == [1, 2, 5, 7]
