"""The dispatcher's loops: what all of them have in common, and what becomes of a worker when one fails."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from functools import partial

import psycopg
import pytest

from jobq._worker.database_errors import PartFailed
from jobq._worker.dispatcher import Dispatcher
from jobq._worker.health.probes import Health
from jobq._worker.health.stalls import Stall
from jobq._worker.loops import MISSED, Loops, Topic
from jobq._worker.options import WorkerOptions
from jobq.settings import Settings

NAMES = ["claims", "heartbeats", "maintenance", "notifications", "poller", "runners", "schedules", "workflows"]


@pytest.fixture
async def dispatcher() -> Dispatcher:
    options = WorkerOptions(app="-", settings=Settings(database_url="postgresql://nowhere"))
    return Dispatcher(options, "test")


class Recorder:
    """A loop that notes what wakes it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.heard: list[Topic | None] = []

    async def run(self) -> None:
        await asyncio.Event().wait()

    def wake(self, topic: Topic | None = None) -> None:
        self.heard.append(topic)

    def stall(self) -> Stall | None:
        return None

    async def close(self) -> None:
        pass


async def test_each_has_a_name_of_its_own(dispatcher: Dispatcher) -> None:
    assert sorted(loop.name for loop in dispatcher.loops) == NAMES
    with pytest.raises(ValueError, match="'claims'"):
        dispatcher.loops.add(Recorder("claims"))


async def test_each_is_reported_when_it_stalls(dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the log, and by the health address."""
    for loop in dispatcher.loops:
        stalled = Stall(f"{loop.name} cannot go on", time.monotonic() - 60)
        monkeypatch.setattr(loop, "stall", lambda stalled=stalled: stalled)
    dispatcher.watch()
    dispatcher.stalls.look()
    assert {name: dispatcher.stalls.current[name] for name in NAMES} == {name: f"{name} cannot go on" for name in NAMES}
    vitals = dispatcher.vitals
    answer = Health(vitals, None, lambda: dispatcher.observe(vitals)).answer("/readyz")
    assert json.loads(answer.body)["stalls"].items() >= {name: f"{name} cannot go on" for name in NAMES}.items()


async def test_each_can_be_closed_twice(dispatcher: Dispatcher) -> None:
    for loop in dispatcher.loops:
        await loop.close()
        await loop.close()


async def test_one_that_cannot_be_closed_keeps_none_of_the_others_open(
    dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    closed: list[str] = []

    async def closes(name: str) -> None:
        closed.append(name)
        if name == "heartbeats":
            raise OSError("a fault of ours")

    for loop in dispatcher.loops:
        monkeypatch.setattr(loop, "close", partial(closes, loop.name))
    with caplog.at_level(logging.ERROR, "jobq.worker"):
        await dispatcher.loops.close()
    assert sorted(closed) == NAMES
    [record] = caplog.records
    assert record.exc_info is not None
    assert (record.__dict__["part"], str(record.exc_info[1])) == ("heartbeats", "a fault of ours")


async def test_the_runners_are_ended_although_a_loop_cannot_be_closed(
    dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even by a cancellation, which `Loops.close` lets through."""
    ended: list[str] = []

    async def cannot() -> None:
        raise asyncio.CancelledError

    async def nothing(*_: object) -> None:
        return

    async def end_runners() -> None:
        ended.append("runners")

    monkeypatch.setattr(dispatcher._maintenance, "first", nothing)
    monkeypatch.setattr(dispatcher._pool, "start", nothing)
    monkeypatch.setattr(dispatcher._heartbeat, "scout", nothing)
    monkeypatch.setattr(dispatcher, "_work", nothing)
    monkeypatch.setattr(dispatcher.loops, "close", cannot)
    monkeypatch.setattr(dispatcher._shutdown, "close_pool", end_runners)
    with pytest.raises(asyncio.CancelledError):
        await dispatcher.run()
    assert ended == ["runners"]


@pytest.mark.parametrize("name", NAMES)
async def test_one_that_raises_ends_the_worker(
    dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """None is started again: half a worker is worse than none, and the service manager starts a whole one."""
    left: list[str] = []

    async def nothing() -> None:
        return

    async def leave() -> None:
        left.append("left")

    async def for_ever() -> None:
        await asyncio.Event().wait()

    async def fails() -> None:
        raise RuntimeError("a fault of ours")

    async def refused() -> None:
        raise psycopg.errors.DivisionByZero("a fault of ours")

    monkeypatch.setattr(dispatcher, "_prepare", nothing)
    monkeypatch.setattr(dispatcher._shutdown, "leave", leave)
    for loop in dispatcher.loops:
        monkeypatch.setattr(loop, "run", fails if loop.name == name else for_ever)
    async with asyncio.timeout(10):
        with caplog.at_level(logging.CRITICAL, "jobq.worker"), pytest.raises(RuntimeError, match="a fault of ours"):
            await dispatcher._work()
    assert [(record.message, record.__dict__["part"]) for record in caplog.records] == [
        ("a part of the worker failed", name)
    ]
    for loop in dispatcher.loops:
        monkeypatch.setattr(loop, "run", refused if loop.name == name else for_ever)
    async with asyncio.timeout(10):
        with pytest.raises(PartFailed, match=f"^{name}: a fault of ours"):
            await dispatcher._work()
    assert left == ["left", "left"]


def test_what_a_notification_is_about() -> None:
    assert Topic.of("insert mail") == ("insert", "mail")
    assert Topic.of("insert a queue") == ("insert", "a queue")
    assert Topic.of("cancel") == ("cancel", "")
    assert Topic.of("") == MISSED
    assert Topic.of("below 12 a queue").place == ("a queue", 12)
    assert Topic.of("below -12 mail").place == ("mail", -12)
    for malformed in ("below", "below mail", "below 1e3 mail", "below 9999999999999999999 mail", "insert 12 mail"):
        assert Topic.of(malformed).place is None


def test_a_notification_reaches_every_loop_in_their_order() -> None:
    loops, first, second = Loops(), Recorder("first"), Recorder("second")
    loops.add(first, second)
    loops.notified("due mail")
    loops.notified("")
    assert first.heard == second.heard == [("due", "mail"), MISSED]
    assert [loop.name for loop in loops] == ["first", "second"]


async def test_which_loop_has_ended() -> None:
    class Short(Recorder):
        async def run(self) -> None:
            return

    loops = Loops()
    loops.add(Short("short"), Recorder("long"))
    loops.start()
    async with asyncio.timeout(10):
        await loops.first_end()
    assert loops.has_ended("short")
    assert not loops.has_ended("long")
    assert loops.others_end("long")
    assert not loops.others_end("short")
    assert loops.failure() is None
    await loops.cancel()
    assert not loops.has_ended("long")
