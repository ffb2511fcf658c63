"""User code that misbehaves harms its own job, and neither its runner's neighbours nor the worker."""

from __future__ import annotations

import itertools
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from jobq.task import BaseTask
from tests.apps import plain as apps
from tests.apps import trouble
from tests.support.jobs import Jobs
from tests.support.waiting import wait_until
from tests.support.workers import WorkerProcess

StartWorker = Callable[..., WorkerProcess]
APP = "tests.apps.trouble:q"


@pytest.mark.parametrize("kind", ["fraction", "huge", "text", "negative", "truth"])
def test_a_wrong_progress_fails_its_job_alone(jobs: Jobs, worker: StartWorker, kind: str) -> None:
    job = trouble.wrong_progress.enqueue(jobs.connection, kind).id
    running = worker(app=APP)
    ended = jobs.wait(job, timeout=15)
    assert (ended["state"], ended["claims"]) == ("failed", 1)
    assert "progress" in ended["error"]
    assert jobs.wait(trouble.calm.enqueue(jobs.connection, "after").id)["claims"] == 1
    assert "runner" not in running.log.replace("jobq.runner", "")


def test_progress_in_a_tight_loop_delays_nobody(jobs: Jobs, worker: StartWorker) -> None:
    """What is reported faster than it is sent is replaced, not queued: the job's own outcome follows at once."""
    job = trouble.endless_progress.enqueue(jobs.connection, 3.0).id
    running = worker("--processes", "1", app=APP)
    wait_until(lambda: jobs.live(job) and jobs.live(job)["progress"], what="progress")  # type: ignore[index]
    ended = jobs.wait(job, timeout=20)
    late = jobs.one("SELECT extract(epoch FROM finished_at - started_at) FROM jobq.job_history WHERE id = %s", job)
    assert ended["state"] == "succeeded", late
    assert running.is_running()


def test_an_error_without_text_is_an_ordinary_error(jobs: Jobs, worker: StartWorker) -> None:
    job = trouble.raise_unspeakable.enqueue(jobs.connection).id
    worker(app=APP)
    ended = jobs.wait(job, timeout=15)
    assert (ended["state"], ended["attempt"], ended["crashes"]) == ("failed", 2, 0)
    assert [row["outcome"] for row in jobs.attempts(job)] == ["error", "error"]
    assert "Unspeakable" in ended["error"]


def test_a_runner_that_leaves_a_child_is_noticed(jobs: Jobs, worker: StartWorker) -> None:
    """The child holds the runner's end of the socket open; the runner has ended nevertheless."""
    job = trouble.leave_a_child.enqueue(jobs.connection, 60.0).id
    running = worker("--max-crashes", "1", "--processes", "1", app=APP)
    assert jobs.wait(job, timeout=20)["state"] == "failed"
    (attempt,) = jobs.attempts(job)
    assert attempt["outcome"] == "crashed"
    assert jobs.wait(trouble.calm.enqueue(jobs.connection, "after").id)["state"] == "succeeded"
    assert running.is_running()
    # The child is of the runner's process group, and ends with it.
    (child,) = jobs.traces(job)
    wait_until(lambda: has_ended(int(child)), what="the end of the child")


def has_ended(pid: int) -> bool:
    """Whether a process is gone, or only waits for its parent to ask for its exit status."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize("fork", [trouble.fork_and_return, trouble.fork_and_return_async])
def test_a_forked_process_that_comes_back_from_the_task_ends_there(
    jobs: Jobs, worker: StartWorker, tmp_path: Path, fork: BaseTask[[float], None]
) -> None:
    """It has the runner's memory: it would say that the slot is idle, and run what waits in stock."""
    notes = tmp_path / "notes"
    some = [trouble.note_in_file.job(str(notes)) for _ in range(1000)]
    refs = trouble.q.enqueue_many(jobs.connection, [*some, fork.job(2.0), *some])
    running = worker("--processes", "1", "--concurrency", "2", app=APP)
    assert {jobs.wait(ref.id, timeout=30)["state"] for ref in refs} == {"succeeded"}
    assert jobs.traces(refs[1000].id) == ["end"]
    ran = Counter(notes.read_text().split())
    assert (len(ran), max(ran.values())) == (2000, 1)
    assert "a runner" not in running.log


@pytest.mark.parametrize(
    ("task", "place"),
    [
        *itertools.product((trouble.fork_in, trouble.fork_in_async), ("text", "result", "finalizer", "thread")),
        *itertools.product((trouble.fork_in_transaction,), ("text", "result")),
        (trouble.fork_in_backoff, "backoff"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_a_fork_anywhere_in_user_code_runs_no_job_twice(
    jobs: Jobs, worker: StartWorker, tmp_path: Path, task: BaseTask[[str], Any], place: str
) -> None:
    notes = tmp_path / "notes"
    some = [trouble.note_in_file.job(str(notes)) for _ in range(500)]
    refs = trouble.q.enqueue_many(jobs.connection, [*some, task.job(place), *some])
    running = worker("--processes", "1", "--concurrency", "2", app=APP)
    ended = [jobs.wait(ref.id, timeout=30) for ref in refs]
    forked = ended.pop(500)
    assert {job["state"] for job in ended} == {"succeeded"}
    assert forked["state"] == ("succeeded" if place in ("result", "thread") else "failed")
    assert forked["claims"] == (2 if place == "backoff" else 1)
    ran = Counter(notes.read_text().split())
    assert (len(ran), max(ran.values())) == (1000, 1)
    assert "a runner" not in running.log


def test_a_forked_process_does_not_commit_its_parents_transaction(jobs: Jobs, worker: StartWorker) -> None:
    job = trouble.fork_and_return_in_a_transaction.enqueue(jobs.connection, 2.0).id
    worker("--processes", "1", app=APP)
    ended = jobs.wait(job)
    assert (ended["state"], ended["claims"]) == ("succeeded", 1)
    assert (ended["finished_at"] - ended["started_at"]).total_seconds() > 1.9


def test_a_task_that_breaks_the_stream_is_blamed(jobs: Jobs, worker: StartWorker) -> None:
    """Else it would run again and again, and take its neighbours along each time."""
    job = trouble.scribble.enqueue(jobs.connection).id
    worker("--max-crashes", "1", app=APP)
    ended = jobs.wait(job, timeout=20)
    assert (ended["state"], ended["claims"]) == ("failed", 1)
    assert jobs.traces(job) == ["start"]


def test_programs_that_a_task_starts_heed_sigterm(jobs: Jobs, worker: StartWorker) -> None:
    job = trouble.end_a_program.enqueue(jobs.connection).id
    worker(app=APP)
    assert jobs.wait(job)["result"] == -signal.SIGTERM


def test_a_cancelled_task_is_interrupted_once(jobs: Jobs, worker: StartWorker) -> None:
    """The request is repeated with every heartbeat; the task's cleaning up is not to be cut off by it."""
    job = trouble.tidy_up_slowly.enqueue(jobs.connection, 1.5).id
    worker("--heartbeat-interval", "0.3", app=APP)
    wait_until(lambda: jobs.traces(job), what="the start")
    jobs.connection.execute("UPDATE jobq.job SET cancel_requested_at = now() WHERE id = %s", (job,))
    assert jobs.wait(job)["state"] == "cancelled"
    assert jobs.traces(job) == ["start", "tidy"]


def test_a_task_that_heeds_a_shutdown_is_not_cancelled_by_it(jobs: Jobs, worker: StartWorker) -> None:
    """`current_job().cancelled` is true then, too, and raising Cancel is what a task is told to do about it."""
    job = apps.wait.enqueue(jobs.connection, 600.0).id
    running = worker("--shutdown-timeout", "0")
    wait_until(lambda: jobs.traces(job), what="the start")
    running.terminate()
    assert running.wait() == 0
    row = jobs.live(job)
    assert row is not None, jobs.finished(job)
    assert (row["state"], row["attempt"], row["crashes"]) == ("ready", 0, 0)


def test_large_arguments_and_results_by_the_hundred(database_url: str, jobs: Jobs, worker: StartWorker) -> None:
    """No frame, and no statement, is larger than what either end takes."""
    large = trouble.q.enqueue_many(jobs.connection, [trouble.take.job("x" * 1_000_000) for _ in range(300)])
    moment = time.time() + 6
    trouble.q.enqueue_many(jobs.connection, [trouble.large_results_together.job(1_000_000, moment) for _ in range(300)])
    running = worker("--concurrency", "700", "--processes", "1", app=APP)
    wait_until(lambda: jobs.one("SELECT count(*) = 600 FROM jobq.job_history"), timeout=90, what="every end")
    # Not `claims`: on a busy machine a job that does not start within a second goes back, unpunished.
    ends = jobs.all(
        "SELECT state, attempt, crashes, left(error, 200) AS error, count(*) FROM jobq.job_history GROUP BY 1, 2, 3, 4"
    )
    assert ends == [{"state": "succeeded", "attempt": 1, "crashes": 0, "error": None, "count": 600}], running.log
    assert "a runner" not in running.log
    assert jobs.wait(large[-1].id)["result"] == 1_000_000
    assert running.is_running()
