"""A job that begins again: its steps are forgotten, and signals that it has not taken are not."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.apps import durable as apps
from tests.support.jobs import Jobs
from tests.support.workers import WorkerProcess

q = apps.q
APP = "tests.apps.durable:q"


@pytest.fixture(autouse=True)
def running(jobs: Jobs, database_url: str, worker: Callable[..., WorkerProcess]) -> Iterator[WorkerProcess]:
    q.configure(database_url=database_url)
    yield worker("--processes", "1", app=APP)
    q.close()


def test_a_job_begins_again_with_other_arguments(jobs: Jobs) -> None:
    job = apps.beginning_again.enqueue(jobs.connection, "", 0, 3)
    q.send_signal(jobs.connection, job, "last", 100)
    assert job.result(timeout=30) == 4 * (0 + 2 + 4) + 100
    ended = jobs.finished(job.id) or {}
    assert (ended["attempt"], ended["args"]["rounds"]) == (1, 0)
    # Three of the last round, and the signal.
    assert jobs.one(f"SELECT count(*) FROM jobq.job_step WHERE job_id = {job.id}") == 4


def test_an_async_job_begins_again(jobs: Jobs) -> None:
    assert apps.beginning_again_async.enqueue(jobs.connection, 1, 2).result(timeout=30) == 19
