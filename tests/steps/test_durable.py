"""Durable tasks by real workers: each step runs once, and what waits holds no slot."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from jobq import JobFailed
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
    yield worker("--processes", "1", "--concurrency", "2", app=APP)
    q.close()


@pytest.mark.parametrize("task", [apps.line, apps.line_async], ids=["sync", "async"])
@pytest.mark.parametrize("fail_at", [-1, 0, 1, 2])
def test_each_step_runs_once(jobs: Jobs, path: str, task: object, fail_at: int) -> None:
    job = (
        apps.line.enqueue(jobs.connection, path, fail_at)
        if task is apps.line
        else apps.line_async.enqueue(jobs.connection, path, fail_at)
    )
    assert job.result(timeout=30) == [1, 2, 3]
    assert lines(path) == ["step 0", "step 1", "step 2"]
    assert (jobs.finished(job.id) or {})["attempt"] == (1 if fail_at < 0 else 2)


def test_a_sleep_holds_no_slot(jobs: Jobs, path: str) -> None:
    """Four of them begin with two slots, and none ends."""
    sleepers = [apps.sleeper.enqueue(jobs.connection, path, 3600.0) for _ in range(2)]
    sleepers += [apps.sleeper_async.enqueue(jobs.connection, path, 3600.0) for _ in range(2)]
    wait_until(lambda: lines(path) == ["before"] * 4, what="all sleepers")
    wait_until(lambda: all((jobs.live(job.id) or {})["state"] == "ready" for job in sleepers), what="their sleep")


def test_a_sleep_ends(jobs: Jobs, path: str) -> None:
    job, other = (
        apps.sleeper.enqueue(jobs.connection, path, 0.3),
        apps.sleeper_async.enqueue(jobs.connection, path, 0.3),
    )
    assert (job.result(timeout=30), other.result(timeout=30)) == ("awake", "awake")
    assert sorted(lines(path)) == ["after", "after", "before", "before"]
    assert [(jobs.finished(each.id) or {})["attempt"] for each in (job, other)] == [1, 1]


def test_a_signal_before_the_wait_is_kept(jobs: Jobs, path: str) -> None:
    job = apps.approve.options(delay=1.0).enqueue(jobs.connection, path)
    q.send_signal(jobs.connection, job, "approval", apps.Approval("ada"))
    assert job.result(timeout=30) == "approved by ada"


def test_a_signal_wakes_the_job(jobs: Jobs, path: str) -> None:
    job = apps.approve.enqueue(jobs.connection, path)
    wait_until(lambda: (jobs.live(job.id) or {}).get("state") == "ready" and lines(path), what="the wait")
    q.send_signal(None, job.id, "approval", {"by": "bob"})
    assert job.result(timeout=30) == "approved by bob"
    assert lines(path) == ["asked"]


def test_a_wait_times_out_and_the_time_counts_from_its_begin(jobs: Jobs, path: str) -> None:
    job = apps.approve.enqueue(jobs.connection, path, 0.5)
    assert job.result(timeout=30) == "timed out"


def test_signals_are_taken_in_order_once(jobs: Jobs) -> None:
    job = apps.approve_async.enqueue(jobs.connection, 3)
    for by in ("a", "b", "c"):
        q.send_signal(None, job, "approval", apps.Approval(by))
    assert job.result(timeout=30) == ["a", "b", "c"]


def test_a_child(jobs: Jobs) -> None:
    assert apps.parent.enqueue(jobs.connection, 20).result(timeout=30) == 41
    assert apps.parent_async.enqueue(jobs.connection, [1, 2, 3]).result(timeout=30) == [2, 4, 6]
    assert "cannot take 3" in apps.parent_of_broken.enqueue(jobs.connection, 3).result(timeout=30)


@pytest.mark.parametrize("crash", [False, True])
def test_a_caught_failure_is_the_same_in_a_replay(jobs: Jobs, path: str, crash: bool) -> None:
    assert apps.catching.enqueue(jobs.connection, path, crash).result(timeout=30) == "code 7"
    assert lines(path) == ["declined", "went on"]


def test_a_step_has_its_own_attempts(jobs: Jobs, path: str) -> None:
    assert apps.stubborn.enqueue(jobs.connection, path, 3, 3).result(timeout=30) == 3
    job = apps.stubborn.options(max_attempts=2).enqueue(jobs.connection, path + "2", 9, 2)
    with pytest.raises(JobFailed, match="declined with 2"):
        job.result(timeout=30)
    assert len(lines(path + "2")) == 2


def test_branches_wait_together(jobs: Jobs, path: str) -> None:
    job = apps.together.enqueue(jobs.connection, path)
    wait_until(lambda: lines(path) == ["branch"], what="the branch")
    q.send_signal(None, job, "approval", apps.Approval("ada"))
    assert job.result(timeout=30) == [1, "ada", 8]
    assert lines(path) == ["branch"]


@pytest.mark.parametrize("fail", [False, True])
def test_the_effects_of_a_transactional_step_happen_once(jobs: Jobs, fail: bool) -> None:
    jobs.connection.execute("CREATE TABLE public.effects (value integer)")
    jobs.connection.execute("GRANT ALL ON public.effects TO PUBLIC")
    assert apps.effects.enqueue(jobs.connection, 3, fail).result(timeout=30) == 3
    assert apps.effects_async.enqueue(jobs.connection, 2, fail).result(timeout=30) == 2
    rows = jobs.all("SELECT value FROM public.effects ORDER BY value")
    assert [row["value"] for row in rows] == [0, 0, 1, 1, 2]


def test_a_killed_runner_loses_no_step(jobs: Jobs, path: str) -> None:
    assert apps.kill_once.enqueue(jobs.connection, path).result(timeout=30) == 3
    assert lines(path) == ["first", "second"]


def test_a_task_that_catches_its_end_fails(jobs: Jobs, path: str) -> None:
    with pytest.raises(JobFailed, match="let BaseException through"):
        apps.swallowing.enqueue(jobs.connection, path).result(timeout=30)


def test_a_step_outside_a_durable_task_is_refused(jobs: Jobs) -> None:
    with pytest.raises(JobFailed, match="is not durable"):
        apps.plain.options(max_attempts=1).enqueue(jobs.connection).result(timeout=30)
