"""A row that takes longer than a statement may: it costs its statement a few seconds, seldom, and other jobs next to none."""

from __future__ import annotations

import time
from statistics import median
from typing import Any

import psycopg

from tests.apps import plain as apps
from tests.support.jobs import Jobs
from tests.support.waiting import wait_until
from tests.support.workers import WorkerProcess
from tests.worker.faults.test_foreign_locks import feed, waits, working
from tests.worker.faults.test_one_bad_row import StartWorker, refuse, stops

Conn = psycopg.Connection[Any]
SLEEP = "PERFORM pg_sleep(15);"


def plain_jobs_go_on(jobs: Jobs, url: str, running: WorkerProcess, word: str) -> None:
    """Once the worker has said the `word` about the slow row, most plain jobs begin soon; before, each within 25 s."""
    with feed(url):
        begun = time.time()
        wait_until(lambda: word in running.log, timeout=30, what="the worker to meet the slow row")
        since = time.time() + 1.0
        wait_until(lambda: len(waits(jobs, since)) > 400, timeout=40, what="plain jobs")
        found = waits(jobs, since)
    # A busy machine makes them late, too. Each statement that waits for the row to the end of its time takes ten seconds.
    assert median(found) < 3
    assert max(waits(jobs, begun)) < 25


def test_a_claim(jobs: Jobs, db: Conn, worker: StartWorker, database_url: str) -> None:
    refuse(db, "job", "UPDATE", "NEW.queue = 'slow' AND NEW.state = 'running'", do=SLEEP)
    slow = [apps.noop.options(queue="slow").enqueue(jobs.connection).id for _ in range(2)]
    running = worker("--processes", "1")
    working(running)
    plain_jobs_go_on(jobs, database_url, running, "a job cannot be claimed")
    assert all((jobs.live(job) or {})["claims"] == 0 for job in slow)
    stops(running, within=40)


def test_a_claim_of_a_queue_with_rules(jobs: Jobs, db: Conn, worker: StartWorker, database_url: str) -> None:
    """The others of that queue run, too."""
    db.execute("INSERT INTO jobq.queue (name, max_running) VALUES ('limited', 2)")
    refuse(db, "job", "UPDATE", "NEW.args ->> 'note' = 'slow' AND NEW.state = 'running'", do=SLEEP)
    apps.record.options(queue="limited").enqueue(jobs.connection, "slow")
    good = apps.record.options(queue="limited").enqueue(jobs.connection, "good").id
    running = worker("--processes", "1")
    working(running)
    plain_jobs_go_on(jobs, database_url, running, "a job cannot be claimed")
    assert jobs.wait(good)["claims"] == 1
    stops(running, within=40)
