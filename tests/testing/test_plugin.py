"""What users' tests get: the fixtures of jobq.testing."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session

from jobq import Backoff, JobQ, ResultTimeout, Snooze, UnsupportedConnection, current_job, queries
from jobq.errors import InvalidOption, JobNotFound
from jobq.testing import JobqTester
from tests.support.checks import some
from tests.support.servers import postgres

q = JobQ()
sent: list[str] = []


@q.task(queue="mail", backoff=Backoff(base=3600, cap=3600))
def send(address: str, *, at: datetime | None = None) -> str:
    if address == "broken":
        raise RuntimeError("no such address")
    if address == "later" and not sent:
        sent.append("snoozed")
        raise Snooze(3600)
    sent.append(address)
    return f"sent to {address}, attempt {current_job().attempt}"


ticks: list[tuple[str | None, datetime]] = []


@q.schedule("30 * * * *", name="hourly", tick_argument="at")
@q.schedule("15 2 * * *", name="nightly", tick_argument="at")
@q.task
def note(at: datetime) -> None:
    ticks.append((current_job().schedule, at))


@q.task(transactional=True, max_attempts=1)
def leave(how: str) -> None:
    connection = current_job().connection
    if how == "in session":
        current_job().session.execute(text("INSERT INTO effect VALUES ('in session')"))
        return
    connection.execute("INSERT INTO effect VALUES (%s)", (how,))
    match how:
        case "badly":
            raise RuntimeError("not that")
        case "statement":
            connection.execute("SELECT 1 / 0")
        case "commits":
            connection.commit()


@q.task
async def fan_out(addresses: list[str]) -> int:
    with q.connection() as connection:
        q.enqueue_many(connection, [send.job(address) for address in addresses])
    return len(addresses)


@pytest.fixture
def jobq_app() -> JobQ:
    sent.clear()
    return q


@pytest.fixture(scope="session")
def jobq_server_url(server: postgres.Server) -> str:
    return server.database_url("postgres")


def test_enqueued_jobs_are_found_by_task_and_arguments(jobq: JobqTester) -> None:
    when = datetime(2026, 1, 2, tzinfo=UTC)
    ref = send.submit("ann", at=when)
    send.options(delay=60).submit("bob")
    assert jobq.enqueued(send)[0].id == ref.id
    assert jobq.assert_enqueued(send, address="ann", at=when).id == ref.id
    assert jobq.assert_enqueued("send", address="bob").state == "scheduled"
    jobq.refute_enqueued(send, address="eve")
    with pytest.raises(
        AssertionError, match=r"no job of task 'send' with \{'address': 'eve'\}.*send \(job \d+, ready\)"
    ):
        jobq.assert_enqueued(send, address="eve")
    with pytest.raises(AssertionError, match="is enqueued: ready"):
        jobq.refute_enqueued(send, address="ann")


def test_uncommitted_jobs_are_not_there(jobq: JobqTester) -> None:
    with psycopg.connect(jobq.database_url) as connection:
        send.enqueue(connection, "ann")
        jobq.refute_enqueued(send)
        connection.rollback()
    with pytest.raises(AssertionError, match="there is none at all"):
        jobq.assert_enqueued(send)


def test_drain_runs_what_is_due_and_what_that_enqueues(jobq: JobqTester) -> None:
    ref = fan_out.submit(["ann", "bob", "broken"])
    send.options(delay=60).submit("eve")
    done = jobq.drain()
    assert (done.succeeded, done.failed, done.retried) == (3, 0, 1)
    assert sent == ["ann", "bob"]
    assert ref.result(timeout=1) == 3
    assert jobq.assert_enqueued(send, address="broken").attempt == 1


def test_drain_can_go_on_into_the_future(jobq: JobqTester) -> None:
    send.options(delay=60).submit("later")
    broken = send.options(max_attempts=2).submit("broken")
    done = jobq.drain(with_scheduled=True)
    assert (done.succeeded, done.failed, done.retried) == (1, 1, 2)
    assert sent == ["snoozed", "later"]
    assert jobq.enqueued() == []
    assert broken.status() == "failed"


async def test_drain_works_where_a_loop_runs(jobq: JobqTester) -> None:
    await fan_out.submit_async(["ann"])
    assert jobq.drain().succeeded == 2
    await q.aclose()


def test_one_job_is_run_by_itself(jobq: JobqTester) -> None:
    send.submit("first")
    chosen = send.options(delay=60).submit("chosen")
    done = jobq.run(chosen)
    assert (done.state, done.result) == ("succeeded", "sent to chosen, attempt 1")
    assert sent == ["chosen"]
    with pytest.raises(InvalidOption, match="succeeded"):
        jobq.run(chosen)
    with pytest.raises(JobNotFound):
        jobq.run(4711)


def test_a_job_is_reported_as_it_was_enqueued(jobq: JobqTester) -> None:
    for address, state in (("ann", "succeeded"), ("broken", "scheduled")):
        chosen = send.options(delay=3600, priority=5).submit(address)
        before = queries.get_job(jobq.connection, "jobq", chosen.id)
        done = jobq.run(chosen)
        assert (done.state, done.priority) == (state, 5)
        # Of the retry it is the retry's time.
        assert (
            done.run_at == before.run_at if state == "succeeded" else done.run_at > before.run_at - timedelta(hours=1)
        )


def test_its_database_url_is_one_for_everybody(jobq: JobqTester) -> None:
    assert jobq.database_url.startswith("postgresql://")
    with psycopg.connect(jobq.database_url) as connection:
        send.enqueue(connection, "ann")
    for url in (jobq.sqlalchemy_url, make_url(jobq.database_url).set(drivername="postgresql+psycopg")):
        engine = create_engine(url)
        with Session(engine) as session, session.begin():
            send.enqueue(session, "bob")
        engine.dispose()
    assert jobq.drain().succeeded == 3
    assert q.settings.sqlalchemy_url() == jobq.sqlalchemy_url


def test_time_passes_for_jobs(jobq: JobqTester) -> None:
    send.options(delay=3600).submit("ann")
    send.options(delay=2 * 3600).submit("bob")
    send.options(delay=2 * 3600, expires_in=3 * 3600).submit("eve")
    broken = send.submit("broken")
    assert jobq.drain().retried == 1
    jobq.advance(timedelta(minutes=61))
    jobq.drain(queues=("mail",))
    assert sent == ["ann"]
    # Its retry was an hour away at most.
    assert broken.status() in ("ready", "failed")
    assert queries.get_job(jobq.connection, "jobq", broken.id).attempt == 2
    jobq.advance(hours=4)
    jobq.drain()
    assert sent == ["ann", "bob"]
    for by in ({}, {"hours": -1}, {"until": datetime(2020, 1, 1, tzinfo=UTC)}, {"until": datetime(2999, 1, 1)}):
        with pytest.raises(InvalidOption, match=r"advance: |until="):
            jobq.advance(**by)


def test_time_passes_for_keys(jobq: JobqTester) -> None:
    keyed = send.options(key="one", key_period=3600)
    assert keyed.submit("ann").created
    jobq.drain()
    assert not keyed.submit("bob").created
    jobq.advance(hours=1)
    assert keyed.submit("bob").created


def test_schedules_tick_while_time_passes(jobq: JobqTester) -> None:
    ticks.clear()
    start = datetime.now(UTC)
    # Those of a whole day, whatever the hour is now.
    assert jobq.advance(days=1) == 24 + 1
    assert jobq.drain().succeeded == 25
    hours = [at for name, at in ticks if name == "hourly"]
    assert len(set(hours)) == 24
    assert all(start < at < start + timedelta(days=1, minutes=1) and at.minute == 30 for at in some(hours))
    [night] = [at for name, at in ticks if name == "nightly"]
    assert (night.hour, night.minute) == (2, 15)
    ticks.clear()
    tomorrow = (start + timedelta(days=3)).replace(hour=12, minute=0)
    jobq.advance(until=tomorrow)
    jobq.drain()
    assert [at.date() for name, at in ticks if name == "nightly"][-1] == tomorrow.date()
    assert max(at for _, at in ticks) <= tomorrow


@pytest.mark.parametrize("kind", ["psycopg", "connection", "session"])
def test_inside_a_transaction_of_the_test(jobq: JobqTester, kind: str) -> None:
    """The application's own test database, whose transactions are rolled back."""
    engine = create_engine(jobq.sqlalchemy_url)
    with ExitStack() as stack:
        if kind == "psycopg":
            connection: Any = stack.enter_context(psycopg.connect(jobq.database_url))
        else:
            connection = stack.enter_context(engine.connect() if kind == "connection" else Session(engine))
        with jobq.on(connection) as inner:
            ref = send.enqueue(connection, "ann")
            send.submit("broken")
            fanned = fan_out.job(["bob"])
            q.enqueue_many(connection, [fanned])
            inner.assert_enqueued(send, address="ann")
            jobq.refute_enqueued(send)
            # What fan_out enqueues on q's own connection is in the same transaction.
            done = inner.drain()
            assert (done.succeeded, done.failed, done.retried) == (3, 0, 1)
            assert sorted(sent) == ["ann", "bob"]
            assert ref.result() == "sent to ann, attempt 1"
            assert inner.run(send.options(delay=60).submit("later")).state == "succeeded"
            inner.advance(hours=2)
            assert inner.drain().retried == 1
            [broken] = inner.enqueued(send, address="broken")
            with pytest.raises(ResultTimeout, match="it has failed 2 of 10 times; it is tried again in"):
                q.ref(broken.id).result()
        connection.rollback()
        assert jobq.enqueued() == []
        assert send.submit("outside").status() == "ready"
    engine.dispose()
    jobq.assert_enqueued(send, address="outside")


def test_transactional_tasks_inside_a_transaction_of_the_test(jobq: JobqTester) -> None:
    jobq.connection.execute("CREATE TABLE effect (note text)")
    engine = create_engine(jobq.sqlalchemy_url)
    with Session(engine) as session:
        inner = jobq.on(session)
        for how in ("well", "badly", "in session", "statement", "commits"):
            leave.enqueue(session, how)
        done = inner.drain()
        assert (done.succeeded, done.failed) == (2, 3)
        effects = session.execute(text("SELECT note FROM effect")).all()
        assert sorted(note for (note,) in effects) == ["in session", "well"]
        session.rollback()
    engine.dispose()
    assert jobq.connection.execute("SELECT FROM effect").fetchall() == []


async def test_what_cannot_be_inside_a_transaction_of_the_test(jobq: JobqTester) -> None:
    with pytest.raises(UnsupportedConnection, match="autocommit"):
        jobq.on(jobq.connection)
    with psycopg.connect(jobq.database_url) as connection:
        inner = jobq.on(connection)
        with pytest.raises(UnsupportedConnection, match="is synchronous"):
            await send.submit_async("ann")
        inner.close()
    engine = create_async_engine(jobq.sqlalchemy_url)
    async with engine.connect() as asynchronous:
        with pytest.raises(UnsupportedConnection, match="asynchronous"):
            jobq.on(asynchronous)  # type: ignore[arg-type]
    await engine.dispose()
    assert (await send.submit_async("ann")).id
    await q.aclose()


def test_the_settings_come_back(jobq: JobqTester) -> None:
    assert q.settings.database_url == jobq.database_url


@pytest.mark.slow
def test_in_a_project_of_its_own(server: postgres.Server, tmp_path: Path) -> None:
    """As a user has it: the plugin by its entry point, the application by its setting."""
    (tmp_path / "shop.py").write_text(
        textwrap.dedent("""
            from jobq import JobQ
            q = JobQ()
            @q.task
            def greet(name: str) -> str:
                return f"hello {name}"
        """)
    )
    (tmp_path / "pyproject.toml").write_text('[tool.pytest.ini_options]\njobq_app = "shop:q"\n')
    (tmp_path / "test_shop.py").write_text(
        textwrap.dedent("""
            from shop import greet
            def test_greeting(jobq):
                ref = greet.submit("ann")
                jobq.assert_enqueued(greet, name="ann")
                assert jobq.drain().succeeded == 1
                assert ref.result(timeout=1) == "hello ann"
            def test_nothing_is_left_over(jobq):
                assert jobq.enqueued() == []
        """)
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env={**os.environ, "JOBQ_TEST_DATABASE_URL": server.database_url("postgres"), "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "2 passed" in done.stdout, done.stdout + done.stderr
