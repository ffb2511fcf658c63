"""A row of a queue with rules that the database refuses to claim costs that job or its group: the others of the queue run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from tests.apps import plain as apps
from tests.support.jobs import Jobs
from tests.support.waiting import wait_until
from tests.support.workers import WorkerProcess
from tests.worker.faults.test_foreign_locks import working
from tests.worker.faults.test_one_bad_row import StartWorker, allow, good_ones_run, refuse, stops

Conn = psycopg.Connection[Any]

RULES: dict[str, dict[str, Any]] = {
    "limit": {"max_running": 4},
    "rate": {"rate_jobs": 1000, "rate_seconds": 1, "rate_burst": 1000},
    "fair": {"max_running": 4, "group_mode": "fair"},
    "ordered": {"group_mode": "ordered"},
}
GROUPED = ("fair", "ordered")
KILL = "PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(0.1);"


def rule(db: Conn, **settings: Any) -> None:
    names, places = ", ".join(settings), ", ".join(["%s"] * len(settings))
    db.execute(f"INSERT INTO jobq.queue (name, {names}) VALUES ('ruled', {places})", (*settings.values(),))


def ruled(jobs: Jobs, note: str, group: str | None = None) -> int:
    options: dict[str, Any] = {"queue": "ruled", **({"group": group} if group else {})}
    return apps.record.options(**options).enqueue(jobs.connection, note).id


def all_end(jobs: Jobs, ids: list[int], *, timeout: float = 20) -> None:
    ended = "SELECT count(*) FROM jobq.job_history WHERE id = ANY (%s) AND state = 'succeeded' AND claims = 1"
    wait_until(lambda: jobs.one(ended, ids) == len(ids), timeout=timeout, what="the other jobs")


def shown(jobs: Jobs, what: str) -> Callable[[], bool]:
    return lambda: any(problem["what"] == what for problem in jobs.one("SELECT problems FROM jobq.worker"))


def started(worker: StartWorker, *options: str) -> WorkerProcess:
    running = worker("--processes", "1", *options)
    working(running)
    return running


@pytest.mark.parametrize(
    ("kind", "state"),
    [*((kind, "P0001") for kind in RULES), ("limit", "40001"), ("limit", "55P03"), ("fair", "25006")],
)
def test_a_job_whose_claim_is_refused(jobs: Jobs, db: Conn, worker: StartWorker, kind: str, state: str) -> None:
    """Jobs before and behind it run; of its group in a queue with groups none overtakes it."""
    rule(db, **RULES[kind])
    refuse(db, "job", "UPDATE", "NEW.args ->> 'note' = 'bad' AND NEW.state = 'running'", state)
    groups = kind in GROUPED
    first = [ruled(jobs, "good", f"g{n}" if groups else None) for n in range(3)]
    bad = ruled(jobs, "bad", "bad" if groups else None)
    behind = ruled(jobs, "good", "bad" if groups else None)
    others = [ruled(jobs, "good", f"g{n}" if groups else None) for n in range(12)]
    running = started(worker)
    all_end(jobs, first + others)
    if kind == "ordered":
        assert (jobs.live(behind) or {})["claims"] == 0
    wait_until(shown(jobs, "claim a job of a queue with rules"), what="the problem in the worker's row")
    assert (jobs.live(bad) or {})["claims"] == 0
    # What is left out costs those who come later nothing.
    all_end(jobs, [ruled(jobs, "good", f"h{n}" if groups else None) for n in range(5)], timeout=3)
    allow(db, "job")
    all_end(jobs, [bad, behind])
    wait_until(lambda: jobs.one("SELECT problems FROM jobq.worker") == [], what="the end of the problems")
    stops(running)


def test_the_gate_of_a_group_is_refused(jobs: Jobs, db: Conn, worker: StartWorker) -> None:
    rule(db, group_mode="fair", group_rate_jobs=100, group_rate_seconds=1, group_rate_burst=100)
    refuse(db, "rate_state", "INSERT", "NEW.group_key = 'bad'", "23514")
    bad = ruled(jobs, "bad", "bad")
    others = [ruled(jobs, "good", f"g{n}") for n in range(8)]
    running = started(worker)
    all_end(jobs, others)
    allow(db, "rate_state")
    all_end(jobs, [bad])
    stops(running)


def test_a_job_that_cannot_take_its_place_in_its_group(jobs: Jobs, db: Conn, worker: StartWorker) -> None:
    """Jobs that were there before the rule: one of them is refused, its group waits, the others enter."""
    ids = [ruled(jobs, "bad" if n == 1 else "good", f"g{n}") for n in range(6)]
    rule(db, group_mode="ordered")
    refuse(db, "job", "UPDATE", "NEW.args ->> 'note' = 'bad' AND NEW.state = 'waiting'")
    running = started(worker)
    all_end(jobs, [ids[0], *ids[2:]])
    allow(db, "job")
    all_end(jobs, ids)
    stops(running)


@pytest.mark.parametrize("kind", ["limit", "ordered"])
def test_a_job_whose_claim_ends_the_session(jobs: Jobs, db: Conn, worker: StartWorker, kind: str) -> None:
    rule(db, **RULES[kind])
    refuse(db, "job", "UPDATE", "NEW.args ->> 'note' = 'bad' AND NEW.state = 'running'", do=KILL)
    groups = kind in GROUPED
    bad = ruled(jobs, "bad", "bad" if groups else None)
    others = [ruled(jobs, "good", f"g{n}" if groups else None) for n in range(12)]
    running = started(worker)
    all_end(jobs, others)
    good_ones_run(jobs)
    allow(db, "job")
    all_end(jobs, [bad])
    stops(running)


def test_a_deferred_rule(jobs: Jobs, db: Conn, worker: StartWorker) -> None:
    """It is refused at the commit, when the statement has long been answered."""
    rule(db, max_running=4)
    db.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF NEW.state = 'running' AND NEW.args ->> 'note' = 'bad' THEN RAISE EXCEPTION 'no'; END IF; RETURN NULL; END $$"
    )
    db.execute(
        "CREATE CONSTRAINT TRIGGER refuse AFTER UPDATE ON jobq.job DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION refuse()"
    )
    bad = ruled(jobs, "bad")
    others = [ruled(jobs, "good") for _ in range(12)]
    running = started(worker)
    all_end(jobs, others)
    allow(db, "job")
    all_end(jobs, [bad])
    stops(running)


def test_a_rule_against_all_jobs_of_the_queue(jobs: Jobs, db: Conn, worker: StartWorker) -> None:
    """It is no matter of single jobs: the queue is let alone, and others go on."""
    rule(db, max_running=4)
    refuse(db, "job", "UPDATE", "NEW.queue = 'ruled' AND NEW.state = 'running'")
    bad = [ruled(jobs, "bad") for _ in range(60)]
    running = started(worker)
    wait_until(lambda: "a queue cannot be claimed from" in running.log, what="the worker to say so")
    good_ones_run(jobs)
    allow(db, "job")
    all_end(jobs, bad, timeout=40)
    stops(running)
