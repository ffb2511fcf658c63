"""Why a job is not running: every case, in one sentence."""

from __future__ import annotations

import re
from typing import Any

import psycopg
import pytest

from jobq import queries
from tests.support.rows import add_attempt, add_finished, add_job, add_worker

Conn = psycopg.Connection[Any]


def why(db: Conn, job: int) -> str | None:
    return queries.why_waiting(db, "jobq", queries.get_job(db, "jobq", job))


def test_the_queue_is_paused(db: Conn) -> None:
    job = add_job(db, queue="mail", run_in=-5)
    db.execute("INSERT INTO jobq.queue VALUES ('mail', now(), now() - interval '5 min', 'ann', 'provider down')")
    assert why(db, job) == "Queue mail has been paused for 5 min by ann (provider down)."
    db.execute("UPDATE jobq.queue SET paused_by = NULL, pause_reason = NULL")
    assert why(db, job) == "Queue mail has been paused for 5 min."
    db.execute("UPDATE jobq.queue SET paused_at = NULL")
    assert why(db, job) == "No worker is alive: start one with `jobq worker`."


def test_nobody_can_run_it(db: Conn) -> None:
    job = add_job(db, queue="mail", run_in=-5)
    add_worker(db, ago=60, tasks=["mail.send"])
    assert why(db, job) == "No worker is alive: start one with `jobq worker`."
    add_worker(db, queues=["pdf"], tasks=["mail.send"])
    assert why(db, job) == "The only worker alive does not serve queue mail."
    add_worker(db, queues=["pdf", "mail"], tasks=["pdf.render"])
    add_worker(db, tasks=["pdf.render"])
    assert why(db, job) == "None of the 2 workers serving queue mail knows task mail.send."
    add_worker(db, tasks=["mail.send"], state="quiet")
    assert why(db, job) == "The only worker that serves it is quiet and claims nothing, and no other can run it."
    add_worker(db, tasks=["mail.send"], state="draining", queues=["mail"])
    assert (
        why(db, job) == "All 2 workers that serve it are draining or quiet and claim nothing, and no other can run it."
    )


def test_it_stands_in_line(db: Conn) -> None:
    add_worker(db, tasks=["mail.send"], slots=8, running=8)
    add_worker(db, tasks=["mail.send"], slots=4, running=4)
    job = add_job(db, queue="mail", run_in=-5, priority=5)
    full = "All slots of the 2 workers that can run it are taken (12 of 12)"
    assert why(db, job) == f"{full}; it is next."
    add_job(db, queue="mail", run_in=-10, priority=5)
    assert why(db, job) == f"{full}, and 1 job is ahead of it."
    add_job(db, queue="mail", run_in=-1, priority=9)
    # Not ahead: later, lower, elsewhere, not due, running.
    add_job(db, queue="mail", run_in=-1, priority=5)
    add_job(db, queue="mail", run_in=-10, priority=4)
    add_job(db, queue="pdf", run_in=-10, priority=9)
    add_job(db, queue="mail", run_in=60, priority=9)
    add_job(db, queue="mail", run_in=-10, priority=9, state="running")
    assert why(db, job) == f"{full}, and 2 jobs are ahead of it."
    db.execute("UPDATE jobq.worker SET running = 3")
    assert why(db, job) == "2 jobs are ahead of it."
    db.execute("DELETE FROM jobq.job WHERE id <> %s", (job,))
    assert why(db, job) == "It is being claimed right now."


def test_the_line_is_counted_up_to_a_bound(db: Conn) -> None:
    add_worker(db, tasks=["mail.send"])
    db.execute("INSERT INTO jobq.job (task, queue) SELECT 'mail.send', 'mail' FROM generate_series(1, 10100)")
    job = add_job(db, queue="mail")
    assert why(db, job) == "More than 10,000 jobs are ahead of it."


def test_it_is_for_later(db: Conn) -> None:
    job = add_job(db, run_in=180)
    assert why(db, job) == "It is due in 3 min: it was enqueued for then."
    db.execute("UPDATE jobq.job SET attempt = 2, claims = 2, max_attempts = 5")
    assert why(db, job) == "It is due in 3 min: it has run before, and was put off until then."
    db.execute(
        "INSERT INTO jobq.job_attempt (job_id, claims, attempt, outcome, retry_at, error_type, message)"
        " VALUES (%s, 2, 2, 'error', now(), 'ValueError', E'no such\\nline')",
        (job,),
    )
    assert why(db, job) == (
        "It is due in 3 min: attempt 2 of 5 failed with ValueError: no such, and it is tried again then."
    )
    db.execute("UPDATE jobq.job_attempt SET outcome = 'timeout'")
    db.execute("INSERT INTO jobq.queue VALUES ('default', now(), now() - interval '3 h', 'ann', NULL)")
    assert why(db, job) == (
        "It is due in 3 min: attempt 2 of 5 ran out of time, and it is tried again then;"
        " but queue default has been paused for 3 h by ann."
    )


def test_it_runs(db: Conn) -> None:
    worker = add_worker(db, host="box", pid=77)
    job = add_job(db, state="running", worker_id=worker)
    assert why(db, job) == "It runs on box, process 77."
    db.execute("UPDATE jobq.job SET started_at = now() - interval '200 s'")
    assert why(db, job) == "It has been running for 3 min on box, process 77."
    db.execute("UPDATE jobq.job SET timeout = 1000, cancel_requested_at = now() - interval '5 s'")
    said = why(db, job)
    assert said is not None
    assert re.fullmatch(
        r"It has been running for 3 min on box, process 77, and has 13 min left; it was asked to stop [56] s ago\.",
        said,
    )
    db.execute("UPDATE jobq.job SET timeout = 20, cancel_requested_at = NULL")
    assert why(db, job) == "It has been running for 3 min on box, process 77, and its time was over 3 min ago."
    db.execute("UPDATE jobq.worker SET heartbeat_at = now() - interval '50 s'")
    assert why(db, job) == "Its worker (box, process 77) has not been heard of for 50 s: the job is being put back."
    db.execute("DELETE FROM jobq.worker")
    assert why(db, job) == "Its worker is gone: the job is put back within a minute or two."


@pytest.mark.parametrize("state", ["parked", "waiting"])
def test_it_is_set_aside(db: Conn, state: str) -> None:
    assert why(db, add_job(db, state=state)) == f"It is {state}: nothing claims it until it is put back."


def test_what_has_ended_waits_for_nothing(db: Conn) -> None:
    job = add_finished(db, "failed")
    add_attempt(db, job)
    assert why(db, job) is None
