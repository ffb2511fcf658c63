"""The line that says how a worker is, and the verdict of the watch."""

from __future__ import annotations

import asyncio
import time

import pytest

from jobq._worker.health import watchdog
from jobq._worker.health.probes import readiness
from jobq._worker.health.state import WorkerHealth
from jobq._worker.health.watchdog import Watchdog
from jobq.settings import Settings
from tests.support.checks import some


@pytest.fixture
def vitals() -> WorkerHealth:
    """A worker in good health."""
    healthy = WorkerHealth()
    healthy.phase = "working"
    healthy.claims.well()
    healthy.heartbeats.well()
    healthy.listening(True)
    healthy.runners_ready = healthy.runners_wanted = 2
    healthy.slots, healthy.running = 32, 5
    return healthy


def test_good_health(vitals: WorkerHealth) -> None:
    assert list(vitals.troubles()) == []
    assert vitals.line() == "5 running in 32 slots, 0.0 jobs/s"
    assert all(check["ok"] for check in some(readiness(vitals).values()))


def test_the_rate_is_of_late(vitals: WorkerHealth) -> None:
    vitals._finished_at.clear()
    vitals._finished_at.append((time.monotonic() - 8, 100))
    vitals.finished = 500
    vitals.sample()
    assert 45 < vitals.rate <= 50
    vitals._finished_at[0] = (time.monotonic() - 11, 100)
    vitals.sample()
    assert vitals.rate == 0


def test_what_is_wrong_is_said_in_one_line(vitals: WorkerHealth) -> None:
    for pulse in (vitals.claims, vitals.heartbeats):
        pulse.failed(OSError("connection refused\n\tIs the server running?"))
        pulse.failing_since = time.monotonic() - 12
    vitals.held = "no heartbeat"
    vitals.runners_ready = 0
    line = vitals.line()
    assert "; the database does not answer for 12 s (connection refused Is the server running?)" in line
    assert "nothing is claimed: no heartbeat" in line
    assert "0 of 2 runners are ready" in line
    assert "\n" not in line
    assert {name for name, check in readiness(vitals).items() if not check["ok"]} == {
        "claims", "heartbeats", "runners", "claiming",
    }  # fmt: skip
    vitals.claims.well()
    assert "the heartbeats connection fails for 12 s" in vitals.line()


def test_silence_is_told_without_an_error(vitals: WorkerHealth) -> None:
    vitals.claims.answered = time.monotonic() - 15
    assert "the database has not answered a claim for 15 s" in vitals.line()
    assert not readiness(vitals)["claims"]["ok"]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "STUCK_AFTER", 0.2)
    monkeypatch.setattr(watchdog, "PROBE_EVERY", 0.05)


async def looked_at(watching: Watchdog, vitals: WorkerHealth, seconds: float) -> set[str | None]:
    """Look as often as a worker does in a long time; return the verdicts."""
    verdicts = set()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        watching.look()
        verdicts.add(vitals.stuck and "stuck")
        await asyncio.sleep(0.02)
    await watching.close()
    return verdicts


@pytest.mark.usefixtures("impatient")
async def test_a_loop_that_stands_still_beside_a_database_that_answers(vitals: WorkerHealth, database_url: str) -> None:
    watching = Watchdog(Settings(database_url=database_url, connect_timeout=0.1), vitals)
    vitals.claims.turned = time.monotonic() - 5
    until = time.monotonic() + 20
    while vitals.stuck is None and time.monotonic() < until:
        vitals.heartbeats.turn()
        watching.look()
        await asyncio.sleep(0.02)
    assert (vitals.stuck or "").startswith("a loop of the worker hangs though the database answers: claims for ")
    vitals.claims.turn()
    watching.look()
    assert vitals.stuck is None
    await watching.close()


@pytest.mark.usefixtures("impatient")
async def test_loops_that_stand_still_for_want_of_a_database(vitals: WorkerHealth) -> None:
    nowhere = Settings(database_url="postgresql://127.0.0.1:1/none", connect_timeout=0.1)
    vitals.claims.turned = vitals.heartbeats.turned = time.monotonic() - 500
    assert await looked_at(Watchdog(nowhere, vitals), vitals, 1.0) == {None}


@pytest.mark.usefixtures("impatient")
async def test_a_start_is_not_judged(database_url: str) -> None:
    vitals = WorkerHealth()
    vitals.claims.turned = time.monotonic() - 500
    watching = Watchdog(Settings(database_url=database_url, connect_timeout=0.1), vitals)
    assert await looked_at(watching, vitals, 0.5) == {None}
