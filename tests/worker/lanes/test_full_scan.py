"""When all lanes are read from their beginnings, and where, without a database."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from jobq._worker.database import Connection, Database
from jobq._worker.lanes import full_scan as module
from jobq._worker.lanes.cursor import Cursor
from jobq._worker.lanes.full_scan import COSTLY, EVERY, SHARE, SLICE, FullScan
from jobq._worker.lanes.lanes import Lanes
from jobq.settings import Settings


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Refusing(Database):
    async def connect(self, *_: Any, **__: Any) -> Connection:
        raise psycopg.OperationalError("too many clients")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def lanes() -> Lanes:
    return Lanes(None)


@pytest.fixture
def survey(clock: Clock, lanes: Lanes) -> FullScan:
    database = Refusing(Settings(database_url="postgresql://nowhere"))
    return FullScan(database, "jobq", Cursor(), lanes, lambda: None, clock=clock)


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> list[float]:
    """Has as many lanes as the first number says, and takes the second in seconds for each slice of them."""
    state = [0.0, 0.001]

    async def fetch(_: Any, __: str, name: str, /, **parameters: Any) -> list[tuple[Any, ...]]:
        assert name == "lanes"
        clock.now += state[1]
        queue = parameters["queue"]
        first = int(queue) + 1 if queue else 0
        return [(f"{n:06}", 5, 1, n, 3600.0) for n in range(first, min(int(state[0]), first + parameters["most"]))]

    monkeypatch.setattr(module, "fetch", fetch)
    return state


async def test_a_costly_reading_is_made_less_often(survey: FullScan, database: list[float], clock: Clock) -> None:
    await survey.read(None)  # type: ignore[arg-type]
    assert survey.due_at == clock.now + EVERY
    assert survey.took <= COSTLY
    database[1] = 1.0
    await survey.read(None)  # type: ignore[arg-type]
    # One may have waited for a lock.
    assert survey.took <= COSTLY
    await survey.read(None)  # type: ignore[arg-type]
    assert survey.took > COSTLY
    assert survey.due_at == clock.now + SHARE


async def test_told_of_a_job_and_finding_none_hastens_it(survey: FullScan, database: list[float], clock: Clock) -> None:
    await survey.read(None)  # type: ignore[arg-type]
    survey.hasten()
    assert survey.due_at == clock.now + 1.0
    survey.told_of_many()
    assert survey.due_at == clock.now + 0.1


async def test_many_lanes_are_read_elsewhere_and_nothing_is_due_meanwhile(
    survey: FullScan, database: list[float], clock: Clock
) -> None:
    """It would be due at once, and as long as that lasts."""
    database[0] = SLICE + 1
    await survey.read(None)  # type: ignore[arg-type]
    assert survey.slices == 1
    survey.hasten()
    assert survey.due_at == float("inf")
    assert survey._task is not None
    # No connection is to be had. What was asked for meanwhile is done after all.
    await survey._task
    assert survey.due_at <= clock.now + 1.0


async def test_one_that_fails_at_once_does_not_make_readings_cheap(
    survey: FullScan, database: list[float], clock: Clock
) -> None:
    """Else the next is made on the connection of the claims, which are held up by it."""
    survey.took = 3.0
    await survey.read(None)  # type: ignore[arg-type]
    assert survey._task is not None
    await survey._task
    assert survey.slices == 0
    assert survey.took == 3.0
    assert survey.costly
