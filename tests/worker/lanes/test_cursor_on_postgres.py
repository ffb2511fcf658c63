"""The cursor of claims on a real database: nothing that is committed stays unseen, whatever order it comes in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from uuid import uuid4

import psycopg
import pytest

from jobq._postgres.sql import statement
from jobq._worker.database import Connection, Database
from jobq._worker.lanes.cursor import ClaimPlan, Cursor
from jobq._worker.lanes.full_scan import FullScan
from jobq._worker.lanes.lanes import Lanes
from jobq._worker.outcomes.store import JobStore
from jobq.settings import Settings
from tests.apps import plain as apps
from tests.support.jobs import Jobs
from tests.support.workers import WorkerProcess

QUEUES = ["default"] * 10
PRIORITIES = list(range(9, -1, -1))
OTHERS = 3_000


class Claims:
    """Claims as a worker does, one at a time, and never reads from the beginning by itself."""

    def __init__(self, connection: Connection) -> None:
        self.cursor = Cursor()
        self._connection = connection
        self._ledger = JobStore("jobq")
        self._worker = uuid4()

    async def read(self) -> None:
        """Read all lanes from their beginnings."""
        survey = FullScan(Database(Settings()), "jobq", self.cursor, Lanes(None), lambda: None)
        await survey.read(self._connection)

    async def claim(self, want: int = 100) -> list[int]:
        scan: ClaimPlan = self.cursor.plan(QUEUES, PRIORITIES)
        claimed, _ = await self._ledger.advance(self._connection, self._worker, [], scan, want)
        assert claimed.sight is not None
        self.cursor.read(scan, claimed.sight)
        jobs, _ = claimed.jobs()
        return [job.id for job in jobs]


@pytest.fixture
def database(database_url: str) -> Database:
    return Database(Settings(database_url=database_url))


@pytest.fixture
async def claims(database: Database) -> AsyncIterator[Claims]:
    async with await database.connect("test") as connection:
        claims = Claims(connection)
        assert await claims.claim() == []
        yield claims


def insert_into_the_past(jobs: Jobs) -> int:
    job: int = jobs.one("INSERT INTO jobq.job (task, run_at) VALUES ('noop', now() - interval '1 day') RETURNING id")
    return job


async def claim_all(claims: Claims) -> list[int]:
    """Claim until the backlog is gone and the interval of near readings has passed."""
    found: list[int] = []
    while batch := await claims.claim():
        found += batch
    return found


async def test_a_job_whose_insert_was_held_open_is_found(database_url: str, jobs: Jobs, claims: Claims) -> None:
    """While it was, thousands that came later were claimed: more than a claim would walk over each time."""
    with psycopg.connect(database_url) as slow:
        held = apps.noop.enqueue(slow).id
        for _ in range(3):
            jobs.connection.execute(
                "INSERT INTO jobq.job (task) SELECT 'noop' FROM generate_series(1, %s)", (OTHERS // 3,)
            )
            assert len(await claim_all(claims)) == OTHERS // 3
        slow.commit()
    async with asyncio.timeout(5):
        while not (found := await claims.claim()):
            pass
    assert found == [held]


async def test_a_job_whose_insert_was_held_open_is_found_though_nobody_else_wrote(
    database_url: str, jobs: Jobs, claims: Claims
) -> None:
    with psycopg.connect(database_url) as slow:
        held = apps.noop.enqueue(slow).id
        jobs.connection.execute("SELECT pg_sleep(0.3)")
        assert await claims.claim() == []
        assert await claims.claim() == []
        slow.commit()
    assert await claims.claim() == [held]


async def test_a_transaction_that_began_long_before_its_insert_hides_nothing(
    database_url: str, jobs: Jobs, claims: Claims
) -> None:
    """Neither the column's default nor enqueue() takes the time of the transaction's begin."""
    with psycopg.connect(database_url) as old:
        old.execute("SELECT pg_sleep(0.3)")
        apps.noop.enqueue(jobs.connection)
        assert len(await claims.claim()) == 1
        by_enqueue = apps.noop.enqueue(old).id
        old.execute("INSERT INTO jobq.job (task) VALUES ('noop')")
        past = apps.noop.options(delay=0).enqueue(old).id
        old.commit()
    assert sorted(await claim_all(claims)) == [by_enqueue, by_enqueue + 1, past]


async def test_jobs_that_are_put_back_keep_their_places_and_workers_are_told(jobs: Jobs, claims: Claims) -> None:
    back = [apps.noop.enqueue(jobs.connection).id for _ in range(3)]
    assert sorted(await claims.claim()) == back
    jobs.connection.execute("SELECT pg_sleep(0.2)")
    later = apps.noop.enqueue(jobs.connection).id
    assert await claims.claim() == [later]
    jobs.connection.execute("UPDATE jobq.job SET started_at = now() - interval '1 h' WHERE id = ANY(%s)", (back,))
    jobs.connection.execute("LISTEN jobq")
    jobs.connection.execute(statement("release_orphans", "jobq").query, {"channel": "jobq", "only": None})
    [told] = jobs.connection.notifies(timeout=5, stop_after=1)
    word, run_at, queue = told.payload.split(" ")
    assert (word, queue) == ("below", "default")
    # Not before it is told: a claim begins where the last one ended.
    assert await claims.claim() == []
    claims.cursor.lower(queue, int(run_at))
    # First in line, before what came after them.
    apps.noop.enqueue(jobs.connection)
    assert sorted(await claims.claim(3)) == back


async def test_what_the_cursor_cannot_know_is_found_by_a_full_reading(jobs: Jobs, claims: Claims) -> None:
    jobs.connection.execute("SELECT pg_sleep(0.2)")
    apps.noop.enqueue(jobs.connection)
    assert len(await claims.claim()) == 1
    past = insert_into_the_past(jobs)
    assert await claims.claim() == []
    await claims.read()
    assert await claims.claim() == [past]


async def test_a_survey_finds_it_too(jobs: Jobs, claims: Claims, database: Database) -> None:
    found = asyncio.Event()
    survey = FullScan(database, "jobq", claims.cursor, Lanes(None), found.set)
    # As after one that took long: it is made on a connection of its own.
    survey.took = 1.0
    jobs.connection.execute("SELECT pg_sleep(0.2)")
    assert await claims.claim() == []
    past = insert_into_the_past(jobs)
    assert await claims.claim() == []
    await survey.read(claims._connection)
    async with asyncio.timeout(10):
        await found.wait()
    assert await claims.claim() == [past]
    await survey.close()


async def test_a_job_that_is_locked_is_claimed_once_its_lock_is_gone(
    database_url: str, jobs: Jobs, claims: Claims
) -> None:
    job = apps.noop.enqueue(jobs.connection).id
    with psycopg.connect(database_url) as locker:
        locker.execute("SELECT FROM jobq.job FOR UPDATE")
        assert await claims.claim() == []
        jobs.connection.execute("SELECT pg_sleep(0.3)")
        assert await claims.claim() == []
        locker.rollback()
    # Nothing tells that it was there: it is what full readings are for.
    await claims.read()
    assert await claims.claim() == [job]


def test_a_worker_finds_a_plain_insert_into_the_past(jobs: Jobs, worker: Callable[..., WorkerProcess]) -> None:
    """It is told, finds nothing where it looks, and looks everywhere: no wait for the next full reading."""
    worker("--poll-interval", "600")
    for _ in range(3):
        jobs.wait(apps.noop.enqueue(jobs.connection).id)
        past = insert_into_the_past(jobs)
        assert jobs.wait(past, timeout=8)["state"] == "succeeded"
