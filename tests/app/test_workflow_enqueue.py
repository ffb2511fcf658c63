"""Enqueueing workflows: every kind of connection, committed or rolled back, and inside middleware."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from jobq import AsyncEnqueueNext, EnqueueNext, JobQ, MiddlewareError, NewJob, Node, UnsupportedConnection
from jobq.job import InsertResult
from jobq.testing import JobqTester
from jobq.workflow import Workflow
from tests.support.jobs import Jobs


class App:
    """An application with two tasks, and a workflow of a node, a map and a node."""

    def __init__(self, url: str) -> None:
        self.q = JobQ(url)

        @self.q.task(queue="math", headers={"team": "blue"})
        def double(number: int) -> int:
            return number * 2

        @self.q.task
        def total(parts: Sequence[int], first: int) -> int:
            return sum(parts) + first

        self.double, self.total = double, total

    def build(self, **options: Any) -> tuple[Workflow, Node[int]]:
        with self.q.workflow("sums", **options) as wf:
            first = self.double.node(1)
            end = self.total.node(self.double.map([1, 2, 3]).results, first.result)
        return wf, end


@pytest.fixture
def app(database_url: str) -> App:
    return App(database_url)


def by_psycopg(app: App, url: str, commit: bool) -> None:
    with psycopg.connect(url) as connection:
        app.build()[0].enqueue(connection)
        connection.commit() if commit else connection.rollback()


def by_a_psycopg_transaction(app: App, url: str, commit: bool) -> None:
    with psycopg.connect(url, autocommit=True) as connection, connection.transaction(force_rollback=not commit):
        app.build()[0].enqueue(connection)


def by_sqlalchemy_connection(app: App, url: str, commit: bool) -> None:
    engine = create_engine(alchemy(url))
    with engine.connect() as connection:
        app.build()[0].enqueue(connection)
        connection.commit() if commit else connection.rollback()
    engine.dispose()


def by_session(app: App, url: str, commit: bool) -> None:
    engine = create_engine(alchemy(url))
    with Session(engine) as session:
        app.build()[0].enqueue(session)
        session.commit() if commit else session.rollback()
    engine.dispose()


async def by_async_psycopg(app: App, url: str, commit: bool) -> None:
    async with await psycopg.AsyncConnection.connect(url) as connection:
        await app.build()[0].enqueue_async(connection)
        await (connection.commit() if commit else connection.rollback())


async def by_async_connection(app: App, url: str, commit: bool) -> None:
    engine = create_async_engine(alchemy(url))
    async with engine.connect() as connection:
        await app.build()[0].enqueue_async(connection)
        await (connection.commit() if commit else connection.rollback())
    await engine.dispose()


async def by_async_session(app: App, url: str, commit: bool) -> None:
    engine = create_async_engine(alchemy(url))
    async with AsyncSession(engine) as session:
        await app.build()[0].enqueue_async(session)
        await (session.commit() if commit else session.rollback())
    await engine.dispose()


def alchemy(url: str) -> str:
    return url.replace("postgresql://", "postgresql+psycopg://", 1)


def counts(jobs: Jobs) -> tuple[int, ...]:
    tables = ("workflow", "workflow_node", "workflow_join", "job")
    return tuple(jobs.one(f"SELECT count(*) FROM jobq.{table}") for table in tables)


INSERTED = (1, 3, 3, 4)


@pytest.mark.parametrize(
    "by", [by_psycopg, by_a_psycopg_transaction, by_sqlalchemy_connection, by_session], ids=lambda by: by.__name__
)
@pytest.mark.parametrize("commit", [True, False])
def test_a_run_exists_if_its_transaction_commits(
    app: App, jobs: Jobs, database_url: str, by: Callable[[App, str, bool], None], commit: bool
) -> None:
    by(app, database_url, commit)
    assert counts(jobs) == (INSERTED if commit else (0, 0, 0, 0))


@pytest.mark.parametrize("by", [by_async_psycopg, by_async_connection, by_async_session], ids=lambda by: by.__name__)
@pytest.mark.parametrize("commit", [True, False])
async def test_the_same_on_an_event_loop(
    app: App, jobs: Jobs, database_url: str, by: Callable[[App, str, bool], Awaitable[None]], commit: bool
) -> None:
    await by(app, database_url, commit)
    assert counts(jobs) == (INSERTED if commit else (0, 0, 0, 0))


def test_autocommit_and_submit(app: App, jobs: Jobs) -> None:
    app.build()[0].enqueue(jobs.connection)
    assert counts(jobs) == INSERTED
    wf, end = app.build()
    run = wf.submit(end)
    assert run.created
    assert run.state() == "running"
    assert counts(jobs)[0] == 2
    app.q.close()


async def test_submit_on_an_event_loop(app: App, jobs: Jobs) -> None:
    wf, end = app.build(key="k")
    run = await wf.submit_async(end)
    assert (run.created, await run.state_async(), counts(jobs)) == (True, "running", INSERTED)
    again = await app.build(key="k")[0].submit_async()
    assert (again.created, again.id, counts(jobs)) == (False, run.id, INSERTED)
    await app.q.aclose()


def test_what_is_no_connection(app: App) -> None:
    wf, _ = app.build()
    for wrong in (None, "postgresql://localhost/x", create_engine("postgresql+psycopg://localhost/x")):
        with pytest.raises(UnsupportedConnection):
            wf.enqueue(wrong)  # type: ignore[call-overload]
    with wf:
        app.double.node(1)  # it is not enqueued, so it may grow


# --- Middleware


class Recorder:
    """Sees the jobs and their results, and adds a header."""

    def __init__(self) -> None:
        self.seen: list[NewJob] = []
        self.results: list[InsertResult] = []

    def enqueue(self, jobs: Sequence[NewJob], call_next: EnqueueNext) -> None:
        self.seen += jobs
        self.results += call_next([job.with_headers({"trace": f"t{place}"}) for place, job in enumerate(jobs)])

    async def enqueue_async(self, jobs: Sequence[NewJob], call_next: AsyncEnqueueNext) -> None:
        self.seen += jobs
        self.results += await call_next([job.with_headers({"trace": f"t{place}"}) for place, job in enumerate(jobs)])


def check_recorded(recorder: Recorder, jobs: Jobs, run_id: int) -> None:
    assert [(job.task, job.args_json) for job in recorder.seen] == [
        ("double", '{"number": 1}'),
        ("double", "{}"),
        ("total", '{"parts": null, "first": null}'),
    ]
    nodes = jobs.all(
        f"SELECT id, name, headers, queue FROM jobq.workflow_node WHERE workflow_id = {run_id} ORDER BY number"
    )
    assert [result.id for result in recorder.results] == [node["id"] for node in nodes]
    assert all(result.created and not result.replaced for result in recorder.results)
    assert [node["headers"] for node in nodes] == [
        {"team": "blue", "trace": "t0"},
        {"team": "blue", "trace": "t1"},
        {"trace": "t2"},
    ]
    assert jobs.all("SELECT DISTINCT node_id, headers FROM jobq.job ORDER BY node_id") == [
        {"node_id": nodes[0]["id"], "headers": {"team": "blue", "trace": "t0"}},
        {"node_id": nodes[1]["id"], "headers": {"team": "blue", "trace": "t1"}},
    ]


def test_nodes_pass_the_middleware(app: App, jobs: Jobs, database_url: str) -> None:
    recorder = Recorder()
    app.q.middleware(recorder)
    wf, end = app.build()
    run = wf.enqueue(jobs.connection, end)
    check_recorded(recorder, jobs, run.id)
    # The jobs that a worker inserts later have the headers, too.
    with JobqTester(app.q, database_url) as tester:
        assert tester.drain().succeeded == 5
    assert run.result() == 14
    [last] = jobs.all("SELECT headers FROM jobq.job_history WHERE task = 'total'")
    assert last["headers"] == {"trace": "t2"}
    app.q.close()


async def test_nodes_pass_the_middleware_on_an_event_loop(app: App, jobs: Jobs) -> None:
    recorder = Recorder()
    app.q.middleware(recorder)
    run = await app.build()[0].submit_async()
    check_recorded(recorder, jobs, run.id)
    await app.q.aclose()


def test_middleware_of_one_task_and_other_options(app: App, jobs: Jobs) -> None:
    @app.q.middleware.enqueue(tasks=[app.total])
    def late(found: Sequence[NewJob], call_next: EnqueueNext) -> None:
        assert [job.task for job in found] == ["total"]
        call_next([job.with_options(priority=9, queue="other", delay=5.0, group="g") for job in found])

    app.build()[0].enqueue(jobs.connection)
    rows = jobs.all("SELECT name, priority, queue, delay, group_key FROM jobq.workflow_node ORDER BY number")
    assert [tuple(row.values()) for row in rows] == [
        ("double", 5, "math", None, None),
        ("double-2", 5, "math", None, None),
        ("total", 9, "other", 5.0, "g"),
    ]


def test_a_run_that_holds_the_key(app: App, jobs: Jobs) -> None:
    recorder = Recorder()
    app.q.middleware(recorder)
    first = app.build(key="k")[0].enqueue(jobs.connection)
    ids = [result.id for result in recorder.results]
    recorder.results.clear()
    with app.q.workflow("sums", key="k") as larger:
        for number in range(4):
            app.double.node(number)
    assert larger.enqueue(jobs.connection).id == first.id
    assert recorder.results == [InsertResult(id, False, False) for id in [*ids, None]]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda job: job.with_options(run_at=datetime(2030, 1, 1, tzinfo=UTC)), "gave node 'double' run_at=2030-01-01"),
        (lambda job: replace(job, args_json='{"number": 9}'), "has changed the arguments of node 'double'"),
        (lambda job: job.with_options(key="k"), "has changed the task or the key of a job of 'double'"),
        (lambda job: None, "passed on None: pass on jobs"),
    ],
)
def test_what_middleware_cannot_change(app: App, jobs: Jobs, change: Callable[[NewJob], Any], text: str) -> None:
    @app.q.middleware.enqueue
    def wrong(found: Sequence[NewJob], call_next: EnqueueNext) -> None:
        call_next([change(job) for job in found])

    with pytest.raises(MiddlewareError, match=text):
        app.build()[0].enqueue(jobs.connection)
    assert counts(jobs) == (0, 0, 0, 0)


def test_middleware_that_refuses(app: App, jobs: Jobs) -> None:
    @app.q.middleware.enqueue
    def refuse(found: Sequence[NewJob], call_next: EnqueueNext) -> None:
        raise PermissionError("not today")

    wf, _ = app.build()
    with pytest.raises(PermissionError, match="not today"):
        wf.enqueue(jobs.connection)
    assert counts(jobs) == (0, 0, 0, 0)
    with wf:
        app.double.node(1)  # it is not enqueued, so it may grow
