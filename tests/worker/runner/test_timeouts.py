"""A timeout interrupts the task first, and ends its runner only when that did not help; the record says which."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.apps import plain as apps
from tests.apps import trouble
from tests.support.checks import some
from tests.support.jobs import Jobs
from tests.support.workers import WorkerProcess

StartWorker = Callable[..., WorkerProcess]
APP = "tests.apps.trouble:q"


def test_a_coroutine_is_cancelled(jobs: Jobs, worker: StartWorker) -> None:
    job = apps.too_slow_async.enqueue(jobs.connection).id
    running = worker()
    ended = jobs.wait(job, timeout=60)
    assert (ended["state"], ended["attempt"], ended["crashes"]) == ("failed", 2, 0)
    assert ended["error"] == "timed out after 0.3 s and was interrupted"
    attempts = jobs.attempts(job)
    assert [(row["outcome"], row["error_type"]) for row in attempts] == [("timeout", "jobq.errors.TimedOut")] * 2
    # Where it was when its time was up.
    assert "await asyncio.sleep(60)" in attempts[0]["traceback"]
    assert "a runner" not in running.log


@pytest.mark.parametrize(
    ("then", "state", "error"),
    [
        ("raise", "failed", "timed out after 0.5 s and was interrupted"),
        ("fail", "failed", "timed out after 0.5 s; it then raised ValueError: while cleaning up"),
        ("end", "succeeded", None),
    ],
)
def test_a_thread_is_interrupted(jobs: Jobs, worker: StartWorker, then: str, state: str, error: str | None) -> None:
    job = trouble.loop_past_timeout.enqueue(jobs.connection, then).id
    beside = trouble.hang.enqueue(jobs.connection, 2.0).id
    running = worker("--processes", "1", app=APP)
    ended = jobs.wait(job, timeout=15)
    assert (ended["state"], ended["error"]) == (state, error)
    assert [row["outcome"] for row in jobs.attempts(job)] == (["timeout"] if error else [])
    assert jobs.traces(job) == ["start", "interrupted, cancelled=True"]
    # The runner went on, and so did the job beside it.
    assert jobs.wait(beside)["claims"] == 1
    assert "a runner" not in running.log
    # And the thread serves as before.
    after = [trouble.calm.enqueue(jobs.connection, "after").id for _ in range(40)]
    assert {jobs.wait(job)["state"] for job in after} == {"succeeded"}


@pytest.mark.essential
def test_a_task_that_does_not_react_is_killed(jobs: Jobs, worker: StartWorker) -> None:
    job = trouble.loop_past_timeout.enqueue(jobs.connection, "ignore").id
    beside = trouble.hang.enqueue(jobs.connection, 3.0).id
    running = worker("--processes", "1", "--timeout-grace", "0.5", app=APP)
    ended = jobs.wait(job, timeout=20)
    assert ended["state"] == "failed"
    assert ended["error"].startswith("timed out after 0.5 s, went on for ")
    assert ended["error"].endswith(" s more, and its runner was killed")
    assert [row["outcome"] for row in jobs.attempts(job)] == ["timeout"]
    other = jobs.wait(beside, timeout=20)
    assert (other["state"], other["attempt"], other["crashes"], other["claims"]) == ("succeeded", 1, 0, 2)
    assert running.is_running()


def test_a_timeout_by_force_is_retried_as_the_task_says(jobs: Jobs, worker: StartWorker) -> None:
    job = apps.too_slow.enqueue(jobs.connection).id
    first = worker("--timeout-grace", "0.2")
    ended = jobs.wait(job, timeout=60)
    assert (ended["state"], ended["attempt"], ended["crashes"]) == ("failed", 2, 0)
    # One after the other: each knows its own tasks only, and what it does not know it puts back for a while.
    first.terminate()
    assert first.wait() == 0
    # no_retry_on=(TimedOut,)
    never = trouble.hang_once.enqueue(jobs.connection).id
    worker("--timeout-grace", "0.2", app=APP)
    assert jobs.wait(never, timeout=60)["attempt"] == 1


def test_an_attempt_that_ends_in_time_is_not_touched(jobs: Jobs, worker: StartWorker) -> None:
    """Thousands of short jobs with a timeout that lies near their length: each succeeds or times out, none does both."""
    worker("--processes", "1", app=APP)
    refs = trouble.q.enqueue_many(jobs.connection, [trouble.about_as_long_as_its_timeout.job() for _ in range(400)])
    ends = [jobs.wait(ref.id, timeout=60) for ref in refs]
    assert {end["state"] for end in ends} <= {"succeeded", "failed"}
    assert all(some("timed out after 0.05 s" in end["error"] for end in ends if end["state"] == "failed"))
    assert jobs.wait(trouble.calm.enqueue(jobs.connection, "after").id)["state"] == "succeeded"
