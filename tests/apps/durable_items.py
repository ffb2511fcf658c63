"""Durable tasks over many items."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import date, timedelta
from pathlib import Path

from jobq import Cancel, current_job, step
from tests.apps.durable import q, trace
from tests.support.waiting import wait_until

LAST = 60


def numbers_after(last: int | None) -> list[int]:
    """Pages of seven."""
    first = (last or 0) + 1
    return list(range(first, min(first + 7, LAST + 1)))


async def numbers_after_async(last: int | None) -> list[int]:
    return numbers_after(last)


async def stream_after(last: int | None) -> AsyncIterator[int]:
    for number in range((last or 0) + 1, LAST + 1):
        yield number


def all_after(last: int | None) -> Iterator[int]:
    yield from range((last or 0) + 1, LAST + 1)


def paced(path: str, number: int) -> None:
    """Note an item; at some of them, wait for a file of that number."""
    trace(path, str(number))
    if number % 20 == 0:
        wait_until(lambda: Path(f"{path}.{number}").exists(), what=f"file {number}", timeout=60)


@q.task(durable=True)
def items(path: str, every: int = 1000) -> str:
    for number in step.iterate(numbers_after, cursor=lambda number: number, every=every):
        paced(path, number)
    return f"attempt {current_job().attempt}"


@q.task(durable=True)
async def items_async(path: str, every: int = 1000) -> str:
    import asyncio

    async for number in step.iterate_async(numbers_after_async, cursor=lambda number: number, every=every):
        await asyncio.to_thread(paced, path, number)
    return f"attempt {current_job().attempt}"


@q.task(durable=True)
async def other_sources(path: str) -> list[int]:
    """An async generator, and a `def`."""
    counts = [0, 0]
    async for _ in step.iterate_async(stream_after, cursor=lambda number: number):
        counts[0] += 1
    async for _ in step.iterate_async(numbers_after, cursor=lambda number: number):
        counts[1] += 1
    return counts


@q.task(durable=True, backoff=[0.05])
def fails_at(path: str, bad: int) -> str:
    """Raises once in the middle."""
    for number in step.iterate(all_after, cursor=lambda number: number):
        trace(path, str(number))
        if number == bad and current_job().attempt == 1:
            raise RuntimeError(f"cannot take {number}")
    return "done"


@q.task(durable=True, backoff=[0.05])
def left_by_break(path: str) -> list[int]:
    """Leaves two loops, and fails once behind them."""
    for number in step.iterate(all_after, cursor=lambda number: number):
        trace(path, f"first {number}")
        if number == 3:
            break
    try:
        for number in step.iterate(all_after, cursor=lambda number: number, name="second"):
            trace(path, f"second {number}")
            if number == 2:
                raise ValueError(number)
    except ValueError:
        pass
    step.run(trace, path, "behind")
    if current_job().attempt == 1:
        raise RuntimeError("behind the loops")
    return [1]


def days_after(last: date | None) -> list[date]:
    first = date(2026, 1, 1) if last is None else last + timedelta(days=1)
    return [first] if first < date(2026, 1, 11) else []


@q.task(durable=True)
def days(path: str) -> int:
    count = 0
    for day in step.iterate(days_after, cursor=lambda day: day, every=3):
        trace(path, day.isoformat())
        count += 1
    return count


@q.task(durable=True, max_attempts=1)
def wrong(path: str, how: str) -> None:
    if how == "no name":
        list(step.iterate(lambda last: [1], cursor=lambda number: number))
    elif how == "type":
        list(step.iterate(numbers_after, cursor=str, every=1))  # type: ignore[misc]
    elif how == "untyped":
        list(step.iterate(lambda last: [date(2026, 1, 1)], cursor=lambda day: day, name="days", every=1))
    elif how == "again":
        list(step.iterate(lambda last: [1, 2], cursor=lambda number: number, name="again"))
    elif how == "stands still":
        list(step.iterate(lambda last: [1] if last is None else [last, 2], cursor=lambda number: number, name="still"))
    elif how == "nothing":
        list(step.iterate(lambda last: None, cursor=lambda number: number, name="nothing"))  # type: ignore[arg-type, return-value]
    elif how == "step":
        for _ in step.iterate(numbers_after, cursor=lambda number: number):
            step.run(trace, path, "in the loop")
    elif how == "async":
        list(step.iterate(numbers_after_async, cursor=lambda number: number))  # type: ignore[arg-type]


@q.task(durable=True)
def cancelled_in_loop(path: str) -> None:
    for number in step.iterate(numbers_after, cursor=lambda number: number):
        trace(path, str(number))
        if number == 5:
            raise Cancel("enough")
