"""Whatever a job does on the event loop, with its errors, or by forking: it is its own failure, and its neighbours' nothing."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobq.task import BaseTask
from tests.apps import rough
from tests.support.jobs import Jobs
from tests.support.waiting import wait_until
from tests.support.workers import WorkerProcess

StartWorker = Callable[..., WorkerProcess]
APP = "tests.apps.rough:q"


def test_jobs_that_exit_or_stop_the_loop_harm_nobody(jobs: Jobs, worker: StartWorker) -> None:
    neighbours = [rough.work_async.enqueue(jobs.connection, 6.0).id, rough.work.enqueue(jobs.connection, 6.0).id]
    running = worker("--processes", "1", app=APP)
    wait_until(lambda: jobs.traces(neighbours[1]), what="the neighbours")
    expected: dict[BaseTask[[], Any], tuple[str, str | None]] = {
        rough.exit_gathered: ("failed", "SystemExit"),
        rough.exit_in_group: ("failed", "SystemExit"),
        rough.exit_later: ("succeeded", None),
        rough.exit_in_callback: ("failed", "ValueError"),
        rough.interrupt_gathered: ("failed", "KeyboardInterrupt"),
        rough.stop_loop: ("failed", "RuntimeError"),
        rough.close_loop: ("failed", "RuntimeError"),
        rough.raise_in_handler: ("failed", "ValueError"),
        rough.lower_recursion_limit: ("failed", None),
        rough.end_executor: ("succeeded", None),
    }
    for task, (state, error) in expected.items():
        job = task.enqueue(jobs.connection).id
        ended = jobs.wait(job, timeout=15)
        assert (ended["state"], ended["claims"], ended["crashes"]) == (state, 1, 0), (task, ended["error"])
        if error:
            assert [row["error_type"] for row in jobs.attempts(job)] == [error], task
    # The threads that it shares are still there.
    assert jobs.wait(rough.in_thread.enqueue(jobs.connection).id)["result"] == "done"
    for neighbour in neighbours:
        ended = jobs.wait(neighbour)
        assert (ended["state"], ended["claims"], ended["crashes"]) == ("succeeded", 1, 0)
    assert "a runner" not in running.log


def test_errors_that_cannot_be_looked_at_are_ordinary_ones(jobs: Jobs, worker: StartWorker) -> None:
    neighbour = rough.work_async.enqueue(jobs.connection, 4.0).id
    running = worker("--processes", "1", app=APP)
    tasks = (rough.odd_error, rough.odd_error_async, rough.odd_error_gathered)
    odd = [(task.name, kind, task.enqueue(jobs.connection, kind).id) for task in tasks for kind in rough.ODD]
    for name, kind, job in odd:
        ended = jobs.wait(job, timeout=20)
        assert (ended["state"], ended["claims"], ended["crashes"]) == ("failed", 1, 0), (name, kind, ended["error"])
        (attempt,) = jobs.attempts(job)
        assert attempt["outcome"] == "error", (name, kind)
        assert attempt["error_type"], (name, kind)
        assert kind != "text" or "whose text cannot be had" in attempt["message"]
    ended = jobs.wait(neighbour)
    assert (ended["state"], ended["claims"], ended["crashes"]) == ("succeeded", 1, 0)
    assert "a runner" not in running.log


@pytest.mark.parametrize("task", [rough.cancelled_by_nobody, rough.cancel_itself])
def test_a_cancellation_that_no_one_asked_for_is_an_ordinary_error(
    jobs: Jobs,
    worker: StartWorker,
    task: BaseTask[[], None],
) -> None:
    job = task.enqueue(jobs.connection).id
    worker("--processes", "1", app=APP)
    ended = jobs.wait(job)
    assert (ended["state"], ended["attempt"]) == ("failed", 2)
    assert [row["error_type"] for row in jobs.attempts(job)] == ["asyncio.exceptions.CancelledError"] * 2


def test_a_process_forked_in_a_coroutine_executes_no_step_of_another(
    jobs: Jobs, worker: StartWorker, tmp_path: Path
) -> None:
    steps = tmp_path / "steps"
    running = worker("--processes", "1", app=APP)
    neighbours = [rough.step.enqueue(jobs.connection, str(steps), 3000).id for _ in range(2)]
    wait_until(steps.exists, what="the neighbours' steps")
    forks = {
        how: rough.fork_and_await.enqueue(jobs.connection, how).id for how in ("sleep", "yield", "future", "gather")
    }
    statuses = {how: jobs.wait(job, timeout=20)["result"] for how, job in forks.items()}
    assert statuses == dict.fromkeys(forks, 1)
    assert jobs.wait(rough.fork_and_await.enqueue(jobs.connection, "exit").id)["result"] == 7
    assert jobs.wait(rough.fork_in_child_task.enqueue(jobs.connection).id)["result"] == 1
    for neighbour in neighbours:
        assert jobs.wait(neighbour)["claims"] == 1
    lines = steps.read_text().split()
    assert (len(set(lines)), len(lines)) == (1, 6000)
    assert "a runner" not in running.log


def test_multiprocessing_goes_on_working(jobs: Jobs, worker: StartWorker) -> None:
    worker("--processes", "1", app=APP)
    some = [task.enqueue(jobs.connection).id for task in (rough.use_multiprocessing, rough.use_multiprocessing_async)]
    for job in some:
        ended = jobs.wait(job)
        assert (ended["state"], ended["result"], ended["claims"]) == ("succeeded", [1, 4, 9], 1), ended["error"]


def test_a_forked_process_ends_by_sigterm(jobs: Jobs, worker: StartWorker) -> None:
    """A runner does not; what multiprocessing forks must, for its pools wait for the end of their processes."""
    running = worker("--processes", "1", app=APP)
    assert jobs.wait(rough.terminate_fork.enqueue(jobs.connection).id)["result"] == -signal.SIGTERM
    assert "a runner" not in running.log
