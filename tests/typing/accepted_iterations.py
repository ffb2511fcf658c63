"""Iterations that type checkers accept."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import date
from typing import assert_type

from jobq import JobQ, step

q = JobQ()


@dataclass
class Order:
    id: int
    day: date


def page(after: int | None) -> list[Order]:
    return []


def stream(after: tuple[date, int] | None) -> Iterator[Order]:
    yield from ()


async def page_async(after: int | None) -> list[Order]:
    return []


async def stream_async(after: int | None) -> AsyncIterator[Order]:
    yield Order(1, date.min)


@q.task(durable=True)
def recalculate() -> None:
    for order in step.iterate(page, cursor=lambda order: order.id):
        assert_type(order, Order)
    for order in step.iterate(stream, cursor=lambda order: (order.day, order.id), every=10, name="orders"):
        assert_type(order, Order)


@q.task(durable=True)
async def recalculate_async() -> None:
    async for order in step.iterate_async(page_async, cursor=lambda order: order.id):
        assert_type(order, Order)
    async for order in step.iterate_async(stream_async, cursor=lambda order: order.id):
        assert_type(order, Order)
    async for order in step.iterate_async(page, cursor=lambda order: order.id):
        assert_type(order, Order)
