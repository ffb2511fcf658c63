"""The claim loop on a database that is none: what wakes it, what it asks for, and what a failure costs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import psycopg
import pytest

from jobq._worker.claiming.loop import ClaimLoop
from jobq._worker.health.state import LoopHealth
from jobq._worker.ipc.messages import Disposition, Failure, Success
from jobq._worker.lease import Lease
from jobq._worker.loops import MISSED, Topic
from jobq._worker.options import WorkerOptions
from jobq._worker.wakeup.state import WakeupState
from jobq.settings import Settings
from tests.support.claim_loops import Slots, running
from tests.support.fake_database import FakeDatabase, Rows

AT = "1000000 5 5 2"
"""What a claim saw: the time, the oldest transaction, the next one, and how many are running."""


class Stage:
    """One claim loop, and a database that has the jobs of `ready`, all due in the queue ``default``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
        self.options = WorkerOptions(
            app="-", settings=Settings(database_url="postgresql://nowhere"), poll_interval=60, **options
        )
        self.ready: list[int] = []
        self.acknowledged: list[str] = []
        self.database = FakeDatabase(
            monkeypatch,
            {
                "ack_and_claim": self._advance,
                "claim_parked": [],
                "is_drained": [(True,)],
                "jobs_of_worker": [],
                "lanes": self._lanes,
                "next_due": [],
                "parked_due": [],
                "parked_known": [(False,)],
                "queue_rules": [],
                "record_failures": lambda _: [(1, True, "default", None)],
            },
        )
        self.pool = Slots(self.options)
        self.wakeups = WakeupState()
        self.wakeups.connected = True
        self.lease = Lease(self.options, "test")
        self.pulse = LoopHealth("claims")
        self.loop = ClaimLoop(
            self.options, self.pool, self.lease, self.pulse, database=self.database, wakeups=self.wakeups
        )

    def _lanes(self, _: Sequence[Any]) -> Rows:
        return [("default", 5, 1, self.ready[0], 0.0)] if self.ready else []

    def _advance(self, values: Sequence[Any]) -> Rows:
        ids = next(value for value in values if isinstance(value, str) and value.startswith("{"))
        accepted = [part for part in ids.strip("{}").split(",") if part]
        self.acknowledged += accepted
        want = next(value for value in values if isinstance(value, int))
        claimed, self.ready[:] = self.ready[:want], self.ready[want:]
        jobs = [(id_, 1, "noop", "default", "{}", 1, 3, 0, None, "{}", False, None, False, False, 0) for id_ in claimed]
        end = f" 0 1 {claimed[-1]}" if claimed and self.ready else ""
        return [(len(accepted), None, AT + end, f"0 {len(jobs)}" if jobs else ""), *jobs]

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not holds():  # noqa: ASYNC110
                await asyncio.sleep(0.001)

    async def asleep(self) -> None:
        """Until the loop sleeps."""
        await self.until(lambda: self.loop.finder.sleeping)

    def succeed(self) -> None:
        """The job that was given last has ended."""
        job = self.pool.given[-1]
        self.pool.free()
        self.loop.outcomes.succeeded([Success(job.id, job.claims, job.started, b"null", 0.01)])


@pytest.fixture
async def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(monkeypatch)


@pytest.mark.parametrize("topic", [Topic("insert", "default"), Topic("due", "default"), Topic("many"), MISSED])
async def test_a_notification_makes_it_claim(stage: Stage, topic: Topic) -> None:
    async with running(stage.loop):
        await stage.asleep()
        stage.ready.append(10)
        stage.loop.wake(topic)
        await stage.until(lambda: [job.id for job in stage.pool.given] == [10])
    assert stage.pulse.error is None


@pytest.mark.parametrize("kind", ["cancel", "workers", "schedules", "wake"])
async def test_what_concerns_other_loops_does_not_wake_it(stage: Stage, kind: str) -> None:
    stage.loop._woken.clear()
    stage.loop.wake(Topic(kind, "default"))
    assert not stage.loop._woken.is_set()
    assert not stage.loop.finder.told


async def test_the_lead_poller_is_not_called_by_its_own_notification(stage: Stage) -> None:
    """It has called its own loop sooner, and knows whether that has room."""
    stage.wakeups.leading = True
    stage.loop.wake(Topic("due", "default"))
    assert not stage.loop.finder.told
    stage.loop.wake(Topic("insert", "default"))
    assert stage.loop.finder.told


async def test_an_acknowledgement_and_the_next_claim_are_one_statement(stage: Stage) -> None:
    stage.ready += [10, 11]
    async with running(stage.loop):
        stage.loop.wake(Topic("insert", "default"))
        await stage.until(lambda: [job.id for job in stage.pool.given] == [10])
        await stage.asleep()
        before = stage.database.asked.count("ack_and_claim")
        stage.succeed()
        await stage.until(lambda: [job.id for job in stage.pool.given] == [10, 11])
        assert stage.database.asked.count("ack_and_claim") == before + 1
    assert stage.acknowledged == ["10"]


@pytest.mark.parametrize("way", ["suspended", "paused"])
async def test_nothing_is_claimed_while_that_is_not_allowed(stage: Stage, way: str) -> None:
    gate = stage.loop.gate
    gate.suspend("no heartbeat") if way == "suspended" else gate.pause(True)
    async with running(stage.loop):
        await stage.asleep()
        stage.ready.append(10)
        stage.loop.wake(Topic("insert", "default"))
        await stage.until(lambda: not stage.loop._woken.is_set())
        await stage.asleep()
        assert "ack_and_claim" not in stage.database.asked
        gate.resume() if way == "suspended" else gate.pause(False)
        await stage.until(lambda: [job.id for job in stage.pool.given] == [10])


async def test_a_lost_connection_is_replaced_and_nothing_is_forgotten(stage: Stage) -> None:
    stage.ready += [10, 11]
    async with running(stage.loop):
        stage.loop.wake(Topic("insert", "default"))
        await stage.until(lambda: len(stage.pool.given) == 1)
        await stage.asleep()
        stage.database.answers["ack_and_claim"] = psycopg.OperationalError("the server is gone")
        stage.succeed()
        await stage.until(lambda: stage.pulse.error is not None)
        stalled = stage.loop.claimer.stall()
        assert stalled is not None
        assert stalled.cause == "1 outcomes wait: the server is gone"
        stage.database.answers["ack_and_claim"] = stage._advance
        await stage.until(lambda: [job.id for job in stage.pool.given] == [10, 11])
    assert stage.acknowledged == ["10"]
    assert stage.database.made.count("claims") >= 2
    assert stage.loop.claimer.stall() is None


async def test_without_a_connection_it_stalls_and_says_why(stage: Stage) -> None:
    stage.database.refuses = psycopg.OperationalError("connection refused")
    async with running(stage.loop):
        await stage.until(lambda: stage.pulse.error is not None)
        stalled = stage.loop.stall()
        assert stalled is not None
        assert stalled.cause == "connection refused"
        stage.database.refuses = None
        await stage.asleep()
        assert stage.loop.stall() is None
        assert stage.pulse.error is None


async def test_a_piece_that_fails_costs_the_others_nothing(stage: Stage) -> None:
    stage.database.answers["parked_known"] = psycopg.errors.InsufficientPrivilege("permission denied")
    stage.database.answers["queue_rules"] = psycopg.errors.LockNotAvailable("locked")
    stage.ready.append(10)
    async with running(stage.loop):
        stage.loop.wake(Topic("insert", "default"))
        await stage.until(lambda: [job.id for job in stage.pool.given] == [10])
    assert stage.database.made == ["claims"]


async def test_what_is_put_back_is_looked_for_again(stage: Stage) -> None:
    stage.ready.append(10)
    async with running(stage.loop):
        stage.loop.wake(Topic("insert", "default"))
        await stage.until(lambda: len(stage.pool.given) == 1)
        await stage.asleep()
        job = stage.pool.given[0]
        stage.ready.append(10)
        stage.pool.free()
        stage.loop.outcomes.set_back(Failure(job.id, job.claims, job.started, Disposition.RETRY))
        await stage.until(lambda: len(stage.pool.given) == 2)
    assert stage.database.asked.count("record_failures") == 1


async def test_it_ends_by_itself_when_it_drains(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, drain=True)
    async with asyncio.timeout(20):
        await stage.loop.run()
    assert stage.database.asked[-1] == "is_drained"
    await stage.loop.close()
    await stage.loop.close()
