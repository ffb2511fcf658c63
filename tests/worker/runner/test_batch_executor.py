"""One call of a batch task, without a runner: what becomes of each of its jobs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterator
from typing import Any
from uuid import uuid4

import pytest

from jobq import Cancel, JobQ, Snooze, current_batch
from jobq._worker.ipc.messages import Disposition, Failure, Job, Success
from jobq._worker.runner import error_report, verdict
from jobq._worker.runner.batch_execution import BatchExecution
from jobq._worker.runner.batch_executor import BatchExecutor
from jobq._worker.runner.execution import Execution
from jobq._worker.runner.executor import Outcome
from jobq._worker.runner.open_resources import OpenResources
from jobq._worker.runner.task_bodies import TaskBodies
from tests.support.checks import some

q = JobQ()


@q.task(batch=10)
def half(numbers: list[int]) -> list[int | Exception]:
    if 13 in numbers:
        raise ValueError("13")
    return [number // 2 if number % 2 == 0 else ValueError(f"{number} is odd") for number in numbers]


@q.task(batch=10)
async def half_async(numbers: list[int]) -> list[int | Exception]:
    if 13 in numbers:
        await asyncio.sleep(600)
    return [number // 2 if number % 2 == 0 else ValueError(f"{number} is odd") for number in numbers]


@q.task(batch=10)
def long_error(numbers: list[int]) -> None:
    raise ValueError("x" * 2000)


@q.task(batch=10)
def bad_snooze(numbers: list[int]) -> list[int | Exception]:
    errors: list[int | Exception] = []
    for number in numbers:
        error = Snooze(1)
        error.seconds = -number
        errors.append(error)
    return errors


class Broken(list[int]):
    def __iter__(self) -> Iterator[int]:
        yield 1
        raise ConnectionError("the rest was not received")


@q.task(batch=10)
def broken_list(numbers: list[int]) -> list[int]:
    return Broken(numbers)


@q.task
def single(number: int) -> int:
    return number


class NoTransactions:
    def begin(self, execution: Execution, *, is_async: bool) -> Any:
        raise AssertionError("no task here is transactional")


def run_coroutine(execution: Execution, coroutine: Any) -> Any:
    return asyncio.run(coroutine)


bodies = TaskBodies(q, OpenResources(q.resources, asyncio.run), keep=True)
executor = BatchExecutor(
    tasks=q.tasks,
    bodies=bodies,
    batch_body=bodies.batch,
    run_coroutine=run_coroutine,
    report_progress=lambda job, done, total: None,
    max_result_bytes=1000,
    max_error_bytes=64 * 1024,
    transactions=NoTransactions(),
)


def job(number: int, task: str, name: str = "numbers", **changes: Any) -> Job:
    values: dict[str, Any] = {"attempt": 1, "max_attempts": 3, "crashes": 0, "timeout": None, **changes}
    return Job(number, 1, task, "default", f'{{"{name}":{number}}}'.encode(), headers=b"{}", **values)


def batch(*jobs: Job) -> BatchExecution:
    return BatchExecution(job=jobs[0], jobs=list(jobs), worker=uuid4())


def told(outcomes: list[Outcome]) -> dict[int, object]:
    """Return the result, or the disposition, of each job."""
    found: dict[int, object] = {}
    for outcome in outcomes:
        assert outcome.id not in found
        match outcome:
            case Success():
                found[outcome.id] = outcome.result.decode()
            case Failure():
                found[outcome.id] = outcome.ending
    return found


@pytest.mark.parametrize("task", ["half", "half_async"])
def test_each_job_has_an_outcome(task: str) -> None:
    outcomes = executor.execute_batch(batch(job(2, task), job(3, task), job(4, task)), time.monotonic())
    assert told(outcomes) == {2: "1", 3: Disposition.RETRY, 4: "2"}


def test_arguments_that_do_not_fit_park_their_job_and_the_others_run() -> None:
    outcomes = executor.execute_batch(batch(job(2, "half", "other"), job(4, "half")), time.monotonic())
    assert told(outcomes) == {2: Disposition.PARK, 4: "2"}
    assert told(executor.execute_batch(batch(job(2, "half", "other")), time.monotonic())) == {2: Disposition.PARK}


def test_a_failed_call_fails_each_job_by_its_own_attempts() -> None:
    outcomes = executor.execute_batch(batch(job(2, "half"), job(13, "half", attempt=3)), time.monotonic())
    assert told(outcomes) == {2: Disposition.RETRY, 13: Disposition.FAIL}
    assert all(isinstance(each, Failure) and "raise ValueError" in str(each.traceback) for each in some(outcomes))


def test_the_jobs_of_a_failed_call_share_the_space_for_its_traceback() -> None:
    outcomes = executor.execute_batch(batch(*(job(n, "long_error") for n in range(1, 2000))), time.monotonic())
    assert {len(str(each.traceback)) <= 1100 for each in outcomes if isinstance(each, Failure)} == {True}
    [alone] = executor.execute_batch(batch(job(1, "long_error")), time.monotonic())
    assert isinstance(alone, Failure)
    assert len(str(alone.traceback)) > 2000


def test_the_traceback_of_a_failed_call_is_formatted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    formatted: list[str] = []

    def traceback_of(error: BaseException, ours: Collection[str]) -> str:
        formatted.append(str(error))
        return error_report.traceback_of(error, ours)

    monkeypatch.setattr(verdict, "traceback_of", traceback_of)
    outcomes = executor.execute_batch(batch(*(job(n, "half") for n in range(10, 60))), time.monotonic())
    assert formatted == ["13"]
    assert len({each.traceback for each in outcomes if isinstance(each, Failure)}) == 1
    # A call that fails later formats its own error.
    executor.execute_batch(batch(*(job(n, "half") for n in range(10, 60))), time.monotonic())
    assert formatted == ["13", "13"]


def test_jobs_that_fail_by_themselves_keep_their_own_tracebacks() -> None:
    """Even if the error that is recorded exists only while its job is judged."""
    outcomes = executor.execute_batch(batch(*(job(n, "bad_snooze") for n in range(1, 50))), time.monotonic())
    for each in some(outcomes):
        assert isinstance(each, Failure)
        assert f"ten years (-{each.id})" in str(each.message)
        assert f"ten years (-{each.id})" in str(each.traceback)


def test_each_job_has_one_outcome_if_the_results_cannot_be_read_to_their_end() -> None:
    outcomes = executor.execute_batch(
        batch(job(1, "broken_list"), job(2, "broken_list", "other"), job(3, "broken_list")), time.monotonic()
    )
    assert told(outcomes) == {1: Disposition.RETRY, 2: Disposition.PARK, 3: Disposition.RETRY}


@pytest.mark.parametrize("task", ["half", "half_async"])
def test_one_job_by_itself_is_a_batch_of_one(task: str) -> None:
    """In an isolated runner, or in one whose dispatcher does not know that it is a batch task."""
    done = [executor.execute(Execution(job=job(number, task), worker=uuid4()), time.monotonic()) for number in (2, 3)]
    assert told(done) == {2: "1", 3: Disposition.RETRY}


def test_a_task_that_is_no_batch_task_here_runs_its_job_and_an_unknown_one_parks_it() -> None:
    assert told(executor.execute_batch(batch(job(7, "single", "number")), time.monotonic())) == {7: "7"}
    assert told(executor.execute_batch(batch(job(7, "unknown")), time.monotonic())) == {7: Disposition.PARK}


def test_a_cancelled_job_is_seen_in_its_place_and_does_not_stop_the_others() -> None:
    own = JobQ()

    @own.task(batch=10)
    def careful(numbers: list[int]) -> list[int | Exception]:
        jobs = current_batch().jobs
        execution.cancel_jobs({2, 99}, stopping=False)
        assert not current_batch().cancelled
        return [Cancel("not wanted") if each.cancelled else each.id for each in jobs]

    own_bodies = TaskBodies(own, OpenResources(own.resources, asyncio.run), keep=True)
    own_executor = BatchExecutor(
        tasks=own.tasks,
        bodies=own_bodies,
        batch_body=own_bodies.batch,
        run_coroutine=run_coroutine,
        report_progress=lambda job, done, total: None,
        max_result_bytes=1000,
        max_error_bytes=1000,
        transactions=NoTransactions(),
    )
    execution = batch(job(1, "careful"), job(2, "careful"), job(3, "careful"))
    outcomes = own_executor.execute_batch(execution, time.monotonic())
    assert told(outcomes) == {1: "1", 2: Disposition.CANCEL, 3: "3"}


@pytest.mark.parametrize(("stopping", "ending"), [(False, Disposition.CANCEL), (True, Disposition.RELEASE)])
async def test_a_coroutine_is_cancelled_when_all_of_its_jobs_are(stopping: bool, ending: Disposition) -> None:
    execution = batch(job(13, "half_async"), job(14, "half_async"))
    running = asyncio.create_task(executor.execute_batch_async(execution, time.monotonic()))
    execution.interruptible(running.cancel)
    await asyncio.sleep(0)
    execution.cancel_jobs({13}, stopping=stopping)
    await asyncio.sleep(0)
    assert not running.done()
    execution.cancel_jobs({14}, stopping=stopping)
    assert told(await running) == {13: ending, 14: ending}


async def test_a_coroutine_has_the_timeout_of_its_jobs() -> None:
    execution = batch(job(13, "half_async", timeout=0.01), job(14, "half_async", timeout=0.01))
    outcomes = await executor.execute_batch_async(execution, time.monotonic())
    assert {each.recorded for each in outcomes if isinstance(each, Failure)} == {"timeout"}
    assert told(outcomes) == {13: Disposition.RETRY, 14: Disposition.RETRY}


def test_a_batch_cancelled_before_its_first_step_ends_as_cancelled() -> None:
    execution = batch(job(1, "half_async"), job(2, "half_async"))
    execution.cancel_jobs({1, 2}, stopping=False)
    assert told(executor.cancelled_batch(execution, time.monotonic())) == {1: Disposition.CANCEL, 2: Disposition.CANCEL}
