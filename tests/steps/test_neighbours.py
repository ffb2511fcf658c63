"""Durable tasks beside other parts of jobq, by a real worker."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.apps import durable_neighbours as apps
from tests.support.jobs import Jobs
from tests.support.traces import lines
from tests.support.waiting import wait_until
from tests.support.workers import WorkerProcess

q = apps.q
APP = "tests.apps.durable_neighbours:q"


@pytest.fixture(autouse=True)
def running(jobs: Jobs, database_url: str, worker: Callable[..., WorkerProcess]) -> Iterator[WorkerProcess]:
    q.configure(database_url=database_url)
    yield worker("--processes", "1", "--concurrency", "4", app=APP)
    q.close()


def test_a_resource(jobs: Jobs, path: str) -> None:
    assert apps.with_resource.enqueue(jobs.connection, path).result(timeout=30) == 1
    assert lines(path) == ["mail"]


def test_middleware_is_around_each_execution(jobs: Jobs, path: str) -> None:
    assert apps.with_middleware.enqueue(jobs.connection, path).result(timeout=30) == "done"
    assert lines(path) == ["begin", "step", "end", "begin", "end"]


def test_a_process_of_its_own(jobs: Jobs, path: str) -> None:
    assert apps.alone.enqueue(jobs.connection, path).result(timeout=60) in (True, False)
    assert lines(path) == ["second"]


def test_a_timeout_in_a_step(jobs: Jobs, path: str) -> None:
    job = apps.slow.enqueue(jobs.connection, path)
    assert job.result(timeout=30) == "done"
    assert lines(path) == ["first", "second", "second"]
    assert [attempt["outcome"] for attempt in jobs.attempts(job.id)] == ["timeout"]


def test_a_timeout_is_that_of_each_execution(jobs: Jobs) -> None:
    assert apps.many_waits.enqueue(jobs.connection, 3).result(timeout=30) == 3


def test_a_wait_in_an_async_task_is_no_timeout(jobs: Jobs, path: str) -> None:
    job = apps.slow_async.enqueue(jobs.connection, path)
    wait_until(lambda: lines(path) == ["first", "finally"], what="the wait")
    q.send_signal(None, job, "never", 1)
    assert job.result(timeout=30) == "done"
    assert lines(path) == ["first", "finally", "finally"]


def test_a_job_that_waits_keeps_its_place_in_an_ordered_group(jobs: Jobs, path: str) -> None:
    found = [apps.in_order.options(group="a").enqueue(jobs.connection, path, number) for number in range(3)]
    assert [job.result(timeout=30) for job in found] == [0, 1, 2]
    assert lines(path) == [f"{what} {number}" for number in range(3) for what in ("begin", "end")]


def test_a_node_of_a_workflow(jobs: Jobs) -> None:
    with q.workflow("order") as wf:
        first = apps.double.node(3)
        second = apps.approve.node(first.result)
        third = apps.double.node(second.result)
    run = wf.enqueue(jobs.connection, third)
    q.send_signal(None, run, "approved", 1)
    assert run.result(timeout=30) == 14


def test_children_with_options_and_a_child_that_fails(jobs: Jobs) -> None:
    job = apps.invokes.enqueue(jobs.connection, 1)
    assert job.result(timeout=30) == [2, 4]
    [told] = jobs.all("SELECT result #>> '{}' AS text FROM jobq.job_step WHERE job_id = %s AND name = 'told'", job.id)
    assert told["text"] == "the job of task 'refuses' ended as failed: no 4"
    queues = jobs.all("SELECT queue, priority FROM jobq.job_history WHERE task = 'double' ORDER BY id")
    assert [tuple(row.values()) for row in queues] == [("default", 5), ("other", 9)]
