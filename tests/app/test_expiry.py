"""Jobs that no worker claims in time end as expired, whatever keeps them from being claimed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from jobq._worker.database import Database
from jobq._worker.maintenance import tasks as module
from jobq._worker.maintenance.runner import Maintenance
from jobq._worker.options import WorkerOptions
from jobq._worker.timeouts import MAINTENANCE
from jobq.job import KeyHolds
from jobq.settings import Settings
from tests.apps import plain as apps
from tests.support.checks import some
from tests.support.jobs import Jobs
from tests.support.rows import add_job
from tests.support.waiting import wait_until
from tests.support.workers import WorkerProcess

Conn = psycopg.Connection[Any]
HOLDS: tuple[KeyHolds, ...] = ("until_started", "until_finished", "period")
PAST = "now() - interval '1 min'"
CARRIED = ("claims", "attempt", "crashes", "queue", "task", "run_at", "created_at", "args", "group_key")
FUTURE = "now() + interval '1 h'"


@pytest.fixture
def maintenance(database_url: str) -> Maintenance:
    return Maintenance(WorkerOptions(app="-", settings=Settings(database_url=database_url)))


async def expire(maintenance: Maintenance, database_url: str) -> str:
    connection = await Database(Settings(database_url=database_url)).connect("maintenance", MAINTENANCE)
    async with connection, connection.transaction():
        return await maintenance.tasks.expire_jobs(connection)


def is_often(maintenance: Maintenance) -> bool:
    """Ask again: a type checker takes an attribute for what it was."""
    return maintenance.often


def queue(db: Conn, expires: str | None, **columns: Any) -> int:
    """Insert a job that expires at that SQL expression."""
    job = add_job(db, **columns)
    if expires is not None:
        db.execute(f"UPDATE jobq.job SET expires_at = {expires} WHERE id = %s".encode(), (job,))
    return job


async def test_whatever_is_not_running_and_too_late_expires(
    jobs: Jobs, db: Conn, maintenance: Maintenance, database_url: str
) -> None:
    late = {
        queue(db, PAST),
        queue(db, PAST, run_in=3600),
        queue(db, PAST, queue="paused"),
        queue(db, PAST, state="parked"),
        queue(db, PAST, state="waiting", group_key="g"),
        queue(db, "'1970-01-01 00:00+00'"),
        # Waits for its retry: a claim would not run it either.
        queue(db, PAST, attempt=3, claims=3, crashes=1, args=Jsonb({"x": 1})),
    }
    jobs.connection.execute("INSERT INTO jobq.queue (name, paused_at) VALUES ('paused', now())")
    kept = {
        queue(db, None),
        queue(db, FUTURE),
        queue(db, "'9998-12-31 00:00+00'"),
        queue(db, PAST, state="running", worker_id="00000000-0000-0000-0000-000000000001", claims=1, attempt=1),
    }
    before = {row["id"]: row for row in jobs.all("SELECT " + ", ".join(CARRIED) + ", id FROM jobq.job")}
    assert await expire(maintenance, database_url) == "7 jobs expired"
    assert {row["id"] for row in jobs.all("SELECT id FROM jobq.job")} == kept
    gone = jobs.all("SELECT * FROM jobq.job_history")
    assert {row["id"] for row in gone} == late
    for row in some(gone):
        assert (row["state"], row["error"], row["result"], row["worker_id"]) == ("expired", "expired", None, None)
        assert jobs.one("SELECT %s BETWEEN now() - interval '1 min' AND clock_timestamp()", row["finished_at"])
        for name in CARRIED:
            assert row[name] == before[row["id"]][name]
    assert await expire(maintenance, database_url) == "0 jobs expired"


async def test_the_keys_of_an_expired_job_are_let_go(jobs: Jobs, maintenance: Maintenance, database_url: str) -> None:
    """Those that hold for a period go on holding, as with every other end."""
    for holds in HOLDS:
        task = apps.noop.options(key=holds, key_holds=holds)
        task.enqueue(jobs.connection)
        assert not task.enqueue(jobs.connection).created
    other = apps.noop.options(key="other", key_holds="until_finished").enqueue(jobs.connection).id
    jobs.connection.execute(f"UPDATE jobq.job SET expires_at = {PAST} WHERE id <> %s".encode(), (other,))
    assert await expire(maintenance, database_url) == "3 jobs expired"
    assert {row["key"] for row in jobs.all("SELECT key FROM jobq.job_key")} == {"period", "other"}
    for holds in HOLDS:
        again = apps.noop.options(key=holds, key_holds=holds).enqueue(jobs.connection)
        assert again.created == (holds != "period")


async def test_who_holds_a_job_is_not_waited_for(
    jobs: Jobs, db: Conn, maintenance: Maintenance, database_url: str
) -> None:
    held, free = queue(db, PAST), queue(db, PAST)
    with psycopg.connect(database_url) as holder:
        holder.execute("SELECT id FROM jobq.job WHERE id = %s FOR UPDATE", (held,))
        assert await expire(maintenance, database_url) == "1 jobs expired"
        assert jobs.finished(free)
        assert jobs.live(held)
        # He has made it run for longer.
        holder.execute(f"UPDATE jobq.job SET expires_at = {FUTURE} WHERE id = %s".encode(), (held,))
        holder.commit()
    assert await expire(maintenance, database_url) == "0 jobs expired"
    assert jobs.live(held)


async def test_many_go_in_batches(
    jobs: Jobs, maintenance: Maintenance, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At most so many a time; equal times across the border of a batch, and a locked job in the middle, hide nothing."""
    monkeypatch.setattr(module, "EXPIRED_BATCH", 10)
    monkeypatch.setattr(module, "EXPIRED_BATCHES", 3)
    jobs.connection.execute(
        "INSERT INTO jobq.job (task, expires_at) SELECT 't', now() - (n / 15) * interval '1 s' FROM generate_series(1, 50) AS n"
    )
    with psycopg.connect(database_url) as holder:
        holder.execute("SELECT id FROM jobq.job WHERE id = (SELECT min(id) + 20 FROM jobq.job) FOR UPDATE")
        found = [await expire(maintenance, database_url) for _ in range(3)]
    assert found == ["30 jobs expired", "19 jobs expired", "0 jobs expired"]
    assert await expire(maintenance, database_url) == "1 jobs expired"
    assert jobs.one("SELECT count(*) FROM jobq.job_history WHERE state = 'expired'") == 50


def test_a_worker_does_it_by_itself(jobs: Jobs, db: Conn, worker: Callable[..., WorkerProcess]) -> None:
    """Of a queue that no worker serves."""
    job = queue(db, "clock_timestamp() + interval '10 s'", task="noop")
    running = worker("--queues", "other")
    wait_until(lambda: "working" in running.log, what="the worker")
    assert jobs.live(job)
    assert jobs.wait(job, timeout=60)["state"] == "expired"
    assert jobs.one("SELECT last_error FROM jobq.maintenance_task WHERE name = 'expiry'") is None


async def test_it_is_looked_for_often_only_where_something_will_expire(
    jobs: Jobs, db: Conn, maintenance: Maintenance, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EXPIRED_BATCH", 2)
    monkeypatch.setattr(module, "EXPIRED_BATCHES", 1)
    assert not is_often(maintenance)
    for _ in range(3):
        queue(db, PAST)
    queue(db, None)
    assert await expire(maintenance, database_url) == "2 jobs expired"
    assert is_often(maintenance)
    assert await expire(maintenance, database_url) == "1 jobs expired"
    assert not is_often(maintenance)
    waiting = queue(db, FUTURE)
    assert await expire(maintenance, database_url) == "0 jobs expired"
    assert is_often(maintenance)
    jobs.connection.execute("DELETE FROM jobq.job WHERE id = %s", (waiting,))
    assert await expire(maintenance, database_url) == "0 jobs expired"
    assert not is_often(maintenance)
