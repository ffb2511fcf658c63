"""Right workflows: type checkers accept every line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict, assert_type

import psycopg
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import Session

from jobq import JobQ, Many, Node, NodeOutcome, WorkflowRun
from jobq.workflow.run import WorkflowState

q = JobQ()


@dataclass
class Order:
    id: int
    addresses: list[str]
    total: float
    gift: bool = False


class Item(BaseModel):
    number: int
    tags: dict[str, int]


class Row(TypedDict):
    name: str
    sizes: list[int]


@q.task
def fetch(order_id: int) -> Order:
    return Order(order_id, [], 0.0)


@q.task
def charge(order: Order, currency: str, *, retry: bool = False) -> str:
    return currency


@q.task(queue="mail")
async def notify(address: str, subject: str = "hello", *, copies: int = 1) -> bool:
    return True


@q.task
def close(paid: NodeOutcome[str], mails: Sequence[NodeOutcome[bool]]) -> int:
    return len(mails)


@q.task
def total(parts: Sequence[int]) -> int:
    return sum(parts)


@q.task
def largest(parts: list[int]) -> int:
    return max(parts)


@q.task
def average(parts: Sequence[float]) -> float:
    return sum(parts)


@q.task
def double(value: int) -> int:
    return value * 2


@q.task
def numbers(upto: int) -> list[int]:
    return list(range(upto))


@q.task
def perhaps(value: int | None = None) -> int | None:
    return value


@q.task
def item(number: int) -> Item:
    return Item(number=number, tags={})


@q.task
def row(name: str) -> Row:
    return Row(name=name, sizes=[])


@q.task
def join(parts: list[str], note: str = "") -> str:
    return note.join(parts)


@q.task
def noop() -> None: ...


def an_order(session: Session) -> WorkflowRun[int]:
    with q.workflow("order", key="order-17", on_failure="continue", deadline=3600) as wf:
        order = fetch.node(17)
        assert_type(order, Node[Order])
        assert_type(order.result, Order)
        assert_type(order.result.addresses, list[str])
        paid = charge.node(order.result, currency="CHF", retry=True)
        assert_type(paid.outcome, NodeOutcome[str])
        mails = notify.map(order.result.addresses, subject="paid", copies=2)
        assert_type(mails, Many[bool])
        assert_type(mails.results, list[bool])
        assert_type(mails.outcomes, list[NodeOutcome[bool]])
        closed = close.node(paid.outcome, mails.outcomes).named("end").after(order, mails)
        assert_type(closed, Node[int])
    run = wf.enqueue(session, closed)
    assert_type(run, WorkflowRun[int])
    return run


def parts_of_results() -> None:
    with q.workflow("parts") as wf:
        fetch.node(order_id=fetch.node(1).result.id)
        notify.node(fetch.node(1).result.addresses[0], copies=item.node(1).result.tags["a"])
        notify.map(fetch.node(1).result.addresses, row.node("x").result["name"])
        double.map(row.node("x").result["sizes"]).min_success(0.5).named("sizes")
        join.node([fetch.node(1).result.addresses[0], "bob"], note=charge.node(fetch.node(2).result, "CHF").result)
        with wf.part("again") as same:
            assert_type(same.name, str)
            double.node(1).when(fetch.node(3).result.gift).after(noop.node())
        with q.workflow("inner") as inner:
            noop.node()
        double.map([1]).after(inner, double.node(1).after(inner))
        perhaps.node(double.node(1).result)
        perhaps.node(double.node(1).result_or(None))
        double.node(double.node(1).result_or(0))
        assert_type(double.node(1).result_or(None), int | None)
        average.node(double.map([1]).results)
        largest.node(double.map([1]).results)


def maps() -> None:
    assert_type(double.map(range(10)), Many[int])
    assert_type(double.map(numbers.node(3).result), Many[int])
    assert_type(double.map({1, 2}).after(noop.node()).when(numbers.node(1).result), Many[int])
    assert_type(perhaps.map([1, None]), Many[int | None])
    assert_type(noop.node().after(double.map(_generated()), double.node(1)), Node[None])
    assert_type(fetch.map(value for value in (1, 2)), Many[Order])
    assert_type(notify.options(priority=1, headers={"a": "b"}).map(["ann"], "hello"), Many[bool])
    assert_type(notify.options(priority=1, delay=3).node("ann"), Node[bool])
    total.node(double.map([1]).results)


def undos() -> None:
    assert_type(double.node(1).undo(double), Node[int])
    assert_type(double.node(1).undo(double.options(queue="undo")).after(noop.node()), Node[int])
    assert_type(double.map([1]).undo(perhaps), Many[int])


def _generated() -> Iterator[int]:
    yield 1


def in_a_function(order: Node[Order], mails: Many[bool]) -> Node[int]:
    return close.node(charge.node(order.result, "CHF").outcome, mails.outcomes)


def enqueued(connection: psycopg.Connection[Any], session: Session) -> None:
    with q.workflow("one") as wf:
        node = double.node(1)
    assert_type(wf.enqueue(connection), WorkflowRun[None])
    assert_type(wf.enqueue(connection, node).result(timeout=3), int)
    assert_type(wf.enqueue(session, returns=node), WorkflowRun[int])
    assert_type(wf.submit(), WorkflowRun[None])
    run = wf.submit(node)
    assert_type(run.state(), WorkflowState)
    assert_type(run.cancel("not wanted"), bool)
    assert_type(q.workflow_run(17), WorkflowRun[Any])


async def enqueued_async(connection: AsyncConnection, session: AsyncSession) -> None:
    with q.workflow("one") as wf:
        node = notify.node("ann")
    assert_type(await wf.enqueue_async(connection), WorkflowRun[None])
    assert_type(await wf.enqueue_async(session, node), WorkflowRun[bool])
    assert_type(await (await wf.submit_async(node)).result_async(timeout=3), bool)
    assert_type(await (await wf.submit_async()).state_async(), WorkflowState)
