"""An application with batch tasks. Each call leaves its items and its process in the table `batch_call`."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import Any

import psycopg

from jobq import Fail, JobQ, Snooze, current_batch

q = JobQ()


def note(task: str, items: list[int]) -> None:
    with psycopg.connect(os.environ["JOBQ_DATABASE_URL"], autocommit=True) as connection:
        connection.execute("INSERT INTO batch_call (task, items, pid) VALUES (%s, %s, %s)", (task, items, os.getpid()))


def prepare(connection: psycopg.Connection[Any]) -> None:
    """Make the table, and one that keeps calls waiting while it has a row."""
    connection.execute("CREATE TABLE batch_call (id serial, task text, items int[], pid int)")
    connection.execute("CREATE TABLE batch_wait ()")


def waits() -> bool:
    with psycopg.connect(os.environ["JOBQ_DATABASE_URL"], autocommit=True) as connection:
        return bool(connection.execute("SELECT count(*) FROM batch_wait").fetchall()[0][0])


@q.task(batch=500)
def collect(numbers: list[int]) -> None:
    note("collect", numbers)


@q.task(batch=500, linger=0.2)
async def double(numbers: list[int]) -> list[int | Exception]:
    note("double", numbers)
    return [ValueError(f"{number} is odd") if number % 10 == 7 else 2 * number for number in numbers]


@q.task(batch=100, linger=0.5, max_attempts=10, backoff=[0])
def one_bad(numbers: list[int]) -> None:
    note("one_bad", numbers)
    if 13 in numbers:
        raise ValueError("13 is in it")


@q.task(batch=20, linger=0.5, max_attempts=2, backoff=[0])
def each_its_own(numbers: list[int]) -> None:
    note("each_its_own", numbers)
    batch = current_batch()
    for place, number in enumerate(numbers):
        if number == 1:
            batch.fail(place, Fail("never"))
        elif number == 2 and batch.jobs[place].attempt == 1:
            batch.fail(place, ConnectionError("the first time"))
        elif number == 3 and len(numbers) > 1:
            batch.fail(place, Snooze(0))


@q.task(batch=50, linger=0.5)
def kills(numbers: list[int]) -> None:
    note("kills", numbers)
    if 13 in numbers:
        os.kill(os.getpid(), signal.SIGKILL)


@q.task(batch=50, linger=0.5)
def waiting(numbers: list[int]) -> None:
    note("waiting", numbers)
    while waits():
        time.sleep(0.02)


@q.task(batch=20, linger=0.5, timeout=0.5, max_attempts=3, backoff=[0])
def hangs(numbers: list[int]) -> None:
    note("hangs", numbers)
    while 13 in numbers:
        time.sleep(0.01)


@q.task(batch=20, linger=0.5)
async def endless(numbers: list[int]) -> None:
    note("endless", numbers)
    await asyncio.sleep(600)


@q.task
def single(number: int) -> int:
    return number
