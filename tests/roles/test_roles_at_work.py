"""Real workers, and the doctor, as users that have nothing but a role of deploy/roles.sql."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from jobq import JobRef, operations, queries
from tests.apps import plain as apps
from tests.apps import transfers
from tests.support.checks import some
from tests.support.jobs import Jobs
from tests.support.rows import add_job, add_worker
from tests.support.servers.pgbouncer import PgBouncer
from tests.support.servers.roles import Login, logins
from tests.support.waiting import wait_until
from tests.support.workers import WorkerProcess

StartWorker = Callable[..., WorkerProcess]


@pytest.fixture
def login(database_url: str) -> Iterator[Login]:
    with logins(database_url) as made:
        yield made


@pytest.fixture
def granted(jobs: Jobs, login: Login) -> Login:
    """`login`, and the tasks' own tables granted to who works: those are the application's to grant."""
    transfers.create(jobs.connection)
    jobs.connection.execute("GRANT SELECT, INSERT ON ran TO jobq_worker")
    jobs.connection.execute("GRANT INSERT ON effect TO jobq_worker")
    return login


def tidied(jobs: Jobs) -> bool:
    """Whether every maintenance task has been done once, without an error."""
    assert jobs.all("SELECT name, last_error FROM jobq.maintenance_task WHERE last_error IS NOT NULL") == []
    return bool(jobs.one("SELECT count(*) >= 4 AND bool_and(last_run_at IS NOT NULL) FROM jobq.maintenance_task"))


def leaves_content(worker: WorkerProcess) -> None:
    worker.terminate()
    assert worker.wait() == 0, worker.log
    for sign in ("permission denied", "must be owner", "InsufficientPrivilege"):
        assert sign not in worker.log


def test_every_end_of_a_job(jobs: Jobs, granted: Login, worker: StartWorker) -> None:
    enqueue = jobs.connection
    ends: dict[str, list[JobRef[Any]]] = {
        "succeeded": [
            apps.noop.options(key="finished", key_holds="until_finished").enqueue(enqueue),
            apps.noop.options(key="started", key_holds="until_started").enqueue(enqueue),
            apps.record_async.enqueue(enqueue, "seen"),
            apps.fail_until.enqueue(enqueue, 2),
            apps.steer.enqueue(enqueue, "snooze"),
            apps.nul.enqueue(enqueue),
        ],
        "failed": [apps.always_fail.enqueue(enqueue), apps.crash.enqueue(enqueue, "exit")],
        "cancelled": [apps.steer.enqueue(enqueue, "cancel")],
        "expired": [apps.noop.enqueue(enqueue)],
    }
    enqueue.execute("UPDATE jobq.job SET expires_at = now() - interval '1 s' WHERE id = %s", (ends["expired"][0].id,))
    running = worker(database_url=granted("worker"))
    for state, refs in ends.items():
        for ref in some(refs):
            assert jobs.wait(ref.id, timeout=60)["state"] == state, running.log
    # After the crash, which takes along what runs beside it.
    slow, shown = apps.wait_async.enqueue(enqueue, 600.0).id, apps.progress.enqueue(enqueue, 7).id
    attempts = jobs.attempts(ends["failed"][1].id)
    assert [attempt["outcome"] for attempt in attempts] == ["crashed"] * 3
    wait_until(lambda: "7" in json.dumps((jobs.live(shown) or {})["progress"]), what="the progress")
    wait_until(lambda: jobs.traces(slow) == ["start"], what="the start of the job to be cancelled")
    with psycopg.connect(granted("operator")) as operator:
        operations.cancel(operator, "jobq", [slow, shown], actor="me")
    for job in (slow, shown):
        assert jobs.wait(job)["state"] in ("cancelled", "succeeded")
    assert jobs.traces(slow) == ["start", "cancelled"]
    assert jobs.one("SELECT count(*) FROM jobq.job_key") == 0
    leaves_content(running)
    assert jobs.one("SELECT count(*) FROM jobq.worker") == 0


def test_schedules(jobs: Jobs, granted: Login, worker: StartWorker) -> None:
    """One in code that is declared and ticks, and one that cannot tick."""
    jobs.connection.execute("INSERT INTO jobq.schedule (name, task, cron) VALUES ('bad', 't', '61 * * * *')")
    running = worker(database_url=granted("worker"), app="tests.apps.scheduled:q", env={"SCHEDULED": "seconds"})
    wait_until(
        lambda: jobs.one("SELECT count(*) FROM jobq.schedule_tick") >= 2 or not running.is_running(), what="two ticks"
    )
    assert "is invalid" in jobs.one("SELECT last_error FROM jobq.schedule WHERE name = 'bad'")
    leaves_content(running)


def test_the_maintenance_tasks(jobs: Jobs, granted: Login, worker: StartWorker) -> None:
    """Partitions made and dropped, an expired key and an orphaned job."""
    jobs.connection.execute(
        "CREATE TABLE jobq.job_history_failed_20200101 PARTITION OF jobq.job_history_failed"
        " FOR VALUES FROM ('2020-01-01 00:00Z') TO ('2020-01-02 00:00Z')"
    )
    last = "SELECT max(relname::text) FROM pg_class WHERE relname ~ '^job_attempt_[0-9]{8}$'"
    newest = jobs.one(last)
    jobs.connection.execute(f"DROP TABLE jobq.{newest}".encode())
    jobs.connection.execute(
        "INSERT INTO jobq.job_key (job_id, key, holds, expires_at) VALUES (0, 'old', 'period', now() - interval '1 day')"
    )
    orphan = apps.noop.enqueue(jobs.connection).id
    jobs.connection.execute(
        "UPDATE jobq.job SET state = 'running', claims = 1, attempt = 1, worker_id = gen_random_uuid(),"
        " started_at = now() - interval '1 h' WHERE id = %s",
        (orphan,),
    )
    jobs.connection.execute(
        "INSERT INTO jobq.schedule_tick (schedule, tick, job_id, inserted_at) VALUES ('s', now(), 1, '2020-01-01')"
    )
    running = worker(database_url=granted("worker"))
    wait_until(lambda: tidied(jobs) or not running.is_running(), timeout=60, what="the maintenance tasks")
    assert jobs.one(last) == newest
    assert jobs.one("SELECT to_regclass('jobq.job_history_failed_20200101')") is None
    assert jobs.one("SELECT count(*) FROM jobq.job_key") == 0
    assert jobs.one("SELECT count(*) FROM jobq.schedule_tick") == 0
    assert jobs.wait(orphan)["state"] == "succeeded"
    leaves_content(running)


def test_a_rescue(jobs: Jobs, granted: Login, worker: StartWorker) -> None:
    """By suspicion, not by the end of the lease: another user's locks, and when the server started, are seen."""
    job = apps.wait.enqueue(jobs.connection, 600.0, "x").id
    times = ("--heartbeat-interval", "0.5", "--suspicion", "2", "--lease", "600")
    victim = worker(*times, database_url=granted("worker"))
    wait_until(lambda: jobs.traces(job), what="the first start")
    rescuer = worker(*times, database_url=granted("worker"))
    wait_until(lambda: jobs.one("SELECT count(*) FROM jobq.worker") == 2, what="the second worker")
    victim.kill()
    wait_until(lambda: jobs.traces(job) == ["start x"] * 2, timeout=60, what="the second start")
    (attempt,) = jobs.attempts(job)
    assert (attempt["outcome"], attempt["error_type"]) == ("crashed", "WorkerDied")
    operations.cancel(jobs.connection, "jobq", [job], actor="me")
    jobs.wait(job)
    leaves_content(rescuer)


def test_transactional_tasks(jobs: Jobs, granted: Login, worker: StartWorker) -> None:
    """On the application's own tables the worker has what was granted to it, and no more."""
    done = [task.enqueue(jobs.connection, "x").id for task in (transfers.act, transfers.act_async)]
    done.append(transfers.session_act.enqueue(jobs.connection, "savepoint").id)
    refused = transfers.session_act.options(max_attempts=1).enqueue(jobs.connection, "same").id
    running = worker(app="tests.apps.transfers:q", database_url=granted("worker"))
    for job in done:
        assert jobs.wait(job)["state"] == "succeeded", running.log
    assert jobs.wait(refused)["state"] == "failed"
    (attempt,) = jobs.attempts(refused)
    assert "permission denied for table effect" in attempt["message"]
    assert jobs.all("SELECT job FROM effect ORDER BY job") == [{"job": job} for job in sorted(done)]
    running.terminate()
    assert running.wait() == 0


@pytest.mark.needs("pgbouncer")
def test_through_a_pooler(jobs: Jobs, database_url: str, granted: Login, worker: StartWorker) -> None:
    direct = granted("worker")
    pooler = PgBouncer(direct)
    try:
        ends = [apps.record.enqueue(jobs.connection, "x").id, apps.fail_until.enqueue(jobs.connection, 2).id]
        running = worker(database_url=pooler.url, env={"TRACES_URL": direct})
        assert [jobs.wait(job)["state"] for job in ends] == ["succeeded"] * 2
        wait_until(lambda: tidied(jobs) or not running.is_running(), timeout=60, what="the maintenance tasks")
        leaves_content(running)
    finally:
        pooler.close()


@pytest.mark.parametrize("role", ["worker", "viewer", "operator"])
def test_the_doctor(jobs: Jobs, granted: Login, worker: StartWorker, role: str) -> None:
    """Finds nothing wrong with a healthy system, nor with the role; a viewer may look at everything."""
    worker(database_url=granted("worker"))
    wait_until(
        lambda: jobs.one("SELECT count(*) FROM jobq.worker") == 1 and tidied(jobs),
        timeout=60,
        what="the maintenance tasks",
    )
    done = subprocess.run(
        [sys.executable, "-m", "jobq", "doctor", "--json"],
        env={**os.environ, "JOBQ_DATABASE_URL": granted(role)},
        check=False,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)["checks"]
    wrong = {line["check"] for line in found if line["status"] != "ok"} - {"durability"}
    unseen = [line["check"] for line in found if "cannot be checked" in line["message"]]
    # A worker has no business in single partitions and with bulk operations, and a viewer may do nothing.
    expected = {"worker": {"partitions", "operations"}, "viewer": {"privileges"}, "operator": set[str]()}[role]
    assert wrong == expected, found
    assert unseen == (["operations", "partitions"] if role == "worker" else [])


@pytest.mark.parametrize("role", ["viewer", "operator"])
def test_why_a_job_waits(db: psycopg.Connection[Any], login: Login, role: str) -> None:
    """Also where a rule of its queue holds it up, which functions of the schema say."""
    db.execute(
        "INSERT INTO jobq.queue (name, rate_jobs, rate_seconds, rate_burst, group_mode) VALUES ('mail', 1, 60, 1, 'ordered')"
    )
    add_worker(db, tasks=["mail.send"], slots=4)
    alone = add_job(db, queue="mail", task="mail.send", run_in=-5)
    grouped = [add_job(db, queue="mail", task="mail.send", group_key="g", run_in=-5) for _ in range(2)]
    # The rate lets one start.
    db.execute("SELECT id FROM jobq.claim_limited(gen_random_uuid(), 'mail', 1)")
    with psycopg.connect(login(role), autocommit=True) as asking:
        said = [queries.why_waiting(asking, "jobq", queries.get_job(asking, "jobq", job)) for job in (alone, *grouped)]
    assert any("rate" in str(sentence) for sentence in said), said
    assert None not in said
