"""Tasks for tests that drive a runner themselves, without a database."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from pathlib import Path

from jobq import JobQ, current_job

q = JobQ()
_met = threading.Barrier(10)
_met_async = asyncio.Barrier(10)


@q.task
def nothing() -> None:
    """Ends at once."""


@q.task
async def nothing_async() -> None:
    """Ends at once, on the event loop."""


@q.task
def note(path: str) -> int:
    """Note the job's id in a file."""
    with Path(path).open("a") as file:
        file.write(f"{current_job().id}\n")
    return current_job().id


@q.task
async def note_async(path: str) -> int:
    """Note the job's id in a file."""
    await asyncio.sleep(0)
    return note(path)


@q.task
def meet() -> None:
    """Ends when ten of these run at the same time."""
    _met.wait(20)


@q.task
async def meet_async() -> None:
    """Ends when ten of these run at the same time."""
    async with asyncio.timeout(20):
        await _met_async.wait()


@q.task
def wait_for(path: str) -> None:
    """Ends when there is such a file."""
    while not Path(path).exists():
        time.sleep(0.005)


@q.task
def compute_until(path: str) -> None:
    """Computes in Python until there is such a file."""
    while not Path(path).exists():
        sum(range(100_000))


@q.task
async def hold_the_loop(path: str) -> None:
    """Does not let the event loop turn until there is such a file."""
    wait_for(path)


@q.task
async def wait_on_loop(path: str) -> None:
    """Ends when there is such a file; the event loop turns."""
    while not os.path.exists(path):  # noqa: ASYNC110, ASYNC240  (it is another process that makes it)
        await asyncio.sleep(0.005)


@q.task
async def leave_the_process() -> None:
    """Tries to."""
    raise SystemExit(3)


@q.task
async def cancel_the_others() -> None:
    """Cancels everything on the event loop but itself."""
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
