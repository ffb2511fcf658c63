"""`raise Retry(after=…)` in every kind of task: the attempt counts, and the next one comes at that time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from jobq import JobQ, Retry, current_job
from jobq._worker.inline import drain
from tests.apps import plain as apps
from tests.support.jobs import Jobs
from tests.support.workers import WorkerProcess

Conn = psycopg.Connection[Any]


@pytest.fixture
def q(database_url: str) -> Iterator[JobQ]:
    app = JobQ(database_url)

    @app.task(max_attempts=2, no_retry_on=(Retry,))
    def plain() -> None:
        raise Retry(after=3600, reason="429")

    @app.task(max_attempts=2)
    async def asynchronous() -> None:
        raise Retry(after=3600, reason="429")

    @app.task(max_attempts=2, transactional=True)
    def transactional() -> None:
        current_job().connection.execute("CREATE TABLE never (n integer)")
        raise Retry(after=3600, reason="429")

    @app.task(max_attempts=2, transactional=True)
    async def asynchronous_transactional() -> None:
        await current_job().async_connection.execute("CREATE TABLE never (n integer)")
        raise Retry(after=3600, reason="429")

    yield app
    app.close()


@pytest.mark.parametrize("name", ["plain", "asynchronous", "transactional", "asynchronous_transactional"])
def test_every_kind_of_task(q: JobQ, db: Conn, name: str) -> None:
    ref = q.tasks[name].submit()
    assert drain(q, db).retried == 1
    query = "SELECT state, attempt, run_at - now() BETWEEN '59 min' AND '60 min' FROM jobq.job WHERE id = %s"
    assert db.execute(query, (ref.id,)).fetchone() == ("ready", 1, True)
    kept = db.execute("SELECT outcome, error_type, message FROM jobq.job_attempt").fetchall()
    assert kept == [("error", "jobq.errors.Retry", "429")]
    # The second is the last.
    db.execute("UPDATE jobq.job SET run_at = now()")
    assert drain(q, db).failed == 1
    assert (ref.status(), ref.error()) == ("failed", "jobq.errors.Retry: 429")
    assert db.execute("SELECT to_regclass('never')").fetchone() == (None,)


def test_a_worker_tries_again_at_that_time(jobs: Jobs, worker: Callable[..., WorkerProcess]) -> None:
    ref = apps.again.enqueue(jobs.connection)
    worker("--processes", "1")
    done = jobs.wait(ref.id)
    assert (done["state"], done["result"], done["attempt"]) == ("succeeded", 3, 3)
    first, second = jobs.attempts(ref.id)
    for attempt in (first, second):
        assert (attempt["outcome"], attempt["message"]) == ("error", "retry in 0.3 s")
        # The delay is what it said, not the task's hour.
        assert 0 < (attempt["retry_at"] - attempt["finished_at"]).total_seconds() < 5
