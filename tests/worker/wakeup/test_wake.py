"""The notify modes against a real server: no job waits because a wake-up is missing, whatever dies or stays open."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from jobq._worker.wakeup.policy import NotifyMode
from tests.apps import plain as apps
from tests.support.jobs import Jobs
from tests.support.servers.pgbouncer import PgBouncer
from tests.support.servers.roles import logins
from tests.support.waiting import wait_until
from tests.support.workers import WorkerProcess

StartWorker = Callable[..., WorkerProcess]
# So that what is found is not found by the poll that stands behind everything.
PATIENT = ("--poll-interval", "60")


def mode(jobs: Jobs) -> NotifyMode:
    return NotifyMode(jobs.one("SELECT last_value FROM jobq.notify_mode"))


def wait_for(jobs: Jobs, wanted: NotifyMode, timeout: float = 30) -> None:
    wait_until(lambda: mode(jobs) is wanted, timeout=timeout, what=f"the mode {wanted.name}")


LEAD_POLLERS = (
    "SELECT substring(application_name FROM '[0-9]+')::integer AS pid FROM pg_locks JOIN pg_stat_activity USING (pid) "
    "WHERE locktype = 'advisory' AND objsubid = 2 AND granted AND classid = 1785684593 "
    "AND objid = 'jobq.notify_mode'::regclass AND pg_stat_activity.datname = current_database()"
)


def lead_pollers(jobs: Jobs) -> list[int]:
    return [row["pid"] for row in jobs.all(LEAD_POLLERS)]


def working(running: WorkerProcess) -> WorkerProcess:
    wait_until(lambda: "working" in running.log, what="the worker")
    return running


@contextmanager
def load(url: str, rate: float = 400.0) -> Iterator[list[int]]:
    """Enqueue about so many jobs a second, each in a transaction of its own, until the end; yield their ids as they come."""
    ids: list[int] = []
    stop = threading.Event()

    def produce() -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            begun = time.monotonic()
            while not stop.wait(max(0.0, begun + len(ids) / rate - time.monotonic())):
                ids.append(apps.noop.enqueue(connection).id)

    thread = threading.Thread(target=produce)
    thread.start()
    try:
        yield ids
    finally:
        stop.set()
        thread.join(30)


def all_ended(jobs: Jobs, ids: list[int], timeout: float = 60) -> None:
    count = "SELECT count(*) FROM jobq.job_history WHERE id = ANY(%s) AND state = 'succeeded'"
    wait_until(lambda: jobs.one(count, ids) == len(ids), timeout=timeout, what=f"the ends of {len(ids)} jobs")


def started_after(jobs: Jobs, job: int, begin: str) -> float:
    """Seconds from `begin`, a time of the server's, to the start of a job of `record`'s."""
    return float(
        jobs.one("SELECT extract(epoch FROM min(at) - %s::timestamptz)::float8 FROM ran WHERE job = %s", begin, job)
    )


def now(connection: psycopg.Connection[Any]) -> str:
    row = connection.execute("SELECT clock_timestamp()::text").fetchone()
    assert row is not None
    return str(row[0] if isinstance(row, tuple) else row["clock_timestamp"])


# --- The trigger -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read", "serializable"])
def test_an_insert_goes_by_the_mode_as_it_is_now(database_url: str, isolation: str) -> None:
    """Whatever the age of its snapshot."""
    with (
        psycopg.connect(database_url, autocommit=True) as other,
        psycopg.connect(database_url) as producer,
    ):
        other.execute("LISTEN jobq")
        for wanted, heard in ((NotifyMode.POLL, 0), (NotifyMode.DRAINING, 1), (NotifyMode.NOTIFY, 1)):
            producer.execute(f"SET TRANSACTION ISOLATION LEVEL {isolation}".encode())
            producer.execute("SELECT count(*) FROM jobq.queue")
            other.execute("SELECT setval('jobq.notify_mode', %s)", (wanted,))
            producer.execute("INSERT INTO jobq.job (task) VALUES ('a'), ('b')")
            producer.commit()
            assert [n.payload for n in other.notifies(timeout=0.1)] == ["insert default"] * heard


@pytest.mark.parametrize("wanted", [NotifyMode.NOTIFY, NotifyMode.POLL])
def test_producers_need_no_privilege_beyond_insert(jobs: Jobs, database_url: str, wanted: NotifyMode) -> None:
    jobs.connection.execute("SELECT setval('jobq.notify_mode', %s)", (wanted,))
    with logins(database_url) as login:
        with psycopg.connect(login("producer"), autocommit=True) as producer:
            producer.execute("INSERT INTO jobq.job (task) VALUES ('t')")
            apps.noop.enqueue(producer)
        by_hand = login(None)
        user = psycopg.conninfo.conninfo_to_dict(by_hand)["user"]
        jobs.connection.execute(f"GRANT USAGE ON SCHEMA jobq TO {user}; GRANT INSERT ON jobq.job TO {user}".encode())
        with psycopg.connect(by_hand, autocommit=True) as producer:
            producer.execute("INSERT INTO jobq.job (task) VALUES ('t')")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                producer.execute("SELECT setval('jobq.notify_mode', 1)")
    assert jobs.one("SELECT count(*) FROM jobq.job") == 3


# --- What the protocol rests on ----------------------------------------------------------------------------------------


def test_a_snapshot_s_xmax_is_no_mark_and_an_id_of_one_s_own_is(database_url: str) -> None:
    """Two transactions run; the older one ends. The younger one is above the xmax that was read before."""
    horizon = (
        b"SELECT pg_snapshot_xmin(now_)::text::bigint, pg_snapshot_xmax(now_)::text::bigint "
        b"FROM pg_current_snapshot() AS now_"
    )
    own_id = b"SELECT pg_current_xact_id()::text::bigint"

    def ask(connection: psycopg.Connection[Any], query: bytes) -> Any:
        return connection.execute(query).fetchone()

    with (
        psycopg.connect(database_url) as older,
        psycopg.connect(database_url) as younger,
        psycopg.connect(database_url, autocommit=True) as watcher,
    ):
        ask(older, own_id)
        ask(younger, own_id)
        _, xmax = ask(watcher, horizon)
        older.commit()
        xmin, _ = ask(watcher, horizon)
        assert xmin > xmax, "xmin has passed it, and the younger one still runs"
        (mark,) = ask(watcher, own_id)
        assert ask(watcher, horizon)[0] < mark
        younger.commit()
        assert ask(watcher, horizon)[0] > mark


# --- A whole worker ----------------------------------------------------------------------------------------------------


def test_a_load_starts_polling_and_its_end_notifications(jobs: Jobs, database_url: str, worker: StartWorker) -> None:
    running = working(worker(*PATIENT))
    assert lead_pollers(jobs) == []
    with load(database_url) as ids:
        wait_for(jobs, NotifyMode.POLL)
        assert lead_pollers(jobs) == [running.pid]
        # And the silent ones are found.
        silent = len(ids)
        wait_until(lambda: len(ids) > silent + 200, what="200 jobs more")
    all_ended(jobs, ids)
    wait_for(jobs, NotifyMode.NOTIFY)
    wait_until(lambda: lead_pollers(jobs) == [], what="the lead poller's end")
    job = apps.record.enqueue(jobs.connection, "x").id
    jobs.wait(job, timeout=10)


def test_a_transaction_that_stays_open_over_the_switch_is_not_missed(
    jobs: Jobs, database_url: str, worker: StartWorker
) -> None:
    """It has read POLL, commits long after, and nothing notifies: the lead poller waits for it."""
    running = working(worker(*PATIENT))
    with psycopg.connect(database_url) as slow:
        with load(database_url) as ids:
            wait_for(jobs, NotifyMode.POLL)
            job = apps.record.options(queue="never-heard-of").enqueue(slow, "late").id
        all_ended(jobs, ids)
        wait_for(jobs, NotifyMode.DRAINING)
        # It goes on looking, ever more seldom.
        wait_until(lambda: "waiting for transactions that began" in running.log, what="the notice")
        assert mode(jobs) is NotifyMode.DRAINING
        committed = now(slow)
        slow.commit()
    jobs.wait(job, timeout=10)
    assert started_after(jobs, job, committed) < 5
    wait_for(jobs, NotifyMode.NOTIFY)

    assert running.log.count("waiting for transactions that began") == 1


@pytest.mark.parametrize("wanted", [NotifyMode.POLL, NotifyMode.DRAINING])
def test_a_lead_poller_that_is_killed_is_replaced(
    jobs: Jobs, database_url: str, worker: StartWorker, wanted: NotifyMode
) -> None:
    first = working(worker(*PATIENT))
    with psycopg.connect(database_url) as slow:
        with load(database_url) as ids:
            wait_for(jobs, NotifyMode.POLL)
            assert lead_pollers(jobs) == [first.pid]
            other = working(worker(*PATIENT))
            job = apps.record.enqueue(slow, "late").id
            if wanted is NotifyMode.POLL:
                first.kill()
        if wanted is NotifyMode.DRAINING:
            wait_for(jobs, NotifyMode.DRAINING)
            first.kill()
        # Two heartbeats are four seconds.
        wait_until(lambda: lead_pollers(jobs) == [other.pid], timeout=15, what="another lead poller")
        committed = now(slow)
        slow.commit()
    jobs.wait(job)
    assert started_after(jobs, job, committed) < 5
    all_ended(jobs, ids)
    wait_for(jobs, NotifyMode.NOTIFY)
    assert "no worker was the lead poller" in other.log


def test_a_lead_poller_that_is_frozen_loses_its_place(jobs: Jobs, database_url: str, worker: StartWorker) -> None:
    first = working(worker(*PATIENT))
    with load(database_url) as ids:
        wait_for(jobs, NotifyMode.POLL)
        other = working(worker(*PATIENT))
        first.process.send_signal(signal.SIGSTOP)
        try:
            wait_until(lambda: lead_pollers(jobs) == [other.pid], timeout=30, what="another lead poller")
        finally:
            first.process.send_signal(signal.SIGCONT)
    all_ended(jobs, ids)
    wait_for(jobs, NotifyMode.NOTIFY)
    assert first.is_running()


def test_the_mode_poll_without_workers_is_found_by_the_next(jobs: Jobs, worker: StartWorker) -> None:
    running = working(worker(*PATIENT))
    jobs.connection.execute("SELECT setval('jobq.notify_mode', %s)", (NotifyMode.POLL,))
    # No worker can see it in any other way than by a heartbeat.
    job = apps.record.enqueue(jobs.connection, "x").id
    jobs.wait(job, timeout=15)
    wait_for(jobs, NotifyMode.NOTIFY)
    assert running.is_running()


def test_who_leaves_hands_over(jobs: Jobs, database_url: str, worker: StartWorker) -> None:
    first = working(worker(*PATIENT))
    with load(database_url) as ids:
        wait_for(jobs, NotifyMode.POLL)
        other = working(worker(*PATIENT, "--heartbeat-interval", "20", "--suspicion", "25"))
        first.terminate()
        assert first.wait() == 0
        # It was told so: no heartbeat of its own has shown it.
        wait_until(lambda: lead_pollers(jobs) == [other.pid], timeout=10, what="another lead poller")
    all_ended(jobs, ids)
    wait_for(jobs, NotifyMode.NOTIFY)


def test_three_workers_and_a_load_that_flaps(jobs: Jobs, database_url: str, worker: StartWorker) -> None:
    several = [working(worker(*PATIENT, "--processes", "1")) for _ in range(3)]
    every: list[int] = []
    for seconds in (1.0, 0.3, 3.0):
        with load(database_url, 500) as ids:
            enough = len(ids) + 250
            wait_until(lambda ids=ids, enough=enough: len(ids) >= enough, what="250 jobs")  # type: ignore[misc]
            assert len(lead_pollers(jobs)) <= 1
        every += ids
        # A pause on either side of what it takes to return to NOTIFY.
        threading.Event().wait(seconds)
    all_ended(jobs, every)
    wait_for(jobs, NotifyMode.NOTIFY)
    assert jobs.one("SELECT count(*) - count(DISTINCT id) FROM jobq.job_history") == 0
    assert all(running.is_running() for running in several)


def test_jobs_that_the_lead_poller_does_not_serve_are_called_to(
    jobs: Jobs, database_url: str, worker: StartWorker
) -> None:
    poller = working(worker(*PATIENT, "--queues", "default"))
    with load(database_url):
        wait_for(jobs, NotifyMode.POLL)
        assert lead_pollers(jobs) == [poller.pid]
        working(worker(*PATIENT, "--queues", "far"))
        for n in range(3):
            job = apps.record.options(queue="far").enqueue(jobs.connection, str(n)).id
            jobs.wait(job, timeout=10)


def test_a_silent_job_for_later_starts_at_its_time(jobs: Jobs, database_url: str, worker: StartWorker) -> None:
    """Whether that comes while the mode is still POLL, or when it is NOTIFY again and no worker was told of it."""
    working(worker(*PATIENT))
    with load(database_url):
        wait_for(jobs, NotifyMode.POLL)
        soon = apps.record.options(delay=0.5).enqueue(jobs.connection, "soon").id
        late = apps.record.options(delay=8).enqueue(jobs.connection, "late").id
        due = {job: jobs.one("SELECT run_at::text FROM jobq.job WHERE id = %s", job) for job in (soon, late)}
        jobs.wait(soon, timeout=10)
    wait_for(jobs, NotifyMode.NOTIFY)
    jobs.wait(late, timeout=20)
    for job, at in due.items():
        assert 0 <= started_after(jobs, job, at) < 3


def test_the_operator_sees_it(jobs: Jobs, database_url: str, worker: StartWorker) -> None:
    def doctor() -> str:
        command = [sys.executable, "-m", "jobq", "doctor", "--json"]
        done = subprocess.run(
            command, env={**os.environ, "JOBQ_DATABASE_URL": database_url}, capture_output=True, text=True, check=False
        )
        return str(next(check for check in json.loads(done.stdout)["checks"] if check["check"] == "wake")["message"])

    assert doctor() == "notify: inserts notify the workers"
    jobs.connection.execute("SELECT setval('jobq.notify_mode', %s)", (NotifyMode.POLL,))
    assert "no worker looks for them" in doctor()
    running = working(worker(*PATIENT))
    with load(database_url):
        wait_until(lambda: lead_pollers(jobs), what="the lead poller")
        assert f"process {running.pid} of " in doctor()


@pytest.mark.needs("pgbouncer")
def test_through_a_pooler_nobody_becomes_lead_poller(jobs: Jobs, database_url: str, worker: StartWorker) -> None:
    """Nor does anybody's lock stay with the pooler's session; the poll finds what is silent."""
    pooler = PgBouncer(database_url)
    try:
        jobs.connection.execute("SELECT setval('jobq.notify_mode', %s)", (NotifyMode.POLL,))
        running = working(worker(database_url=pooler.url, env={"TRACES_URL": database_url}))
        for n in range(3):
            jobs.wait(apps.record.enqueue(jobs.connection, str(n)).id, timeout=20)
        assert lead_pollers(jobs) == []
        assert mode(jobs) is NotifyMode.POLL
        assert running.is_running()
    finally:
        running.close()
        pooler.close()
