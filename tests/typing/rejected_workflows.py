"""Wrong workflows: type checkers reject every line marked ``# error``, and no other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from jobq import JobQ, Many, Node, NodeOutcome, WorkflowRun

q = JobQ()


@dataclass
class Order:
    id: int
    addresses: list[str]
    total: float
    gift: bool = False


@q.task
def fetch(order_id: int) -> Order:
    return Order(order_id, [], 0.0)


@q.task
def charge(order: Order, currency: str, *, retry: bool = False) -> str:
    return currency


@q.task
async def notify(address: str, subject: str = "hello", *, copies: int = 1) -> bool:
    return True


@q.task
def close(paid: NodeOutcome[str], mails: Sequence[NodeOutcome[bool]]) -> int:
    return len(mails)


@q.task
def total(parts: Sequence[int]) -> int:
    return sum(parts)


@q.task
def double(value: int) -> int:
    return value * 2


@q.task
def label(value: int) -> str:
    return str(value)


@q.task
def numbers(upto: int) -> list[int]:
    return list(range(upto))


@q.task
def noop() -> None: ...


def arguments() -> None:
    fetch.node("17")  # error
    fetch.node()  # error
    fetch.node(17, 18)  # error
    fetch.node(order=17)  # error
    fetch.node(17, order_id=17)  # error
    noop.node(1)  # error
    notify.node("ann", copies="2")  # error
    notify.node("ann", "hello", 2)  # error


def references() -> None:
    order = fetch.node(17)
    charge.node(order, currency="CHF")  # error
    charge.node(order.result.id, currency="CHF")  # error
    charge.node(order.result)  # error
    charge.node(order.result, curency="CHF")  # error
    charge.node(order.result, currency=order.result.total)  # error
    charge.node(order.outcome, currency="CHF")  # error
    charge.node(order.result_or(None), currency="CHF")  # error
    fetch.node(order.result.total)  # error
    fetch.node(order.result.nummer)  # error
    notify.node(order.result.addresses)  # error
    notify.node(order.result.addresses["first"])  # error
    notify.node(charge.node(order.result, "CHF").result, subject=double.node(1).result)  # error
    fetch.node(notify.node("ann").result.decode())  # error
    double.node(notify.node("ann").outcome.result)  # error
    double.node(noop.node().result)  # error
    close.node(fetch.node(1).outcome, notify.map(["ann"]).outcomes)  # error


def undos() -> None:
    fetch.node(1).undo(double)  # error
    double.node(1).undo(notify)  # error
    double.node(1).undo(noop)  # error
    double.map([1]).undo(total)  # error
    double.node(1).undo(print)  # error


def maps() -> None:
    order = fetch.node(17)
    notify.map([1, 2])  # error
    notify.map("ann", subject=1)  # error
    notify.map(17)  # error
    notify.map(["ann"], topic="hello")  # error
    notify.map(["ann"], "hello", 2)  # error
    notify.map(["ann"], address="bob")  # error
    notify.map()  # error
    noop.map([1])  # error
    notify.map(order.result)  # error
    notify.map(order.result.id)  # error
    double.map(order.result.addresses)  # error
    double.map(numbers.node(3))  # error
    double.map(double.map([1]))  # error
    charge.map([order.result])  # error
    charge.map(["CHF"], currency="CHF")  # error
    total.node(label.map([1]).results)  # error
    total.node(notify.map(["ann"]).outcomes)  # error
    total.node(double.map([1]))  # error
    total.node(double.map([1]).result)  # error
    total.node(double.node(1).results)  # error
    close.node(charge.node(order.result, "CHF").outcome, double.map([1]).outcomes)  # error
    double.map([1]).min_success("most")  # error
    double.node(1).min_success(0.5)  # error


def kinds() -> None:
    one: Node[str] = double.node(1)  # error
    many: Many[int] = double.node(1)  # error
    single: Node[int] = double.map([1])  # error
    later: Node[int] = notify.node("ann")  # error
    result: str = double.node(1).result  # error
    print(one, many, single, later, result)
    double.node(1).after(double.node(2).result)  # error
    double.node(1).after("double")  # error
    double.node(1).named(1)  # error
    double.node(1).options(priority=1)  # error


def with_options() -> None:
    double.options(priority=1).node("1")  # error
    double.options(priority=1).map(["1"])  # error
    double.options(priority="high").node(1)  # error
    wrong: Node[str] = double.options(queue="slow").node(1)  # error
    print(wrong)


def a_workflow() -> None:
    q.workflow()  # error
    q.workflow(1)  # error
    q.workflow("order", on_failure="ignore")  # error
    q.workflow("order", key=17)  # error
    q.workflow("order", deadline="1h")  # error
    with q.workflow("order") as wf:
        wf.part(1)  # error
        wf.node(double)  # error
    with q.workflow("order") as outer, q.workflow("inner") as inner:
        double.node(1).after(inner.part("a"))  # error
    outer.after(inner)  # error


def enqueued(connection: psycopg.Connection[Any], session: Session, engine: Engine, later: AsyncSession) -> None:
    with q.workflow("order") as wf:
        node, many = double.node(1), double.map([1])
    wrong: WorkflowRun[str] = wf.enqueue(connection, node)  # error
    text: str = wf.enqueue(session, node).result()  # error
    wf.enqueue(session, many)  # error
    wf.enqueue(session, node.result)  # error
    wf.enqueue(engine, node)  # error
    wf.enqueue(later, node)  # error
    wf.enqueue()  # error
    also: str = wf.submit(returns=node).result()  # error
    print(wrong, text, also)


async def enqueued_async(session: Session, later: AsyncSession) -> None:
    with q.workflow("order") as wf:
        node = notify.node("ann")
    await wf.enqueue_async(session, node)  # error
    text: str = await (await wf.enqueue_async(later, node)).result_async()  # error
    number: int = (await wf.submit_async(node)).state()  # error
    print(text, number)
