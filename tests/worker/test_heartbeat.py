"""The heartbeat loop on a database that is none: what it says and hears, and which error costs it what."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import psycopg
import pytest

from jobq._worker import heartbeat as module
from jobq._worker.claiming.loop import ClaimLoop
from jobq._worker.health.state import LoopHealth
from jobq._worker.heartbeat import HeartbeatLoop
from jobq._worker.lease import Lease
from jobq._worker.loops import MISSED, Topic
from jobq._worker.options import WorkerOptions
from jobq._worker.runners.pool import RunnerPool
from jobq._worker.wakeup.policy import NotifyMode
from jobq._worker.wakeup.poller import LeadPoller
from jobq.settings import Settings
from tests.support.claim_loops import Slots
from tests.support.fake_database import FakeDatabase


class Others:
    """Stands in for the claim loop, its gate, its finder and its sync, and for the lead poller."""

    def __init__(self) -> None:
        self.gate = self.finder = self.sync = self
        self.told: list[Any] = []

    def suspend(self, reason: str) -> None:
        self.told.append(reason)

    def resume(self) -> None:
        self.told.append("resume")

    async def forget(self) -> None:
        self.told.append("forget")

    def heard(self, *what: Any, **named: Any) -> None:
        self.told.append((*what, *named.values()))

    def lowered(self, queue: str, run_at: int) -> None:
        self.told.append((queue, run_at))


class Stage:
    """One heartbeat loop and what it talks to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "AGAIN_AFTER", 0.0)
        # Seldom: only what a test asks for is written.
        self.options = WorkerOptions(
            app="-", settings=Settings(database_url="postgresql://nowhere"), heartbeat_interval=1.5, lease=30.0
        )
        self.database = FakeDatabase(
            monkeypatch,
            {
                "worker_lock": [(True,)],
                "worker_register": [],
                "worker_heartbeat": [(1, None)],
                "heartbeat_reply": [([], [], None, int(NotifyMode.NOTIFY), False, [], [], [], [], [])],
                "worker_peers": [],
                "worker_leave": [],
            },
        )
        self.lease = Lease(self.options, "test")
        self.pool = Slots(self.options)
        self.others = Others()
        self.asked: list[str | None] = []
        self.pulse = LoopHealth("heartbeats")
        self.loop = HeartbeatLoop(
            self.options,
            database=self.database,
            lease=self.lease,
            pool=cast("RunnerPool", self.pool),
            claim_loop=cast("ClaimLoop", cast("Any", self.others)),
            poller=cast("LeadPoller", cast("Any", self.others)),
            pulse=self.pulse,
            on_asked=self.asked.append,
        )

    def times(self, name: str) -> int:
        return self.database.asked.count(name)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.loop.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await self.loop.close()

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not holds():  # noqa: ASYNC110
                await asyncio.sleep(0.001)


@pytest.fixture
async def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(monkeypatch)


async def test_what_is_heard_goes_to_those_it_concerns(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    cancelled: list[list[int]] = []
    monkeypatch.setattr(stage.pool, "cancel", cancelled.append)
    stage.database.answers["worker_heartbeat"] = [(1, "quiet")]
    stage.database.answers["heartbeat_reply"] = [
        ([7], ["mail"], "then", int(NotifyMode.POLL), True, [], [], [], [], [])
    ]
    async with stage.running():
        await stage.until(lambda: len(stage.others.told) == 2)
    assert (cancelled, stage.asked) == ([[7]], ["quiet"])
    assert stage.others.told == [(["mail"], "then"), (int(NotifyMode.POLL), True)]
    assert (stage.lease.locked, stage.pulse.error, stage.loop.stall()) == (True, None, None)


@pytest.mark.parametrize("topic", [Topic("cancel"), Topic("workers"), MISSED, None])
async def test_it_beats_at_once_when_there_is_something_to_hear(stage: Stage, topic: Topic | None) -> None:
    async with stage.running():
        await stage.until(lambda: stage.times("heartbeat_reply") == 1)
        stage.loop.wake(Topic("insert", "mail"))
        assert not stage.loop._at_once.is_set()
        stage.loop.wake(topic)
        await stage.until(lambda: stage.times("heartbeat_reply") == 2)


async def test_a_statement_that_fails_costs_neither_connection_nor_lock(stage: Stage) -> None:
    stage.database.answers["worker_heartbeat"] = psycopg.errors.LockNotAvailable("locked")
    async with stage.running():
        await stage.until(lambda: stage.times("worker_heartbeat") >= 3)
        assert (stage.database.made, stage.lease.locked, stage.pulse.error) == (["heartbeats"], True, "locked")
        stage.database.answers["worker_heartbeat"] = [(1, None)]
        await stage.until(lambda: stage.times("heartbeat_reply") == 1)
    assert (stage.database.made, stage.loop.stall()) == (["heartbeats"], None)
    assert stage.times("worker_lock") == 1


async def test_a_lost_connection_is_replaced_and_its_lock_taken_again(stage: Stage) -> None:
    async with stage.running():
        await stage.until(lambda: stage.times("heartbeat_reply") == 1)
        stage.database.answers["worker_heartbeat"] = psycopg.OperationalError("the server is gone")
        stage.loop.wake()
        await stage.until(lambda: stage.pulse.error is not None)
        stage.database.answers["worker_heartbeat"] = [(1, None)]
        await stage.until(lambda: stage.times("heartbeat_reply") == 2)
    assert len(stage.database.made) >= 2
    assert stage.times("worker_lock") == len(stage.database.made)


async def test_a_lost_lease_ends_what_runs_before_a_new_life_begins(stage: Stage) -> None:
    before, killed = stage.lease.worker, []

    def kill_all(reason: str) -> None:
        killed.append((reason, stage.lease.worker))
        stage.pool.free()
        stage.pool.changed.set()

    stage.pool.kill_all = kill_all  # type: ignore[method-assign]
    stage.pool.held = 3
    async with stage.running():
        await stage.until(lambda: stage.times("heartbeat_reply") == 1)
        # Its row is gone, until there is another.
        stage.database.answers["worker_heartbeat"] = lambda _: [(1, None)] if stage.times("worker_register") else []
        stage.database.asked.clear()
        stage.others.told.clear()
        stage.loop.wake()
        await stage.until(lambda: stage.times("heartbeat_reply") == 1)
    assert killed == [("the lease is lost", before)]
    assert stage.others.told[:3] == ["the lease is lost", "forget", "resume"]
    assert stage.lease.worker != before


async def test_no_heartbeat_is_a_stall_with_its_reason(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.database.refuses = psycopg.OperationalError("connection refused")
    async with stage.running():
        await stage.until(lambda: stage.lease.error is not None)
        stage.lease.last_beat -= 10
        stalled = stage.loop.stall()
        assert stalled is not None
        assert (stalled.cause, stalled.since) == ("connection refused", stage.lease.last_beat + 1.5)
        # The server says itself that it is there for no client, rescuers included.
        assert stage.lease.refused
        stage.database.refuses = None
        await stage.until(lambda: stage.times("heartbeat_reply") == 1)
    assert stage.loop.stall() is None
