"""What an attempt that does not succeed has logged is kept with it."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest

from jobq import JobQ
from jobq._core.logs import context as log_context
from jobq._worker.ipc.messages import Failure, Job
from jobq._worker.runner import attempt_logs
from jobq._worker.runner.execution import Execution
from jobq._worker.runner.executor import Executor, Outcome
from jobq.task import BaseTask
from tests.apps import logged
from tests.support.checks import some
from tests.support.jobs import Jobs
from tests.support.workers import WorkerProcess

StartWorker = Callable[..., WorkerProcess]

q, odd = JobQ(), JobQ()
logger = logging.getLogger("shop")


@q.task(max_attempts=3)
def act(how: str) -> None:
    logger.warning("acting", extra={"how": how, "task": "mine"})
    if how != "well":
        raise ValueError(how)


@pytest.fixture
def keeping() -> Iterator[None]:
    log_context.install()
    handler = attempt_logs.KeepingHandler(2048)
    logging.getLogger().addHandler(handler)
    yield
    logging.getLogger().removeHandler(handler)


def executed(how: str, app: JobQ = q) -> tuple[Execution, Outcome]:
    executor = Executor(
        tasks=app.tasks,
        bodies={name: task.function for name, task in app.tasks.items()},
        run_coroutine=lambda execution, coroutine: None,
        report_progress=lambda job, done, total: None,
        max_result_bytes=1000,
        max_error_bytes=10_000,
        transactions=None,  # type: ignore[arg-type]  # no transactional task here
    )
    job = Job(17, 1, "act", "default", json.dumps({"how": how}).encode(), 2, 3, 0, None, b"{}")
    execution = Execution(job=job, worker=uuid4())
    return execution, executor.execute(execution, time.monotonic())


def test_a_failure_has_its_log_without_the_job(keeping: None) -> None:
    _, outcome = executed("badly")
    assert isinstance(outcome, Failure)
    assert outcome.log is not None
    # The job's own task is left out; a field of that name with another value is not.
    assert outcome.log.endswith(" WARNING shop acting how=badly task=mine")


def test_a_field_named_like_the_jobs_may_be_anything(keeping: None) -> None:
    """It is only shown: it need not compare."""

    class Odd:
        def __eq__(self, other: object) -> bool:
            raise TypeError("this does not compare")

        __hash__ = None  # type: ignore[assignment]

        def __str__(self) -> str:
            return "odd"

    @odd.task
    def act(how: str) -> None:
        logger.warning("acting", extra={"task": Odd(), "queue": "default"})
        raise ValueError(how)

    _, outcome = executed("badly", odd)
    assert isinstance(outcome, Failure)
    # The queue is the job's.
    assert str(outcome.log).endswith(" WARNING shop acting task=odd")


def test_a_success_has_none(keeping: None) -> None:
    execution, outcome = executed("well")
    assert not isinstance(outcome, Failure)
    assert execution.log is not None


def test_nothing_is_kept_without_the_handler() -> None:
    execution, outcome = executed("badly")
    assert isinstance(outcome, Failure)
    assert (execution.log, outcome.log) == (None, None)


def test_a_record_outside_of_a_task_is_not_kept(keeping: None) -> None:
    logger.warning("outside")
    _, outcome = executed("badly")
    assert isinstance(outcome, Failure)
    assert "outside" not in str(outcome.log)


def test_no_handler_for_no_bytes() -> None:
    before = logging.getLogger().handlers[:]
    attempt_logs.keep(0)
    assert logging.getLogger().handlers == before


# --- With a worker ---


def test_each_kind_of_task(jobs: Jobs, worker: StartWorker) -> None:
    tasks: list[BaseTask[..., Any]] = [logged.plain, logged.on_loop, logged.in_transaction]
    well = [task.enqueue(jobs.connection, how="well").id for task in tasks]
    badly = [task.enqueue(jobs.connection, how="fail").id for task in tasks]
    running = worker("--processes", "1", "--drain", "--log-format", "json", app="tests.apps.logged:q")
    assert running.wait() == 0, running.log
    for id in well:
        [first] = jobs.attempts(id)
        assert "shop well begins, \\x00 and all order=7" in first["log"]
        assert "goes well" not in first["log"]
    for id in badly:
        first, last = jobs.attempts(id)
        assert (first["outcome"], last["outcome"]) == ("error", "error")
        for attempt in (first, last):
            assert "shop fail begins, \\x00 and all order=7" in attempt["log"]
            assert f"job_id={id}" not in attempt["log"]
    [first] = jobs.attempts(well[1])
    for line in ("in a task of its own", "in a thread"):
        assert first["log"].count(line) == 1
    # The worker's log names the job instead.
    lines = [json.loads(line) for line in running.log.splitlines() if line.startswith("{")]
    of_task = [line for line in lines if line["logger"] == "shop" and line["job_id"] == well[0]]
    assert [(line["task"], line["queue"], line["attempt"]) for line in of_task] == [
        ("plain", "default", 1), ("plain", "default", 2), ("plain", "default", 2),
    ]  # fmt: skip


def test_the_newest_64_kib_are_kept(jobs: Jobs, worker: StartWorker) -> None:
    id = logged.talk.enqueue(jobs.connection, lines=2000).id
    running = worker("--processes", "1", "--drain", app="tests.apps.logged:q")
    assert running.wait() == 0, running.log
    [attempt] = jobs.attempts(id)
    first, second, *_, last = attempt["log"].split("\n")
    assert first == "… earlier records were left out …"
    assert " INFO    shop line 00" in second
    assert "line 001999 " in last
    assert 60_000 < len(attempt["log"].encode()) <= 65_536


def test_off(jobs: Jobs, worker: StartWorker) -> None:
    id = logged.plain.enqueue(jobs.connection, how="fail").id
    environment = {"JOBQ_ATTEMPT_LOG_BYTES": "0"}
    running = worker("--processes", "1", "--drain", app="tests.apps.logged:q", env=environment)
    assert running.wait() == 0, running.log
    # One or two: a drain may end before the retry is due.
    assert {attempt["log"] for attempt in some(jobs.attempts(id))} == {None}
