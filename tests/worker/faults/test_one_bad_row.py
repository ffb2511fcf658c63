"""A row that the database refuses, for whatever reason, costs that job only: the worker goes on, and says what it cannot do."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from tests.apps import plain as apps
from tests.support.jobs import Jobs
from tests.support.waiting import wait_until
from tests.support.workers import WorkerProcess

StartWorker = Callable[..., WorkerProcess]
Conn = psycopg.Connection[Any]

RAISE = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    {what}
    RETURN {row};
END $$
"""


def refuse(db: Conn, table: str, event: str, condition: str, state: str = "P0001", *, do: str = "") -> None:
    """Have the database refuse `event` on `table` for the rows that meet `condition`, with the error `state`."""
    row = "OLD" if event == "DELETE" else "NEW"
    what = do or f"RAISE EXCEPTION 'the operator''s rule' USING ERRCODE = '{state}';"
    db.execute(RAISE.format(what=f"IF {condition} THEN {what} END IF;", row=row))
    db.execute(f"CREATE TRIGGER refuse BEFORE {event} ON jobq.{table} FOR EACH ROW EXECUTE FUNCTION refuse()")


def allow(db: Conn, table: str) -> None:
    def drop() -> bool:
        # It locks partitions in another order than an INSERT does, so Postgres may end either of them.
        with contextlib.suppress(psycopg.errors.DeadlockDetected):
            db.execute(f"DROP TRIGGER refuse ON jobq.{table}")
            return True
        return False

    wait_until(drop, what="the end of the rule")


def insert(jobs: Jobs, note: str, **columns: Any) -> int:
    """Insert a job of `record`, with `columns` set by hand; return its id."""
    job = apps.record.options(queue=columns.pop("queue", "default"), delay=3600).enqueue(jobs.connection, note).id
    names = ", ".join(f"{name} = %s" for name in (*columns, "run_at"))
    query = f"UPDATE jobq.job SET {names} WHERE id = %s RETURNING queue"
    queue = jobs.one(query, *columns.values(), "2020-01-01", job)
    jobs.one("SELECT pg_notify('jobq', 'insert ' || %s)", queue)
    return job


def good_ones_run(jobs: Jobs, count: int = 5, queue: str = "default") -> None:
    for job in [apps.record.options(queue=queue).enqueue(jobs.connection, f"good {n}").id for n in range(count)]:
        found = jobs.wait(job, timeout=10)
        assert (found["state"], found["claims"]) == ("succeeded", 1)


def stops(running: WorkerProcess, *, within: float = 20) -> None:
    running.terminate()
    assert running.wait(within) == 0, running.log


# --- outcomes --------------------

BY_QUEUE = "RAISE EXCEPTION 'the operator''s rule' USING ERRCODE = NEW.queue;"
STATES = ["P0001", "42501", "22003", "23505", "XX000", "40001", "53100", "55000", "08006"]


def test_history_refuses_a_job(jobs: Jobs, db: Conn, worker: StartWorker) -> None:
    """Whatever class of error: the job is kept, the others go on, and it is written down when the rule is gone."""
    refuse(db, "job_history", "INSERT", f"NEW.queue = ANY ('{{{','.join(STATES)}}}')", do=BY_QUEUE)
    running = worker("--processes", "1")
    bad = {state: apps.record.options(queue=state).enqueue(jobs.connection, state).id for state in STATES}
    ended = "SELECT count(*) FROM ran"
    wait_until(lambda: jobs.one(ended) == len(STATES), what="the jobs to end")
    wait_until(lambda: "an outcome cannot be written" in running.log, what="the worker to say so")
    good_ones_run(jobs)
    assert jobs.one("SELECT count(*) FROM jobq.job WHERE state = 'running' AND claims = 1") == len(STATES)
    allow(db, "job_history")
    for state, job in bad.items():
        assert jobs.wait(job, timeout=15)["state"] == "succeeded"
        assert jobs.traces(job) == [state]
    stops(running)


def test_a_foreign_key_on_live_jobs(jobs: Jobs, db: Conn, worker: StartWorker) -> None:
    """A table of the application's that references jobq.job refuses that the job ends."""
    db.execute("CREATE TABLE invoice (job_id bigint REFERENCES jobq.job (id))")
    running = worker("--processes", "1")
    bad = [
        apps.noop.options(delay=0.3).enqueue(jobs.connection).id,
        apps.always_fail.options(delay=0.3).enqueue(jobs.connection).id,
    ]
    for job in bad:
        db.execute("INSERT INTO invoice VALUES (%s)", (job,))
    wait_until(lambda: "an outcome cannot be written" in running.log, what="the worker to say so")
    good_ones_run(jobs)
    db.execute("DROP TABLE invoice")
    assert jobs.wait(bad[0], timeout=15)["state"] == "succeeded"
    stops(running)


def test_the_end_of_the_worker_does_not_wait_for_what_is_refused(jobs: Jobs, db: Conn, worker: StartWorker) -> None:
    refuse(db, "job_history", "INSERT", "true")
    running = worker("--processes", "1", "--drain")
    bad = apps.record.enqueue(jobs.connection, "refused").id
    assert running.wait(40) == 0
    row = jobs.live(bad)
    assert row is not None
    assert row["claims"] == 1


def test_failures_that_cannot_be_written(jobs: Jobs, db: Conn, worker: StartWorker) -> None:
    """A unique index that an operator has added to a partition of job_attempt refuses the record of a second failure."""
    [(partition,)] = db.execute(
        "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'jobq.job_attempt'::regclass"
        " AND inhrelid::regclass::text LIKE '%%' || to_char(now() AT TIME ZONE 'UTC', 'YYYYMMDD') || '%%'"
    ).fetchall() or [("",)]
    assert partition
    db.execute(f"CREATE UNIQUE INDEX ON {partition} (job_id)")
    running = worker("--processes", "1")
    bad = apps.always_fail.enqueue(jobs.connection).id
    wait_until(lambda: "an outcome cannot be written" in running.log, what="the worker to say so")
    good_ones_run(jobs)
    assert jobs.live(bad) is not None
    stops(running)


# --- claims --------------------


def test_a_claim_that_is_refused_is_left_out(jobs: Jobs, db: Conn, worker: StartWorker) -> None:
    refuse(db, "job", "UPDATE", f"NEW.state = 'running' AND NEW.queue = ANY ('{{{','.join(STATES)}}}')", do=BY_QUEUE)
    bad = [apps.record.options(queue=state).enqueue(jobs.connection, "poison").id for state in STATES]
    behind = [
        apps.record.options(queue=state, priority=1).enqueue(jobs.connection, "behind").id for state in ("good", "fine")
    ]
    running = worker("--processes", "1")
    for job in behind:
        assert jobs.wait(job, timeout=20)["claims"] == 1
    good_ones_run(jobs)
    assert jobs.one("SELECT count(*) FROM jobq.job WHERE state = 'ready' AND id = ANY (%s)", bad) == len(STATES)
    assert "a job cannot be claimed" in running.log
    allow(db, "job")
    for job in bad:
        assert jobs.wait(job, timeout=30)["state"] == "succeeded"
    # What is over is not shown any longer.
    wait_until(lambda: jobs.one("SELECT problems FROM jobq.worker") == [], what="the end of the problems")
    stops(running)


def test_a_row_that_breaks_a_later_constraint(jobs: Jobs, db: Conn, worker: StartWorker) -> None:
    bad = apps.record.enqueue(jobs.connection, "poison").id
    db.execute("ALTER TABLE jobq.job ADD CONSTRAINT mine CHECK (args ->> 'note' <> 'poison') NOT VALID")
    running = worker("--processes", "1")
    good_ones_run(jobs)
    row = jobs.live(bad)
    assert row is not None
    assert (row["state"], row["claims"]) == ("ready", 0)
    stops(running)


def test_counters_at_the_ends_of_their_ranges(jobs: Jobs, worker: StartWorker) -> None:
    most = 2**31 - 1
    running = worker("--processes", "1")
    found = [
        insert(jobs, "attempt", attempt=most),
        insert(jobs, "claims", claims=most),
        insert(jobs, "both", attempt=most - 1, claims=most - 1, max_attempts=most),
        insert(jobs, "crashes", crashes=32767, worker_deaths=32767, releases=32767),
    ]
    states = [jobs.wait(job)["state"] for job in found]
    assert states == ["succeeded"] * 4
    assert jobs.wait(found[1])["claims"] == 1
    good_ones_run(jobs)
    stops(running)


def test_an_outcome_that_is_written_late_makes_room_in_its_queue(jobs: Jobs, db: Conn, worker: StartWorker) -> None:
    """The job counts until it is written; then the next one begins, long before a poll would find it."""
    refuse(db, "job_history", "INSERT", "NEW.queue = 'limited'")
    db.execute("INSERT INTO jobq.queue (name, max_running) VALUES ('limited', 1)")
    first, second = (apps.record.options(queue="limited").enqueue(jobs.connection, str(n)).id for n in range(2))
    running = worker("--processes", "1", "--poll-interval", "60")
    wait_until(lambda: "an outcome cannot be written" in running.log, what="the worker to say so")
    assert (jobs.live(second) or {})["claims"] == 0
    allow(db, "job_history")
    assert jobs.wait(first, timeout=20)["state"] == jobs.wait(second, timeout=20)["state"] == "succeeded"
    stops(running)


def test_a_parked_job_whose_claim_is_refused_in_a_queue_with_a_cap(jobs: Jobs, db: Conn, worker: StartWorker) -> None:
    """It is tried again after growing pauses, and shown; other parked jobs begin."""
    knows_nothing = worker("--processes", "1", app="tests.support.rolling:q", env={"ROLLING": "old"})
    bad, good = (apps.record.options(queue=queue).enqueue(jobs.connection, queue).id for queue in ("capped", "also"))
    wait_until(lambda: jobs.one("SELECT count(*) FROM jobq.job WHERE state = 'parked'") == 2, what="both parked")
    stops(knows_nothing)
    refuse(db, "job", "UPDATE", "NEW.queue = 'capped' AND NEW.state = 'running'")
    running = worker("--processes", "1", "--queues", "capped:max=1,also:max=1")
    assert jobs.wait(good, timeout=20)["state"] == "succeeded"
    shown = 'SELECT count(*) FROM jobq.worker WHERE problems @> \'[{"what": "claim parked jobs"}]\''
    wait_until(lambda: jobs.one(shown) == 1, what="the problem in the worker's row")
    allow(db, "job")
    assert jobs.wait(bad, timeout=30)["state"] == "succeeded"
    stops(running)


def test_a_queue_with_rules_whose_claim_is_refused(jobs: Jobs, db: Conn, worker: StartWorker) -> None:
    """Its job is left out, with growing pauses; other queues go on."""
    refuse(db, "job", "UPDATE", "NEW.queue = 'limited' AND NEW.state = 'running'")
    db.execute("INSERT INTO jobq.queue (name, max_running) VALUES ('limited', 2)")
    bad = apps.record.options(queue="limited").enqueue(jobs.connection, "poison").id
    running = worker("--processes", "1")
    wait_until(lambda: "a job cannot be claimed" in running.log, what="the worker to say so")
    good_ones_run(jobs)
    allow(db, "job")
    assert jobs.wait(bad, timeout=20)["state"] == "succeeded"
    stops(running)


# --- rows that end the session --------------------

KILL = "PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(0.1);"


@pytest.mark.parametrize(
    ("table", "event", "condition"),
    [
        ("job", "UPDATE", "NEW.queue = 'bad' AND NEW.state = 'running'"),
        ("job_history", "INSERT", "NEW.queue = 'bad'"),
        ("job_attempt", "INSERT", "NEW.job_id IN (SELECT id FROM jobq.job WHERE queue = 'bad')"),
    ],
)
def test_a_row_that_ends_the_session(
    jobs: Jobs, db: Conn, worker: StartWorker, table: str, event: str, condition: str
) -> None:
    """As a crash of its server process does: after a few worker_deaths that job is left out, or its outcome written apart."""
    refuse(db, table, event, condition, do=KILL)
    running = worker("--processes", "1")
    first = [apps.record.enqueue(jobs.connection, f"before {n}").id for n in range(5)]
    task = apps.always_fail if table == "job_attempt" else apps.noop
    bad = task.options(queue="bad").enqueue(jobs.connection).id
    word = "a job cannot be claimed" if table == "job" else "an outcome cannot be written"
    wait_until(lambda: word in running.log, timeout=30, what="the worker to know which")
    good_ones_run(jobs)
    for job in first:
        assert jobs.wait(job, timeout=10)["claims"] == 1
    row = jobs.live(bad)
    assert row is not None
    assert row["claims"] == (0 if table == "job" else 1)
    allow(db, table)
    row = jobs.wait(bad, timeout=30) if table != "job_attempt" else None
    assert row is None or row["state"] == "succeeded"
    wait_until(lambda: jobs.one("SELECT problems FROM jobq.worker") == [], what="the end of the problems")
    stops(running)


@pytest.mark.parametrize("state", ["25006", "26000"])
def test_a_trigger_that_says_what_is_said_of_sessions(jobs: Jobs, db: Conn, worker: StartWorker, state: str) -> None:
    """It does not cost the connection: the session is asked, not the state alone."""
    refuse(db, "job", "UPDATE", "NEW.queue = 'claim' AND NEW.state = 'running'", state)
    bad = apps.noop.options(queue="claim").enqueue(jobs.connection).id
    running = worker("--processes", "1")
    wait_until(lambda: "a job cannot be claimed" in running.log, what="the worker to know which")
    good_ones_run(jobs)
    assert "the database does not answer" not in running.log
    assert (jobs.live(bad) or {})["claims"] == 0
    stops(running)
