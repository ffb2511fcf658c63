"""What a task leaves behind in its process, or hands over as its rules, harms no other job and no runner."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from jobq.job import NewJob
from tests.support import leftovers
from tests.support.jobs import Jobs
from tests.support.workers import WorkerProcess

StartWorker = Callable[..., WorkerProcess]
APP = "tests.support.leftovers:q"
CASES: dict[str, tuple[Callable[[], NewJob], str, int]] = {
    # What the task does, how its job ends, and how often it runs.
    "backoff that exits": (lambda: leftovers.exit_in_backoff.job("plain"), "failed", 1),
    "backoff that exits, for an odd error": (lambda: leftovers.exit_in_backoff.job("odd"), "failed", 1),
    "backoff that exits, async": (leftovers.exit_in_backoff_async.job, "failed", 2),
    "backoff that asks for its job": (leftovers.ask_in_backoff.job, "failed", 2),
    "task factory that raises": (lambda: leftovers.set_task_factory.job("raising"), "failed", 1),
    "task factory without contexts": (lambda: leftovers.set_task_factory.job("plain"), "failed", 1),
    "default executor that is shut down": (leftovers.shut_default_executor.job, "succeeded", 1),
    "clock ahead": (leftovers.put_clock_ahead.job, "succeeded", 1),
}
for task, kind, fails in itertools.product(
    (leftovers.leave_tracer, leftovers.leave_tracer_async), ("trace", "profile"), (False, True)
):
    CASES[f"{task.name}, {kind}, {'fails' if fails else 'returns'}"] = (
        lambda task=task, kind=kind, fails=fails: task.job(kind, fails),  # type: ignore[misc]
        "",
        1,
    )


@pytest.mark.parametrize("case", CASES)
def test_what_a_task_leaves_behind_harms_no_other_job(jobs: Jobs, worker: StartWorker, case: str) -> None:
    make, state, claims = CASES[case]
    calm = [leftovers.calm.job(), leftovers.calm_async.job()] * 5
    refs = leftovers.q.enqueue_many(jobs.connection, [*calm, make(), *calm])
    running = worker("--processes", "1", "--concurrency", "2", app=APP)
    ended = [jobs.wait(ref.id, timeout=20) for ref in refs]
    own = ended.pop(len(calm))
    # A tracer may raise in jobq's code around the task: an ordinary failure of that job.
    assert own["state"] == state or not state
    assert own["claims"] == claims
    assert {(job["state"], job["claims"], job["crashes"]) for job in ended} == {("succeeded", 1, 0)}
    after = [leftovers.calm.enqueue(jobs.connection).id, leftovers.calm_async.enqueue(jobs.connection).id]
    assert {jobs.wait(job)["claims"] for job in after} == {1}
    assert "a runner" not in running.log


def test_a_job_that_puts_its_runners_clock_ahead_is_blamed_for_the_end(jobs: Jobs, worker: StartWorker) -> None:
    """The runner takes its lease for over. As no fault of the job it would go round for ever."""
    job = leftovers.put_runner_clock_ahead.enqueue(jobs.connection).id
    worker("--processes", "1", "--max-crashes", "2", app=APP)
    ended = jobs.wait(job, timeout=60)
    assert (ended["state"], ended["crashes"]) == ("failed", 2)
    assert "it took its lease for over" in ended["error"]
    assert jobs.wait(leftovers.calm.enqueue(jobs.connection).id)["claims"] == 1
