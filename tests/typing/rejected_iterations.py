"""Wrong iterations: type checkers reject every line marked ``# error``, and no other."""

from __future__ import annotations

from collections.abc import AsyncIterator

from jobq import JobQ, step

q = JobQ()


def page(after: int | None) -> list[str]:
    return []


def by_int(after: int | None) -> list[int]:
    return []


def without_none(after: int) -> list[str]:
    return []


def no_items(after: int | None) -> int:
    return 0


async def stream(after: int | None) -> AsyncIterator[str]:
    yield ""


def name_of(item: str) -> str:
    return item


def number_of(item: str) -> int:
    return len(item)


def wrong() -> None:
    step.iterate(page, cursor=name_of)  # error
    step.iterate(by_int, cursor=number_of)  # error
    step.iterate(without_none, cursor=number_of)  # error
    step.iterate(no_items, cursor=number_of)  # error
    step.iterate(stream, cursor=number_of)  # error
    step.iterate(page)  # error
    step.iterate(page, number_of)  # error
    step.iterate(page, cursor=number_of, every="10")  # error
    for item in step.iterate(page, cursor=number_of):
        item.bit_length()  # error


async def wrong_async() -> None:
    async for _ in step.iterate(page, cursor=number_of):  # error
        pass
    for _ in step.iterate_async(stream, cursor=number_of):  # error
        pass
