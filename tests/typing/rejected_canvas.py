"""Wrong uses of Celery's names for workflows: type checkers reject every line marked ``# error``, and no other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from jobq import JobQ
from jobq.workflow import Canvas, chain, chord, group

q = JobQ()


@dataclass
class Order:
    id: int
    total: float


@q.task
def add(left: int, right: int) -> int:
    return left + right


@q.task
def double(value: int) -> int:
    return value * 2


@q.task
async def fetch(order_id: int) -> Order:
    return Order(order_id, 0.0)


@q.task
def charge(order: Order, currency: str, *, retry: bool = False) -> str:
    return currency


@q.task
def total(parts: Sequence[int], start: int = 0) -> int:
    return sum(parts) + start


@q.task
def joined(parts: Sequence[str]) -> str:
    return "".join(parts)


@q.task
def noop() -> None: ...


def calls() -> None:
    add.s("1", 2)  # error
    add.s("1")  # error
    add.s(1, 2, 3)  # error
    charge.s(5)  # error
    charge.s("CHF", retry="no")  # error
    charge.s(curency="CHF")  # error
    charge.si("CHF")  # error
    noop.s(1)  # error
    wrong: Canvas[str] = add.s(1, 2)  # error
    print(wrong)


def chains() -> None:
    chain(add.s(1), add.s(2)).node()  # error
    chain(fetch.s(1), double.s())  # error
    chain(add.s(1, 2), charge.s("CHF"))  # error
    chain(fetch.s(1), charge.s("CHF"), double.s())  # error
    chain(double.s(1), double.s(), double.s(), charge.s("CHF"))  # error
    chain(double.s(1), double.s(), double.s(), double.s(), charge.s("CHF"))  # error
    chain(double.s(1), double.s(), double.s(), double.s(), double.s(), charge.s("CHF"))  # error
    chain(add, double)  # error
    chain(add.s(1, 2), double)  # error
    chain(add.node(1, 2), double.s())  # error
    chain()  # error
    fetch.s(1) | double.s()  # error
    add.s(1, 2) | double  # error
    add.s(2).node()  # error


def groups() -> None:
    group(double.s(1), 2)  # error
    group(double, add)  # error
    group(double.s(each) for each in "abc")  # error
    chain(fetch.s(1), group(double.s(), add.s(1)))  # error
    chain(group(double.s(1), double.s(2)), double.s())  # error
    group(double.s(1), double.s(2)) | joined.s()  # error
    group(double.s(), add.s(1)).nodes()  # error


def chords() -> None:
    chord([double.s(1)], joined.s())  # error
    chord((double.s(each) for each in range(3)), double.s())  # error
    chord([double.s(1)])  # error
    chord(double.s(1), total.s())  # error
    chord([double.s(1)], total)  # error


def what_celery_has(session: Session) -> None:
    chain(add.s(1, 2), double.s()).delay()  # error
    chain(add.s(1, 2), double.s()).apply_async()  # error
    double.s(1).set(queue="slow")  # error
    with q.workflow("sums") as wf:
        end = chain(add.s(1, 2), double.s())
    wf.enqueue(session, end)  # error
    text: str = wf.enqueue(session, end.node()).result()  # error
    print(text)
