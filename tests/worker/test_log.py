"""What a worker's log tells of each job that ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.apps import plain as apps
from tests.support.jobs import Jobs
from tests.support.workers import WorkerProcess

StartWorker = Callable[..., WorkerProcess]


def lines(worker: WorkerProcess, message: str) -> list[dict[str, Any]]:
    """The lines with this message, of a worker that has ended."""
    read = [json.loads(line) for line in worker.log.splitlines() if line.startswith("{")]
    return [line for line in read if line["message"] == message]


def test_a_failed_attempt_has_task_queue_attempts_and_error(jobs: Jobs, worker: StartWorker) -> None:
    failed = apps.always_fail.options(queue="mail").enqueue(jobs.connection)
    done = apps.noop.enqueue(jobs.connection)
    running = worker("--processes", "1", "--log-format", "json")
    jobs.wait(failed.id)
    jobs.wait(done.id)
    running.terminate()
    assert running.wait() == 0, running.log
    first, second = lines(running, "job set back")
    [last] = lines(running, "job failed")
    assert [line["attempt"] for line in (first, second, last)] == [1, 2, 3]
    for line in (first, second, last):
        assert (line["job"], line["task"], line["queue"], line["max_attempts"]) == (failed.id, "always_fail", "mail", 3)
        assert line["outcome"] == "error"
        assert line["error"].startswith("ValueError: it is no use ")
        assert "traceback" not in line
    assert first["retry_in"] is not None
    assert (last["level"], last["retry_in"]) == ("error", None)
    # At level info nothing is told of one that went well.
    assert lines(running, "job succeeded") == []


def test_success_and_tracebacks_on_request(jobs: Jobs, worker: StartWorker) -> None:
    failed = apps.always_fail.options(max_attempts=1).enqueue(jobs.connection)
    done = apps.noop.options(queue="quick").enqueue(jobs.connection)
    running = worker("--processes", "1", "--log-format", "json", "--log-level", "debug", "--log-tracebacks")
    jobs.wait(failed.id)
    jobs.wait(done.id)
    running.terminate()
    assert running.wait() == 0, running.log
    [line] = lines(running, "job succeeded")
    assert (line["level"], line["job"], line["task"], line["queue"], line["attempt"]) == (
        "debug", done.id, "noop", "quick", 1,
    )  # fmt: skip
    assert line["seconds"] >= 0
    [line] = lines(running, "job failed")
    assert line["traceback"].startswith("Traceback (most recent call last)")
    assert "raise ValueError(" in line["traceback"]


def test_a_killed_runner_is_told_with_its_job(jobs: Jobs, worker: StartWorker) -> None:
    """Judged by the dispatcher, which only knows the job."""
    failed = apps.crash.options(queue="mail").enqueue(jobs.connection, "exit")
    running = worker("--processes", "1", "--max-crashes", "1", "--log-format", "json")
    jobs.wait(failed.id)
    running.terminate()
    assert running.wait() == 0, running.log
    [line] = lines(running, "job failed")
    assert (line["task"], line["queue"], line["attempt"], line["outcome"]) == ("crash", "mail", 1, "crashed")


@pytest.mark.parametrize("length", [10, 100_000])
def test_a_long_traceback_keeps_its_ends(length: int) -> None:
    from jobq._worker.ipc.messages import Disposition, Failure
    from jobq._worker.outcomes.outcome_log import MOST_OF_TRACEBACK, failure_fields

    text = "Traceback" + "x" * length + "ValueError: at the end"
    setback = Failure(1, 1, 0, Disposition.RETRY, recorded="error", error_type="ValueError", message="", traceback=text)
    told = failure_fields(setback, tracebacks=True)["traceback"]
    assert told.startswith("Traceback")
    assert told.endswith("ValueError: at the end")
    assert len(told) < MOST_OF_TRACEBACK + 100
