"""The steps of a job that fails or is cancelled are undone: the last one first, each once if nothing dies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jobq import JobFailed, operations
from tests.apps import durable as apps
from tests.support.jobs import Jobs
from tests.support.traces import lines
from tests.support.waiting import wait_until
from tests.support.workers import WorkerProcess

q = apps.q
APP = "tests.apps.durable:q"
UNDONE = ["first", "second", "undo second 2", "undo first 1"]


@pytest.fixture(autouse=True)
def running(jobs: Jobs, database_url: str, worker: Callable[..., WorkerProcess]) -> Iterator[WorkerProcess]:
    q.configure(database_url=database_url)
    yield worker("--processes", "1", "--concurrency", "2", app=APP)
    q.close()


def is_parked(jobs: Jobs, job: Any) -> bool:
    live = jobs.live(job.id) or {}
    return live.get("state") == "ready" and live.get("claims", 0) > 0


def test_a_job_that_fails_undoes_its_steps(jobs: Jobs, path: str) -> None:
    job = apps.saga.enqueue(jobs.connection, path)
    with pytest.raises(JobFailed, match="no way"):
        job.result(timeout=30)
    assert lines(path) == UNDONE
    assert (jobs.finished(job.id) or {})["attempt"] == 2


def test_an_async_job_that_fails_undoes_its_steps(jobs: Jobs, path: str) -> None:
    job = apps.saga_async.enqueue(jobs.connection, path)
    with pytest.raises(JobFailed, match="no way"):
        job.result(timeout=30)
    assert lines(path) == ["first", "second", "undo 2", "undo 1"]


def test_a_job_that_succeeds_undoes_nothing(jobs: Jobs, path: str) -> None:
    assert apps.saga.enqueue(jobs.connection, path, "good").result(timeout=30) == "good"
    assert lines(path) == ["first", "second"]


@pytest.mark.parametrize("fails", [1, 2])
def test_an_undo_that_fails_is_tried_again(jobs: Jobs, path: str, fails: int) -> None:
    job = apps.saga.enqueue(jobs.connection, path, "fail", fails)
    with pytest.raises(JobFailed, match="no way" if fails < 2 else "'trace' failed: RuntimeError: cannot undo yet"):
        job.result(timeout=30)
    if fails == 2:
        # A retry by an operator goes on undoing, and the job ends as it had to.
        operations.retry(jobs.connection, "jobq", [job.id], actor="test")
        jobs.connection.commit() if not jobs.connection.autocommit else None
        wait_until(lambda: lines(path)[-1] == "undo first 1", what="the undo")
    assert lines(path) == ["first", "second", "undo second 2", *["undo fails"] * fails, "undo first 1"]


def test_a_cancellation_does_not_interrupt_a_replay_before_it_knows_what_to_undo(jobs: Jobs, path: str) -> None:
    job = apps.saga_async.enqueue(jobs.connection, path, "pause")
    wait_until(lambda: is_parked(jobs, job), what="the wait")
    Path(f"{path}.cancelled").touch()
    assert job.cancel()
    assert jobs.wait(job.id, timeout=30)["state"] == "cancelled"
    assert lines(path) == ["first", "second", "undo 2", "undo 1"]


@pytest.mark.parametrize("task", ["sync", "async"])
def test_a_job_that_waits_is_undone_when_it_is_cancelled(jobs: Jobs, path: str, task: str) -> None:
    job: Any = (apps.saga if task == "sync" else apps.saga_async).enqueue(jobs.connection, path, "wait")
    wait_until(lambda: is_parked(jobs, job), what="the wait")
    assert job.cancel()
    ended = jobs.wait(job.id, timeout=30)
    assert ended["state"] == "cancelled"
    assert lines(path)[2:] == (UNDONE[2:] if task == "sync" else ["undo 2", "undo 1"])


@pytest.mark.parametrize("what", ["sleep", "child"])
def test_a_job_that_sleeps_or_waits_for_a_child_is_undone_when_it_is_cancelled(
    jobs: Jobs, path: str, what: str
) -> None:
    job = apps.saga.enqueue(jobs.connection, path, what)
    wait_until(lambda: is_parked(jobs, job), what="the wait")
    assert job.cancel()
    assert jobs.wait(job.id, timeout=30)["state"] == "cancelled"
    assert lines(path) == UNDONE


def test_an_undo_that_goes_on_in_a_later_execution_ends_the_job_as_was_decided(jobs: Jobs, path: str) -> None:
    job = apps.saga.enqueue(jobs.connection, path, "wait", 1)
    wait_until(lambda: is_parked(jobs, job), what="the wait")
    assert job.cancel()
    ended = jobs.wait(job.id, timeout=30)
    assert (ended["state"], ended["error"]) == ("cancelled", "cancelled by an operator")
    assert lines(path) == ["first", "second", "undo second 2", "undo fails", "undo first 1"]


def test_after_the_undo_of_a_child_a_retry_starts_another_one(jobs: Jobs, path: str) -> None:
    job = apps.saga.options(max_attempts=1).enqueue(jobs.connection, path, "pay")
    jobs.wait(job.id, timeout=30)
    assert lines(path) == ["first", "second", "undo child 8", *UNDONE[2:]]
    operations.retry(jobs.connection, "jobq", [job.id], actor="test")
    wait_until(lambda: len(lines(path)) == 10, what="the second run")
    assert jobs.one("SELECT count(*) FROM jobq.job_history WHERE task = 'double'") == 2


def test_a_running_job_is_undone_when_it_is_cancelled(jobs: Jobs, path: str) -> None:
    job = apps.saga.enqueue(jobs.connection, path, "hold")
    wait_until(lambda: "holds" in lines(path), what="the third step")
    assert job.cancel()
    assert jobs.wait(job.id, timeout=30)["state"] == "cancelled"
    assert lines(path) == ["first", "second", "holds", "undo second 2", "undo first 1"]


def test_a_cancellation_while_another_branch_runs_does_not_wait_for_the_wait(jobs: Jobs, path: str) -> None:
    job = apps.saga.enqueue(jobs.connection, path, "gather")
    wait_until(lambda: "holds" in lines(path), what="the other branch")
    assert job.cancel()
    Path(f"{path}.go").touch()
    assert jobs.wait(job.id, timeout=30)["state"] == "cancelled"
    assert lines(path) == ["first", "second", "holds", *UNDONE[2:]]


def test_after_the_undo_a_retry_begins_from_the_start(jobs: Jobs, path: str) -> None:
    job = apps.saga.enqueue(jobs.connection, path)
    jobs.wait(job.id, timeout=30)
    operations.retry(jobs.connection, "jobq", [job.id], actor="test")
    wait_until(lambda: len(lines(path)) == 8, what="the second run")
    assert lines(path)[4:6] == ["first", "second"]


def test_a_child_is_cancelled_with_its_parent(jobs: Jobs) -> None:
    job = apps.waits_for_child.enqueue(jobs.connection, 3600.0)
    wait_until(lambda: is_parked(jobs, job), what="the wait")
    child = jobs.one("SELECT job.id FROM jobq.job WHERE task = 'sleeper'")
    assert job.cancel()
    assert jobs.wait(job.id, timeout=30)["state"] == "cancelled"
    assert jobs.wait(child, timeout=30)["state"] == "cancelled"
    wait_until(lambda: jobs.one("SELECT state FROM jobq.workflow") == "cancelled", what="the child's run")
