"""What operators ask of a worker: to be quiet, to go on, to stop. Real workers, asked by a row as the page does it."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from jobq._worker.wakeup.policy import NotifyMode
from tests.apps import plain as apps
from tests.support.jobs import Jobs
from tests.support.waiting import wait_until
from tests.support.workers import WorkerProcess
from tests.worker.health.test_probes import Probe
from tests.worker.wakeup.test_wake import all_ended, lead_pollers, load, wait_for

StartWorker = Callable[..., WorkerProcess]
# So that a word is not heard by the next heartbeat, nor a job found by the next poll.
SELDOM = ("--poll-interval", "60")


def ask(jobs: Jobs, running: WorkerProcess, what: str | None, *, tell: bool = True) -> None:
    asked = jobs.all("UPDATE jobq.worker SET requested_state = %s WHERE pid = %s RETURNING id", what, running.pid)
    assert len(asked) == 1
    if tell:
        jobs.all("SELECT pg_notify('jobq', 'workers')")


def row(jobs: Jobs, running: WorkerProcess) -> dict[str, Any]:
    rows = jobs.all("SELECT * FROM jobq.worker WHERE pid = %s", running.pid)
    return rows[0] if rows else {}


def wait_state(jobs: Jobs, running: WorkerProcess, state: str) -> None:
    wait_until(lambda: row(jobs, running).get("state") == state, what=f"the state {state}")


def working(running: WorkerProcess) -> WorkerProcess:
    wait_until(lambda: "working" in running.log, what="the worker")
    return running


def quiet(jobs: Jobs, running: WorkerProcess) -> None:
    ask(jobs, running, "quiet")
    wait_state(jobs, running, "quiet")


def release(jobs: Jobs, job: int) -> None:
    """Let a job of apps.wait that runs come to its end."""
    jobs.all("UPDATE jobq.job SET cancel_requested_at = now() WHERE id = %s RETURNING id", job)
    jobs.all("SELECT pg_notify('jobq', 'cancel')")


@pytest.mark.parametrize("tell", [True, False])
def test_a_quiet_worker_ends_what_runs_and_starts_nothing_until_it_is_resumed(
    jobs: Jobs, worker: StartWorker, tell: bool
) -> None:
    long = apps.wait.enqueue(jobs.connection, 600.0, "long").id
    running = worker("--concurrency", "3", *SELDOM)
    wait_until(lambda: jobs.traces(long), what="the start of the job")
    ask(jobs, running, "quiet", tell=tell)
    wait_state(jobs, running, "quiet")
    waiting = [apps.record.enqueue(jobs.connection, f"n{n}").id for n in range(5)]
    # It goes on with the one, hears of its cancellation, and writes down how it ended.
    assert row(jobs, running)["running"] == 1
    release(jobs, long)
    assert jobs.wait(long)["state"] == "cancelled"
    beats = row(jobs, running)["beats"]
    wait_until(lambda: row(jobs, running)["beats"] > beats + 2, what="further heartbeats")
    assert {(job["state"], job["claims"]) for job in jobs.all("SELECT * FROM jobq.job")} == {("ready", 0)}
    ask(jobs, running, None, tell=tell)
    for job in waiting:
        assert (jobs.wait(job)["claims"], jobs.wait(job)["attempt"]) == (1, 1)
    wait_state(jobs, running, "running")
    running.terminate()
    assert running.wait() == 0


def test_another_takes_over_at_once_what_a_quiet_one_had_fetched_in_advance(
    jobs: Jobs, database_url: str, worker: StartWorker
) -> None:
    """In the middle of a rush, with hundreds prefetched: nothing is lost, run twice, or punished, and others are told."""
    ids = apps.q.enqueue_many(jobs.connection, [apps.noop.job() for _ in range(20_000)])
    first = worker(*SELDOM)
    wait_until(lambda: jobs.one("SELECT count(*) FROM jobq.job") < 19_000, what="the rush")
    with psycopg.connect(database_url, autocommit=True) as listener:
        listener.execute("LISTEN jobq")
        quiet(jobs, first)
        fetched = "SELECT count(*) FROM jobq.job WHERE state = 'running'"
        wait_until(lambda: jobs.one(fetched) == 0, what="what was fetched")
        # No job was inserted since.
        assert "insert default" in {told.payload for told in listener.notifies(timeout=5, stop_after=2)}
    left = jobs.all("SELECT id, state, attempt, crashes FROM jobq.job")
    assert left
    assert {(job["state"], job["attempt"], job["crashes"]) for job in left} == {("ready", 0, 0)}
    beats = row(jobs, first)["beats"]
    wait_until(lambda: row(jobs, first)["beats"] > beats + 1, what="further heartbeats")
    assert jobs.one("SELECT count(*) FROM jobq.job WHERE state = 'ready'") == len(left)
    worker(*SELDOM)
    count = "SELECT count(*) FROM jobq.job_history WHERE state = 'succeeded' AND attempt = 1"
    wait_until(lambda: jobs.one(count) == len(ids), timeout=60, what="the end of all")
    assert jobs.all("SELECT * FROM jobq.job_attempt") == []


@pytest.mark.essential
def test_a_stop_is_as_graceful_as_sigterm(jobs: Jobs, worker: StartWorker) -> None:
    job = apps.wait.enqueue(jobs.connection, 3.0, "to its end").id
    running = worker("--concurrency", "1", "--processes", "1")
    wait_until(lambda: jobs.traces(job), what="the start of the job")
    left = apps.record.enqueue(jobs.connection, "for others").id
    ask(jobs, running, "stop")
    wait_until(lambda: "as an operator has asked" in running.log, what="the word")
    # A service manager's word beside it hurries no one.
    running.terminate()
    assert running.wait() == 0
    assert jobs.wait(job)["state"] == "succeeded"
    assert "second signal" not in running.log
    waiting = jobs.live(left)
    assert waiting is not None
    assert (waiting["state"], waiting["attempt"]) == ("ready", 0)
    assert jobs.one("SELECT count(*) FROM jobq.worker") == 0


def test_a_quiet_worker_can_be_stopped(jobs: Jobs, worker: StartWorker) -> None:
    running = working(worker())
    quiet(jobs, running)
    ask(jobs, running, "stop")
    assert running.wait() == 0
    assert jobs.one("SELECT count(*) FROM jobq.worker") == 0


def test_a_quiet_worker_that_is_killed_is_rescued_from(jobs: Jobs, worker: StartWorker) -> None:
    times = ("--heartbeat-interval", "0.5", "--suspicion", "2")
    job = apps.wait.enqueue(jobs.connection, 600.0, "twice").id
    first = worker(*times)
    wait_until(lambda: jobs.traces(job), what="the first start")
    quiet(jobs, first)
    second = working(worker(*times))
    first.kill()
    wait_until(lambda: len(jobs.traces(job)) == 2, timeout=60, what="the second start")
    ended = jobs.live(job)
    assert ended is not None
    assert ended["worker_id"] == row(jobs, second)["id"]
    assert (ended["attempt"], ended["crashes"]) == (1, 1)
    assert row(jobs, first) == {}


def test_a_quiet_worker_that_loses_its_lease_begins_a_life_that_nobody_has_asked_anything_of(
    jobs: Jobs, worker: StartWorker
) -> None:
    times = ("--heartbeat-interval", "0.5", "--suspicion", "2")
    job = apps.wait.enqueue(jobs.connection, 600.0, "lost").id
    running = worker(*times)
    wait_until(lambda: jobs.traces(job), what="the start of the job")
    quiet(jobs, running)
    before = row(jobs, running)["id"]
    # As a rescue ends it: the row is gone, the job is ready again.
    with jobs.connection.transaction():
        jobs.all("DELETE FROM jobq.worker WHERE id = %s RETURNING id", before)
        jobs.all("UPDATE jobq.job SET state = 'ready', worker_id = NULL WHERE id = %s RETURNING id", job)
    wait_until(lambda: row(jobs, running).get("id", before) != before, timeout=60, what="the new life")
    wait_until(lambda: len(jobs.traces(job)) == 2, timeout=60, what="the second start")
    assert row(jobs, running)["requested_state"] is None
    # From the next heartbeat on.
    wait_until(lambda: row(jobs, running)["state"] == "running", what="the state in the row")


def test_a_quiet_worker_is_healthy(jobs: Jobs, worker: StartWorker, tmp_path: Path) -> None:
    """Also after longer than an answer of the database may be old."""
    probe = Probe(tmp_path)
    running = worker(*probe.option, *SELDOM)
    probe.wait_ready()
    quiet(jobs, running)
    wait_until(lambda: "quiet" in json.loads(probe.get("/readyz")[1])["summary"], what="the word in its state")
    until = time.monotonic() + 12

    def healthy_for_long() -> bool:
        assert probe.failing() == set()
        assert probe.get("/livez") == (200, "ok\n")
        return time.monotonic() > until

    wait_until(healthy_for_long, what="12 s of quiet")
    assert "quiet" in json.loads(probe.get("/readyz")[1])["checks"]["claiming"]["detail"]
    metrics = probe.metrics()
    assert (metrics["jobq_quiet",], metrics["jobq_claiming",]) == (1, 0)


def test_a_quiet_lead_poller_wakes_the_others(jobs: Jobs, database_url: str, worker: StartWorker) -> None:
    first = working(worker(*SELDOM))
    with load(database_url) as ids:
        wait_for(jobs, NotifyMode.POLL)
        wait_until(lambda: lead_pollers(jobs) == [first.pid], what="the lead poller")
        working(worker(*SELDOM))
        quiet(jobs, first)
        before = len(ids)
        wait_until(lambda: len(ids) > before + 400, what="a second of jobs")
        assert lead_pollers(jobs) == [first.pid]
        # While the mode is still POLL: by the other, which only the lead poller calls.
        all_ended(jobs, ids[: before + 400], timeout=10)
        assert jobs.one("SELECT last_value FROM jobq.notify_mode") == NotifyMode.POLL


def test_the_memory_of_a_worker_and_its_runners_is_told(jobs: Jobs, worker: StartWorker) -> None:
    running = working(worker("--processes", "2"))
    wait_until(lambda: row(jobs, running)["rss"], what="its memory")

    def resident(pid: int) -> int:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def runners() -> list[int]:
        return [int(pid) for pid in Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()]

    wait_until(lambda: len(runners()) == 2, what="both runners")
    beats = row(jobs, running)["beats"]
    wait_until(lambda: row(jobs, running)["beats"] > beats + 2, what="the next heartbeats")
    running.process.send_signal(signal.SIGSTOP)
    together = sum(map(resident, [running.pid, *runners()]))
    told = row(jobs, running)["rss"]
    running.process.send_signal(signal.SIGCONT)
    assert 0.8 * together < told < 1.25 * together
