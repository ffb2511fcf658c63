"""What an operator changes beside a running worker: it is seen at once, not at the next poll or full reading.

A worker that looks only every ten minutes, and reads its lanes from a cursor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from jobq import operations
from jobq.filters import JobFilter
from tests.apps import plain as apps
from tests.support.jobs import Jobs
from tests.support.waiting import wait_until
from tests.support.workers import WorkerProcess

Conn = psycopg.Connection[Any]
StartWorker = Callable[..., WorkerProcess]
# Full readings come every 10 to 30 s: what starts within this was found otherwise.
SOON = 5.0


@pytest.fixture
def db(database_url: str) -> Iterator[Conn]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def busy(db: Conn, jobs: Jobs, worker: StartWorker) -> WorkerProcess:
    """A worker of the queue `mine` alone, whose cursor has come past some jobs, and which does not poll."""
    running = worker("--queues", "mine", "--poll-interval", "600", "--concurrency", "2", "--processes", "1")
    for n in range(20):
        jobs.wait(apps.record.options(queue="mine").enqueue(jobs.connection, str(n)).id)
    return running


def ended_soon(jobs: Jobs, job: int) -> None:
    assert jobs.wait(job, timeout=SOON)["state"] == "succeeded"


@pytest.mark.parametrize("priority", [None, 0, 5, 9])
def test_a_moved_job_starts_at_once(db: Conn, jobs: Jobs, busy: WorkerProcess, priority: int | None) -> None:
    job = apps.record.options(queue="other").enqueue(jobs.connection, "moved").id
    db.execute("UPDATE jobq.job SET run_at = now() - interval '1 hour' WHERE id = %s", (job,))
    before = jobs.one("SELECT clock_timestamp()")
    assert operations.move(db, "jobq", [job], queue="mine", priority=priority, actor="ann").done == [job]
    ended_soon(jobs, job)
    # Never in the past of the lane to which it came.
    assert jobs.one("SELECT run_at FROM jobq.job_history WHERE id = %s", job) >= before


def test_a_job_for_later_that_is_moved_or_snoozed_to_sooner_starts_at_its_time(
    db: Conn, jobs: Jobs, busy: WorkerProcess
) -> None:
    other = apps.record.options(queue="other", delay=1.0).enqueue(jobs.connection, "moved").id
    mine = apps.record.options(queue="mine", delay=3600).enqueue(jobs.connection, "snoozed").id
    now = apps.record.options(queue="mine", delay=3600).enqueue(jobs.connection, "now").id
    operations.move(db, "jobq", [other], queue="mine", actor="ann")
    operations.snooze(db, "jobq", [mine], seconds=0.5, actor="ann")
    operations.run_now(db, "jobq", [now], actor="ann")
    for job in (now, mine, other):
        ended_soon(jobs, job)


def test_a_snoozed_job_does_not_start_before_its_time(db: Conn, jobs: Jobs, worker: StartWorker) -> None:
    job, other = (apps.record.enqueue(jobs.connection, note).id for note in ("snoozed", "other"))
    operations.snooze(db, "jobq", [job], seconds=2.0, actor="ann")
    until = jobs.one("SELECT run_at FROM jobq.job WHERE id = %s", job)
    worker("--poll-interval", "600")
    jobs.wait(other)
    ended = jobs.wait(job)
    assert ended["started_at"] >= until
    assert (ended["state"], ended["attempt"]) == ("succeeded", 1)


def test_a_bulk_move_wakes_the_workers_of_the_queue(db: Conn, jobs: Jobs, busy: WorkerProcess) -> None:
    wanted = [apps.record.options(queue="other").enqueue(jobs.connection, str(n)).id for n in range(40)]
    made = operations.draft(
        db, "jobq", action="move", filter=JobFilter(queue="other"), options={"queue": "mine"}, actor="ann"
    )
    operations.start(db, "jobq", made.id, reason="drain it", actor="ann")
    assert operations.run_operation(db, "jobq", made.id).done == 40
    for job in wanted:
        ended_soon(jobs, job)


def test_a_bulk_cancel_beside_a_worker_ends_each_job_once(db: Conn, jobs: Jobs, worker: StartWorker) -> None:
    """What the worker has is refused or asked to stop, never waited for; nothing ends twice, and the outcomes add up."""
    wanted = sorted(apps.record.enqueue(jobs.connection, str(n)).id for n in range(1500))
    made = operations.draft(db, "jobq", action="cancel", filter=JobFilter(states=("ready",)), actor="ann")
    operations.start(db, "jobq", made.id, reason="stop", typed=made.typed, actor="ann")
    worker("--concurrency", "8", "--processes", "1")
    wait_until(lambda: jobs.one("SELECT count(*) FROM jobq.job_history") > 0, what="the first jobs")
    found = operations.run_operation(db, "jobq", made.id)
    wait_until(lambda: jobs.one("SELECT count(*) FROM jobq.job") == 0, what="the end of the jobs", timeout=60)
    assert found.state == "done"
    assert [row["id"] for row in jobs.all("SELECT id FROM jobq.job_history ORDER BY id")] == wanted
    done = {row["id"] for row in jobs.all("SELECT unnest(done) AS id FROM jobq.operation_batch")}
    cancelled = {row["id"] for row in jobs.all("SELECT id FROM jobq.job_history WHERE state = 'cancelled'")}
    # One that was asked to stop while it ran may have come to its end all the same.
    assert cancelled <= done
    assert len(done) == found.done
