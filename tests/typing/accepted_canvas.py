"""Right uses of Celery's names for workflows: type checkers accept every line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, assert_type

from sqlalchemy.orm import Session

from jobq import JobQ, Node, WorkflowRun
from jobq.workflow import Canvas, Partial, chain, chord, group

q = JobQ()


@dataclass
class Order:
    id: int
    total: float


@q.task
def add(left: int, right: int) -> int:
    return left + right


@q.task
def mul(left: int, right: int) -> int:
    return left * right


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
def label(value: int = 0, note: str = "") -> str:
    return note + str(value)


@q.task
def total(parts: Sequence[int], start: int = 0) -> int:
    return sum(parts) + start


@q.task
def largest(parts: list[int]) -> int:
    return max(parts)


@q.task
def count(parts: Sequence[Any]) -> int:
    return len(parts)


@q.task
def noop() -> None: ...


def calls() -> None:
    assert_type(add.s(1, 2), Canvas[int])
    assert_type(add.s(2), Partial[int, int])
    assert_type(charge.s("CHF"), Partial[Order, str])
    assert_type(charge.s(currency="CHF", retry=True), Partial[Order, str])
    assert_type(charge.si(Order(1, 2.0), "CHF"), Canvas[str])
    assert_type(noop.s(), Canvas[None])
    assert_type(add.options(queue="math").s(1), Partial[int, int])


def chains() -> None:
    assert_type(chain(add.s(1, 2)), Canvas[int])
    assert_type(chain(add.s(1, 2), mul.s(3)), Canvas[int])
    assert_type(chain(fetch.s(1), charge.s("CHF"), noop.si()), Canvas[None])
    assert_type(chain(fetch.s(1), charge.s("CHF"), noop.si(), double.si(1)), Canvas[int])
    assert_type(chain(add.s(1, 2), double.s(), double.s(), double.s(), double.s()), Canvas[int])
    assert_type(chain(double.s(), label.s("x")), Partial[int, str])
    five = add.s(1, 2), double.s(), double.s(), double.s(), double.s()
    assert_type(chain(*five, label.s(), noop.si()), Canvas[Any])
    assert_type(chain(double.s()), Partial[int, int])
    assert_type(chain(add.s(1, 2), label.s()), Canvas[str])
    assert_type(add.s(1, 2) | mul.s(3), Canvas[int])
    assert_type(mul.s(3) | double.s(), Partial[int, int])
    assert_type(fetch.s(1) | charge.s("CHF") | noop.si() | double.si(1), Canvas[int])
    chain(double.s(each) for each in range(3))
    chain([double.s(1), double.s(), label.s()])


def groups() -> None:
    assert_type(group(double.s(each) for each in range(10)), Canvas[list[int]])
    assert_type(group([double.s(1), double.s(2)]), Canvas[list[int]])
    assert_type(group(double.s(1), add.s(1, 2)), Canvas[list[int]])
    assert_type(group(double.s(), add.s(1)), Partial[int, list[int]])
    assert_type(group(add.s(each) for each in range(10)), Partial[int, list[int]])
    assert_type(chain(add.s(1, 2), group(double.s(), add.s(1)), total.s()), Canvas[int])
    assert_type(group(double.s(1), double.s(2)) | largest.s(), Canvas[int])
    assert_type(group(double.s(1), double.s(2)) | total.s(5), Canvas[int])
    assert_type(double.s(1) | group(double.s(), add.s(1)) | total.s(), Canvas[int])
    assert_type(group(chain(add.s(1, 2), mul.s(3)), double.s(1)) | total.s(), Canvas[int])
    assert_type(group(double.s(1), fetch.s(1)) | count.s(), Canvas[int])


def chords() -> None:
    assert_type(chord((double.s(each) for each in range(10)), total.s()), Canvas[int])
    assert_type(chord([double.s(1), double.s(2)], largest.s()), Canvas[int])
    assert_type(chord(group(double.s(1)), total.s()), Canvas[int])
    assert_type(chord([noop.s()], noop.si()), Canvas[None])
    assert_type(chain(add.s(1, 2), chord([double.s(), add.s(1)], total.s())), Canvas[int])


def in_a_workflow(session: Session) -> WorkflowRun[int]:
    with q.workflow("sums", key="a") as wf:
        end = chord((double.s(each) for each in range(10)), total.s()).node()
        assert_type(end, Node[int])
        assert_type(group(double.s(end.result), add.s(end.result, 1)).nodes(), list[Node[Any]])
        chain(add.s(end.result, 2), mul.s(3)).node().named("end").after(end)
    return wf.enqueue(session, end)
