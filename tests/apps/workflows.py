"""An application whose tasks are nodes of workflows."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jobq import Fail, JobQ, NodeOutcome, Retry
from tests.support.waiting import wait_until

q = JobQ()


@dataclass
class Order:
    id: int
    addresses: list[str]
    total: float
    gift: bool = False


@q.task
def fetch(order_id: int) -> Order:
    return Order(
        order_id, [f"{name}@example.org" for name in ("ann", "bob", "cyd")[: order_id % 4]], 12.5, order_id > 100
    )


@q.task
def charge(order: Order, currency: str) -> str:
    return f"{order.total} {currency}"


@q.task
def notify(address: str, subject: str = "hello") -> str:
    return f"{subject} {address}"


@q.task
def close(paid: NodeOutcome[str], mails: Sequence[NodeOutcome[str]]) -> list[str]:
    return [f"{paid.state} {paid.result}", *(f"{each.state} {each.result}" for each in mails)]


@q.task
def total(parts: Sequence[int]) -> int:
    return sum(parts)


@q.task
def as_list(parts: list[int]) -> int:
    return len(parts)


@q.task
def number(value: int) -> int:
    return value


@q.task
def take_back(number: int) -> None: ...


@q.task
def refuse(value: int) -> None:
    raise Fail(f"does not want {value}")


@q.task
def add(left: int, right: int) -> int:
    return left + right


@q.task
def numbers(upto: int) -> list[int]:
    return list(range(upto))


@q.task
def text(value: str) -> str:
    return value


@q.task
def maybe(value: int, broken: str = "") -> int:
    """Fails while the file `broken` exists."""
    if broken and Path(broken).exists():
        raise Fail("broken")
    return value


@q.task
def odd(value: int) -> int:
    if value % 2 == 0:
        raise Fail(f"{value} is even")
    return value


@q.task
def join(parts: list[str], note: str = "") -> str:
    return " ".join(parts) + note


@q.task
async def hello(name: str) -> str:
    return f"hello {name}"


@q.task
def noop() -> None: ...


@q.task
def gate(path: str) -> str:
    """Ends when the file exists."""
    wait_until(lambda: os.path.exists(path), timeout=60, what="the gate")
    return path


@q.task(transactional=True)
def transactional(value: int) -> int:
    """Commits its own end."""
    return value + 1


@q.task
def stamp(value: float = 0) -> float:
    return time.time()


@q.task
def stubborn(path: str) -> str:
    """Ends when the file exists, and not before, although it is asked to stop."""
    while True:
        try:
            wait_until(lambda: os.path.exists(path), timeout=60, what="the file")
        except BaseException as error:
            if isinstance(error, AssertionError):
                raise
        else:
            return path


def _grow(count: int, broken: str) -> int:
    with q.add_nodes():
        many = number.map(list(range(count))).named("many")
        total.node(many.results).named("total")
    with q.add_nodes() as more, more.part("again"):
        if count > 1:
            grow.node(count - 1)
    if broken and Path(broken).exists():
        raise Retry(0.1, "broken")
    return count


@q.task
def grow(count: int, broken: str = "") -> int:
    """Adds nodes to its own run; one of them adds nodes again. Fails after that while the file `broken` exists."""
    return _grow(count, broken)


@q.task
async def grow_async(count: int) -> int:
    return _grow(count, "")


@q.task(transactional=True)
def grow_in_transaction(count: int, broken: str = "") -> int:
    return _grow(count, broken)


@q.task(transactional=True)
async def grow_in_transaction_async(count: int) -> int:
    return _grow(count, "")
