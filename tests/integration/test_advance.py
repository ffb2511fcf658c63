"""The hot loop by itself, on a real database: what it hears while it looks elsewhere."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from jobq.config import Settings
from jobq.worker import advance as module
from jobq.worker.advance import Advance
from jobq.worker.database import fetch
from jobq.worker.frames import Job
from jobq.worker.lease import Lease
from jobq.worker.options import WorkerOptions
from jobq.worker.pool import RunnerPool
from jobq.worker.vitals import Pulse
from tests.support import apps
from tests.support.jobs import Jobs


class OneSlot(RunnerPool):
    """Has room for a job, and starts no process: it notes what it is given."""

    ready = True
    slots = 1
    load = held = 0

    def __init__(self, options: WorkerOptions) -> None:
        super().__init__(
            options,
            on_success=lambda _: None,
            on_setback=lambda _: None,
            on_recorded=lambda _: None,
            on_progress=lambda _: None,
            on_ready=lambda: None,
        )
        self.given: asyncio.Queue[int] = asyncio.Queue()

    def room(self, prefetch: int) -> int:
        return 1

    def holds(self, job_id: int, claims: int) -> bool:
        return True

    def give(self, jobs: Any, worker: Any) -> None:
        for job in jobs:
            assert isinstance(job, Job)
            self.given.put_nowait(job.id)


@pytest.fixture
def options(database_url: str) -> WorkerOptions:
    return WorkerOptions(app="-", settings=Settings(database_url=database_url), poll_interval=60)


async def test_a_job_told_of_while_the_next_due_one_is_looked_up_is_not_forgotten(
    jobs: Jobs, options: WorkerOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer does not know of it, and a poll may be far away."""
    pool = OneSlot(options)
    advance = Advance(options, pool, Lease(options, "test"), Pulse("claims"))
    inserted: list[int] = []

    async def slow_fetch(connection: Any, schema: str, name: str, /, **parameters: Any) -> Any:
        rows = await fetch(connection, schema, name, **parameters)
        if name == "next_due" and not inserted:
            inserted.append(apps.noop.options(delay=1.0).enqueue(jobs.connection).id)
            advance.notified("insert default")
        return rows

    monkeypatch.setattr(module, "fetch", slow_fetch)
    apps.noop.options(delay=3600).enqueue(jobs.connection)
    stop = asyncio.Event()
    running = asyncio.create_task(advance.run(stop))
    try:
        async with asyncio.timeout(4):
            assert await pool.given.get() == inserted[0]
    finally:
        stop.set()
        advance.poke()
        await running
        await advance.close()
