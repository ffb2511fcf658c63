"""A key that cannot be released, or a progress that cannot be written, costs its own job only."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from tests.apps import plain as apps
from tests.support.jobs import Jobs
from tests.support.waiting import wait_until
from tests.worker.faults.test_foreign_locks import working
from tests.worker.faults.test_one_bad_limited_row import KILL
from tests.worker.faults.test_one_bad_row import StartWorker, good_ones_run, refuse, stops
from tests.worker.faults.test_slow_rows import SLEEP, plain_jobs_go_on

Conn = psycopg.Connection[Any]


def keyed(jobs: Jobs, key: str) -> int:
    return apps.noop.options(key=key, key_holds="until_started").enqueue(jobs.connection).id


@pytest.mark.parametrize("how", ["40001", "55000", "P0001", KILL])
def test_a_start_that_always_fails(jobs: Jobs, db: Conn, worker: StartWorker, how: str) -> None:
    what = {"do": how} if how == KILL else {"state": how}
    refuse(db, "job_key", "DELETE", "OLD.key = 'bad'", **what)
    bad = keyed(jobs, "bad")
    running = worker("--processes", "1")
    working(running)
    for job in [keyed(jobs, f"good-{n}") for n in range(5)]:
        assert jobs.wait(job, timeout=20)["state"] == "succeeded"
    wait_until(lambda: "a job cannot be started" in running.log, what="the worker to know which")
    wait_until(lambda: (jobs.live(bad) or {})["state"] == "ready", what="it to be put back")
    good_ones_run(jobs)
    stops(running)


def test_a_start_that_takes_too_long(jobs: Jobs, db: Conn, worker: StartWorker, database_url: str) -> None:
    refuse(db, "job_key", "DELETE", "OLD.key = 'slow'", do=SLEEP)
    keyed(jobs, "slow")
    running = worker("--processes", "1")
    working(running)
    good = keyed(jobs, "good")
    plain_jobs_go_on(jobs, database_url, running, "a job cannot be started")
    assert jobs.wait(good, timeout=10)["state"] == "succeeded"
    stops(running, within=40)


@pytest.mark.parametrize("how", ["P0001", "40001", SLEEP, KILL])
def test_progress_that_is_not_written(jobs: Jobs, db: Conn, worker: StartWorker, how: str) -> None:
    what = {"state": how} if len(how) == len("P0001") else {"do": how}
    running = worker("--processes", "1")
    working(running)
    refuse(db, "job", "UPDATE", "NEW.queue = 'bad' AND NEW.progress IS NOT NULL", **what)
    bad = apps.progress.options(queue="bad").enqueue(jobs.connection, 50).id
    others = [apps.progress.enqueue(jobs.connection, 50 + n).id for n in range(3)]
    written = "SELECT count(*) FROM jobq.job WHERE progress IS NOT NULL AND id = ANY (%s)"
    wait_until(lambda: jobs.one(written, others) == 3, timeout=40, what="the progress of the others")
    shown = "SELECT count(*) FROM jobq.worker WHERE problems @> %s::jsonb"
    said = f'[{{"what": "write a job\'s progress", "job": {bad}}}]'
    wait_until(lambda: jobs.one(shown, said) == 1, timeout=30, what="the problem in the worker's row")
    good_ones_run(jobs)
    assert (jobs.live(bad) or {})["claims"] == 1
