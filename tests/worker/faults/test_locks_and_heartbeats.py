"""Locks and slow statements in the way of heartbeats: the connection, its advisory lock and the running jobs stay."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from jobq import queries
from tests.apps import plain as apps
from tests.support.jobs import Jobs
from tests.support.rows import add_worker
from tests.support.waiting import wait_until
from tests.support.workers import WorkerProcess

StartWorker = Callable[..., WorkerProcess]
# With these, a worker that took an error for a lost connection would kill its jobs after a second and a half.
TIMES = ("--heartbeat-interval", "0.5", "--suspicion", "2", "--lease", "30")
LEASE = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'jobq worker heartbeats'"


@contextmanager
def locked(url: str, table: str) -> Iterator[None]:
    with psycopg.connect(url) as holder:
        holder.execute(f"LOCK TABLE jobq.{table} IN ACCESS EXCLUSIVE MODE")
        yield


@contextmanager
def altered_behind_a_reader(url: str) -> Iterator[None]:
    """As a migration beside a dump: the ALTER TABLE waits for the reader, and everybody else for the ALTER TABLE."""
    with psycopg.connect(url) as reader, psycopg.connect(url, autocommit=True) as owner:
        reader.execute("SELECT count(*) FROM jobq.job")
        alter = threading.Thread(target=owner.execute, args=("ALTER TABLE jobq.job ADD COLUMN extra integer",))
        alter.start()
        yield
        reader.rollback()
        alter.join()
        owner.execute("ALTER TABLE jobq.job DROP COLUMN extra")


@contextmanager
def slow(url: str) -> Iterator[None]:
    """Each heartbeat runs into its connection's statement timeout."""
    with psycopg.connect(url, autocommit=True) as owner:
        owner.execute(
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN PERFORM pg_sleep(60); RETURN new; END$$"
        )
        owner.execute("CREATE TRIGGER slow BEFORE UPDATE ON jobq.worker FOR EACH ROW EXECUTE FUNCTION slow()")
        yield
        owner.execute("DROP TRIGGER slow ON jobq.worker")


@contextmanager
def refused(url: str) -> Iterator[None]:
    """Each heartbeat is refused."""
    with psycopg.connect(url, autocommit=True) as owner:
        owner.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'not today'; END$$"
        )
        owner.execute("CREATE TRIGGER refuse BEFORE UPDATE ON jobq.worker FOR EACH ROW EXECUTE FUNCTION refuse()")
        yield
        owner.execute("DROP TRIGGER refuse ON jobq.worker")


FAULTS: dict[str, Callable[[str], Any]] = {
    "job": lambda url: locked(url, "job"),
    "queue": lambda url: locked(url, "queue"),
    "worker": lambda url: locked(url, "worker"),
    "alter": altered_behind_a_reader,
    "slow": slow,
    "refused": refused,
}
HEARTBEATS_GO_ON = ("job", "queue", "alter")


@pytest.mark.parametrize("fault", FAULTS)
def test_what_keeps_heartbeats_from_something_costs_no_running_job(
    database_url: str, jobs: Jobs, worker: StartWorker, fault: str
) -> None:
    running = worker(*TIMES)
    refs = [apps.wait.enqueue(jobs.connection, 8.0).id for _ in range(3)]
    wait_until(lambda: jobs.one("SELECT count(*) FROM ran") == 3, what="the starts")
    before = [row["pid"] for row in jobs.all(LEASE)]
    wait_until(lambda: jobs.one("SELECT max(beats) FROM jobq.worker") > 0, what="a heartbeat")
    with FAULTS[fault](database_url), psycopg.connect(database_url, autocommit=True) as watcher:
        if fault in HEARTBEATS_GO_ON:
            beats = "SELECT beats FROM jobq.worker"
            first = watcher.execute(beats).fetchone() or (0,)
            wait_until(lambda: (watcher.execute(beats).fetchone() or (0,))[0] >= first[0] + 5, what="heartbeats")
        else:
            # For longer than a suspicion takes: that is the fault.
            watcher.execute("SELECT pg_sleep(3)")
    ended = [jobs.wait(job, timeout=60) for job in refs]
    assert [(row["state"], row["claims"]) for row in ended] == [("succeeded", 1)] * 3
    assert running.is_running()
    assert "killing the running jobs" not in running.log
    assert [row["pid"] for row in jobs.all(LEASE)] == before
    # What was in the way is gone, and heartbeats have come since.
    wait_until(
        lambda: jobs.one("SELECT heartbeat_at > now() - interval '5 s' FROM jobq.worker"), what="a heartbeat afterwards"
    )


def test_a_cancellation_is_heard_though_the_queues_cannot_be_read(
    database_url: str, jobs: Jobs, worker: StartWorker
) -> None:
    worker(*TIMES)
    job = apps.wait_async.enqueue(jobs.connection, 600.0).id
    wait_until(lambda: jobs.traces(job) == ["start"], what="the start")
    with locked(database_url, "queue"):
        jobs.connection.execute("UPDATE jobq.job SET cancel_requested_at = now()")
        wait_until(lambda: jobs.traces(job) == ["start", "cancelled"], what="the cancellation")
    assert jobs.wait(job)["state"] == "cancelled"


def test_the_row_tells_its_lease(jobs: Jobs, worker: StartWorker) -> None:
    worker("--heartbeat-interval", "0.5", "--suspicion", "2", "--lease", "77")
    wait_until(lambda: jobs.all("SELECT FROM jobq.worker"), what="the worker's row")
    assert jobs.one("SELECT lease FROM jobq.worker") == 77
    assert jobs.one("SELECT problems FROM jobq.worker") == []


def test_a_worker_is_silent_after_its_own_lease(db: psycopg.Connection[Any]) -> None:
    add_worker(db, ago=45, host="default")
    for lease in (120.0, 10.0):
        add_worker(db, lease=lease, ago=45, host=str(lease))
    assert {worker.host: worker.health for worker in queries.workers(db, "jobq")} == {
        "default": "silent",
        "120.0": "late",
        "10.0": "silent",
    }
