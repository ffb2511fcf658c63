"""A real worker on a real database: the outcomes of jobs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.apps import plain as apps
from tests.support.jobs import Jobs
from tests.support.waiting import wait_until
from tests.support.workers import WorkerProcess

StartWorker = Callable[..., WorkerProcess]


@pytest.mark.essential
def test_results_of_sync_and_async_tasks(jobs: Jobs, worker: StartWorker) -> None:
    first = apps.record.enqueue(jobs.connection, "a").id
    second = apps.record_async.enqueue(jobs.connection, "b").id
    assert worker("--drain").wait() == 0
    assert jobs.wait(first)["result"] == "a"
    ended = jobs.wait(second)
    assert (ended["result"], ended["state"], ended["attempt"], ended["claims"]) == ("B", "succeeded", 1, 1)
    assert ended["created_at"] <= ended["started_at"] <= ended["finished_at"]
    assert jobs.attempts(first) == []
    assert jobs.one("SELECT count(*) FROM jobq.job") == 0
    assert jobs.one("SELECT count(*) FROM jobq.worker") == 0


@pytest.mark.essential
def test_a_rolled_back_job_never_runs(database_url: str, jobs: Jobs, worker: StartWorker) -> None:
    with psycopg.connect(database_url) as connection:
        lost = apps.record.enqueue(connection, "lost").id
        connection.rollback()
        kept = apps.record.enqueue(connection, "kept").id
    assert worker("--drain").wait() == 0
    assert jobs.wait(kept)["state"] == "succeeded"
    assert jobs.finished(lost) is None
    assert [row["note"] for row in jobs.all("SELECT note FROM ran")] == ["kept"]


@pytest.mark.essential
def test_a_job_is_noticed_without_waiting_for_a_poll(jobs: Jobs, worker: StartWorker) -> None:
    running = worker("--poll-interval", "600")
    first = apps.record.enqueue(jobs.connection, "first").id
    jobs.wait(first)
    later = apps.record.options(delay=0.3).enqueue(jobs.connection, "later").id
    elsewhere = apps.record.options(queue="never seen before").enqueue(jobs.connection, "elsewhere").id
    jobs.wait(elsewhere)
    ended = jobs.wait(later)
    assert ended["started_at"] >= ended["run_at"]
    running.terminate()
    assert running.wait() == 0


def test_a_job_that_is_replaced_by_a_sooner_one_is_noticed_without_waiting_for_a_poll(
    jobs: Jobs, worker: StartWorker
) -> None:
    worker("--poll-interval", "600")
    jobs.wait(apps.record.enqueue(jobs.connection, "first").id)
    later = apps.record.options(key="k", on_conflict="replace", delay=3600).enqueue(jobs.connection, "later").id
    # The worker has looked up when the next one is due.
    jobs.wait(apps.record.enqueue(jobs.connection, "second").id)
    assert apps.record.options(key="k", on_conflict="replace").enqueue(jobs.connection, "now").id == later
    assert jobs.wait(later)["result"] == "now"


@pytest.mark.essential
def test_retries_until_it_succeeds(jobs: Jobs, worker: StartWorker) -> None:
    job = apps.fail_until.enqueue(jobs.connection, 3).id
    running = worker()
    ended = jobs.wait(job)
    assert (ended["state"], ended["attempt"], ended["result"]) == ("succeeded", 3, 3)
    first, second = jobs.attempts(job)
    assert (first["outcome"], first["attempt"], first["error_type"]) == ("error", 1, "RuntimeError")
    assert first["message"] == "attempt 1 fails"
    assert "fail_until" in first["traceback"]
    assert first["retry_at"] > first["started_at"]
    assert second["attempt"] == 2
    assert "attempt 2 fails" in running.log


@pytest.mark.essential
def test_the_last_attempt_makes_a_dead_letter(jobs: Jobs, worker: StartWorker) -> None:
    job = apps.always_fail.enqueue(jobs.connection).id
    worker()
    ended = jobs.wait(job)
    assert (ended["state"], ended["attempt"]) == ("failed", 3)
    assert ended["error"] == "it is no use \\x00 with a NUL"
    assert [attempt["attempt"] for attempt in jobs.attempts(job)] == [1, 2, 3]


@pytest.mark.parametrize(("kind", "attempts"), [("os", 10), ("missing", 1), ("value", 1)])
def test_only_chosen_errors_are_retried(jobs: Jobs, worker: StartWorker, kind: str, attempts: int) -> None:
    job = apps.fail_with.enqueue(jobs.connection, kind).id
    worker()
    ended = jobs.wait(job)
    assert (ended["state"], ended["attempt"]) == ("failed", attempts)


@pytest.mark.essential
def test_a_task_steers_its_job(jobs: Jobs, worker: StartWorker) -> None:
    cancelled = apps.steer.enqueue(jobs.connection, "cancel").id
    failed = apps.steer.enqueue(jobs.connection, "fail").id
    snoozed = apps.steer.options(max_attempts=1).enqueue(jobs.connection, "snooze").id
    worker()
    assert (jobs.wait(cancelled)["state"], jobs.wait(cancelled)["error"]) == ("cancelled", "not wanted")
    assert (jobs.wait(failed)["state"], jobs.wait(failed)["error"]) == ("failed", "no use")
    ended = jobs.wait(snoozed)
    assert (ended["state"], ended["attempt"], ended["claims"]) == ("succeeded", 1, 2)
    assert jobs.attempts(snoozed) == []


def test_arguments_that_do_not_fit_fail_at_once(jobs: Jobs, worker: StartWorker) -> None:
    insert = "INSERT INTO jobq.job (task, args) VALUES (%s, %s) RETURNING id"
    wrong_type = jobs.one(insert, "record", Jsonb({"note": 7}))
    unknown_name = jobs.one(insert, "record", Jsonb({"note": "a", "colour": "red"}))
    missing = jobs.one(insert, "record", Jsonb({}))
    # Without patience: no other worker's code may fit them.
    worker("--drain", "--park-patience", "0").wait()
    for job, name in ((wrong_type, "note"), (unknown_name, "colour"), (missing, "note")):
        ended = jobs.wait(job)
        assert (ended["state"], ended["attempt"]) == ("failed", 1)
        assert name in ended["error"]
    assert jobs.all("SELECT * FROM ran") == []


def test_a_job_without_a_task_here_is_parked_unpunished(jobs: Jobs, worker: StartWorker) -> None:
    job = jobs.one("INSERT INTO jobq.job (task) VALUES ('of another application') RETURNING id")
    running = worker("--drain")
    assert running.wait() == 0
    row = jobs.live(job)
    assert row is not None
    assert (row["state"], row["attempt"], row["claims"], row["crashes"]) == ("parked", 0, 1, 0)
    assert jobs.attempts(job) == []
    assert "of another application" in running.log


def test_results_that_cannot_be_stored_are_their_jobs_matter_alone(jobs: Jobs, worker: StartWorker) -> None:
    nul = apps.nul.enqueue(jobs.connection).id
    big = apps.big.enqueue(jobs.connection, 2 * 1024 * 1024).id
    good = [apps.noop.enqueue(jobs.connection).id for _ in range(20)]
    worker("--drain").wait()
    assert "NUL" in jobs.wait(nul)["error"]
    assert "1048576" in jobs.wait(big)["error"].replace(",", "")
    assert {jobs.wait(job)["state"] for job in (nul, big, *good)} == {"succeeded"}


@pytest.mark.parametrize("task", [apps.leave, apps.leave_async])
def test_a_task_that_calls_exit_ends_its_job_only(jobs: Jobs, worker: StartWorker, task: Any) -> None:
    leaving = task.options(max_attempts=1).enqueue(jobs.connection).id
    running = worker()
    assert jobs.wait(leaving)["state"] == "failed"
    after = apps.record.enqueue(jobs.connection, "after").id
    jobs.wait(after)
    assert "a runner" not in running.log


@pytest.mark.essential
@pytest.mark.parametrize("how", ["segfault", "exit"])
def test_a_crash_is_blamed_on_the_job_that_made_it(jobs: Jobs, worker: StartWorker, how: str) -> None:
    beside = [apps.wait.enqueue(jobs.connection, 0.3, str(n)).id for n in range(5)]
    job = apps.crash.enqueue(jobs.connection, how).id
    running = worker()
    ended = jobs.wait(job, timeout=60)
    assert (ended["state"], ended["crashes"]) == ("failed", 3)
    assert "3 times" in ended["error"]
    assert [attempt["outcome"] for attempt in jobs.attempts(job)] == ["crashed"] * 3
    for other in beside:
        assert jobs.wait(other, timeout=60)["state"] == "succeeded"
    assert running.is_running()


@pytest.mark.essential
@pytest.mark.parametrize("task", [apps.wait, apps.wait_async])
def test_an_operator_cancels_a_running_job(database_url: str, jobs: Jobs, worker: StartWorker, task: Any) -> None:
    from jobq import operations

    job = task.enqueue(jobs.connection, 60.0).id
    worker()
    wait_until(lambda: jobs.traces(job), what="the start of the job")
    with psycopg.connect(database_url) as connection:
        operations.cancel(connection, "jobq", [job], actor="test")
    assert jobs.wait(job)["state"] == "cancelled"


def test_progress_is_written(jobs: Jobs, worker: StartWorker) -> None:
    job = apps.progress.enqueue(jobs.connection, 500).id
    worker()
    row = wait_until(
        lambda: (live := jobs.live(job)) and (live["progress"] or {}).get("done") == 500 and live, what="progress"
    )
    assert row
    assert row["progress"] == {"done": 500, "total": 500}


@pytest.mark.essential
def test_priorities_and_fifo(jobs: Jobs, worker: StartWorker) -> None:
    with jobs.connection.transaction():
        for priority in (2, 9, 5):
            for n in range(3):
                apps.record.options(priority=priority).enqueue(jobs.connection, f"{priority}{n}")
    worker("--drain", "--concurrency", "1", "--processes", "1").wait()
    notes = [row["note"] for row in jobs.all("SELECT note FROM ran ORDER BY at")]
    assert notes == [f"{priority}{n}" for priority in (9, 5, 2) for n in range(3)]


def test_named_and_paused_queues(database_url: str, jobs: Jobs, worker: StartWorker) -> None:
    from jobq import operations

    mine = apps.record.options(queue="mine").enqueue(jobs.connection, "mine").id
    other = apps.record.options(queue="other").enqueue(jobs.connection, "other").id
    assert worker("--drain", "--queues", "mine").wait() == 0
    assert jobs.finished(mine)
    assert not jobs.finished(other)
    with psycopg.connect(database_url) as connection:
        operations.pause(connection, "jobq", "other", actor="test", reason="to see")
    running = worker("--poll-interval", "600")
    jobs.wait(apps.record.enqueue(jobs.connection, "free").id)
    assert not jobs.finished(other)
    with psycopg.connect(database_url) as connection:
        operations.resume(connection, "jobq", "other", actor="test")
    assert jobs.wait(other)["state"] == "succeeded"
    running.terminate()
    assert running.wait() == 0


def test_keys_are_let_go(jobs: Jobs, worker: StartWorker) -> None:
    for holds in ("until_finished", "until_started", "period"):
        apps.fail_until.options(key=holds, key_holds=holds).enqueue(jobs.connection, 2)
    worker()
    wait_until(lambda: jobs.one("SELECT count(*) FROM jobq.job_history") == 3, what="three ends")
    assert [row["key"] for row in jobs.all("SELECT key FROM jobq.job_key")] == ["period"]


def test_an_expired_job_does_not_run(jobs: Jobs, worker: StartWorker) -> None:
    job = jobs.one(
        "INSERT INTO jobq.job (task, args, expires_at) VALUES ('record', %s, now()) RETURNING id", Jsonb({"note": "x"})
    )
    worker("--drain").wait()
    assert jobs.wait(job)["state"] == "expired"
    assert jobs.all("SELECT * FROM ran") == []


def test_a_due_job_that_stays_locked_is_looked_at_for_ever(database_url: str, jobs: Jobs, worker: StartWorker) -> None:
    def transactions() -> int:
        done: int = jobs.one("SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()")
        return done

    job = apps.noop.enqueue(jobs.connection).id
    with psycopg.connect(database_url) as other:
        other.execute("SELECT FROM jobq.job WHERE id = %s FOR UPDATE", (job,))
        running = worker("--processes", "1", "--poll-interval", "0.001")
        wait_until(lambda: "working" in running.log, what="the worker")
        before = transactions()
        # A lookup and a claim each time.
        wait_until(lambda: transactions() > before + 2500 or not running.is_running(), timeout=90, what="1,250 looks")
        assert running.is_running(), running.log
    assert jobs.wait(job)["state"] == "succeeded"


@pytest.mark.essential
def test_sigterm_lets_running_jobs_end_and_puts_the_others_back(jobs: Jobs, worker: StartWorker) -> None:
    with jobs.connection.transaction():
        ids = [apps.wait.enqueue(jobs.connection, 0.5, str(n)).id for n in range(60)]
    running = worker("--concurrency", "4", "--processes", "1")
    wait_until(lambda: jobs.one("SELECT count(*) FROM ran") >= 4, what="four starts")
    running.terminate()
    assert running.wait() == 0
    started = {row["job"] for row in jobs.all("SELECT DISTINCT job FROM ran")}
    ended = {row["id"] for row in jobs.all("SELECT id FROM jobq.job_history WHERE state = 'succeeded'")}
    assert started == ended
    rest = jobs.all("SELECT * FROM jobq.job")
    assert {row["id"] for row in rest} == set(ids) - ended
    assert {(row["state"], row["attempt"]) for row in rest} == {("ready", 0)}


@pytest.mark.parametrize("task", [apps.stubborn, apps.wait_async])
def test_jobs_that_outlast_the_shutdown_run_again_unpunished(jobs: Jobs, worker: StartWorker, task: Any) -> None:
    job = task.enqueue(jobs.connection, 60.0).id
    running = worker("--shutdown-timeout", "0.2")
    wait_until(lambda: jobs.traces(job), what="the start of the job")
    running.terminate()
    assert running.wait() == 0
    row = jobs.live(job)
    assert row is not None
    assert (row["state"], row["attempt"], row["crashes"]) == ("ready", 0, 0)
    assert jobs.one("SELECT count(*) FROM jobq.worker") == 0


def test_a_second_signal_stops_at_once(jobs: Jobs, worker: StartWorker) -> None:
    job = apps.stubborn.enqueue(jobs.connection, 60.0).id
    running = worker("--shutdown-timeout", "600")
    wait_until(lambda: jobs.traces(job), what="the start of the job")
    running.terminate()
    wait_until(lambda: "stopping" in running.log, what="the first signal's notice")
    running.terminate()
    assert running.wait() == 0
    row = jobs.live(job)
    assert row is not None
    assert row["state"] == "ready"


@pytest.mark.essential
def test_runners_share_the_jobs_and_give_all_of_them_back(jobs: Jobs, worker: StartWorker) -> None:
    """Two runners of two slots: four jobs run at once, the fifth waits; at the end each is told, and none is punished."""
    apps.q.enqueue_many(jobs.connection, [apps.wait_async.job(600.0) for _ in range(5)])
    running = worker("--processes", "2", "--concurrency", "2", "--shutdown-timeout", "0")
    wait_until(lambda: jobs.one("SELECT count(*) FROM ran WHERE note = 'start'") == 4, what="four starts")
    running.terminate()
    assert running.wait() == 0
    assert jobs.one("SELECT count(*) FROM ran WHERE note = 'start'") == 4
    assert jobs.one("SELECT count(*) FROM ran WHERE note = 'cancelled'") == 4
    assert jobs.one("SELECT count(*) FROM jobq.job WHERE state = 'ready' AND attempt = 0 AND crashes = 0") == 5
