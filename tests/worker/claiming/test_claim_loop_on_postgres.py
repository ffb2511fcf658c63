"""The hot loop by itself, on a real database: what it hears while it looks elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from jobq.config import Settings
from jobq.worker import due as module
from jobq.worker.advance import Advance
from jobq.worker.database import fetch
from jobq.worker.frames import Ending, Job, Recorded, Setback, Success
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

        self.free = 1

    def room(self, prefetch: int) -> int:
        return self.free

    def holds(self, job_id: int, claims: int, started: int) -> bool:
        return True

    def give(self, jobs: Any, worker: Any) -> None:
        for job in jobs:
            assert isinstance(job, Job)
            self.given.put_nowait(job.id)


async def until(holds: Callable[[], bool]) -> None:
    while True:
        if holds():
            return
        await asyncio.sleep(0.01)


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
    advance.notified("insert default")
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


@pytest.mark.parametrize(
    "outcome",
    [Success(1 << 60, 1, 0, b"null", 0.0), Setback(1 << 60, 1, 0, Ending.RETRY), None],
    ids=["success", "setback", "full when told"],
)
async def test_a_round_without_room_does_not_forget_that_there_is_more(
    jobs: Jobs, options: WorkerOptions, outcome: Success | Setback | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has not looked, and what makes room may be nothing to write: a transactional job's end."""
    options = replace(options, queues=("default",))
    pool = OneSlot(options)
    advance = Advance(options, pool, Lease(options, "test"), Pulse("claims"))
    looked: list[str] = []

    async def noted_fetch(connection: Any, schema: str, name: str, /, **parameters: Any) -> Any:
        rows = await fetch(connection, schema, name, **parameters)
        if name == "next_due":
            looked.append(name)
        return rows

    monkeypatch.setattr(module, "fetch", noted_fetch)
    # Else a setback that is written has it looked up again.
    monkeypatch.setattr(advance._lanes, "poll", lambda: None)
    monkeypatch.setattr(advance._survey, "hasten", lambda *_: None)
    stop = asyncio.Event()
    running = asyncio.create_task(advance.run(stop))
    try:
        async with asyncio.timeout(10):
            await until(lambda: bool(looked))
            job = apps.noop.enqueue(jobs.connection).id
            pool.free = int(outcome is not None)
            assert advance.found("default") == (outcome is not None)
            pool.free = 0
            if isinstance(outcome, Success):
                advance.ended.succeeded([outcome])
            elif outcome is not None:
                advance.ended.set_back(outcome)
            # Written down, and the loop sleeps.
            await until(lambda: not len(advance.ended) and advance.trouble() is None)
            pool.free = 1
            advance.ended.recorded(Recorded(1 << 60, 1, 0, accepted=True))
            async with asyncio.timeout(2):
                assert await pool.given.get() == job
    finally:
        stop.set()
        advance.poke()
        await running
        await advance.close()


async def test_what_was_claimed_does_not_wait_for_setbacks_to_be_written(
    jobs: Jobs, options: WorkerOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is a statement of its own, and may take long."""
    pool = OneSlot(options)
    advance = Advance(options, pool, Lease(options, "test"), Pulse("claims"))
    given: list[bool] = []
    settle = advance.ended.settle
    exchange = advance._exchange

    async def noted_settle(connection: Any) -> Any:
        given.append(not pool.given.empty())
        return await settle(connection)

    async def and_meanwhile(*arguments: Any) -> None:
        await exchange(*arguments)
        if not given:
            advance.ended.set_back(Setback(1 << 60, 1, 0, Ending.RELEASE))

    monkeypatch.setattr(advance.ended, "settle", noted_settle)
    monkeypatch.setattr(advance, "_exchange", and_meanwhile)
    apps.noop.enqueue(jobs.connection)
    stop = asyncio.Event()
    running = asyncio.create_task(advance.run(stop))
    try:
        async with asyncio.timeout(10):
            await until(lambda: bool(given))
        assert given[0]
    finally:
        stop.set()
        advance.poke()
        await running
        await advance.close()
