"""A node of a workflow that an operator lets run again begins from the start: its old steps are not replayed."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from jobq import operations
from jobq.errors import WorkflowFailed
from tests.apps import durable as apps
from tests.support.jobs import Jobs
from tests.support.traces import lines
from tests.support.waiting import wait_until
from tests.support.workers import WorkerProcess

q = apps.q
APP = "tests.apps.durable:q"


@pytest.fixture(autouse=True)
def running(jobs: Jobs, database_url: str, worker: Callable[..., WorkerProcess]) -> Iterator[WorkerProcess]:
    q.configure(database_url=database_url)
    yield worker("--processes", "1", app=APP)
    q.close()


def run_again(jobs: Jobs, run: int) -> None:
    done = operations.retry_workflow(jobs.connection, "jobq", run, actor="ann", all_nodes=True)
    assert (done.done, done.nodes, done.refused) == (True, 1, ())


def test_a_node_that_succeeded(jobs: Jobs, path: str) -> None:
    """The steps of the job that is set aside stay with it."""
    with q.workflow("w") as wf:
        node = apps.line.node(path)
    run = wf.enqueue(jobs.connection, node)
    assert run.result(timeout=30) == [1, 2, 3]
    run_again(jobs, run.id)
    assert run.result(timeout=30) == [4, 5, 6]
    assert lines(path) == [f"step {number % 3}" for number in range(6)]
    jobs_with_steps = jobs.all("SELECT job_id, count(*) AS steps FROM jobq.job_step GROUP BY job_id ORDER BY job_id")
    kept = jobs.one("SELECT id FROM jobq.job_history WHERE node_id IS NULL")
    id_ = jobs.one("SELECT id FROM jobq.workflow_node")
    assert jobs_with_steps == [{"job_id": id_, "steps": 3}, {"job_id": kept, "steps": 3}]


def test_a_node_that_failed(jobs: Jobs, path: str) -> None:
    with q.workflow("w", on_failure="continue") as wf:
        node = apps.line.options(max_attempts=1).node(path, 1)
    run = wf.enqueue(jobs.connection, node)
    for times in (1, 2):
        with pytest.raises(WorkflowFailed):
            run.result(timeout=30)
        assert lines(path) == ["step 0"] * times
        if times == 1:
            run_again(jobs, run.id)


def test_a_node_that_waits_for_a_child(jobs: Jobs) -> None:
    """The child is cancelled, and the node's next job starts another one."""
    with q.workflow("w") as wf:
        apps.waits_for_child.node(3600.0)
    run = wf.enqueue(jobs.connection)
    node = jobs.one("SELECT id FROM jobq.workflow_node")
    children = f"SELECT id, state FROM jobq.workflow WHERE parent_job_id = {node} ORDER BY id"
    waits = f"SELECT count(*) FROM jobq.job WHERE id = {node} AND state = 'ready' AND claims > 0"
    wait_until(lambda: jobs.all(children) != [] and jobs.one(waits) == 1, what="the child")
    run_again(jobs, run.id)
    wait_until(
        lambda: [row["state"] for row in jobs.all(children)] == ["cancelled", "running"],
        timeout=30,
        what="the first child's end and the second child",
    )
