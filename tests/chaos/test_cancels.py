"""Cancellations at random against retries and snoozes: no job stays running in the name of a worker that does not have it."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import psycopg
import pytest

from jobq.operations import jobs as operations
from tests.chaos.scene import restless
from tests.support.jobs import Jobs
from tests.support.waiting import wait_until
from tests.support.workers import WorkerProcess

StartWorker = Callable[..., WorkerProcess]


def test_cancels_against_retries(
    database_url: str, jobs: Jobs, worker: StartWorker, pytestconfig: pytest.Config
) -> None:
    chance = random.Random(pytestconfig.option.chaos_seed)
    cancels = 50_000 if pytestconfig.option.chaos_long else 1_500
    alive, asked = 200, 0
    running = worker("--processes", "2", "--concurrency", "16", app="tests.chaos.scene.restless:q")
    wait_until(lambda: jobs.all("SELECT FROM jobq.worker"), what="the worker")
    deadline = time.monotonic() + (1800 if pytestconfig.option.chaos_long else 60)
    with psycopg.connect(database_url, autocommit=True) as operator:
        while asked < cancels and time.monotonic() < deadline:
            missing = alive - jobs.one("SELECT count(*) FROM jobq.job")
            if missing > 0:
                tasks = (restless.failing, restless.snoozing)
                restless.q.enqueue_many(jobs.connection, [chance.choice(tasks).job() for _ in range(missing)])
            ids = [row["id"] for row in jobs.all("SELECT id FROM jobq.job WHERE state = 'running'")]
            chance.shuffle(ids)
            for start in range(0, len(ids), 4):
                asked += len(operations.cancel(operator, "jobq", ids[start : start + 4], actor="chance").done)
        assert asked >= cancels, asked
        while left := [row["id"] for row in jobs.all("SELECT id FROM jobq.job")]:
            assert time.monotonic() < deadline, (
                f"{len(left)} jobs are left: {jobs.all('SELECT * FROM jobq.job LIMIT 3')}"
            )
            operations.cancel(operator, "jobq", left, actor="chance")
    assert jobs.one("SELECT count(*) FROM jobq.job_history WHERE state <> 'cancelled'") == 0
    assert "never arrived" not in running.log
