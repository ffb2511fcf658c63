"""Batch tasks in whole workers: batches fill up, and each job has an outcome of its own."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from tests.apps import batched
from tests.support.checks import some
from tests.support.jobs import Jobs
from tests.support.waiting import wait_until
from tests.support.workers import WorkerProcess

StartWorker = Callable[..., WorkerProcess]
APP = "tests.apps.batched:q"
ONE = ("--processes", "1")


@pytest.fixture
def connection(jobs: Jobs, database_url: str) -> Iterator[psycopg.Connection[Any]]:
    batched.prepare(jobs.connection)
    batched.q.configure(database_url=database_url)
    yield jobs.connection
    batched.q.close()


def enqueue(connection: psycopg.Connection[Any], task: Any, numbers: list[int] | range) -> list[int]:
    return [ref.id for ref in batched.q.enqueue_many(connection, [task.job(number) for number in numbers])]


def calls(jobs: Jobs) -> list[list[int]]:
    """Return the items of each call, in the order of the calls."""
    return [row["items"] for row in jobs.all("SELECT items FROM batch_call ORDER BY id")]


def drained(worker: StartWorker, *args: str) -> WorkerProcess:
    running = worker("--drain", *args, app=APP)
    assert running.wait() == 0, running.log
    return running


def states(jobs: Jobs) -> dict[str, int]:
    return {row["state"]: row["n"] for row in jobs.all("SELECT state, count(*) AS n FROM jobq.job_history GROUP BY 1")}


@pytest.mark.essential
def test_batches_fill_up_under_load(jobs: Jobs, worker: StartWorker, connection: psycopg.Connection[Any]) -> None:
    enqueue(connection, batched.collect, range(5000))
    drained(worker)
    assert states(jobs) == {"succeeded": 5000}
    sizes = [len(call) for call in calls(jobs)]
    assert sum(sizes) == 5000
    assert max(sizes) == 500
    # Ten are enough. The claims may bring the jobs too slowly for some of them on a busy machine.
    assert len(sizes) <= 30
    assert sorted(number for call in calls(jobs) for number in call) == list(range(5000))


def test_batches_and_other_jobs_share_slots(
    jobs: Jobs, worker: StartWorker, connection: psycopg.Connection[Any]
) -> None:
    made = [task.job(number) for number in range(1000) for task in (batched.collect, batched.single)]
    batched.q.enqueue_many(connection, made)
    drained(worker)
    assert states(jobs) == {"succeeded": 2000}
    assert len(calls(jobs)) < 200


def test_a_job_that_comes_alone_waits_no_longer_than_its_linger(
    jobs: Jobs, worker: StartWorker, connection: psycopg.Connection[Any]
) -> None:
    job = batched.collect.enqueue(connection, 7).id
    worker(*ONE, app=APP)
    assert jobs.wait(job)["state"] == "succeeded"
    assert calls(jobs) == [[7]]


def test_an_exception_in_the_list_fails_one_job(
    jobs: Jobs, worker: StartWorker, connection: psycopg.Connection[Any]
) -> None:
    refs = batched.q.enqueue_many(connection, [batched.double.options(max_attempts=1).job(n) for n in range(30)])
    drained(worker, *ONE)
    assert states(jobs) == {"succeeded": 27, "failed": 3}
    assert batched.double.ref(refs[4].id).result(timeout=0) == 8
    [attempt] = jobs.attempts(refs[17].id)
    assert (attempt["outcome"], attempt["error_type"], attempt["message"]) == ("error", "ValueError", "17 is odd")


def test_a_job_fails_retries_or_snoozes_for_itself(
    jobs: Jobs, worker: StartWorker, connection: psycopg.Connection[Any]
) -> None:
    fails, retries, snoozes, fine = enqueue(connection, batched.each_its_own, [1, 2, 3, 4])
    drained(worker, *ONE)
    ends = {job: jobs.wait(job) for job in (fails, retries, snoozes, fine)}
    assert {job: end["state"] for job, end in ends.items()} == {
        fails: "failed",
        retries: "succeeded",
        snoozes: "succeeded",
        fine: "succeeded",
    }
    assert [ends[job]["attempt"] for job in (fails, retries, snoozes, fine)] == [1, 2, 1, 1]
    assert ends[fails]["error"] == "never"


def test_one_bad_item_ends_alone_and_the_others_succeed(
    jobs: Jobs, worker: StartWorker, connection: psycopg.Connection[Any]
) -> None:
    ids = enqueue(connection, batched.one_bad, range(100))
    worker(*ONE, app=APP)
    ends = [jobs.wait(job, timeout=60)["state"] for job in ids]
    assert ends == ["failed" if number == 13 else "succeeded" for number in range(100)]
    bad = [call for call in calls(jobs) if 13 in call]
    assert len(bad) == 10
    # Smaller from one to the next, and alone from the fourth attempt on.
    assert len(bad[0]) > len(bad[1]) > len(bad[2]) > 1
    assert bad[3:] == [[13]] * 7
    assert jobs.one("SELECT max(attempt) FROM jobq.job_history WHERE state = 'succeeded'") <= 4


@pytest.mark.essential
def test_a_runner_that_a_batch_ends_costs_its_jobs_one_crash_and_they_run_alone(
    jobs: Jobs, worker: StartWorker, connection: psycopg.Connection[Any]
) -> None:
    ids = enqueue(connection, batched.kills, range(30))
    running = worker(*ONE, app=APP)
    ended = jobs.wait(ids[13], timeout=60)
    assert (ended["state"], ended["crashes"]) == ("failed", 3)
    assert "3 times now" in ended["error"]
    ends = [jobs.wait(job, timeout=60)["state"] for job in ids]
    assert ends == ["failed" if number == 13 else "succeeded" for number in range(30)]
    bad = [call for call in calls(jobs) if 13 in call]
    assert len(bad[0]) > 1
    assert bad[1:] == [[13], [13]]
    assert jobs.one("SELECT max(attempt) FROM jobq.job_history") == 1
    assert running.is_running()


def test_a_kill_from_outside_repeats_the_jobs_of_the_batch_and_no_others(
    jobs: Jobs, worker: StartWorker, connection: psycopg.Connection[Any]
) -> None:
    connection.execute("INSERT INTO batch_wait DEFAULT VALUES")
    ids = enqueue(connection, batched.waiting, range(20))
    other = batched.single.enqueue(connection, 1).id
    worker(*ONE, app=APP)
    jobs.wait(other)
    [row] = wait_until(lambda: jobs.all("SELECT items, pid FROM batch_call"), what="the call")
    in_hand = {ids[number] for number in row["items"]}
    os.kill(row["pid"], signal.SIGKILL)
    connection.execute("DELETE FROM batch_wait")
    ends = {job: jobs.wait(job) for job in ids}
    assert {end["state"] for end in ends.values()} == {"succeeded"}
    assert {job for job, end in ends.items() if end["crashes"] == 1} == in_hand
    assert all(end["attempt"] == 1 and end["crashes"] <= 1 for end in ends.values())


def test_a_timeout_is_that_of_the_call(jobs: Jobs, worker: StartWorker, connection: psycopg.Connection[Any]) -> None:
    ids = enqueue(connection, batched.hangs, range(20))
    running = worker(*ONE, app=APP)
    ends = [jobs.wait(job, timeout=60) for job in ids]
    assert [end["state"] for end in ends] == ["failed" if n == 13 else "succeeded" for n in range(20)]
    assert ends[13]["attempt"] == 3
    assert {row["outcome"] for job in ids for row in jobs.attempts(job)} == {"timeout"}
    # It was interrupted each time.
    assert "a runner" not in running.log


def test_jobs_with_other_timeouts_do_not_share_a_call(
    jobs: Jobs, worker: StartWorker, connection: psycopg.Connection[Any]
) -> None:
    batched.q.enqueue_many(
        connection, [batched.one_bad.options(timeout=100 + number % 2).job(number) for number in range(14, 34)]
    )
    drained(worker, *ONE)
    assert {number % 2 for call in calls(jobs) for number in call} == {0, 1}
    assert all(len({number % 2 for number in call}) == 1 for call in some(calls(jobs)))


def test_a_cancel_of_one_job_does_not_stop_the_others(
    jobs: Jobs, worker: StartWorker, connection: psycopg.Connection[Any]
) -> None:
    connection.execute("INSERT INTO batch_wait DEFAULT VALUES")
    ids = enqueue(connection, batched.waiting, range(5))
    worker(*ONE, app=APP)
    wait_until(lambda: sum(map(len, calls(jobs))) == 5, what="the calls")
    assert batched.waiting.ref(ids[2]).cancel("not wanted") is True
    connection.execute("DELETE FROM batch_wait")
    # Its work was done when the call returned.
    assert {jobs.wait(job)["state"] for job in ids} == {"succeeded"}
    assert sum(map(len, calls(jobs))) == 5


def test_a_coroutine_is_interrupted_when_all_of_its_jobs_are_cancelled(
    jobs: Jobs, worker: StartWorker, connection: psycopg.Connection[Any]
) -> None:
    ids = enqueue(connection, batched.endless, range(3))
    worker(*ONE, app=APP)
    wait_until(lambda: sum(map(len, calls(jobs))) == 3, what="the calls")
    for job in ids:
        batched.endless.ref(job).cancel("not wanted")
    assert {jobs.wait(job)["state"] for job in ids} == {"cancelled"}


def test_an_item_that_does_not_fit_costs_only_itself(
    jobs: Jobs, worker: StartWorker, connection: psycopg.Connection[Any]
) -> None:
    ids = enqueue(connection, batched.collect, range(5))
    connection.execute("""UPDATE jobq.job SET args = '{"numbers": "three"}' WHERE id = %s""", (ids[3],))
    worker(*ONE, app=APP)
    assert {jobs.wait(job)["state"] for job in ids if job != ids[3]} == {"succeeded"}
    refused = jobs.wait(ids[3])
    assert refused["state"] == "failed"
    assert "stored arguments do not fit: numbers" in refused["error"]
    assert sorted(number for call in calls(jobs) for number in call) == [0, 1, 2, 4]


def test_a_worker_that_stops_puts_the_jobs_of_a_batch_back(
    jobs: Jobs, worker: StartWorker, connection: psycopg.Connection[Any]
) -> None:
    ids = enqueue(connection, batched.endless, range(3))
    running = worker(*ONE, "--shutdown-timeout", "0.5", app=APP)
    wait_until(lambda: sum(map(len, calls(jobs))) == 3, what="the calls")
    running.terminate()
    assert running.wait() == 0
    rows = jobs.all("SELECT id, state, attempt, crashes FROM jobq.job ORDER BY id")
    assert [(row["id"], row["state"], row["attempt"], row["crashes"]) for row in rows] == [
        (job, "ready", 0, 0) for job in ids
    ]
