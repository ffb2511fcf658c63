"""The application that the worker tests run. Each task leaves a trace in table `ran` of the test's database."""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
import threading
import time
from functools import cache
from typing import Any

import psycopg
from psycopg_pool import ConnectionPool

from jobq import Backoff, Cancel, Fail, JobQ, Retry, Snooze, current_job

q = JobQ()

FAST = Backoff(base=0.01, cap=0.05)


_lock = threading.Lock()


def _pool() -> ConnectionPool[Any]:
    with _lock:
        return _make_pool()


@cache
def _make_pool() -> ConnectionPool[Any]:
    url = os.environ.get("TRACES_URL") or os.environ["JOBQ_DATABASE_URL"]
    return ConnectionPool(url, min_size=1, max_size=4, open=True, kwargs={"autocommit": True})


def create_traces(connection: psycopg.Connection[Any]) -> None:
    """Make the table that the tasks write to."""
    connection.execute(
        "CREATE TABLE IF NOT EXISTS ran (job bigint, attempt int, note text, at timestamptz DEFAULT now())"
    )


def trace(note: str) -> None:
    job = current_job()
    with _pool().connection() as connection:
        connection.execute("INSERT INTO ran (job, attempt, note) VALUES (%s, %s, %s)", (job.id, job.attempt, note))


@q.task
def noop() -> None:
    """Nothing, as fast as possible."""


@q.task
def record(note: str) -> str:
    trace(note)
    return note


@q.task(queue="in-order", groups="ordered")
def in_order(note: str) -> None:
    trace(note)


@q.task
async def record_async(note: str) -> str:
    await asyncio.sleep(0)
    await asyncio.to_thread(trace, note)
    return note.upper()


@q.task(backoff=FAST)
def fail_until(attempt: int) -> int:
    """Fail in every attempt before `attempt`."""
    now = current_job().attempt
    if now < attempt:
        raise RuntimeError(f"attempt {now} fails")
    return now


@q.task(backoff=FAST, max_attempts=3)
def always_fail() -> None:
    raise ValueError("it is no use \x00 with a NUL")


@q.task(backoff=FAST, retry_on=(OSError,), no_retry_on=(FileNotFoundError,))
def fail_with(kind: str) -> None:
    raise {"os": OSError, "missing": FileNotFoundError, "value": ValueError}[kind](kind)


@q.task
def steer(how: str) -> None:
    if how == "cancel":
        raise Cancel("not wanted")
    if how == "fail":
        raise Fail("no use")
    if current_job().attempt == 1 and not _seen():
        raise Snooze(0.05)


def _seen() -> bool:
    with _pool().connection() as connection:
        seen = connection.execute("SELECT count(*) FROM ran WHERE job = %s", (current_job().id,)).fetchone()
    trace("seen")
    return bool(seen and seen[0])


@q.task(backoff=[3600])
def again() -> int:
    """Ask for two more attempts, sooner than the backoff would have them."""
    if current_job().attempt < 3:
        raise Retry(after=0.3)
    return current_job().attempt


@q.task
def counted() -> None:
    """Say how far it is, and go on until it is cancelled."""
    current_job().progress(3, 12)
    while not current_job().cancelled:
        time.sleep(0.01)
    raise Cancel("told to stop")


@q.task
def wait(seconds: float, note: str = "") -> str:
    """Wait, unless told to stop; leave a trace at the start and the end."""
    trace(f"start {note}")
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if current_job().cancelled:
            raise Cancel("told to stop")
        time.sleep(0.01)
    trace(f"end {note}")
    return note


@q.task
def stubborn(seconds: float) -> None:
    """Wait, whatever is said."""
    trace("start")
    time.sleep(seconds)
    trace("end")


@q.task
async def wait_async(seconds: float) -> None:
    trace("start")
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        trace("cancelled")
        raise
    trace("end")


@q.task(timeout=0.3, backoff=FAST, max_attempts=2)
def too_slow() -> None:
    trace("start")
    time.sleep(60)


@q.task(timeout=0.3, backoff=FAST, max_attempts=2)
async def too_slow_async() -> None:
    trace("start")
    await asyncio.sleep(60)


@q.task
def crash(how: str) -> None:
    trace("start")
    if how == "segfault":
        ctypes.string_at(0)
    os._exit(3)


@q.task
def leave() -> None:
    sys.exit("I leave")


@q.task
async def leave_async() -> None:
    sys.exit("I leave too")


@q.task
def big(size: int) -> str:
    return "x" * size


@q.task
def nul() -> str:
    return "a\x00b"


@q.task
def progress(total: int) -> None:
    for done in range(total + 1):
        current_job().progress(done, total)
    trace("start")
    while not current_job().cancelled:
        time.sleep(0.01)
