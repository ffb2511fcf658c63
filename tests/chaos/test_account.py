"""The dispatcher's account of what it holds: nothing is given back that has just ended, nothing stays behind at the end."""

from __future__ import annotations

from collections.abc import Callable

import psycopg

from tests.apps import plain as apps
from tests.apps import trouble
from tests.support.jobs import Jobs
from tests.support.waiting import wait_until
from tests.support.workers import WorkerProcess

StartWorker = Callable[..., WorkerProcess]
APP = "tests.apps.trouble:q"


def test_jobs_that_end_while_the_account_is_compared_are_not_given_back(
    database_url: str, jobs: Jobs, worker: StartWorker
) -> None:
    """The comparison reads the database; what a runner reports meanwhile is neither held nor lost."""
    apps.q.enqueue_many(jobs.connection, [apps.noop.job() for _ in range(6000)])
    running = worker()
    with psycopg.connect(database_url, autocommit=True) as operator:

        def compared() -> bool:
            # A change of settings makes the worker compare at once.
            operator.execute("NOTIFY jobq, 'queues'")
            return bool(jobs.one("SELECT count(*) = 6000 FROM jobq.job_history"))

        wait_until(compared, timeout=90, what="every end")
    assert "never arrived" not in running.log
    assert jobs.one("SELECT max(claims) FROM jobq.job_history") == 1


def test_a_job_locked_by_others_does_not_end_the_worker(database_url: str, jobs: Jobs, worker: StartWorker) -> None:
    """However often the worker looks at a due job that it cannot have."""
    job = apps.record.enqueue(jobs.connection, "locked").id
    with psycopg.connect(database_url) as holder:
        holder.execute("SELECT FROM jobq.job WHERE id = %s FOR UPDATE", (job,))
        running = worker()
        wait_until(lambda: "working" in running.log, what="the worker")
        probe = apps.noop.options(queue="probe", priority=0)
        for _ in range(1100):
            # Each is a reason to look again.
            jobs.connection.execute("NOTIFY jobq, 'insert default'")
            jobs.wait(probe.enqueue(jobs.connection).id) if _ % 100 == 0 else None
        looks = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'jobq worker claims'"
        assert jobs.one(looks) == 1
        holder.rollback()
    assert jobs.wait(job)["state"] == "succeeded"
    assert running.is_running()


def test_a_finished_job_locked_by_others_keeps_only_itself_back(
    database_url: str, jobs: Jobs, worker: StartWorker
) -> None:
    """An operator's transaction that has asked for its end, and goes on: all acknowledgements and claims waited for it."""
    running = worker("--processes", "1", app=APP)
    wait_until(lambda: "working" in running.log, what="the worker")
    job = trouble.hang.enqueue(jobs.connection, 1.0).id
    wait_until(lambda: (jobs.live(job) or {})["state"] == "running", what="the claim")
    with psycopg.connect(database_url) as holder:
        holder.execute("UPDATE jobq.job SET cancel_requested_at = now() WHERE id = %s", (job,))
        wait_until(lambda: "finished jobs are locked" in running.log, what="the notice")
        for _ in range(5):
            behind = [trouble.calm.enqueue(jobs.connection, "behind").id for _ in range(20)]
            assert {jobs.wait(other)["state"] for other in behind} == {"succeeded"}
        holder.rollback()
    ended = jobs.wait(job)
    assert (ended["state"], ended["claims"]) == ("succeeded", 1)
    assert "does not answer" not in running.log


def test_more_jobs_than_a_batch_are_put_back_at_the_end(jobs: Jobs, worker: StartWorker) -> None:
    trouble.q.enqueue_many(jobs.connection, [trouble.hang.job(600.0) for _ in range(700)])
    running = worker("--concurrency", "700", "--processes", "1", "--shutdown-timeout", "0", app=APP)
    wait_until(lambda: jobs.one("SELECT count(*) FROM jobq.job WHERE state = 'running'") == 700, what="700 claims")
    running.terminate()
    assert running.wait() == 0
    assert jobs.one("SELECT count(*) FROM jobq.job WHERE state = 'ready' AND attempt = 0 AND crashes = 0") == 700
    assert jobs.one("SELECT count(*) FROM jobq.worker") == 0


def test_a_suspect_runs_though_the_import_is_slow(jobs: Jobs, worker: StartWorker) -> None:
    """A job in quarantine waits for its runner to start: that is not the wait after which it goes to another worker."""
    job = trouble.calm.enqueue(jobs.connection, "at last").id
    jobs.connection.execute("UPDATE jobq.job SET crashes = 2 WHERE id = %s", (job,))
    running = worker(app=APP, env={"TROUBLE_IMPORT": "1.5"})
    ended = jobs.wait(job, timeout=20)
    assert (ended["state"], ended["claims"]) == ("succeeded", 1)
    assert running.is_running()
