"""The hot loop by itself, on a real database: what it hears while it looks elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from jobq._worker.claiming.loop import ClaimLoop
from jobq._worker.database import fetch
from jobq._worker.health.state import LoopHealth
from jobq._worker.ipc.messages import AlreadyCommitted, Disposition, Failure, Job, Success
from jobq._worker.lanes import next_due as module
from jobq._worker.lease import Lease
from jobq._worker.loops import Topic
from jobq._worker.options import WorkerOptions
from jobq._worker.runners.pool import RunnerPool
from jobq.settings import Settings
from tests.apps import plain as apps
from tests.support.claim_loops import running
from tests.support.jobs import Jobs
from tests.support.waiting import wait_until_async


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

    def room(self, prefetch: int, soon: float = 0.0) -> int:
        return self.free

    def holds(self, job_id: int, claims: int, started: int) -> bool:
        return True

    def give(self, jobs: Any, worker: Any) -> None:
        for job in jobs:
            assert isinstance(job, Job)
            self.given.put_nowait(job.id)


async def until(holds: Callable[[], bool]) -> None:
    await wait_until_async(holds, timeout=60, what="what the test waits for")


@pytest.fixture
def options(database_url: str) -> WorkerOptions:
    return WorkerOptions(app="-", settings=Settings(database_url=database_url), poll_interval=60)


async def test_a_job_told_of_while_the_next_due_one_is_looked_up_is_not_forgotten(
    jobs: Jobs, options: WorkerOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer does not know of it, and a poll may be far away."""
    pool = OneSlot(options)
    loop = ClaimLoop(options, pool, Lease(options, "test"), LoopHealth("claims"))
    inserted: list[int] = []

    async def slow_fetch(connection: Any, schema: str, name: str, /, **parameters: Any) -> Any:
        rows = await fetch(connection, schema, name, **parameters)
        if name == "next_due" and not inserted:
            inserted.append(apps.noop.options(delay=1.0).enqueue(jobs.connection).id)
            loop.wake(Topic("insert", "default"))
        return rows

    monkeypatch.setattr(module, "fetch", slow_fetch)
    apps.noop.options(delay=3600).enqueue(jobs.connection)
    loop.wake(Topic("insert", "default"))
    async with running(loop):
        async with asyncio.timeout(4):
            assert await pool.given.get() == inserted[0]


@pytest.mark.parametrize(
    "outcome",
    [Success(1 << 60, 1, 0, b"null", 0.0), Failure(1 << 60, 1, 0, Disposition.RETRY), None],
    ids=["success", "setback", "full when told"],
)
async def test_a_round_without_room_does_not_forget_that_there_is_more(
    jobs: Jobs, options: WorkerOptions, outcome: Success | Failure | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has not looked, and what makes room may be nothing to write: a transactional job's end."""
    options = replace(options, queues=("default",))
    pool = OneSlot(options)
    loop = ClaimLoop(options, pool, Lease(options, "test"), LoopHealth("claims"))
    looked: list[str] = []

    async def noted_fetch(connection: Any, schema: str, name: str, /, **parameters: Any) -> Any:
        rows = await fetch(connection, schema, name, **parameters)
        if name == "next_due":
            looked.append(name)
        return rows

    monkeypatch.setattr(module, "fetch", noted_fetch)
    # Else a setback that is written has it looked up again.
    monkeypatch.setattr(loop.finder.lanes, "poll", lambda: None)
    monkeypatch.setattr(loop.finder.survey, "hasten", lambda *_: None)
    async with running(loop):
        async with asyncio.timeout(10):
            await until(lambda: bool(looked))
            job = apps.noop.enqueue(jobs.connection).id
            pool.free = int(outcome is not None)
            assert loop.finder.found("default") == (outcome is not None)
            pool.free = 0
            if isinstance(outcome, Success):
                loop.outcomes.succeeded([outcome])
            elif outcome is not None:
                loop.outcomes.set_back(outcome)
            # Written down, and the loop sleeps.
            await until(lambda: not len(loop.outcomes) and loop.stall() is None)
            pool.free = 1
            loop.outcomes.recorded(AlreadyCommitted(1 << 60, 1, 0, accepted=True))
            async with asyncio.timeout(2):
                assert await pool.given.get() == job


async def test_what_was_claimed_does_not_wait_for_setbacks_to_be_written(
    jobs: Jobs, options: WorkerOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is a statement of its own, and may take long."""
    pool = OneSlot(options)
    loop = ClaimLoop(options, pool, Lease(options, "test"), LoopHealth("claims"))
    given: list[bool] = []
    settle = loop.outcomes.settle
    exchange = loop.claimer._exchange

    async def noted_settle(connection: Any) -> Any:
        given.append(not pool.given.empty())
        return await settle(connection)

    async def and_meanwhile(*arguments: Any) -> None:
        await exchange(*arguments)
        if not given:
            loop.outcomes.set_back(Failure(1 << 60, 1, 0, Disposition.RELEASE))

    monkeypatch.setattr(loop.outcomes, "settle", noted_settle)
    monkeypatch.setattr(loop.claimer, "_exchange", and_meanwhile)
    apps.noop.enqueue(jobs.connection)
    async with running(loop):
        async with asyncio.timeout(10):
            await until(lambda: bool(given))
        assert given[0]
