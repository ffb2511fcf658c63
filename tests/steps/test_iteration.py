"""Iterations of durable tasks: a deploy loses nothing, a crash repeats a bounded number of items."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from jobq import JobFailed
from jobq._worker.inline import drain
from jobq.testing import eager
from tests.apps import durable_items as apps
from tests.apps.durable import q
from tests.support.jobs import Jobs
from tests.support.traces import lines
from tests.support.waiting import wait_until
from tests.support.workers import WorkerProcess

APP = "tests.apps.durable_items:q"
ALL = [str(number) for number in range(1, apps.LAST + 1)]
StartWorker = Callable[..., WorkerProcess]
TASKS = pytest.mark.parametrize("task", [apps.items, apps.items_async], ids=["sync", "async"])


@pytest.fixture(autouse=True)
def configured(database_url: str) -> Iterator[None]:
    q.configure(database_url=database_url)
    yield
    q.close()


def let_go(path: str, *numbers: int) -> None:
    for number in numbers:
        Path(f"{path}.{number}").touch()


def start(worker: StartWorker) -> WorkerProcess:
    return worker("--processes", "1", "--concurrency", "2", app=APP)


def stored(jobs: Jobs, job_id: int) -> Any:
    [row] = jobs.all("SELECT state, result, kind FROM jobq.job_step WHERE job_id = %s", job_id)
    return row["state"], (row["result"] or {}).get("cursor"), row["kind"]


@TASKS
def test_a_deploy_loses_and_repeats_nothing(jobs: Jobs, worker: StartWorker, path: str, task: Any) -> None:
    """SIGTERM in the middle of an item: the job ends before the next one, long before the worker would cancel it."""
    first = start(worker)
    job = task.enqueue(jobs.connection, path)
    wait_until(lambda: lines(path) == ALL[:20], what="the first items")
    first.terminate()
    wait_until(lambda: "stopping" in first.log, what="the stop")
    let_go(path, 20, 60)
    first.wait()
    assert lines(path) == ALL[:20]
    assert stored(jobs, job.id) == ("retrying", 20, "run")
    live = jobs.live(job.id) or {}
    assert (live["state"], live["attempt"], live["crashes"]) == ("ready", 0, 0)
    let_go(path, 40)
    start(worker)
    assert job.result(timeout=30) == "attempt 1"
    assert lines(path) == ALL
    assert stored(jobs, job.id) == ("done", 60, "run")


@TASKS
@pytest.mark.parametrize("every", [1, 5])
def test_a_crash_repeats_a_bounded_number_of_items(
    jobs: Jobs, worker: StartWorker, path: str, task: Any, every: int
) -> None:
    let_go(path, 20, 60)
    start(worker)
    job = task.enqueue(jobs.connection, path, every)
    wait_until(lambda: lines(path) == ALL[:40], what="the items")
    [runner] = jobs.all("SELECT worker_id FROM jobq.job WHERE id = %s", job.id)
    assert runner["worker_id"] is not None
    [pid] = runners(jobs)
    os.kill(pid, signal.SIGKILL)
    let_go(path, 40)
    assert job.result(timeout=60)
    found = lines(path)
    repeated = found[40 : len(found) - 20]
    assert 1 <= len(repeated) <= every
    assert found == [*ALL[:40], *repeated, *ALL[40:]]
    assert repeated == ALL[40 - len(repeated) : 40]


def runners(jobs: Jobs) -> list[int]:
    """The process ids of the worker's runners."""
    import psutil

    [row] = jobs.all("SELECT pid FROM jobq.worker")
    return [
        child.pid
        for child in psutil.Process(row["pid"]).children(recursive=True)
        if "runner" in " ".join(child.cmdline())
    ]


def test_an_error_repeats_its_item_only(db: psycopg.Connection[Any], path: str) -> None:
    job = apps.fails_at.enqueue(db, path, 30)
    drain(q, db)
    db.execute("UPDATE jobq.job SET run_at = now()")
    drain(q, db)
    assert job.result() == "done"
    assert lines(path) == [*ALL[:30], *ALL[29:]]


def test_a_loop_that_was_left_is_over(db: psycopg.Connection[Any], path: str) -> None:
    job = apps.left_by_break.enqueue(db, path)
    drain(q, db)
    db.execute("UPDATE jobq.job SET run_at = now()")
    drain(q, db)
    assert job.result() == [1]
    assert lines(path) == ["first 1", "first 2", "first 3", "second 1", "second 2", "behind"]


def test_many_items_are_one_row(db: psycopg.Connection[Any], path: str) -> None:
    apps.days.enqueue(db, path)
    drain(q, db)
    assert db.execute("SELECT state, result, place FROM jobq.job_step").fetchall() == [
        ("done", {"cursor": "2026-01-10"}, 1)
    ]
    assert len(lines(path)) == 10


def test_other_sources(path: str) -> None:
    with eager(q):
        assert apps.other_sources.submit(path).result() == [60, 60]


def test_the_items_are_in_memory_in_eager_mode(path: str) -> None:
    with eager(q) as jobs:
        # Behind the third, sixth and ninth day, and the end.
        found = jobs.assert_replays(apps.days.job(path), same=lambda one, other: other <= one)
        assert found == 4
    assert set(lines(path)) == {f"2026-01-{day:02}" for day in range(1, 11)}


def test_a_cancellation_keeps_the_position(db: psycopg.Connection[Any], path: str) -> None:
    apps.cancelled_in_loop.enqueue(db, path)
    drain(q, db)
    assert db.execute("SELECT result FROM jobq.job_step").fetchall() == [({"cursor": 4},)]


def test_a_cursor_of_former_code_is_refused(db: psycopg.Connection[Any], path: str) -> None:
    job = apps.fails_at.options(max_attempts=1).enqueue(db, path, 30)
    drain(q, db)
    db.execute("""UPDATE jobq.job_step SET result = '{"cursor": "first"}'""")
    from jobq import operations

    operations.retry(db, "jobq", [job.id], actor="test")
    drain(q, db)
    with pytest.raises(
        JobFailed, match=r"step 'all_after' is stored with the cursor .*first.* does not fit the present"
    ):
        job.result()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("no name", "a step is found again by its name, and this has none: pass name="),
        ("type", "expected a value of the type with which the parameter of its fetch function is annotated"),
        ("untyped", "without an annotation, one that is JSON"),
        ("again", r"fetch\(2\) returned an item with the cursor 1 again"),
        ("stands still", r"fetch\(1\) returned an item with the cursor 1 again"),
        ("nothing", r"fetch\(None\) returned None: expected an iterable"),
        ("step", "step 'trace' in a loop over step.iterate 'numbers_after'"),
        ("async", "it is async: use `async for … in step.iterate_async"),
    ],
)
def test_wrong_use(path: str, how: str, message: str) -> None:
    with eager(q), pytest.raises(JobFailed, match=message):
        apps.wrong.submit(path, how).result()
