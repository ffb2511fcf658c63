"""Signals and steps by the roles of deploy/roles.sql: who may send, and who may read."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from jobq import PermissionDenied, operations, queries
from jobq.testing import JobqTester
from tests.apps import approvals as apps
from tests.support.jobs import Jobs
from tests.support.servers.roles import Login, logins

q = apps.q


@pytest.fixture
def login(database_url: str) -> Iterator[Login]:
    with logins(database_url) as made:
        yield made


@pytest.fixture
def tester(jobs: Jobs, database_url: str) -> Iterator[JobqTester]:
    q.configure(database_url=database_url)
    with JobqTester(q, database_url) as made:
        yield made
    q.close()


def test_an_operator_reads_and_sends_and_a_viewer_reads(login: Login, jobs: Jobs, tester: JobqTester) -> None:
    with q.workflow("orders") as wf:
        apps.order.node(1)
    run = wf.enqueue(jobs.connection).id
    job = apps.order.enqueue(jobs.connection, 2)
    tester.drain()
    for role in ("viewer", "operator"):
        with psycopg.connect(login(role), autocommit=True) as connection:
            assert queries.job_steps(connection, "jobq", job.id).total == 3
            assert queries.job_waits(connection, "jobq", job.id).signals == ["approval"]
            assert queries.job_signals(connection, "jobq", job.id) == []
            assert [wait.name for wait in queries.run_waits(connection, "jobq", run)] == ["approval"]
            assert queries.run_signals(connection, "jobq", run) == []
            why = queries.why_waiting(connection, "jobq", queries.get_job(connection, "jobq", job.id))
            assert why == "It waits for the signal 'approval', without a time limit."
    with psycopg.connect(login("viewer"), autocommit=True) as viewer:
        with pytest.raises(PermissionDenied):
            operations.send_signal(viewer, "jobq", job.id, "approval", {"by": "eve"}, actor="eve")
        with pytest.raises(PermissionDenied):
            operations.send_workflow_signal(viewer, "jobq", run, "approval", {"by": "eve"}, actor="eve")
    assert jobs.one("SELECT count(*) FROM jobq.job_signal") == 0
    with psycopg.connect(login("operator"), autocommit=True) as operator:
        operations.send_signal(operator, "jobq", job.id, "approval", {"by": "ada"}, actor="ann")
        operations.send_workflow_signal(operator, "jobq", run, "approval", {"by": "ada"}, actor="ann")
        for statement in ("UPDATE jobq.job_signal SET name = 'x'", "UPDATE jobq.job_step SET result = '2'"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                operator.execute(statement.encode())
    tester.drain()
    assert job.result(timeout=5) == "ada"
    assert [row["actor"] for row in jobs.all("SELECT actor FROM jobq.audit")] == ["ann", "ann"]


def test_a_producer_sends_and_cannot_read(login: Login, jobs: Jobs, tester: JobqTester) -> None:
    job = apps.order.enqueue(jobs.connection, 2)
    with psycopg.connect(login("producer"), autocommit=True) as producer:
        q.send_signal(producer, job, "approval", apps.Decision("ada"))
        for read in (queries.job_steps, queries.job_signals):
            with pytest.raises(PermissionDenied):
                read(producer, "jobq", job.id)
    tester.drain()
    assert job.result(timeout=5) == "ada"
