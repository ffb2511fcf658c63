"""Faults on purpose: what is killed, frozen or cut off, no job is lost, and none runs twice at the same time."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import psycopg

from jobq import migrate
from tests.apps import plain as apps
from tests.support.jobs import Jobs
from tests.support.servers import postgres
from tests.support.waiting import wait_until
from tests.support.workers import WorkerProcess

StartWorker = Callable[..., WorkerProcess]


def finished(jobs: Jobs) -> int:
    return int(jobs.one("SELECT count(*) FROM jobq.job_history"))


def wait_for_ends(jobs: Jobs, share: int) -> None:
    wait_until(lambda: finished(jobs) >= share, timeout=60, what=f"{share} ends")


def test_kill_9_in_the_middle_of_2000_jobs(jobs: Jobs, worker: StartWorker, record_property: Any) -> None:
    ids = [ref.id for ref in apps.q.enqueue_many(jobs.connection, [apps.record.job(str(n)) for n in range(2000)])]
    kills = 0
    for share in (300, 900, 1500):
        victim = worker()
        wait_for_ends(jobs, share)
        victim.kill()
        kills += 1
    last = worker()
    wait_until(lambda: finished(jobs) == 2000, timeout=90, what="every end")
    assert {row["id"] for row in jobs.all("SELECT id FROM jobq.job_history WHERE state = 'succeeded'")} == set(ids)
    assert jobs.one("SELECT count(*) FROM jobq.job") == 0
    repeats = jobs.one("SELECT count(*) - count(DISTINCT job) FROM ran")
    record_property("repeats", repeats)
    print(f"{kills} kills, 2,000 jobs, {repeats} repeats")
    # Only what a killed worker had claimed can run again.
    assert repeats <= jobs.one("SELECT sum(claims) - count(*) FROM jobq.job_history")
    last.terminate()
    assert last.wait() == 0


def test_a_killed_worker_is_rescued_from_by_another(jobs: Jobs, worker: StartWorker) -> None:
    job = apps.wait.enqueue(jobs.connection, 600.0, "x").id
    victim = worker()
    wait_until(lambda: jobs.traces(job), what="the first start")
    rescuer = worker()
    wait_until(lambda: "working" in rescuer.log, what="the second worker")
    victim.kill()
    wait_until(lambda: jobs.traces(job) == ["start x"] * 2, what="the second start")
    row = jobs.live(job)
    assert row is not None
    assert (row["state"], row["attempt"], row["crashes"], row["claims"]) == ("running", 1, 1, 2)
    (attempt,) = jobs.attempts(job)
    assert (attempt["outcome"], attempt["error_type"]) == ("crashed", "WorkerDied")
    assert jobs.one("SELECT count(*) FROM jobq.worker") == 1


def test_jobs_whose_workers_died_are_no_suspects(jobs: Jobs, worker: StartWorker) -> None:
    """After two deaths they run side by side as before: it is not known whether they had anything to do with it."""
    times = ("--suspicion", "1.5", "--heartbeat-interval", "0.4", "--lease", "4")
    held = [apps.wait.enqueue(jobs.connection, 600.0, str(n)).id for n in range(6)]
    for round_ in range(3):
        victim = worker(*times, "--processes", "1")
        wait_until(lambda seen=6 * (round_ + 1): jobs.one("SELECT count(*) FROM ran") == seen, what="every start")  # type: ignore[misc]
        victim.kill()
    rows = [jobs.live(job) for job in held]
    assert {(row["crashes"], row["worker_deaths"], row["attempt"]) for row in rows if row} == {(2, 2, 1)}


def test_what_a_stopping_worker_puts_back_is_heard_of(jobs: Jobs, worker: StartWorker) -> None:
    job = apps.wait.enqueue(jobs.connection, 600.0, "x").id
    seldom = ("--poll-interval", "600", "--processes", "1")
    first = worker(*seldom, "--shutdown-timeout", "0")
    wait_until(lambda: jobs.traces(job), what="the first start")
    second = worker(*seldom)
    wait_until(lambda: "working" in second.log, what="the second worker")
    first.terminate()
    assert first.wait() == 0
    wait_until(lambda: len(jobs.traces(job)) == 2, timeout=15, what="the second start")


def test_a_frozen_worker_neither_overlaps_nor_writes(jobs: Jobs, worker: StartWorker) -> None:
    """SIGSTOP of the dispatcher alone: its runner must end by itself, and its claim must be void when it wakes."""
    times = ("--lease", "3", "--suspicion", "2", "--heartbeat-interval", "0.5")
    both = [worker(*times), worker(*times)]
    wait_until(lambda: all("working" in one.log for one in both), timeout=60, what="both workers")
    job = apps.stubborn.enqueue(jobs.connection, 8.0).id
    wait_until(lambda: jobs.traces(job), what="the first start")
    holder = jobs.one(
        "SELECT worker.pid FROM jobq.job JOIN jobq.worker ON worker.id = job.worker_id WHERE job.id = %s", job
    )
    frozen, other = sorted(both, key=lambda one: one.pid != holder)
    os.kill(frozen.pid, signal.SIGSTOP)
    try:
        wait_until(lambda: jobs.traces(job).count("start") == 2, timeout=30, what="the second start")
        # The first execution was cut off before the second began: it never gets to its end.
        assert jobs.traces(job) == ["start", "start"]
    finally:
        os.kill(frozen.pid, signal.SIGCONT)
    ended = jobs.wait(job, timeout=60)
    assert ended["state"] == "succeeded"
    assert jobs.traces(job) == ["start", "start", "end"]
    wait_until(lambda: "the lease is lost" in frozen.log, what="the notice")
    # And it goes on under a new identity.
    other.terminate()
    other.wait()
    assert jobs.wait(apps.record.enqueue(jobs.connection, "after").id)["state"] == "succeeded"


def test_a_runner_that_ends_with_its_lease_blames_nobody(jobs: Jobs, worker: StartWorker) -> None:
    """The dispatcher was held up for long, and no worker took it for dead: its job runs again, and no crash is counted."""
    job = apps.wait.enqueue(jobs.connection, 600.0, "x").id
    frozen = worker("--lease", "3", "--suspicion", "2", "--heartbeat-interval", "0.5", "--processes", "1")
    wait_until(lambda: jobs.traces(job), what="the first start")
    os.kill(frozen.pid, signal.SIGSTOP)
    try:
        wait_until(lambda: "the dispatcher's lease has run out" in frozen.log, what="the runner's end")
    finally:
        os.kill(frozen.pid, signal.SIGCONT)
    wait_until(lambda: len(jobs.traces(job)) == 2, what="the second start")
    row = jobs.live(job)
    assert row is not None
    assert (row["attempt"], row["crashes"], row["claims"]) == (1, 0, 2)
    assert [row["outcome"] for row in jobs.attempts(job)] == ["released"]


def test_connections_cut_under_load(jobs: Jobs, worker: StartWorker) -> None:
    """pg_terminate_backend on every connection of the worker, again and again: nothing is lost, nothing ends twice."""
    running = worker()
    wait_until(lambda: "working" in running.log, what="the worker")
    apps.q.enqueue_many(jobs.connection, [apps.noop.job() for _ in range(5000)])
    for share in range(500, 5000, 750):
        wait_for_ends(jobs, share)
        jobs.all(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name LIKE 'jobq worker%%' AND datname = current_database()"
        )
    wait_until(lambda: finished(jobs) >= 5000, timeout=60, what="every end")
    assert jobs.one("SELECT count(DISTINCT id) FROM jobq.job_history WHERE state = 'succeeded'") == 5000
    assert finished(jobs) == 5000
    assert jobs.one("SELECT count(*) FROM jobq.job") == 0
    assert running.is_running()


def test_postgres_killed_and_restarted(own_server: postgres.OwnServer, worker: StartWorker) -> None:
    url = own_server.url
    migrate.upgrade(url)
    jobs = Jobs(url)
    apps.create_traces(jobs.connection)
    apps.q.enqueue_many(jobs.connection, [apps.noop.job() for _ in range(3000)])
    running = worker(database_url=url)
    wait_until(lambda: finished(jobs) >= 500, timeout=60, what="500 ends")
    own_server.kill()
    jobs.close()
    wait_until(lambda: "does not answer" in running.log or "no heartbeat" in running.log, what="the notice")
    own_server.restart()
    again = Jobs(url)
    wait_until(lambda: finished(again) == 3000, timeout=60, what="every end")
    assert again.one("SELECT count(*) FROM jobq.job") == 0
    assert again.one("SELECT max(crashes) FROM jobq.job_history") == 0
    assert running.is_running()
    again.close()


def test_the_worker_dies_with_its_runners(jobs: Jobs, worker: StartWorker) -> None:
    job = apps.stubborn.enqueue(jobs.connection, 60.0).id
    victim = worker()
    wait_until(lambda: jobs.traces(job), what="the start")
    children = runners_of(victim.pid)
    assert children
    victim.kill()
    wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in children), what="the end of the runners")


def runners_of(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children") as listing:
        return [int(child) for child in listing.read().split()]


def test_an_insert_that_commits_late_is_claimed(database_url: str, jobs: Jobs, worker: StartWorker) -> None:
    """Neither ids nor run_at come in the order of commits."""
    with psycopg.connect(database_url) as slow:
        late = apps.record.enqueue(slow, "late").id
        running = worker()
        early = [apps.record.enqueue(jobs.connection, str(n)).id for n in range(50)]
        for job in early:
            jobs.wait(job)
        slow.commit()
    assert jobs.wait(late)["state"] == "succeeded"
    assert running.is_running()


def test_workers_share_without_doing_anything_twice(jobs: Jobs, worker: StartWorker) -> None:
    workers = [worker() for _ in range(3)]
    apps.q.enqueue_many(jobs.connection, [apps.record.job(str(n)) for n in range(1500)])
    wait_until(lambda: finished(jobs) == 1500, timeout=90, what="every end")
    assert jobs.one("SELECT count(*) FROM ran") == 1500
    assert jobs.one("SELECT count(DISTINCT job) FROM ran") == 1500
    for running in workers:
        running.terminate()
    assert {running.wait() for running in workers} == {0}
    assert jobs.one("SELECT count(*) FROM jobq.worker") == 0
