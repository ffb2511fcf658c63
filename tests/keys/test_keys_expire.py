"""Keys whose period is over: deleted by index, in short transactions, as fast as they come."""

from __future__ import annotations

import asyncio
import threading
import uuid
from typing import Any

import psycopg
import pytest

from jobq import JobQ
from jobq._worker.database import Connection, Database
from jobq._worker.maintenance import tasks as module
from jobq._worker.maintenance.runner import Maintenance
from jobq._worker.options import WorkerOptions
from jobq._worker.timeouts import MAINTENANCE
from jobq.settings import Settings
from tests.support.waiting import wait_until

Conn = psycopg.Connection[Any]


@pytest.fixture
def maintenance(database_url: str) -> Maintenance:
    return Maintenance(WorkerOptions(app="-", settings=Settings(database_url=database_url)))


async def connected(url: str) -> Connection:
    return await Database(Settings(database_url=url)).connect("maintenance", MAINTENANCE)


def expired(db: Conn, number: int) -> None:
    db.execute(
        "INSERT INTO jobq.job_key (key, job_id, holds, expires_at)"
        " SELECT 'old ' || n, n, 'period', now() - n * interval '1 ms' FROM generate_series(1, %s) AS n",
        [number],
    )


async def run(maintenance: Maintenance, url: str, share: float = 30.0) -> None:
    async with await connected(url) as connection:
        await maintenance.register(connection)
        await connection.execute(
            "UPDATE jobq.maintenance_task SET due_at = now() + interval '1 day' WHERE name <> 'keys'"
        )
        await connection.execute("UPDATE jobq.maintenance_task SET due_at = now() WHERE name = 'keys'")
        assert await maintenance.run_due(connection, uuid.uuid4(), share=share) == 1


async def test_more_than_came_in_five_minutes_go_at_once(db: Conn, maintenance: Maintenance, database_url: str) -> None:
    expired(db, 300_000)
    held = (
        "INSERT INTO jobq.job_key (key, job_id, holds, expires_at) VALUES ('k', 1, 'period', now() + interval '1 day')"
    )
    db.execute(held)
    await run(maintenance, database_url)
    assert db.execute("SELECT key FROM jobq.job_key").fetchall() == [("k",)]
    assert db.execute("SELECT last_report, last_error FROM jobq.maintenance_task WHERE name = 'keys'").fetchone() == (
        "300000 keys expired",
        None,
    )
    assert not maintenance.often


async def test_when_its_time_is_used_up_it_is_due_again_soon(
    db: Conn, maintenance: Maintenance, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEY_BATCH", 10)
    expired(db, 100)
    await run(maintenance, database_url, share=0.0)
    row = db.execute(
        "SELECT last_report, due_at < now() + interval '5 s' FROM jobq.maintenance_task WHERE name = 'keys'"
    ).fetchone()
    assert row == ("10 keys expired", True)
    assert maintenance.often
    await run(maintenance, database_url)
    assert db.execute("SELECT count(*) FROM jobq.job_key").fetchone() == (0,)
    assert not maintenance.often


async def test_an_insert_with_an_expired_key_waits_for_one_batch_only(
    db: Conn, maintenance: Maintenance, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The maintenance task is held up in its second batch: what the first deleted can be taken at once."""
    monkeypatch.setattr(module, "KEY_BATCH", 50)
    expired(db, 100)
    q = JobQ(database_url)

    @q.task
    def noop() -> None: ...

    db.execute(
        "CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN PERFORM pg_advisory_xact_lock(77); RETURN OLD; END'"
    )
    db.execute(
        "CREATE TRIGGER hold BEFORE DELETE ON jobq.job_key FOR EACH ROW WHEN (OLD.key = 'old 10') EXECUTE FUNCTION hold()"
    )
    db.execute("SELECT pg_advisory_lock(77)")
    task = asyncio.create_task(run(maintenance, database_url))
    try:
        await asyncio.to_thread(
            wait_until,
            lambda: db.execute("SELECT count(*) FROM jobq.job_key").fetchone() == (50,),
            what="the first batch",
        )
        taken: list[bool] = []

        def enqueue() -> None:
            with psycopg.connect(database_url, autocommit=True) as connection:
                taken.append(noop.options(key="old 90").enqueue(connection).created)

        thread = threading.Thread(target=enqueue)
        thread.start()
        wait_until(lambda: taken, what="the insert")
        thread.join()
        assert taken == [True]
        assert db.execute("SELECT last_report FROM jobq.maintenance_task WHERE name = 'keys'").fetchone() == (None,)
    finally:
        db.execute("SELECT pg_advisory_unlock(77)")
        await task


async def test_no_two_workers_do_it_at_a_time(db: Conn, maintenance: Maintenance, database_url: str) -> None:
    async with await connected(database_url) as connection:
        await maintenance.register(connection)
        await connection.execute(
            "UPDATE jobq.maintenance_task SET due_at = now() + interval '1 day' WHERE name <> 'keys'"
        )
        others: list[int] = []

        async def work(_: Any) -> str:
            async with await connected(database_url) as second:
                others.append(await Maintenance(maintenance_options(database_url)).run_due(second, uuid.uuid4()))
            return "done"

        maintenance_task = maintenance.by_name["keys"]
        maintenance.by_name["keys"] = module.MaintenanceTask(
            name="keys", every=maintenance_task.every, after_error=maintenance_task.after_error, work=work, alone=True
        )
        assert await maintenance.run_due(connection, uuid.uuid4()) == 1
    assert others == [0]


def maintenance_options(url: str) -> WorkerOptions:
    return WorkerOptions(app="-", settings=Settings(database_url=url))


async def test_a_key_that_is_over_goes_and_the_same_of_another_task_stays(
    db: Conn, maintenance: Maintenance, database_url: str
) -> None:
    db.execute(
        "INSERT INTO jobq.job_key (key, scope, job_id, holds, expires_at) "
        "VALUES ('k', 'a', 1, 'period', now() - interval '1 s'),"
        " ('k', 'b', 2, 'period', now() + interval '1 day'), ('k', '', 3, 'period', now() - interval '1 s')"
    )
    await run(maintenance, database_url)
    assert db.execute("SELECT scope, job_id FROM jobq.job_key").fetchall() == [("b", 2)]
