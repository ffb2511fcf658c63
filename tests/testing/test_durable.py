"""Durable tasks in the tests of applications: time, signals and crashes, without a worker."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from jobq import ChildFailed, SignalNotSent
from jobq.errors import JobFailed
from jobq.testing import EagerJobs, JobqTester, eager
from tests.apps import durable as apps
from tests.apps import durable_tests as more

q = apps.q


@pytest.fixture
def tester(database_url: str) -> Iterator[JobqTester]:
    q.configure(database_url=database_url)
    with JobqTester(q, database_url) as tester:
        yield tester
    q.close()


@pytest.fixture
def jobs() -> Iterator[EagerJobs]:
    with eager(q) as jobs:
        yield jobs


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "trace")


def lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


SLEEPERS = pytest.mark.parametrize("task", [apps.sleeper, apps.sleeper_async], ids=["sync", "async"])
PLANS = pytest.mark.parametrize("task", [more.plan, more.plan_async], ids=["sync", "async"])


# --- On a database -------------------------------------------------------------------------------------------------------


@SLEEPERS
def test_time_passes_for_sleeps(tester: JobqTester, path: str, task: Any) -> None:
    job = task.submit(path, 86_400.0)
    tester.drain()
    tester.advance(hours=23)
    tester.drain()
    assert lines(path) == ["before"]
    tester.advance(hours=2)
    tester.drain()
    assert (lines(path), job.result()) == (["before", "after"], "awake")


def test_time_passes_for_waits(tester: JobqTester, path: str) -> None:
    job, endless = apps.approve.submit(path, 86_400.0), apps.approve.submit(path)
    tester.drain()
    tester.advance(days=2)
    tester.drain()
    assert job.result() == "timed out"
    # It looks again after a week, and waits again.
    tester.advance(days=30)
    assert tester.drain().retried == 1
    q.send_signal(tester.connection, endless, "approval", apps.Approval("ada"))
    assert tester.drain().succeeded == 1
    assert endless.result() == "approved by ada"


def test_drain_with_scheduled_ends(tester: JobqTester, path: str) -> None:
    """What waits for a signal alone is not scheduled, also if a sleep beside it has ended."""
    waits = [apps.approve.submit(path), more.sleep_and_wait.submit(3600)]
    slept, timed_out = apps.sleeper.submit(path, 3600.0), apps.approve.submit(path, 3600.0)
    done = tester.drain(with_scheduled=True)
    assert done.succeeded == 2
    assert (slept.result(), timed_out.result()) == ("awake", "timed out")
    assert [job.status() for job in waits] == ["ready", "ready"]
    for job in waits:
        q.send_signal(None, job, "approval", apps.Approval("ada"))
    assert tester.drain(with_scheduled=True).succeeded == 2


def test_drain_with_scheduled_retries_a_job_that_waits_in_a_branch(tester: JobqTester, path: str) -> None:
    job = more.wait_beside_failure.submit(path)
    q.send_signal(None, job, "other")
    tester.drain(with_scheduled=True)
    assert lines(path) == ["fails", "fails"]
    q.send_signal(None, job, "approval", apps.Approval("ada"))
    tester.drain(with_scheduled=True)
    assert job.result() == "ada"


@PLANS
def test_a_whole_plan(tester: JobqTester, path: str, task: Any) -> None:
    """Steps, a sleep, a signal and children: drained."""
    job = task.submit(path, [1, 2])
    tester.drain(with_scheduled=True)
    q.send_signal(tester.connection, job, "approval", apps.Approval("ada"))
    tester.drain(with_scheduled=True)
    assert job.result() == ["ada", 1, 2, 4]


def test_inside_a_transaction(tester: JobqTester, path: str) -> None:
    with psycopg.connect(tester.database_url) as connection:
        inner = tester.on(connection)
        job = more.plan.enqueue(connection, path, [1, 2])
        waits = apps.approve.enqueue(connection, path + "2", 7200.0)
        inner.drain()
        q.send_signal(None, job, "approval", apps.Approval("ada"))
        inner.advance(hours=1)
        inner.drain()
        assert job.result() == ["ada", 1, 2, 4]
        assert waits.status() == "ready"
        inner.advance(hours=2)
        inner.drain()
        assert waits.result() == "timed out"
        connection.rollback()
    assert tester.connection.execute("SELECT count(*) FROM jobq.job_step").fetchone() == (0,)


@PLANS
def test_a_crash_behind_each_step(tester: JobqTester, path: str, task: Any) -> None:
    job = task.options(key="once").job(path, [1, 2])
    found = tester.assert_replays(
        job,
        signals=[("approval", apps.Approval("ada"))],
        before_each=lambda: Path(path).unlink(missing_ok=True),
        shuffle=True,
    )
    # At the least: two steps, a sleep, a signal, two children and their ends.
    assert found >= 8
    assert sorted(lines(path)) == ["first", "last"]


def test_a_crash_behind_a_transactional_step(tester: JobqTester) -> None:
    tester.connection.execute("CREATE TABLE public.effects (value integer)")
    assert tester.assert_replays(apps.effects.job(2)) == 2
    assert tester.connection.execute("SELECT count(*) FROM public.effects").fetchone() == (6,)


# --- In eager mode -------------------------------------------------------------------------------------------------------


@SLEEPERS
def test_eager_sleeps(jobs: EagerJobs, path: str, task: Any) -> None:
    job = task.submit(path, 3600.0)
    assert (job.status(), lines(path)) == ("ready", ["before"])
    jobs.advance(minutes=59)
    assert lines(path) == ["before"]
    jobs.advance(minutes=1)
    assert (job.result(), lines(path)) == ("awake", ["before", "after"])
    assert jobs.jobs[0].attempt == 1


def test_eager_time_passes_step_by_step(jobs: EagerJobs) -> None:
    job = more.naps.submit(3, 86_400.0)
    jobs.advance(days=2)
    assert job.status() == "ready"
    jobs.advance(days=1)
    assert job.result() == 3


def test_eager_signals(jobs: EagerJobs, path: str) -> None:
    waits, early, late = apps.approve.submit(path), apps.approve_async.submit(2), apps.approve.submit(path, 60)
    q.send_signal(object(), waits, "approval", apps.Approval("ada"))  # type: ignore[arg-type]
    assert waits.result() == "approved by ada"
    jobs.send_signal(jobs.jobs[1], "approval", apps.Approval("a"))
    jobs.send_signal(early, "approval", {"by": "b"})
    assert early.result() == ["a", "b"]
    jobs.advance(seconds=61)
    assert late.result() == "timed out"
    with pytest.raises(SignalNotSent, match="job 1 has finished"):
        jobs.send_signal(waits, "approval")
    with pytest.raises(SignalNotSent, match="there is no job 99"):
        jobs.send_signal(99, "approval")


async def test_eager_on_a_loop(jobs: EagerJobs, path: str) -> None:
    job = await more.plan_async.submit_async(path, [1, 2])
    await q.send_signal_async(None, job, "approval", apps.Approval("ada"))
    jobs.advance(hours=1)
    assert await job.result_async() == ["ada", 1, 2, 4]


@PLANS
def test_eager_plan(jobs: EagerJobs, path: str, task: Any) -> None:
    job = task.submit(path, [1, 2])
    jobs.send_signal(job, "approval", apps.Approval("ada"))
    jobs.advance(hours=1)
    assert job.result() == ["ada", 1, 2, 4]
    assert [each.task for each in jobs.jobs].count("double") == 2


def test_eager_attempts_and_children(jobs: EagerJobs, path: str) -> None:
    assert apps.stubborn.submit(path, 3, 3).result() == 3
    assert "cannot take 3" in apps.parent_of_broken.submit(3).result()
    assert apps.catching.submit(path + "2", True).result() == "code 7"
    assert lines(path + "2") == ["declined", "went on"]


def test_eager_refuses_transactional_steps(jobs: EagerJobs) -> None:
    with pytest.raises(JobFailed, match="eager mode has no database: a step with transactional=True"):
        apps.effects.submit(1).result()


def test_recorded_durable_jobs() -> None:
    with eager(q, run=False) as jobs:
        job = apps.parent.submit(4)
        assert job.status() == "ready"
        jobs.drain()
        assert job.result() == 9


@PLANS
def test_eager_crashes(jobs: EagerJobs, path: str, task: Any) -> None:
    found = jobs.assert_replays(
        task.job(path, [1, 2]),
        signals=[("approval", apps.Approval("ada"))],
        before_each=lambda: Path(path).unlink(missing_ok=True),
        shuffle=True,
    )
    assert found >= 8
    assert sorted(lines(path)) == ["first", "last"]


def test_what_depends_on_the_call_is_noticed(jobs: EagerJobs, path: str) -> None:
    more.calls = itertools.count()
    with pytest.raises(
        AssertionError, match=r"task 'counting', with a crash behind step 'trace' \(1 of 1\): .* with 1; .* 0"
    ):
        jobs.assert_replays(more.counting.job(path))
    with pytest.raises(AssertionError, match="came to other steps than without a crash"):
        jobs.assert_replays(more.branching_by_call.job(path))
    with pytest.raises(AssertionError, match="has the code changed"):
        jobs.assert_replays(more.argument_by_call.job(path))
    assert jobs.assert_replays(more.counting.job(path), same=lambda one, other: True) == 1
    with pytest.raises(AssertionError, match=r"task 'approve' waits for a signal .* \('approval'\): pass signals="):
        jobs.assert_replays(apps.approve.job(path))


def test_what_depends_on_the_order_of_branches_is_noticed(jobs: EagerJobs) -> None:
    assert jobs.assert_replays(more.order_dependent.job(6)) == 6
    with pytest.raises(AssertionError, match="with a crash behind step 'number'"):
        jobs.assert_replays(more.order_dependent.job(6), shuffle=True)


def test_a_child_that_fails(jobs: EagerJobs) -> None:
    with pytest.raises(JobFailed, match="ChildFailed"):
        more.parent_that_fails.submit().result()
    assert isinstance(jobs.jobs[0].exception, ChildFailed)
