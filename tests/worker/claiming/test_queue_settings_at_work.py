"""Limits and rules for groups that are set, changed and taken away beside a running worker, which follows by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from jobq import JobQ
from tests.apps import plain as apps
from tests.support.jobs import Jobs
from tests.support.waiting import wait_until
from tests.support.workers import WorkerProcess

StartWorker = Callable[..., WorkerProcess]

RUNNING = "SELECT count(*) FROM jobq.job WHERE state = 'running' AND queue = 'mail'"
LEFT = "SELECT count(*) FROM jobq.job WHERE queue = 'mail'"


@pytest.fixture
def mail(database_url: str, jobs: Jobs, worker: StartWorker) -> Any:
    """The queue, and a worker with eight slots that has run a job of it."""
    worker("--concurrency", "8", "--processes", "1")
    jobs.wait(apps.record.options(queue="mail").enqueue(jobs.connection, "first").id)
    q = JobQ(database_url)
    yield q.queue("mail")
    q.close()


def heard(jobs: Jobs) -> None:
    """Wait for two heartbeats: with the second at the latest the worker knows what is set now."""
    beats = jobs.one("SELECT beats FROM jobq.worker")
    wait_until(lambda: jobs.one("SELECT beats FROM jobq.worker") > beats + 1, what="two heartbeats")


def put(jobs: Jobs, number: int, seconds: float, group: str | None = None) -> None:
    task = apps.wait.options(queue="mail", group=group)
    apps.q.enqueue_many(jobs.connection, [task.job(seconds, f"{group} {n:03}") for n in range(number)])


def test_a_limit_is_set_raised_and_taken_away(mail: Any, jobs: Jobs) -> None:
    put(jobs, 1000, 0.1)
    wait_until(lambda: jobs.one(RUNNING) >= 8, what="all slots to be taken")
    mail.set(limit=2)
    heard(jobs)
    wait_until(lambda: jobs.one(RUNNING) <= 2, what="what ran to end")
    before = jobs.one(LEFT)
    while jobs.one(LEFT) > before - 20:
        assert jobs.one(RUNNING) <= 2
    mail.set(limit=5)
    wait_until(lambda: jobs.one(RUNNING) > 2, what="more to run")
    before = jobs.one(LEFT)
    while jobs.one(LEFT) > before - 20:
        assert jobs.one(RUNNING) <= 5
    mail.set(limit=None)
    wait_until(lambda: jobs.one(RUNNING) >= 8, what="all slots to be taken again")


def test_a_slow_rate_that_becomes_a_quick_one_is_followed_at_once(mail: Any, jobs: Jobs) -> None:
    mail.set(rate="1/day")
    heard(jobs)
    put(jobs, 20, 0.0)
    wait_until(lambda: jobs.one(LEFT) == 19, what="the day's one job")
    heard(jobs)
    assert jobs.one(LEFT) == 19
    mail.set(rate="1000/s")
    wait_until(lambda: jobs.one(LEFT) == 0, timeout=5, what="the others, which do not wait for tomorrow")


def test_an_order_is_set_while_jobs_of_the_groups_wait_and_taken_away_again(mail: Any, jobs: Jobs) -> None:
    mail.pause()
    heard(jobs)
    for group in ("a", "b"):
        put(jobs, 15, 0.01, group)
    mail.set(groups="ordered")
    mail.resume()
    wait_until(lambda: jobs.one(LEFT) == 0, what="all to end")
    notes = [row["note"] for row in jobs.all("SELECT note FROM ran WHERE note LIKE '%% _ 0%%' ORDER BY at")]
    for group in ("a", "b"):
        mine = [note for note in notes if f" {group} " in note]
        assert mine == [f"{what} {group} {n:03}" for n in range(15) for what in ("start", "end")]

    put(jobs, 200, 0.05, "a")
    wait_until(lambda: jobs.one(LEFT) < 195, what="some of them to end")
    assert jobs.one(RUNNING) <= 1
    mail.set(groups=None)
    wait_until(lambda: jobs.one(RUNNING) > 1, what="them to run beside one another")
    wait_until(lambda: jobs.one(LEFT) == 0, what="all to end")


def test_one_group_gets_more_than_the_others(mail: Any, jobs: Jobs) -> None:
    mail.set(groups="limited:1")
    heard(jobs)
    for group in ("a", "b"):
        put(jobs, 300, 0.1, group)
    of = "SELECT count(*) FROM jobq.job WHERE state = 'running' AND group_key = %s"
    wait_until(lambda: jobs.one(of, "a") == 1 and jobs.one(of, "b") == 1, what="one of each")
    mail.group("a").set(limit=4)
    wait_until(lambda: jobs.one(of, "a") == 4, what="four of a")
    assert jobs.one(of, "b") <= 1
    mail.group("a").set(limit=None)
    wait_until(lambda: jobs.one(of, "a") == 1, what="one of a again")
