"""Rescues: what the database refuses for one job's sake costs that job, and where the others come back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from jobq._postgres.sql import statement
from jobq._worker.database import connect
from jobq._worker.maintenance.runner import Maintenance
from jobq._worker.options import WorkerOptions
from jobq.settings import Settings
from tests.apps import plain as apps
from tests.support.checks import some
from tests.support.jobs import Jobs
from tests.support.rows import add_job, add_worker
from tests.support.waiting import wait_until
from tests.support.workers import WorkerProcess

Conn = psycopg.Connection[Any]
StartWorker = Callable[..., WorkerProcess]
TIMES = ("--heartbeat-interval", "0.5", "--suspicion", "1.5", "--lease", "4")
REFUSE = (
    "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
    "$$BEGIN IF old.id = {0} THEN RAISE EXCEPTION 'not this one' USING ERRCODE = '{1}'; END IF; RETURN new; END$$"
)


def put_dead(db: Conn, running: int, **columns: Any) -> tuple[Any, list[int]]:
    """A worker that gives no sign of life, and jobs that run in its name."""
    dead = add_worker(db, lease=4.0)
    ids = [
        add_job(
            db,
            task=apps.noop.name,
            state="running",
            worker_id=dead,
            claims=1,
            attempt=1,
            **columns,
        )
        for _ in range(running)
    ]
    return dead, ids


# A refusal; and three errors that look as if trying again would help.
@pytest.mark.parametrize("state", ["P0001", "40001", "57014", "55P03"])
def test_a_job_that_cannot_be_taken_back_is_set_aside_and_the_others_run(
    jobs: Jobs, db: Conn, worker: StartWorker, state: str
) -> None:
    stubborn, ids = put_dead(db, 7)
    other, more = put_dead(db, 2)
    bad = ids[3]
    jobs.connection.execute(REFUSE.format(bad, state).encode())
    jobs.connection.execute("CREATE TRIGGER refuse BEFORE UPDATE ON jobq.job FOR EACH ROW EXECUTE FUNCTION refuse()")
    rescuer = worker(*TIMES)
    for job in some((*ids[:3], *ids[4:], *more)):
        assert jobs.wait(job, timeout=60)["state"] == "succeeded"
    assert (jobs.live(bad) or {})["worker_id"] == stubborn
    # It is told where an operator looks, and the worker goes on.
    problems = "SELECT problems FROM jobq.worker WHERE id NOT IN (%s, %s)"
    [told] = wait_until(lambda: jobs.one(problems, stubborn, other), what="the word of it")
    assert (told["what"], told["job"], told["worker"]) == ("rescue", bad, str(stubborn))
    assert "not this one" in told["error"]
    assert jobs.wait(apps.noop.enqueue(jobs.connection).id)["state"] == "succeeded"
    assert rescuer.is_running()
    assert "no heartbeat" not in rescuer.log
    assert jobs.one("SELECT count(*) FROM jobq.worker WHERE id = %s", other) == 0
    assert jobs.one("SELECT count(*) FROM jobq.worker WHERE id = %s", stubborn) == 1
    # Once it can be changed it runs as well, its worker goes, and nothing is told any more.
    jobs.connection.execute("DROP TRIGGER refuse ON jobq.job")
    assert jobs.wait(bad, timeout=60)["state"] == "succeeded"
    wait_until(lambda: jobs.one("SELECT count(*) FROM jobq.worker") == 1, what="the dead worker's leave")
    wait_until(lambda: jobs.one("SELECT problems FROM jobq.worker") == [], what="the end of the word")


def test_jobs_whose_rescue_takes_too_long_hold_up_neither_the_others_nor_heartbeats(
    jobs: Jobs, db: Conn, worker: StartWorker
) -> None:
    stubborn, ids = put_dead(db, 24)
    slow = [ids[3], ids[16]]
    jobs.connection.execute(
        f"CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN IF old.id IN ({slow[0]}, {slow[1]})"
        " AND new.state = 'ready' THEN PERFORM pg_sleep(30); END IF; RETURN new; END$$".encode()
    )
    jobs.connection.execute("CREATE TRIGGER refuse BEFORE UPDATE ON jobq.job FOR EACH ROW EXECUTE FUNCTION refuse()")
    rescuer = worker("--processes", "1")
    wait_until(lambda: "working" in rescuer.log, what="the rescuer")
    ages: list[float] = []
    age = "SELECT extract(epoch FROM clock_timestamp() - heartbeat_at)::float8 FROM jobq.worker WHERE pid = %s"
    left = "SELECT count(*) FROM jobq.job WHERE worker_id = %s"

    def rescued() -> bool:
        ages.append(jobs.one(age, rescuer.pid))
        return bool(jobs.one(left, stubborn) == 2)

    wait_until(rescued, timeout=60, what="the rescue of the others")
    for job in some(ids):
        if job not in slow:
            assert jobs.wait(job)["state"] == "succeeded"
    told = "SELECT count(*) FROM jobq.worker, jsonb_array_elements(problems) AS p WHERE p ->> 'what' = 'rescue' AND p ? 'job'"
    wait_until(lambda: jobs.one(told) == 2, what="the word of both")
    # One every two seconds; a try that begins just before it is due takes 1.3. On a busy machine more; the row takes 30.
    assert max(ages) < 15
    assert "no heartbeat" not in rescuer.log
    jobs.connection.execute("DROP TRIGGER refuse ON jobq.job")
    for job in slow:
        assert jobs.wait(job, timeout=60)["state"] == "succeeded"
    wait_until(lambda: jobs.one("SELECT count(*) FROM jobq.worker") == 1, what="the dead worker's leave")


def test_a_job_that_an_application_refers_to_cannot_end_by_its_losses(
    jobs: Jobs, db: Conn, worker: StartWorker
) -> None:
    """At its tenth loss a job is to be failed, so deleted, which a foreign key refuses: three rescuers do not end of it."""
    dead, [bad] = put_dead(db, 1, worker_deaths=9)
    jobs.connection.execute("CREATE TABLE invoice (job bigint REFERENCES jobq.job (id))")
    jobs.connection.execute("INSERT INTO invoice VALUES (%s)", (bad,))
    rescuers = [worker(*TIMES, "--processes", "1") for _ in range(2)]
    problems = "SELECT count(*) FROM jobq.worker WHERE problems @> %s::jsonb"
    wait_until(
        lambda: jobs.one(problems, f'[{{"what": "rescue", "job": {bad}}}]') == 2, timeout=60, what="the word of both"
    )
    assert jobs.wait(apps.noop.enqueue(jobs.connection).id)["state"] == "succeeded"
    assert all(rescuer.is_running() for rescuer in rescuers)
    assert jobs.one("SELECT count(*) FROM jobq.worker WHERE id = %s", dead) == 1
    jobs.connection.execute("DROP TABLE invoice")
    assert jobs.wait(bad, timeout=60)["state"] == "failed"


@pytest.mark.parametrize("max_losses", [1, 10])
def test_a_job_that_has_crashed_as_often_as_can_be_counted_is_taken_back(db: Conn, max_losses: int) -> None:
    """A number that does not fit refuses one job, so its worker would stay dead for good."""
    dead, [job] = put_dead(db, 1, crashes=32767)
    parameters = {"dead": dead, "beats": 0, "only": None, "max_losses": max_losses, "channel": "jobq"}
    db.execute(statement("rescue", "jobq").query, parameters)
    row = db.execute(
        "SELECT crashes FROM jobq.job WHERE id = %(id)s AND state = 'ready' "
        "UNION ALL SELECT crashes FROM jobq.job_history WHERE id = %(id)s AND state = 'failed'",
        {"id": job},
    ).fetchall()
    assert [tuple(one) for one in row] == [(32767,)]


# Refused at the statement, or at the end of the transaction.
@pytest.mark.parametrize("kind", ["TRIGGER refuse BEFORE UPDATE", "CONSTRAINT TRIGGER refuse AFTER UPDATE"])
async def test_orphans_are_put_back_without_the_one_that_is_refused(
    database_url: str, jobs: Jobs, db: Conn, kind: str
) -> None:
    _, ids = put_dead(db, 6)
    jobs.connection.execute("DELETE FROM jobq.worker")
    jobs.connection.execute(
        "UPDATE jobq.job SET started_at = now() - interval '1 h', cancel_requested_at = CASE WHEN id = %s THEN now() END",
        (ids[5],),
    )
    jobs.connection.execute(REFUSE.format(ids[2], "P0001").encode())
    deferred = "DEFERRABLE INITIALLY DEFERRED" if "CONSTRAINT" in kind else ""
    trigger = f"CREATE {kind} ON jobq.job {deferred} FOR EACH ROW EXECUTE FUNCTION refuse()"
    jobs.connection.execute(trigger.encode())
    maintenance = Maintenance(WorkerOptions(app="-", settings=Settings(database_url=database_url)))
    worker = add_worker(db)
    async with await connect(Settings(database_url=database_url), "test") as connection:
        await maintenance.register(connection)
        db.execute(
            "UPDATE jobq.maintenance_task SET due_at = CASE WHEN name = 'orphans' THEN now() ELSE now() + interval '1 h' END"
        )
        for first in (True, False):
            assert await maintenance.run_due(connection, worker) == 1
            told = "SELECT last_error, last_run_at IS NOT NULL FROM jobq.maintenance_task WHERE name = 'orphans'"
            [(error, has_run)] = db.execute(told.encode()).fetchall()
            assert has_run
            done = "4 jobs released, 1 cancelled" if first else "0 jobs released"
            assert error == f"{done}; refused: job {ids[2]}: not this one"
            states = {row["id"]: row["state"] for row in jobs.all("SELECT id, state FROM jobq.job")}
            assert states == {**dict.fromkeys(ids[:5], "ready"), ids[2]: "running"}
            assert (jobs.finished(ids[5]) or {})["state"] == "cancelled"
            db.execute("UPDATE jobq.maintenance_task SET due_at = now() WHERE name = 'orphans'")
        # It is left out for a while, not for good.
        db.execute("DROP TRIGGER refuse ON jobq.job")
        other = Maintenance(WorkerOptions(app="-", settings=Settings(database_url=database_url)))
        async with connection.transaction():
            assert await other.tasks.release_orphans(connection) == "1 jobs released"


# --- places ------------------------------------------------------------------------------------------------------------


@pytest.mark.essential
def test_a_killed_workers_jobs_run_again_first(jobs: Jobs, worker: StartWorker) -> None:
    """Behind them waits half a minute's work: it does not come first."""
    options = ("--heartbeat-interval", "0.5", "--suspicion", "1.5", "--processes", "1", "--concurrency", "4")
    victim, _ = (worker(*options) for _ in range(2))
    wait_until(lambda: jobs.one("SELECT count(*) FROM jobq.worker") == 2, what="both workers")
    apps.q.enqueue_many(jobs.connection, [apps.wait.job(0.5, str(n)) for n in range(400)])
    held = "SELECT id, run_at FROM jobq.job WHERE state = 'running' AND worker_id = (SELECT id FROM jobq.worker WHERE pid = %s)"
    wait_until(lambda: len(jobs.all(held, victim.pid)) >= 4, what="jobs of the victim")
    # Nonsense from a client that may connect changes nothing.
    for payload in (
        "below",
        "below x",
        "below x default",
        "below 99999999999999999999999999 default",
        "below -1 default",
        "below --5 default",
        "below " + "9" * 5_000 + " default",
    ):
        jobs.connection.execute("SELECT pg_notify('jobq', %s)", (payload,))
    victim.kill()
    lost = {
        row["id"]: row["run_at"]
        for row in jobs.all("SELECT id, run_at FROM jobq.job WHERE worker_deaths > 0 OR state = 'running'")
    }
    wait_until(lambda: jobs.one("SELECT count(*) FROM jobq.worker") == 1, timeout=30, what="the rescue")
    again = {
        row["id"]
        for row in jobs.all("SELECT id FROM jobq.job WHERE worker_deaths > 0 UNION SELECT job_id FROM jobq.job_attempt")
    }
    assert again
    for job in again:
        ended = jobs.wait(job)
        # Not its claims: one that the rescuer has not begun within a second goes back, to its place, and is claimed again.
        assert (ended["state"], ended["attempt"], ended["crashes"]) == ("succeeded", 1, 1)
        assert ended["run_at"] == lost[job]
    # Behind them was more than what could be done meanwhile.
    assert jobs.one("SELECT count(*) FROM jobq.job WHERE state = 'ready'") > 100


def test_what_a_worker_leaves_unstarted_keeps_its_place(jobs: Jobs, worker: StartWorker) -> None:
    """After many short jobs a worker claims ahead, long ones as well."""
    jobs.connection.execute("LISTEN jobq")
    first = worker("--processes", "1", "--concurrency", "2", "--shutdown-timeout", "0.5")
    apps.q.enqueue_many(jobs.connection, [apps.noop.job() for _ in range(3_000)])
    apps.q.enqueue_many(jobs.connection, [apps.wait.job(20.0, "long") for _ in range(300)])
    wait_until(lambda: jobs.one("SELECT count(*) FROM ran") > 0, what="the first long job")
    first.terminate()
    assert first.wait() == 0
    assert jobs.one("SELECT count(*) FROM jobq.job WHERE state = 'ready' AND claims > 0 AND attempt = 0") > 2
    # All that came with one insert stand where they stood.
    assert jobs.one("SELECT count(*) FROM jobq.job WHERE run_at > created_at + interval '1 s'") == 0
    told = {one.payload.split(" ")[0] for one in jobs.connection.notifies(timeout=0.5)}
    assert "below" in told


def test_a_rescued_job_of_a_group_is_the_next_of_its_group_and_of_its_queue(jobs: Jobs, db: Conn) -> None:
    jobs.connection.execute("INSERT INTO jobq.queue (name, group_mode, group_limit) VALUES ('fair', 'fair', 1)")
    send = apps.noop.options(queue="fair", group="lost")
    lost = [send.enqueue(jobs.connection).id for _ in range(2)]
    dead = add_worker(db)
    claim = "SELECT id FROM jobq.claim_limited(%s, 'fair', %s) WHERE id IS NOT NULL"
    assert jobs.one(claim, dead, 1) == lost[0]
    for n in range(20):
        apps.noop.options(queue="fair", group=f"other {n}").enqueue(jobs.connection)
    parameters = {"dead": dead, "beats": 0, "only": None, "max_losses": 10, "channel": "jobq"}
    db.execute(statement("rescue", "jobq").query, parameters)
    assert jobs.one(claim, add_worker(db), 1) == lost[0]
