"""A stall is told once when it has lasted, once when it is over; an identical warning is not repeated."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

import pytest

from jobq._worker.health import stalls
from jobq._worker.health.stalls import Beat, Looker, RateLimitedLog, Stall, StallDetector


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Set what time.monotonic() says."""
    now = [1000.0]
    monkeypatch.setattr("jobq._worker.health.stalls.time.monotonic", lambda: now[0])

    def advance(seconds: float) -> None:
        now[0] += seconds

    return advance


def test_told_once_when_it_has_lasted_and_once_when_over(
    clock: Callable[[float], None], caplog: pytest.LogCaptureFixture
) -> None:
    trouble: list[Stall | None] = [Stall("the disk is full")]
    watched = StallDetector({"claims": lambda: trouble[0]})
    with caplog.at_level(logging.INFO, "jobq.worker"):
        for _ in range(10):
            watched.look()
            clock(0.5)
        assert caplog.records == []
        assert watched.current == {}
        for _ in range(10):
            clock(0.5)
            watched.look()
        (record,) = caplog.records
        assert (record.__dict__["stalled"], record.__dict__["cause"]) == ("claims", "the disk is full")
        assert watched.current == {"claims": "the disk is full"}
        trouble[0] = None
        watched.look()
        assert [each.message for each in caplog.records] == ["stalled", "a stall is over"]
        assert caplog.records[1].__dict__["seconds"] == 10.0
        assert watched.current == {}


def test_a_short_one_is_not_told(clock: Callable[[float], None], caplog: pytest.LogCaptureFixture) -> None:
    trouble: list[Stall | None] = [Stall("a blink")]
    watched = StallDetector({"claims": lambda: trouble[0]})
    for _ in range(20):
        trouble[0] = Stall("a blink")
        watched.look()
        clock(4)
        trouble[0] = None
        watched.look()
    assert caplog.records == []


def test_the_beginning_that_is_known_counts(clock: Callable[[float], None], caplog: pytest.LogCaptureFixture) -> None:
    watched = StallDetector({"heartbeats": lambda: Stall("late", since=990.0)})
    watched.look()
    assert [record.__dict__["seconds"] for record in caplog.records] == [10.0]


def test_an_identical_warning_is_kept_back_and_counted(
    clock: Callable[[float], None], caplog: pytest.LogCaptureFixture
) -> None:
    repeats = RateLimitedLog()
    for port in range(100):
        assert repeats.warn("no heartbeat", OSError(f"refused by port {port}")) == f"refused by port {port}"
        clock(0.25)
    repeats.warn("no heartbeat", OSError("another reason"))
    assert len(caplog.records) == 2
    clock(stalls.AGAIN)
    repeats.warn("no heartbeat", OSError("refused by port 7"))
    assert caplog.records[-1].__dict__["not_logged"] == 99


async def test_a_loop_that_stands_still_is_told_while_it_does(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stalls, "AFTER", 0.2)
    watched = StallDetector({})
    told: list[str] = []
    with Looker(watched, every=0.02):
        await asyncio.sleep(0.1)
        assert watched.current == {}
        deadline = time.monotonic() + 20
        # The loop cannot do anything else, least of all look.
        while not watched.current and time.monotonic() < deadline:
            time.sleep(0.01)  # noqa: ASYNC251
        told += watched.current.values()
    assert "the event loop stands still for" in told[0]
    assert "test_a_loop_that_stands_still_is_told_while_it_does" in told[0]
    assert [record.message for record in caplog.records] == ["stalled"]
    assert caplog.records[0].__dict__["stalled"] == "event loop"


async def test_a_process_that_was_stopped_is_no_stall_of_its_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    beat = Beat()
    assert beat.trouble() is None
    now = time.monotonic()
    monkeypatch.setattr("jobq._worker.health.stalls.time.monotonic", lambda: now + 60)
    assert beat.trouble() is None
    monkeypatch.setattr("jobq._worker.health.stalls.time.monotonic", lambda: now + 61.5)
    assert beat.trouble() is not None


def test_many_short_waits_are_no_stall(clock: Callable[[float], None], caplog: pytest.LogCaptureFixture) -> None:
    """Each round trip of a loop that is never idle is looked at in its midst."""
    watched = StallDetector({"claims": lambda: Stall("a statement", since=time.monotonic() - 0.01)})
    for _ in range(40):
        watched.look()
        clock(0.5)
    assert caplog.records == []
