"""Locks that others hold, and rows that take long: they cost a try, and no other job's time."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

import psycopg
import pytest

from jobq.operations import queue_settings
from tests.apps import plain as apps
from tests.support.jobs import Jobs
from tests.support.waiting import hold, wait_until
from tests.support.workers import WorkerProcess

StartWorker = Callable[..., WorkerProcess]
Conn = psycopg.Connection[Any]


@contextmanager
def feed(url: str, queue: str = "plain") -> Iterator[None]:
    """Insert a job into `queue` every 20 ms."""
    stop = threading.Event()

    def run() -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            while not stop.wait(0.02):
                apps.noop.options(queue=queue).enqueue(connection)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def waits(jobs: Jobs, since: float, queue: str = "plain") -> list[float]:
    """Return the seconds that jobs have waited which were due since `since`; those that still wait have until now."""
    rows = jobs.all(
        "SELECT extract(epoch FROM started_at - run_at)::float8 AS waited FROM jobq.job_history"
        " WHERE queue = %s AND run_at > to_timestamp(%s)"
        " UNION ALL SELECT extract(epoch FROM clock_timestamp() - run_at)::float8 FROM jobq.job"
        " WHERE queue = %s AND run_at > to_timestamp(%s)",
        queue,
        since,
        queue,
        since,
    )
    return [row["waited"] for row in rows]


def working(running: WorkerProcess) -> None:
    wait_until(lambda: '"working"' in running.log, what="the worker")


@pytest.mark.parametrize("seconds", [2.5, 7.5])
def test_jobs_that_are_put_back_under_a_lock_start_soon_after_it(
    jobs: Jobs, db: Conn, worker: StartWorker, database_url: str, seconds: float
) -> None:
    """Their queue has no ready job when the lock ends, so it is in no lane: what puts them back has to remember it."""
    running = worker("--processes", "1")
    working(running)
    held = [apps.wait.enqueue(jobs.connection, 60.0).id for _ in range(3)]
    wait_until(
        lambda: jobs.one("SELECT count(*) FROM jobq.job WHERE state = 'running'") == 3, what="three running jobs"
    )
    # The lanes are read again now and then: from here on no queue has a ready job.
    wait_until(
        lambda: jobs.one("SELECT clock_timestamp() > max(started_at) + interval '5.5 seconds' FROM jobq.job"), what="it"
    )
    with psycopg.connect(database_url) as locker:
        locker.execute("LOCK TABLE jobq.job IN ACCESS EXCLUSIVE MODE")
        [runner] = _children(running.pid)
        os.kill(runner, signal.SIGKILL)
        hold(seconds)
        locker.rollback()
    wait_until(
        lambda: (
            jobs.one("SELECT count(*) FROM jobq.job WHERE state = 'running' AND id = ANY (%s) AND claims > 1", held)
            == 3
        ),
        timeout=3,
        what="them to run again",
    )


@contextmanager
def lock_waits(url: str) -> Iterator[set[tuple[int, datetime]]]:
    """Look all the while which statements of workers wait for a row; each is named by its process and its start."""
    stop = threading.Event()
    found: set[tuple[int, datetime]] = set()

    def look() -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            while not stop.wait(0.02):
                found.update(
                    connection.execute(
                        "SELECT pid, query_start FROM pg_stat_activity WHERE datname = current_database()"
                        " AND application_name LIKE 'jobq worker%' AND wait_event IN ('transactionid', 'tuple')"
                    ).fetchall()
                )

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield found
    finally:
        stop.set()
        thread.join()


def test_leaked_row_locks_are_waited_for_once(jobs: Jobs, db: Conn, worker: StartWorker, database_url: str) -> None:
    """Ten transactions are left open that have locked a running job's row: each costs one statement its lock timeout."""
    running = worker("--processes", "1")
    working(running)
    leaked = []
    with lock_waits(database_url) as waited:
        with feed(database_url):
            for _ in range(10):
                job = apps.wait.options(queue="leaky").enqueue(jobs.connection, 0.4).id
                holder = psycopg.connect(database_url)
                leaked.append(holder)
                wait_until(lambda job=job: jobs.live(job)["state"] == "running", what="the job to run")  # type: ignore[index, misc]
                holder.execute("SELECT FROM jobq.job WHERE id = %s FOR UPDATE", (job,))
        wait_until(
            lambda: jobs.one("SELECT count(*) FROM ran WHERE note LIKE 'end%%'") == 10, what="the ends of the ten"
        )
        # Each needs a statement of its own, which would wait again if it tried to end one of the ten.
        for _ in range(20):
            jobs.wait(apps.noop.enqueue(jobs.connection).id)
        assert jobs.one("SELECT count(*) FROM jobq.job WHERE queue = 'leaky'") == 10
    for holder in leaked:
        holder.close()
    assert 1 <= len(waited) <= 10
    wait_until(lambda: jobs.one("SELECT count(*) FROM jobq.job WHERE queue = 'leaky'") == 0, what="the outcomes")


def test_a_locked_key_keeps_back_its_own_job_only(jobs: Jobs, db: Conn, worker: StartWorker, database_url: str) -> None:
    running = worker("--processes", "1")
    working(running)
    keyed = apps.wait.options(key="one", key_holds="until_finished").enqueue(jobs.connection, 0.5).id
    with psycopg.connect(database_url) as holder:
        holder.execute("SELECT FROM jobq.job_key FOR UPDATE")
        wait_until(lambda: "locked by another transaction" in running.log, what="the worker to meet the lock")
        for _ in range(3):
            job = apps.noop.enqueue(jobs.connection).id
            assert jobs.wait(job, timeout=3)["state"] == "succeeded"
        assert jobs.live(keyed) is not None
    assert jobs.wait(keyed, timeout=10)["claims"] == 1


def test_acknowledgements_that_take_longer_than_a_statement_may(jobs: Jobs, db: Conn, worker: StartWorker) -> None:
    """Half a second a row: 24 rows in one statement take longer than its ten seconds."""
    db.execute(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.5); RETURN NEW; END $$"
    )
    db.execute(
        "CREATE TRIGGER slow BEFORE INSERT ON jobq.job_history FOR EACH ROW WHEN (NEW.queue = 'slow') EXECUTE FUNCTION slow()"
    )
    running = worker("--processes", "1", "--concurrency", "32")
    working(running)
    apps.q.enqueue_many(jobs.connection, [apps.wait.options(queue="slow").job(1.0) for _ in range(24)])
    wait_until(lambda: "outcomes are written apart" in running.log, timeout=30, what="the statement to time out")
    job = apps.noop.enqueue(jobs.connection).id
    assert jobs.wait(job, timeout=8)["claims"] == 1
    wait_until(
        lambda: jobs.one("SELECT count(*) FROM jobq.job_history WHERE queue = 'slow' AND claims = 1") == 24,
        timeout=40,
        what="all outcomes",
    )


def test_locked_queues_with_rules_do_not_keep_plain_jobs_waiting(
    jobs: Jobs, db: Conn, worker: StartWorker, database_url: str
) -> None:
    """A transaction has configured sixty queues and stays open."""
    names = [f"limited-{n}" for n in range(60)]
    for name in names:
        queue_settings.configure(db, "jobq", name, limit=10, actor="anna")
        apps.noop.options(queue=name).enqueue(db)
    running = worker("--processes", "1")
    working(running)
    wait_until(lambda: jobs.one("SELECT count(*) FROM jobq.job") == 0, what="the first jobs")
    with psycopg.connect(database_url) as holder:
        for name in names:
            queue_settings.configure(holder, "jobq", name, limit=11, actor="anna")
            apps.noop.options(queue=name).enqueue(db)
        with feed(database_url):
            since = time.time() + 1
            wait_until(lambda: len(waits(jobs, since)) > 100, what="plain jobs")
            found = waits(jobs, since)
        holder.rollback()
    assert median(found) < 0.5, median(found)
    wait_until(lambda: jobs.one("SELECT count(*) FROM jobq.job") == 0, what="the others")


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]
