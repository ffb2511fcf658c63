"""Operators cancel runs of workflows and let them go on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from jobq import InvalidOption, JobBusy, WorkflowNotFound, operations, queries
from jobq.errors import OperationRefused
from jobq.operations import workflows as rounds
from jobq.operations.workflows import Rounds, RunChange
from tests.apps import workflows as apps
from tests.support.jobs import Jobs
from tests.support.waiting import wait_until
from tests.support.workers import WorkerProcess

q = apps.q
APP = "tests.apps.workflows:q"


@pytest.fixture(autouse=True)
def configured(database_url: str) -> None:
    q.configure(database_url=database_url)


def waiting_run(jobs: Jobs) -> int:
    with q.workflow("stopped") as wf:
        first = apps.number.options(delay=60).node(1)
        apps.add.node(first.result, apps.number.options(delay=60).node(2).result)
    return wf.enqueue(jobs.connection, first).id


def state(jobs: Jobs, run: int) -> str:
    found = queries.get_workflow(jobs.connection, "jobq", run)
    assert found is not None
    return found.run.state


def test_cancel_and_retry_a_run_and_its_audit(jobs: Jobs) -> None:
    run = waiting_run(jobs)
    done = operations.cancel_workflow(jobs.connection, "jobq", run, actor="ann", reason="wrong data")
    assert (done.done, done.jobs, done.left, done.refused) == (True, 2, 0, ())
    assert state(jobs, run) == "cancelled"
    assert jobs.one("SELECT reason FROM jobq.workflow") == "cancelled by ann: wrong data"
    assert operations.cancel_workflow(jobs.connection, "jobq", run, actor="ann").done is False
    done = operations.retry_workflow(jobs.connection, "jobq", run, actor="bob", reason="data are right now")
    assert (done.done, done.jobs, done.left, done.refused) == (True, 2, 0, ())
    assert state(jobs, run) == "running"
    assert jobs.one("SELECT count(*) FROM jobq.job WHERE node_id IS NOT NULL") == 2
    assert jobs.one("SELECT count(*) FROM jobq.workflow_result") == 0
    rows = jobs.all("SELECT actor, action, target, reason FROM jobq.audit ORDER BY id")
    assert [(row["actor"], row["action"], row["target"], row["reason"]) for row in rows] == [
        ("ann", "cancel_workflow", {"workflow": run}, "wrong data"),
        ("bob", "retry_workflow", {"workflow": run}, "data are right now"),
    ]


def test_an_unknown_run(jobs: Jobs) -> None:
    with pytest.raises(WorkflowNotFound, match="workflow run 77"):
        operations.cancel_workflow(jobs.connection, "jobq", 77, actor="ann")
    with pytest.raises(WorkflowNotFound, match="workflow run 77"):
        operations.retry_workflow(jobs.connection, "jobq", 77, actor="ann")
    assert jobs.one("SELECT count(*) FROM jobq.audit") == 0


def test_jobs_locked_by_others_are_tried_again(jobs: Jobs, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = waiting_run(jobs)
    monkeypatch.setattr(rounds, "_TRIES", 3)
    with psycopg.connect(database_url) as other:
        other.execute("SELECT FROM jobq.job WHERE id = (SELECT min(id) FROM jobq.job) FOR UPDATE")
        with pytest.raises(JobBusy, match=f"workflow run {run}: 1 job stayed locked"):
            operations.cancel_workflow(jobs.connection, "jobq", run, actor="ann")
        pauses: list[float] = []

        def release(seconds: float) -> None:
            pauses.append(seconds)
            other.rollback()

        monkeypatch.setattr("jobq.operations.workflows.time.sleep", release)
        done = operations.cancel_workflow(jobs.connection, "jobq", run, actor="ann")
    assert (done.done, done.jobs, len(pauses)) == (True, 1, 1)
    assert state(jobs, run) == "cancelled"


def test_a_run_has_not_ended_before_its_last_job(
    jobs: Jobs, worker: Callable[..., WorkerProcess], tmp_path: Path
) -> None:
    """Nor has the node that needs it: it ends as cancelled when its parent has ended."""
    worker("--processes", "1", app=APP)
    with q.workflow("stopped") as wf:
        apps.text.node(apps.stubborn.node(str(tmp_path / "go")).result)
    run = wf.enqueue(jobs.connection).id
    wait_until(lambda: jobs.one("SELECT count(*) FROM jobq.job WHERE state = 'running'") == 1, what="the start")
    assert operations.cancel_workflow(jobs.connection, "jobq", run, actor="ann").jobs == 1
    assert jobs.one("SELECT count(*) FROM jobq.workflow_result") == 0
    assert state(jobs, run) == "running"
    assert operations.retry_workflow(jobs.connection, "jobq", run, actor="ann").done is False
    (tmp_path / "go").touch()
    wait_until(lambda: state(jobs, run) == "cancelled", what="the end")
    assert jobs.one("SELECT count(*) FROM jobq.workflow_result") == 2
    assert jobs.one("SELECT count(*) FROM jobq.workflow_arrival") == 0


def test_a_held_run_goes_on(jobs: Jobs, worker: Callable[..., WorkerProcess], tmp_path: Path) -> None:
    worker("--processes", "1", app=APP)
    broken = tmp_path / "broken"
    broken.touch()
    with q.workflow("held") as wf:
        bad = apps.maybe.node(1, str(broken)).named("bad")
        end = apps.add.node(bad.result, 5)
    run = wf.enqueue(jobs.connection, end)
    wait_until(lambda: state(jobs, run.id) == "blocked", what="the failure")
    broken.unlink()
    assert operations.retry_workflow(jobs.connection, "jobq", run.id, actor="ann").jobs == 1
    assert run.result(timeout=30) == 6


def test_a_run_retries_from_a_node_by_a_real_worker(jobs: Jobs, worker: Callable[..., WorkerProcess]) -> None:
    worker("--processes", "1", app=APP)
    with q.workflow("stamps") as wf:
        first = apps.stamp.node().named("first")
        many = apps.number.map([1, 2, 3]).after(first).named("many")
        last = apps.stamp.node().after(many).named("last")
    run = wf.enqueue(jobs.connection, last)
    results = [run.result(timeout=30)]
    assert run.retry() is False, "it has succeeded"
    again: dict[str, Any]
    for again in ({"from_node": "many"}, {"all_nodes": True}, {"from_node": 3}):
        assert run.retry("wrong", **again) is True
        results.append(run.result(timeout=30))
    assert results == sorted(set(results))
    assert jobs.one("SELECT count(*) FROM jobq.job_history WHERE node_id IS NULL") == (3 + 1) + 5 + 1
    assert jobs.one("SELECT count(*) FROM jobq.job_history WHERE node_id IS NOT NULL") == 5
    assert jobs.one("SELECT count(*) FROM jobq.audit WHERE action = 'retry_workflow' AND reason = 'wrong'") == 3
    wrong: dict[str, Any]
    for wrong in ({"from_node": 1, "all_nodes": True}, {"from_node": True}, {"from_node": 1.5}):
        with pytest.raises(InvalidOption, match="from_node="):
            run.retry(**wrong)
    with pytest.raises(OperationRefused, match=f"workflow run {run.id} is not retried: node 'nosuch': the run has no"):
        run.retry(from_node="nosuch")
    with pytest.raises(WorkflowNotFound, match="there is no workflow run 77"):
        q.workflow_run(77).retry(all_nodes=True)


async def test_a_run_retries_from_a_node_asynchronously(jobs: Jobs) -> None:
    run = q.workflow_run(waiting_run(jobs))
    assert await run.retry_async(from_node=1) is True
    jobs.connection.execute("UPDATE jobq.job SET state = 'running', started_at = now(), claims = 1")
    with pytest.raises(OperationRefused, match="node 'number' is running: job"):
        await run.retry_async(all_nodes=True)
    await q.aclose()


def test_rounds_tell_what_all_of_them_did() -> None:
    """The last one may find that the run has ended by those before it."""
    all_rounds = Rounds(7)
    firsts = [all_rounds.is_first]
    assert all_rounds.add(RunChange(done=True, jobs=5_000, left=1)) is None
    firsts.append(all_rounds.is_first)
    assert firsts == [True, False]
    assert all_rounds.add(RunChange(done=False)) == RunChange(done=True, jobs=5_000)
    assert Rounds(7).add(RunChange(done=False)) == RunChange(done=False)


def test_rounds_end_when_nothing_changes_any_more() -> None:
    all_rounds = Rounds(7)
    for _ in range(150):
        assert all_rounds.add(RunChange(done=True, jobs=1, left=1)) is None
        assert not all_rounds.is_stalled
    for _ in range(99):
        assert all_rounds.add(RunChange(done=True, left=2)) is None
        assert all_rounds.is_stalled
    with pytest.raises(JobBusy, match="workflow run 7: 2 jobs stayed locked by others: try again"):
        all_rounds.add(RunChange(done=True, left=2))
