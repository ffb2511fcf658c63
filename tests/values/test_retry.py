"""What a task's `raise Retry(…)` becomes. No database."""

from __future__ import annotations

import time
from collections.abc import Coroutine
from typing import Any
from uuid import uuid4

import pytest

from jobq import Backoff, JobQ, Retry
from jobq._worker.ipc.messages import Disposition, Failure, Job, TaskInfo
from jobq._worker.ipc.slot_table import Started
from jobq._worker.runner.execution import Execution
from jobq._worker.runner.executor import Executor
from jobq._worker.runner.task_info import describe
from jobq._worker.runners.crash_policy import timed_out

q = JobQ("postgresql://nobody@127.0.0.1:1/nothing")


@q.task(max_attempts=3, retry_on=(OSError,), no_retry_on=(Retry,), backoff=[7])
def ask(after: float | None, how: str = "plain") -> None:
    """The task's own rule would try none of these again."""
    if how == "cause":
        raise Retry(after=after) from ConnectionError("429, slow down")
    if how == "reason":
        raise Retry(after=after, reason="the API is busy")
    if how == "changed":
        error = Retry(after=after)
        error.after = float("nan")
        raise error
    raise Retry(after=after)


def executed(args: str, *, attempt: int = 1, stopping: bool = False) -> Failure:
    def no_loop(execution: Execution, coroutine: Coroutine[Any, Any, Any]) -> Any:
        raise AssertionError("not async")

    executor = Executor(
        tasks=q.tasks,
        bodies={name: task.function for name, task in q.tasks.items()},
        run_coroutine=no_loop,
        report_progress=lambda job, done, total: None,
        max_result_bytes=1000,
        max_error_bytes=10_000,
        transactions=None,  # type: ignore[arg-type]  # no transactional task here
    )
    job = Job(1, 1, "ask", "default", args.encode(), attempt, 3, 0, None, b"{}")
    execution = Execution(job=job, worker=uuid4())
    execution.stopping = stopping
    outcome = executor.execute(execution, time.monotonic())
    assert isinstance(outcome, Failure)
    return outcome


def test_it_is_tried_again_after_that_time_and_the_attempt_counts() -> None:
    setback = executed('{"after": 30}')
    assert (setback.ending, setback.delay, setback.recorded) == (Disposition.RETRY, 30, "error")
    assert (setback.error_type, setback.message) == ("jobq.errors.Retry", "retry in 30 s")


def test_without_a_time_the_backoff_says_it() -> None:
    assert (executed('{"after": null}').ending, executed('{"after": null}').delay) == (Disposition.RETRY, 7)


def test_after_the_last_attempt_it_is_a_dead_letter() -> None:
    setback = executed('{"after": 30, "how": "reason"}', attempt=3)
    assert (setback.ending, setback.message) == (Disposition.FAIL, "the API is busy")


def test_its_cause_is_told() -> None:
    setback = executed('{"after": 30, "how": "cause"}')
    assert setback.message == "ConnectionError: 429, slow down; retry in 30 s"
    assert setback.traceback is not None
    assert "429, slow down" in setback.traceback


def test_a_time_that_is_none_is_an_ordinary_error() -> None:
    setback = executed('{"after": 30, "how": "changed"}')
    assert (setback.ending, setback.error_type) == (Disposition.FAIL, "ValueError")
    assert "Retry: its `after` is no number of seconds" in (setback.message or "")


def test_of_a_worker_that_stops_the_job_goes_back_unpunished() -> None:
    setback = executed('{"after": 30}', stopping=True)
    assert (setback.ending, setback.recorded, setback.delay) == (Disposition.RELEASE, None, 30)


@pytest.mark.parametrize(
    ("backoff", "expected"),
    [
        (Backoff([5, 50]), [5, 50, 50]),
        (Backoff(lambda attempt: attempt * 3.0), [3, 6, 9]),
        (Backoff(base=4, cap=10, jitter=False), [4, 8, 10]),
        # What it says of the first attempt is all there is.
        (Backoff(lambda attempt: 1 / (2 - attempt)), [1, 1, 1]),
    ],
)
def test_the_dispatcher_knows_the_backoff_of_a_job_whose_runner_it_killed(
    backoff: Backoff, expected: list[float]
) -> None:
    app = JobQ("postgresql://nobody@127.0.0.1:1/nothing")
    app.task(name="hang", backoff=backoff)(lambda: None)
    [facts] = describe(app).tasks
    assert isinstance(facts, TaskInfo)
    delays = []
    for attempt in (1, 2, 3):
        job = Job(1, 1, "hang", "default", b"{}", attempt, 10, 0, 1.0, b"{}")
        slot = Started(id=1, claims=1, since=0.0, deadline=1.0)
        delays.append(timed_out(job, slot, 10.0, facts, alone=True).delay)
    assert delays == expected
