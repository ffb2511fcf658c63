"""Steps are undone, too, if what ends the job is not its task: a runner, a worker or the clock."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobq import operations
from jobq._worker.database import Database
from jobq._worker.maintenance.runner import Maintenance
from jobq._worker.options import WorkerOptions
from jobq._worker.rescue import MAX_LOSSES
from jobq._worker.timeouts import MAINTENANCE
from jobq.settings import Settings
from tests.apps import durable_deaths as apps
from tests.support.jobs import Jobs
from tests.support.traces import lines
from tests.support.waiting import wait_until, wait_until_async
from tests.support.workers import WorkerProcess

APP = "tests.apps.durable_deaths:q"
OPTIONS = ("--processes", "1", "--concurrency", "2", "--max-crashes", "2", "--timeout-grace", "0.2")
UNDONE = ["undo second 2", "undo first 1"]
Start = Callable[..., WorkerProcess]


def set_up(jobs: Jobs, path: str, last: str, undo_dies: int = 0, **options: Any) -> Any:
    return apps.deadly_saga.options(**options).enqueue(jobs.connection, path, last, undo_dies)


def is_parked(jobs: Jobs, job: Any) -> bool:
    live = jobs.live(job.id) or {}
    return live.get("state") in ("ready", "waiting") and live.get("claims", 0) > 0


async def expire(database_url: str) -> None:
    maintenance = Maintenance(WorkerOptions(app="-", settings=Settings(database_url=database_url)))
    connection = await Database(Settings(database_url=database_url)).connect("maintenance", MAINTENANCE)
    async with connection:
        await maintenance.tasks.expire_jobs(connection)


def set_aside(jobs: Jobs, job: Any) -> bool:
    return bool(jobs.one("SELECT bool_and(strpos(args_hash, '/') > 0) FROM jobq.job_step WHERE job_id = %s", job.id))


def test_a_job_that_ends_its_runner_for_the_last_time_is_undone(jobs: Jobs, path: str, worker: Start) -> None:
    job = set_up(jobs, path, "die")
    worker(*OPTIONS, app=APP)
    ended = jobs.wait(job.id)
    assert lines(path) == ["first", "second", "dies", "dies", *UNDONE]
    assert (ended["state"], ended["attempt"], ended["crashes"]) == ("failed", 1, 2)
    assert "was killed by SIGKILL while it ran, 2 times now" in ended["error"]
    assert [each["outcome"] for each in jobs.attempts(job.id)] == ["crashed", "crashed"]
    assert set_aside(jobs, job)


def test_an_undo_that_ends_its_runner_is_not_tried_for_ever(jobs: Jobs, path: str, worker: Start) -> None:
    job = set_up(jobs, path, "die", undo_dies=1)
    worker(*OPTIONS, app=APP)
    ended = jobs.wait(job.id)
    assert lines(path) == ["first", "second", "dies", "dies", "undo second 2", "undo dies"]
    assert (ended["state"], ended["crashes"]) == ("failed", 3)
    # A retry by an operator goes on with the undo, and the job ends as was decided.
    Path(f"{path}.heals").touch()
    operations.retry(jobs.connection, "jobq", [job.id], actor="test")
    wait_until(lambda: lines(path)[-1] == "undo first 1", what="the rest of the undo")
    wait_until(lambda: jobs.one("SELECT count(*) FROM jobq.job") == 0, what="the end")
    assert lines(path)[6:] == ["undo first 1"]
    assert jobs.one("SELECT state FROM jobq.job_history ORDER BY id DESC LIMIT 1") == "failed"


def test_a_job_whose_runner_is_killed_after_its_timeout_is_undone(jobs: Jobs, path: str, worker: Start) -> None:
    job = set_up(jobs, path, "hang", timeout=0.5)
    worker(*OPTIONS, app=APP)
    ended = jobs.wait(job.id)
    assert lines(path) == ["first", "second", "hangs", *UNDONE]
    assert ended["state"] == "failed"
    assert "timed out after 0.5 s" in ended["error"]


def test_a_job_that_has_lost_its_workers_too_often_is_undone(jobs: Jobs, path: str, worker: Start) -> None:
    job = set_up(jobs, path, "hang")
    first = worker(*OPTIONS, app=APP)
    wait_until(lambda: lines(path)[-1:] == ["hangs"], what="the last step")
    jobs.connection.execute("UPDATE jobq.job SET worker_deaths = %s", (MAX_LOSSES - 1,))
    first.kill()
    worker(*OPTIONS, app=APP)
    ended = jobs.wait(job.id)
    assert lines(path) == ["first", "second", "hangs", *UNDONE]
    assert (ended["state"], ended["error"]) == ("failed", f"lost with its worker {MAX_LOSSES} times")


@pytest.mark.parametrize("ordered", [False, True])
async def test_a_job_that_expires_while_it_waits_is_undone(
    jobs: Jobs, path: str, worker: Start, database_url: str, ordered: bool
) -> None:
    if ordered:
        operations.configure(jobs.connection, "jobq", "default", groups="ordered", actor="test")
    job = set_up(jobs, path, "wait", group="a")
    worker(*OPTIONS, app=APP)
    await wait_until_async(lambda: is_parked(jobs, job), what="the wait")
    jobs.connection.execute("UPDATE jobq.job SET expires_at = now()")
    await expire(database_url)
    ended = jobs.wait(job.id)
    assert lines(path) == ["first", "second", *UNDONE]
    assert (ended["state"], ended["error"]) == ("expired", "expired")
    assert set_aside(jobs, job)


def test_a_job_that_a_claim_finds_expired_is_undone(jobs: Jobs, path: str, worker: Start) -> None:
    job = set_up(jobs, path, "wait")
    worker(*OPTIONS, app=APP)
    wait_until(lambda: is_parked(jobs, job), what="the wait")
    jobs.connection.execute("UPDATE jobq.job SET expires_at = now() WHERE id = %s", (job.id,))
    jobs.connection.execute("SELECT jobq.send_signal(%s, 'never', '\"late\"')", (job.id,))
    assert jobs.wait(job.id)["state"] == "expired"
    assert lines(path) == ["first", "second", *UNDONE]


def test_an_undo_that_is_killed_after_the_jobs_timeout_goes_on(jobs: Jobs, path: str, worker: Start) -> None:
    job = apps.slow_undo.options(timeout=0.5, max_attempts=1).enqueue(jobs.connection, path, "hang")
    worker(*OPTIONS, app=APP)
    ended = jobs.wait(job.id)
    assert lines(path) == ["first", "second", "undo hangs", *UNDONE]
    assert (ended["state"], ended["error"]) == ("failed", "no way")


async def test_a_job_that_expires_before_the_next_try_of_its_undo_is_undone_then(
    jobs: Jobs, path: str, worker: Start, database_url: str
) -> None:
    job = apps.slow_undo.enqueue(jobs.connection, path, "raise")
    worker(*OPTIONS, app=APP)
    await wait_until_async(lambda: lines(path)[-1:] == ["undo raises"] and is_parked(jobs, job), what="the wait")
    jobs.connection.execute("UPDATE jobq.job SET expires_at = now()")
    await expire(database_url)
    assert is_parked(jobs, job)
    # The hour is over.
    jobs.connection.execute("UPDATE jobq.job_step SET wake_at = now() WHERE state = 'retrying'")
    jobs.connection.execute("UPDATE jobq.job SET run_at = now()")
    ended = jobs.wait(job.id)
    assert lines(path) == ["first", "second", "undo raises", *UNDONE]
    assert (ended["state"], ended["error"]) == ("failed", "no way")


@pytest.mark.parametrize("ordered", [False, True])
async def test_a_job_that_fits_no_workers_code_expires(
    jobs: Jobs, path: str, worker: Start, database_url: str, ordered: bool
) -> None:
    if ordered:
        operations.configure(jobs.connection, "jobq", "default", groups="ordered", actor="test")
    job = set_up(jobs, path, "wait", group="a")
    first = worker(*OPTIONS, app=APP)
    await wait_until_async(lambda: is_parked(jobs, job), what="the wait")
    first.kill()
    worker(*OPTIONS, app="tests.apps.plain:q")
    jobs.connection.execute("SELECT jobq.send_signal(%s, 'never', '\"late\"')", (job.id,))
    await wait_until_async(lambda: jobs.one("SELECT parked_at IS NOT NULL FROM jobq.job"), what="the refusal")
    jobs.connection.execute("UPDATE jobq.job SET expires_at = now()")
    await expire(database_url)
    assert jobs.wait(job.id)["state"] == "expired"
    assert lines(path) == ["first", "second"]
