"""Each execution has context variables of its own: decimal's context, a tracer's span, a tenant's name."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from jobq.task import BaseTask
from tests.apps import rough
from tests.support.jobs import Jobs
from tests.support.workers import WorkerProcess

StartWorker = Callable[..., WorkerProcess]
TASKS = [rough.context_sync, rough.context_async, rough.context_transactional, rough.context_transactional_async]


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name.rpartition(".")[2])
def test_a_job_sees_nothing_of_the_one_before(
    jobs: Jobs, worker: StartWorker, task: BaseTask[[str], list[str]]
) -> None:
    ids = [task.enqueue(jobs.connection, name).id for name in ("acme", "globex", "initech")]
    worker("--processes", "1", "--concurrency", "1", app="tests.apps.rough:q")
    third = "0.3333333333333333333333333333"
    assert [jobs.wait(job)["result"] for job in ids] == [["nobody", third, str(job)] for job in ids]
