"""A parked job that the database refuses to claim, or to make due, costs that job only."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from tests.apps import plain as apps
from tests.support.checks import some
from tests.support.jobs import Jobs
from tests.support.waiting import wait_until
from tests.worker.faults.test_foreign_locks import working
from tests.worker.faults.test_one_bad_limited_row import KILL
from tests.worker.faults.test_one_bad_row import StartWorker, allow, good_ones_run, refuse, stops
from tests.worker.faults.test_slow_rows import SLEEP, plain_jobs_go_on

Conn = psycopg.Connection[Any]


def parked(jobs: Jobs, worker: StartWorker, queues: list[str]) -> list[int]:
    """Have a worker with other code park a job of each of `queues`."""
    knows_nothing = worker("--processes", "1", app="tests.support.rolling:q", env={"ROLLING": "old"})
    ids = [apps.record.options(queue=queue).enqueue(jobs.connection, queue).id for queue in queues]
    wait_until(lambda: jobs.one("SELECT count(*) FROM jobq.job WHERE state = 'parked'") == len(ids), what="all parked")
    stops(knows_nothing)
    return ids


@pytest.mark.parametrize("how", ["P0001", "40001", KILL])
def test_the_claim_of_one_is_refused(jobs: Jobs, db: Conn, worker: StartWorker, how: str) -> None:
    bad, *others = parked(jobs, worker, ["bad", *(f"good-{n}" for n in range(8))])
    what = {"do": how} if how == KILL else {"state": how}
    refuse(db, "job", "UPDATE", "NEW.queue = 'bad' AND NEW.state = 'running'", **what)
    running = worker("--processes", "1")
    for job in some(others):
        assert jobs.wait(job, timeout=20)["state"] == "succeeded"
    good_ones_run(jobs)
    assert (jobs.live(bad) or {})["state"] == "parked"
    shown = "SELECT count(*) FROM jobq.worker WHERE problems @> %s::jsonb"
    said = f'[{{"what": "claim parked jobs", "job": {bad}}}]'
    wait_until(lambda: jobs.one(shown, said) == 1, what="the problem in the worker's row")
    allow(db, "job")
    assert jobs.wait(bad, timeout=30)["state"] == "succeeded"
    wait_until(lambda: jobs.one("SELECT problems FROM jobq.worker") == [], what="the end of the problems")
    stops(running)


def test_one_cannot_be_made_due(jobs: Jobs, db: Conn, worker: StartWorker) -> None:
    """Its queue has got a rule since; others, with a rule and without, begin."""
    bad, ruled, plain = parked(jobs, worker, ["bad", "ruled", "plain"])
    db.execute("INSERT INTO jobq.queue (name, max_running) VALUES ('bad', 2), ('ruled', 2)")
    refuse(db, "job", "UPDATE", "NEW.queue = 'bad'")
    running = worker("--processes", "1")
    for job in (ruled, plain):
        assert jobs.wait(job, timeout=20)["state"] == "succeeded"
    allow(db, "job")
    assert jobs.wait(bad, timeout=30)["state"] == "succeeded"
    stops(running)


def test_one_takes_too_long(jobs: Jobs, db: Conn, worker: StartWorker, database_url: str) -> None:
    _, good = parked(jobs, worker, ["slow", "good"])
    refuse(db, "job", "UPDATE", "NEW.queue = 'slow' AND NEW.state = 'running'", do=SLEEP)
    running = worker("--processes", "1")
    working(running)
    plain_jobs_go_on(jobs, database_url, running, "a parked job cannot be claimed")
    assert jobs.wait(good, timeout=20)["state"] == "succeeded"
    stops(running, within=40)
