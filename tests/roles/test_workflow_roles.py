"""Workflows by the roles of deploy/roles.sql: who may begin, run, cancel and retry them, with no other role's help."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from jobq import WorkflowFailed, WorkflowRun
from jobq._postgres.script import Script
from jobq._postgres.sql import statement
from jobq.operations import jobs as job_operations
from jobq.operations import workflows as operations
from jobq.operations.audit import Actor, AuditRecord
from tests.apps import workflows as apps
from tests.support.jobs import Jobs
from tests.support.servers.roles import Login, logins
from tests.support.waiting import wait_until
from tests.support.workers import WorkerProcess

DENIED = psycopg.errors.InsufficientPrivilege
q = apps.q

StartWorker = Callable[..., WorkerProcess]


@pytest.fixture
def login(database_url: str) -> Iterator[Login]:
    with logins(database_url) as made:
        yield made


@pytest.fixture
def producer(login: Login) -> Iterator[str]:
    """The URL of a producer, which the application has."""
    url = login("producer")
    q.configure(database_url=url)
    yield url
    q.close()


@pytest.fixture
def running(login: Login, worker: StartWorker) -> WorkerProcess:
    return worker("--processes", "1", app="tests.apps.workflows:q", database_url=login("worker"))


def content(worker: WorkerProcess) -> None:
    """The worker has met nothing that it may not do."""
    worker.terminate()
    assert worker.wait() == 0, worker.log
    for sign in ("permission denied", "must be owner", "InsufficientPrivilege"):
        assert sign not in worker.log


def change(connection: psycopg.Connection[Any], script: Script[Any]) -> Any:
    """Run an operation in one transaction."""
    with connection.transaction():
        name, parameters = next(script)
        try:
            while True:
                rows = connection.execute(statement(name, "jobq").query, parameters).fetchall()
                name, parameters = script.send(rows)
        except StopIteration as end:
            return end.value


def note(action: str) -> AuditRecord:
    return AuditRecord(action, Actor("ann"), None)


def test_a_producer_begins_and_a_worker_runs_it_to_the_end(producer: str, running: WorkerProcess) -> None:
    """With results, maps that a worker expands in steps, a condition, and a task that commits its own end."""
    with q.workflow("all", key="once") as wf:
        first = apps.number.node(1)
        inside = apps.transactional.node(first.result)
        many = apps.number.map(apps.numbers.node(1500).result)
        skipped = apps.noop.node().when(apps.number.node(0).result)
        apps.noop.node().named("below").after(skipped)
        end = apps.add.node(inside.result, apps.total.node(many.results).result)
    with psycopg.connect(producer) as connection:
        run = wf.enqueue(connection, end)
    assert run.result(timeout=60) == 2 + sum(range(1500)), running.log
    assert run.state() == "succeeded"
    content(running)


def test_a_worker_cancels_by_the_rule_and_by_the_deadline(producer: str, running: WorkerProcess) -> None:
    with q.workflow("failing", on_failure="cancel") as wf:
        apps.add.node(apps.odd.node(2).result, 1)
        apps.noop.options(delay=3600).node()
    failing = wf.submit()
    with q.workflow("late", deadline=0.5) as wf:
        apps.noop.options(delay=3600).node()
    late = wf.submit()
    with pytest.raises(WorkflowFailed, match="a node has failed"):
        failing.result(timeout=60)
    with pytest.raises(WorkflowFailed, match="its deadline has passed"):
        late.result(timeout=60)
    content(running)


def test_an_operator_cancels_and_retries(
    producer: str, login: Login, running: WorkerProcess, jobs: Jobs, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    broken.touch()
    with q.workflow("held") as wf:
        end = apps.add.node(apps.maybe.node(1, str(broken)).result, 2)
    run = wf.submit(end)
    with pytest.raises(WorkflowFailed, match="blocked"):
        run.result(timeout=60)
    with pytest.raises(DENIED):
        run.cancel()
    with psycopg.connect(login("operator"), autocommit=True) as operator:
        done = change(operator, operations.cancel("jobq", run.id, note("cancel_workflow"), reason="not wanted"))
        assert done.done
        wait_until(lambda: run.state() == "cancelled", what="the end of the run")
        broken.unlink()
        assert change(operator, operations.retry(run.id, note("retry_workflow"))).done
        assert run.result(timeout=60) == 3
        assert change(operator, operations.retry_from(run.id, None, note("retry_workflow"))).nodes == 2
        assert run.result(timeout=60) == 3
        # One job of a workflow by itself, too.
        broken.touch()
        with q.workflow("again") as wf:
            end = apps.add.node(apps.maybe.node(1, str(broken)).result, 3)
        run = wf.submit(end)
        with pytest.raises(WorkflowFailed, match="blocked"):
            run.result(timeout=60)
        broken.unlink()
        dead = jobs.one("SELECT id FROM jobq.job_history WHERE state = 'failed'")
        assert job_operations.retry(operator, "jobq", [dead], actor="ann").done == [dead]
        assert run.result(timeout=60) == 4
        with q.workflow("deleted", on_failure="continue") as wf:
            first = apps.noop.options(delay=3600).node()
            apps.noop.node().after(first)
        gone = wf.submit()
        waiting = jobs.one("SELECT id FROM jobq.job")
        assert job_operations.delete(operator, "jobq", [waiting], actor="ann").done == [waiting]
        assert gone.state() == "failed"
    actions = [row["action"] for row in jobs.all("SELECT action FROM jobq.audit ORDER BY id")]
    assert actions == ["cancel_workflow", "retry_workflow", "retry_workflow", "retry", "delete"]
    content(running)


def submitted(value: int = 1) -> WorkflowRun[int]:
    with q.workflow("plain") as wf:
        end = apps.add.node(apps.number.node(value).result, 1)
    return wf.submit(end)


def test_a_viewer_looks_and_changes_nothing(producer: str, login: Login) -> None:
    run = submitted()
    with psycopg.connect(login("viewer"), autocommit=True) as viewer:
        for table in ("", "_node", "_join", "_arrival", "_turn", "_result"):
            viewer.execute(f"SELECT * FROM jobq.workflow{table}".encode())
        scripts = [
            operations.cancel("jobq", run.id, note("cancel_workflow"), reason="because"),
            operations.retry(run.id, note("retry_workflow")),
        ]
        for script in scripts:
            with pytest.raises(DENIED):
                change(viewer, script)
        refused(viewer, ["SELECT jobq.enqueue_workflow('w', NULL, 'hold', NULL, '[]', '[]')"])
    assert run.state() == "running"


def refused(connection: psycopg.Connection[Any], statements: list[str]) -> None:
    for each in statements:
        with pytest.raises(DENIED):
            connection.execute(each.encode())


INNER = [
    "SELECT jobq.workflow_advance('{1}', '{1}', '{0}', '{0}')",
    "SELECT * FROM jobq.workflow_start('{1}')",
    "SELECT jobq.workflow_expand(1, 0, 1)",
    "SELECT jobq.workflow_failed('{1}')",
    "SELECT * FROM jobq.workflow_feeds('{1}', '{0}', '{succeeded}')",
    "SELECT jobq.workflow_value('{}')",
    "SELECT jobq.workflow_args('{}', '[]')",
    "SELECT jobq.workflow_notify()",
    "SELECT jobq.workflow_count('{1}', '{0}', '{failed}')",
    "SELECT jobq.workflow_take_back('{1}', '{0}', '{failed}')",
    "SELECT * FROM jobq.workflow_try_start('{1}')",
    "UPDATE jobq.workflow SET state = 'succeeded'",
    "UPDATE jobq.workflow_join SET remaining = 0",
    "UPDATE jobq.workflow_node SET args = '{}'",
    "UPDATE jobq.workflow_result SET result = '1'",
    "DELETE FROM jobq.workflow",
    "DELETE FROM jobq.workflow_node",
    "INSERT INTO jobq.workflow_arrival (join_id, ends, failed, skipped) VALUES (1, 1, 0, 0)",
]


@pytest.mark.parametrize(
    ("role", "more"),
    [
        (
            "producer",
            [
                "SELECT args FROM jobq.workflow_node",
                "SELECT key FROM jobq.workflow",
                "SELECT jobq.workflow_step()",
                "SELECT jobq.workflow_cancel(1, 'failed', '')",
                "SELECT jobq.workflow_retry(1)",
                "SELECT jobq.workflow_retry_from(1, NULL)",
                "SELECT jobq.workflow_undo(1)",
                "SELECT jobq.workflow_prune('{1}', 1)",
                "INSERT INTO jobq.workflow_result (node_id, item, state, finished_at) VALUES (1, 0, 'succeeded', now())",
            ],
        ),
        (
            "worker",
            [
                "SELECT jobq.workflow_retry(1)",
                "SELECT jobq.workflow_retry_from(1, NULL)",
                "SELECT jobq.workflow_undo(1)",
                "DELETE FROM jobq.workflow_result",
                "UPDATE jobq.workflow_turn SET from_item = 0",
            ],
        ),
        (
            "operator",
            [
                "SELECT jobq.workflow_step()",
                "SELECT jobq.workflow_prune('{1}', 1)",
                "SELECT jobq.enqueue_workflow('w', NULL, 'hold', NULL, '[]', '[]')",
                "DELETE FROM jobq.workflow_turn",
            ],
        ),
        (None, ["SELECT jobq.enqueue_workflow('w', NULL, 'hold', NULL, '[]', '[]')", "SELECT * FROM jobq.workflow"]),
    ],
)  # fmt: skip
def test_nobody_does_more(login: Login, role: str | None, more: list[str]) -> None:
    with psycopg.connect(login(role), autocommit=True) as connection:
        refused(connection, [*INNER, *more])
