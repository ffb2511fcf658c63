"""What users' tests get: the fixtures of jobq.testing."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest

from jobq import Backoff, JobQ, Snooze, current_job
from jobq.errors import InvalidOption, JobNotFound
from jobq.testing import JobqTester
from tests.support import postgres

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


def test_the_settings_come_back(jobq: JobqTester) -> None:
    assert q.settings.database_url == jobq.database_url


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
