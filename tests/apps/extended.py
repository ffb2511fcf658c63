"""An application with middleware, functions for its start and end, and resources. All of them write to a file.

``EXTENDED_LOG``: the file; each line has the process's id and what happened. ``EXTENDED_DOWN``: a file; while it exists,
resource `mailer` cannot be made. ``EXTENDED_UNREADY``: a file; while it exists, the start of a runner fails.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from jobq import (
    AsyncRunNext,
    Backoff,
    CurrentJob,
    EnqueueNext,
    JobQ,
    NewJob,
    Resource,
    RunNext,
    current_job,
    injected,
)

q = JobQ()
FAST = Backoff(base=0.01, cap=0.05)


def note(what: str) -> None:
    """Write one line in one piece, even if other processes write, too."""
    if path := os.environ.get("EXTENDED_LOG"):
        with open(path, "ab", buffering=0) as file:
            file.write(f"{os.getpid()} {what}\n".encode())


def exists(variable: str) -> bool:
    return os.path.exists(os.environ.get(variable, ""))


class Mailer:
    def send(self, address: str) -> str:
        return f"sent to {address}"


class Database:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop

    async def read(self) -> bool:
        """Tell whether it is used on the loop on which it was made."""
        await asyncio.sleep(0)
        return asyncio.get_running_loop() is self.loop


@q.on_worker_start
def worker_starts() -> None:
    note("worker starts")


@q.on_runner_start
async def runner_starts() -> None:
    await asyncio.sleep(0)
    if exists("EXTENDED_UNREADY"):
        raise RuntimeError("the licence server is away")
    note("runner starts")


@q.on_runner_stop
async def runner_stops() -> None:
    await asyncio.sleep(0)
    note("runner stops")


@q.resource
async def database() -> AsyncIterator[Database]:
    note("database opens")
    yield Database(asyncio.get_running_loop())
    note("database closes")


@q.resource
def mailer(database: Resource[Database]) -> Iterator[Mailer]:
    if exists("EXTENDED_DOWN"):
        raise ConnectionError("the mail server is away")
    note("mailer opens")
    yield Mailer()
    note("mailer closes")


class Watched:
    def enqueue(self, jobs: Sequence[NewJob], call_next: EnqueueNext) -> None:
        call_next([job.with_headers({"trace": "t1"}) for job in jobs])

    enqueue_async = None

    def run(self, job: CurrentJob, call_next: RunNext) -> Any:
        self._refuse(job)
        return f"{call_next(job)}, watched"

    async def run_async(self, job: CurrentJob, call_next: AsyncRunNext) -> Any:
        self._refuse(job)
        return f"{await call_next(job)}, watched"

    def _refuse(self, job: CurrentJob) -> None:
        assert job.headers["trace"] == "t1"
        if job.args["address"] == "broken" and job.attempt < 3:
            raise LookupError("the watcher is broken")


q.middleware(Watched(), tasks=["send", "send_async", "send_alone", "send_exactly"])


@q.task(backoff=FAST)
def send(address: str, *, mailer: Resource[Mailer] = injected) -> str:
    return f"{mailer.send(address)} by {os.getpid()}"


@q.task(backoff=FAST)
async def send_async(address: str, mailer: Resource[Mailer] = injected, db: Resource[Database] = injected) -> str:
    return f"{mailer.send(address)} by {os.getpid()}, {await db.read()}"


@q.task(isolation="process")
def send_alone(address: str, mailer: Resource[Mailer] = injected) -> str:
    return f"{mailer.send(address)} by {os.getpid()}"


@q.task(transactional=True, backoff=FAST)
def send_exactly(address: str, mailer: Resource[Mailer] = injected) -> str:
    current_job().connection.execute("SELECT 1")
    return mailer.send(address)


@q.task(timeout=0.2, max_attempts=1)
def hang(seconds: float) -> None:
    """Do not heed the timeout."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            time.sleep(0.01)
        except BaseException:
            continue


@q.middleware.run(tasks=[hang])
def slow_hands(job: CurrentJob, call_next: RunNext) -> Any:
    return call_next(job)
