"""Why a job is not running in a queue with a limit, a rate or a rule for its groups: every case, in one sentence."""

from __future__ import annotations

import re
import uuid
from typing import Any

import psycopg
import pytest

from jobq import queries
from jobq.operations import configure, configure_group, pause
from tests.support.checks import some
from tests.support.rows import add_attempt, add_job, add_worker

Conn = psycopg.Connection[Any]


@pytest.fixture(autouse=True)
def working(db: Conn) -> None:
    add_worker(db, tasks=["mail.send"])


def why(db: Conn, job: int) -> str:
    said = queries.why_waiting(db, "jobq", queries.get_job(db, "jobq", job))
    assert said is not None
    return said


def claim(db: Conn, want: int = 10) -> list[int]:
    rows = db.execute("SELECT id FROM jobq.claim_limited(%s, 'mail', %s)", (uuid.uuid4(), want)).fetchall()
    return [row[0] for row in rows if row[0] is not None]


def add(db: Conn, group: str | None, number: int = 1, **columns: Any) -> list[int]:
    return [add_job(db, queue="mail", group_key=group, **columns) for _ in range(number)]


def test_an_ordered_group_waits_for_the_one_that_runs(db: Conn) -> None:
    configure(db, "jobq", "mail", actor="ann", groups="ordered")
    first, second, third = add(db, "customer:42", 3)
    assert why(db, first) == "It is being claimed right now."
    assert why(db, second) == f"1 job of its group customer:42 is before it, job {first} first."
    assert why(db, third) == f"2 jobs of its group customer:42 are before it, job {first} first."
    assert claim(db) == [first]
    assert why(db, third) == f"It is blocked by job {first} of its group customer:42, which is running."


def test_an_ordered_group_waits_for_a_retry(db: Conn) -> None:
    configure(db, "jobq", "mail", actor="ann", groups="ordered")
    first, second = add(db, "a", 2)
    db.execute(
        "UPDATE jobq.job SET run_at = now() + interval '200 s', attempt = 1, claims = 1, max_attempts = 5 WHERE id = %s",
        (first,),
    )
    add_attempt(db, first, retry_at="2030-01-01T00:00Z", message="no such")
    assert why(db, second) == f"It is blocked by job {first} of its group a, which waits for its retry in 3 min."
    assert why(db, first) == (
        "It is due in 3 min: attempt 1 of 5 failed with ValueError: no such, and it is tried again then; "
        "then it is for its group's turn."
    )
    pause(db, "jobq", "mail", actor="ann")
    assert "its group's turn; but queue mail has been paused" in why(db, first)
    assert why(db, second).startswith("Queue mail has been paused")
    db.execute("UPDATE jobq.queue SET paused_at = NULL")
    db.execute("UPDATE jobq.job SET claims = 0 WHERE id = %s", (first,))
    assert why(db, second) == f"It is blocked by job {first} of its group a, which is due in 3 min."

    configure(db, "jobq", "mail", actor="ann", groups="ordered:pass")
    assert why(db, second) == "It is being claimed right now."
    (third,) = add(db, "a")
    assert why(db, third) == "1 job of its group a is before it."
    assert claim(db) == [second]


def test_a_group_is_at_its_limit(db: Conn) -> None:
    configure(db, "jobq", "mail", actor="ann", groups="limited:2")
    configure_group(db, "jobq", "mail", "b", limit=1, actor="ann")
    of_a, of_b = add(db, "a", 3), add(db, "b", 2)
    assert sorted(claim(db)) == [*of_a[:2], of_b[0]]
    assert why(db, of_a[2]) == "Its group a has 2 of 2 running."
    assert why(db, of_b[1]) == "Its group b has 1 of 1 running."


def test_the_rate_of_a_group_is_used_up(db: Conn) -> None:
    configure(db, "jobq", "mail", actor="ann", groups="fair", group_rate="2/h", group_burst=2)
    jobs = add(db, "a", 3)
    assert len(claim(db)) + len(claim(db)) == 2
    said = why(db, jobs[2])
    assert re.fullmatch(r"The rate of its group a, 2/h, is used up: the next start is in (29|30) min\.", said)


def test_the_limit_of_the_queue_is_full(db: Conn) -> None:
    configure(db, "jobq", "mail", actor="ann", limit=2, groups="fair")
    grouped, plain = add(db, "a", 3), add(db, None, 3)
    assert len(claim(db)) == 2
    left = [row[0] for row in db.execute("SELECT id FROM jobq.job WHERE state <> 'running'").fetchall()]
    for job in some(left):
        assert why(db, job) == "The limit is full: 2 of 2 are running in queue mail."
    assert {*left} < {*grouped, *plain}


def test_the_rate_of_the_queue_is_used_up(db: Conn) -> None:
    configure(db, "jobq", "mail", actor="ann", rate="1/h")
    jobs = add(db, None, 2)
    assert claim(db) == jobs[:1]
    said = why(db, jobs[1])
    assert re.fullmatch(r"The rate of queue mail, 1/h, is used up: the next start is in (59|60) min\.", said)
    configure(db, "jobq", "mail", actor="ann", rate="1/s")
    db.execute("UPDATE jobq.rate_state SET paid_until = clock_timestamp() + interval '1.4 s'")
    assert re.fullmatch(r"The rate of queue mail, 1/s, is used up: the next start is in 1\.\d s\.", why(db, jobs[1]))


def test_the_turn_comes(db: Conn) -> None:
    configure(db, "jobq", "mail", actor="ann", groups="fair")
    add(db, "a", 2)
    add(db, "b")
    add(db, "a")
    (job,) = add(db, "c")
    assert why(db, job) == "Its group's turn comes: 2 groups are before it."
    db.execute("DELETE FROM jobq.group_ready WHERE group_key = 'a'")
    assert why(db, job) == "Its group's turn comes: 1 group is before it."
    db.execute("DELETE FROM jobq.group_ready WHERE group_key = 'b'")
    assert why(db, job) == "It is being claimed right now."
    db.execute("UPDATE jobq.worker SET running = slots")
    assert (
        why(db, job) == "All slots of the 1 worker that can run it are taken (16 of 16); its group is next."
    )  # fmt: skip
    db.execute("UPDATE jobq.group_ready SET due_at = clock_timestamp() + interval '30 s'")
    assert re.fullmatch(r"Its group's turn comes in (29|30) s\.", why(db, job))
    db.execute("DELETE FROM jobq.group_ready")
    assert (
        why(db, job) == "Its group has no turn in the line, which should not be: a worker gives it one within a minute."
    )  # fmt: skip


def test_more_turns_than_are_looked_at(db: Conn) -> None:
    configure(db, "jobq", "mail", actor="ann", groups="fair")
    db.execute(
        "INSERT INTO jobq.group_ready (queue, group_key) SELECT 'mail', 'g' || n FROM generate_series(1, 10100) AS n"
    )
    (job,) = add(db, "a")
    assert why(db, job) == "Its group's turn comes: more than 10,000 turns are before it."


def test_a_job_without_a_group_goes_by_the_line_of_jobs(db: Conn) -> None:
    configure(db, "jobq", "mail", actor="ann", limit=9, rate="100/s", groups="ordered")
    _, second = add(db, None, 2, run_in=-5)
    assert why(db, second) == "1 job is ahead of it."


def test_groups_that_were_switched_off(db: Conn) -> None:
    configure(db, "jobq", "mail", actor="ann", groups="ordered")
    _, second = add(db, "a", 2)
    configure(db, "jobq", "mail", actor="ann", groups=None)
    assert why(db, second) == "It is being claimed right now."


def test_nobody_can_run_it(db: Conn) -> None:
    configure(db, "jobq", "mail", actor="ann", groups="fair")
    (job,) = add(db, "a")
    db.execute("UPDATE jobq.worker SET queues = ARRAY['pdf']")
    assert why(db, job) == "The only worker alive does not serve queue mail."


def test_the_groups_of_a_queue(db: Conn) -> None:
    configure(db, "jobq", "mail", actor="ann", groups="limited:2")
    configure_group(db, "jobq", "mail", "b", limit=1, actor="ann")
    configure_group(db, "jobq", "mail", "z", limit=7, actor="ann")
    add(db, "b", 2)
    add(db, "a", 5)
    add(db, None)
    assert len(claim(db, want=4)) == 4
    add(db, "c", run_in=3600)

    found = queries.queue(db, "jobq", "mail")

    assert found.info.settings.describe() == "At most 2 of each group at a time."
    assert (found.info.waiting, found.info.ready) == (5, 0)
    assert found.groups is not None
    assert [(group.key, group.waiting, group.running, group.limit) for group in found.groups.largest] == [
        ("a", 3, 2, None), ("b", 1, 1, 1), ("c", 1, 0, None),
    ]  # fmt: skip
    assert (found.groups.number, found.groups.turns, found.groups.turns_due) == (3, 1, 0)
    assert found.groups.oldest_turn_seconds is None
    assert [(limit.key, limit.limit) for limit in found.groups.limits] == [("b", 1), ("z", 7)]
    (listed,) = [queue for queue in queries.queues(db, "jobq") if queue.name == "mail"]
    assert (listed.waiting, listed.settings) == (5, found.info.settings)
    assert queries.overview(db, "jobq").counts["waiting"] == 5
    assert queries.queue(db, "jobq", "pdf").groups is None
