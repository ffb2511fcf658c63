"""An application whose tasks return what cannot be stored, or return their work instead of doing it."""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Callable
from typing import Annotated, Any

import psycopg
from pydantic import BaseModel, PlainSerializer

from jobq import Backoff, JobQ, current_job

q = JobQ()
FAST = Backoff(base=0.01, cap=0.05)


def create(connection: psycopg.Connection[Any]) -> None:
    """Make the table that the tasks write to."""
    connection.execute("CREATE TABLE IF NOT EXISTS done (job bigint, note text)")


def done(note: str) -> None:
    """Do the work: each time that it is done leaves a row."""
    with psycopg.connect(
        os.environ.get("RESULTS_URL") or os.environ["JOBQ_DATABASE_URL"], autocommit=True
    ) as connection:
        connection.execute("INSERT INTO done VALUES (%s, %s)", (current_job().id, note))


class Order(BaseModel):
    id: int


class Paid(Order):
    cents: int


def _exit(value: int) -> int:
    raise SystemExit("a serializer that ends its process")


class Hostile:
    def __repr__(self) -> str:
        raise SystemExit


@q.task(backoff=FAST)
def charge() -> int:
    done("charge")
    return True


@q.task(backoff=FAST)
def seen() -> tuple[int, ...]:
    done("seen")
    return [1, 2]  # type: ignore[return-value]


@q.task(backoff=FAST)
def nothing() -> None:
    done("nothing")
    return 17  # type: ignore[return-value]


@q.task(backoff=FAST)
def large() -> str:
    done("large")
    return "x" * 2_000_000


@q.task(backoff=FAST)
def not_a_number() -> float:
    done("not_a_number")
    return float("nan")


@q.task(backoff=FAST)
def nul() -> str:
    done("nul")
    return "a\0b"


@q.task(backoff=FAST)
def untyped():  # type: ignore[no-untyped-def]
    done("untyped")
    return {"pair": (1, 2)}


@q.task(backoff=FAST)
def an_object() -> Any:
    done("an_object")
    return Hostile()


@q.task(backoff=FAST)
def subclass() -> Order:
    done("subclass")
    return Paid(id=1, cents=2)


@q.task(backoff=FAST)
def exits() -> Annotated[int, PlainSerializer(_exit)]:
    done("exits")
    return 1


@q.task(backoff=FAST)
async def charge_async() -> int:
    await asyncio.to_thread(done, "charge_async")
    return True


@q.task(backoff=FAST, isolation="process")
def apart() -> int:
    done("apart")
    return "one"  # type: ignore[return-value]


@q.task(backoff=FAST, transactional=True)
def pay() -> int:
    current_job().connection.execute("INSERT INTO done VALUES (%s, 'pay')", (current_job().id,))
    return True


@q.task(backoff=FAST, transactional=True)
async def pay_async() -> int:
    await current_job().async_connection.execute("INSERT INTO done VALUES (%s, 'pay_async')", (current_job().id,))
    return "much"  # type: ignore[return-value]


UNSTORED = {
    task.name: task
    for task in (
        charge,
        seen,
        nothing,
        large,
        not_a_number,
        nul,
        untyped,
        an_object,
        subclass,
        exits,
        charge_async,
        apart,
        pay,
        pay_async,
    )
}


# --- Work that is returned --------------------


def traced(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def inner(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return inner


async def _work(note: str) -> str:
    await asyncio.to_thread(done, note)
    return note


@q.task(backoff=FAST)
@traced
async def wrapped(note: str) -> str:
    return await _work(note)


@q.task(name="bridged", backoff=FAST)
@functools.wraps(_work)
def bridged(note: str) -> str:
    return asyncio.run(_work(note))


class Sender:
    async def __call__(self, note: str) -> str:
        return await _work(note)


sender = q.task(name="sender", backoff=FAST)(Sender())
partial = q.task(name="partial", backoff=FAST)(functools.partial(_work, note="partial"))


@q.task(backoff=FAST)
@traced
async def hangs(note: str) -> None:
    try:
        await asyncio.sleep(3600)
    finally:
        await asyncio.to_thread(done, note)


@q.task(backoff=FAST)
def forgotten(note: str) -> Any:
    return _work(note)


@q.task(backoff=FAST)
async def forgotten_async(note: str) -> Any:
    return _work(note)


@q.task(backoff=FAST)
@traced
def rows(note: str) -> Any:
    done(note)
    yield 1


DONE = {task.name: task for task in (wrapped, bridged, sender, partial)}
UNDONE = {task.name: task for task in (forgotten, forgotten_async)}
