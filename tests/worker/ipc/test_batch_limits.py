"""How many jobs may share a call with a job that has failed before."""

from __future__ import annotations

from typing import Any

import pytest

from jobq._worker.ipc.batch_limits import batch_limit
from jobq._worker.ipc.messages import Job


def job(attempt: int = 1, max_attempts: int = 10, **changes: Any) -> Job:
    values: dict[str, Any] = {"crashes": 0, "timeout": None, **changes}
    return Job(1, 1, "index", "default", b"{}", attempt, max_attempts, headers=b"{}", **values)


@pytest.mark.parametrize(
    ("size", "max_attempts", "limits"),
    [
        (500, 10, [500, 63, 8, 1, 1, 1, 1, 1, 1, 1]),
        (1000, 4, [1000, 100, 10, 1]),
        (500, 3, [500, 23, 1]),
        (500, 2, [500, 1]),
        (500, 1, [500]),
        (1, 5, [1, 1, 1, 1, 1]),
    ],
)
def test_a_job_runs_in_smaller_batches_after_each_attempt_and_alone_at_its_last(
    size: int, max_attempts: int, limits: list[int]
) -> None:
    assert [batch_limit(size, job(attempt + 1, max_attempts)) for attempt in range(max_attempts)] == limits


@pytest.mark.parametrize("changes", [{"crashes": 1}, {"run_alone": True}, {"releases": 1}])
def test_a_job_whose_runner_has_ended_runs_alone(changes: dict[str, Any]) -> None:
    assert batch_limit(500, job(**changes)) == 1


def test_a_job_that_an_operator_has_given_more_attempts_still_runs_alone() -> None:
    assert batch_limit(500, job(attempt=12, max_attempts=11)) == 1
