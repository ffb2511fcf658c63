"""Retry, cancel, pause and resume: what they change, what they refuse, and beside a worker."""

from __future__ import annotations

import threading
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from jobq import operations
from jobq.errors import InvalidOption, UnknownQueue
from jobq.operations import selection
from tests.support.rows import add_attempt, add_finished, add_job, add_worker

Conn = psycopg.Connection[Any]


def one(db: Conn, query: str, *params: Any) -> dict[str, Any]:
    row = db.cursor(row_factory=dict_row).execute(query, params).fetchone()
    assert row is not None
    return row


def live(db: Conn, id: int) -> dict[str, Any]:
    return one(db, "SELECT *, run_at <= clock_timestamp() AS due FROM jobq.job WHERE id = %s", id)


def finished(db: Conn, id: int) -> dict[str, Any]:
    return one(db, "SELECT * FROM jobq.job_history WHERE id = %s", id)


def audit(db: Conn) -> list[dict[str, Any]]:
    return db.cursor(row_factory=dict_row).execute("SELECT * FROM jobq.audit ORDER BY id").fetchall()


def notifications(db: Conn) -> list[str]:
    return sorted(note.payload for note in db.notifies(timeout=0.5))


@pytest.mark.parametrize("state", ["failed", "cancelled", "expired"])
def test_redrive_puts_a_dead_job_back_under_its_id(db: Conn, state: str) -> None:
    id = add_finished(
        db, state, queue="mail", claims=7, attempt=5, crashes=2, priority=8, max_attempts=5, timeout=3.5,
        key="k", args={"order": 1}, headers={"trace": "t"}, error="boom", result=None, ago=90,
    )  # fmt: skip
    before = finished(db, id)

    changed = operations.retry(db, "jobq", [id], actor="ann", reason="fixed")

    assert changed == operations.Changed(done=[id])
    job = live(db, id)
    assert job["due"]
    assert (job["state"], job["attempt"], job["crashes"], job["claims"]) == ("ready", 0, 0, 7)
    assert (job["queue"], job["priority"], job["max_attempts"], job["timeout"]) == ("mail", 8, 5, 3.5)
    assert (job["key"], job["args"], job["headers"]) == ("k", {"order": 1}, {"trace": "t"})
    assert job["created_at"] == before["created_at"]
    assert job["run_at"] > before["run_at"]
    assert job["started_at"] is job["worker_id"] is job["progress"] is None
    assert one(db, "SELECT count(*) AS n FROM jobq.job_history")["n"] == 0
    # How its key held is not known of a job from before that was kept: it holds until it has finished.
    assert one(db, "SELECT key, job_id, holds FROM jobq.job_key") == {
        "key": "k",
        "job_id": id,
        "holds": "until_finished",
    }
    assert [(a["actor"], a["action"], a["target"], a["reason"]) for a in audit(db)] == [
        ("ann", "retry", {"ids": [id]}, "fixed")
    ]


def test_retry_makes_a_waiting_job_due_and_wakes_its_queue(db: Conn) -> None:
    db.execute("LISTEN jobq")
    id = add_job(db, queue="mail", attempt=3, run_in=3600)
    assert notifications(db) == ["insert mail"]
    assert operations.retry(db, "jobq", [id], actor="ann").done == [id]
    assert live(db, id)["due"]
    assert live(db, id)["attempt"] == 3
    assert notifications(db) == ["insert mail"]


def test_redrive_wakes_the_queue(db: Conn) -> None:
    db.execute("LISTEN jobq")
    ids = [add_finished(db, "failed", queue="mail"), add_finished(db, "failed", queue="pdf")]
    operations.retry(db, "jobq", ids, actor="ann")
    assert notifications(db) == ["insert mail", "insert pdf"]


def test_retry_refuses_with_a_reason(db: Conn) -> None:
    ready, running, succeeded = add_job(db), add_job(db, state="running"), add_finished(db, "succeeded")
    changed = operations.retry(db, "jobq", [ready, running, succeeded, 999_999, -1, 2**70], actor="ann")
    assert changed.done == []
    assert changed.refused == {
        ready: "it is ready to run already",
        running: "it is running",
        succeeded: "it has succeeded",
        999_999: "there is no job with this id",
        -1: "there is no job with this id",
        2**70: "there is no job with this id",
    }
    assert audit(db) == []


@pytest.mark.parametrize("state", ["ready", "parked", "waiting"])
def test_cancel_finishes_a_job_that_does_not_run(db: Conn, state: str) -> None:
    id = add_job(db, state=state, queue="mail", attempt=2, claims=4, args={"a": 1}, key="k")
    changed = operations.cancel(db, "jobq", [id], actor="ann", reason="not wanted")
    assert changed == operations.Changed(done=[id])
    job = finished(db, id)
    assert (job["state"], job["error"]) == ("cancelled", "cancelled by ann: not wanted")
    assert (job["attempt"], job["claims"], job["args"], job["key"]) == (2, 4, {"a": 1}, "k")
    assert one(db, "SELECT count(*) AS n FROM jobq.job")["n"] == 0
    assert audit(db)[0]["action"] == "cancel"


@pytest.mark.parametrize(("holds", "left"), [("until_finished", 0), ("until_started", 0), ("period", 1)])
def test_cancel_releases_keys_that_held_for_the_job(db: Conn, holds: str, left: int) -> None:
    row = db.execute("SELECT jobq.enqueue('mail.send', key => 'k', key_holds => %s)", (holds,)).fetchone()
    assert row is not None
    operations.cancel(db, "jobq", [row[0]], actor="ann")
    assert one(db, "SELECT count(*) AS n FROM jobq.job_key")["n"] == left


def test_cancel_leaves_a_key_that_another_job_holds_by_now(db: Conn) -> None:
    db.execute("SELECT jobq.enqueue('mail.send', key => 'k', key_holds => 'until_finished')")
    redriven = add_job(db, key="k")
    operations.cancel(db, "jobq", [redriven], actor="ann")
    assert one(db, "SELECT count(*) AS n FROM jobq.job_key")["n"] == 1


def test_cancel_asks_a_running_job_to_stop(db: Conn) -> None:
    db.execute("LISTEN jobq")
    id = add_job(db, state="running", claims=1, attempt=1)
    notifications(db)
    assert operations.cancel(db, "jobq", [id], actor="ann").done == [id]
    first = live(db, id)
    assert first["state"] == "running"
    assert first["cancel_requested_at"] is not None
    assert notifications(db) == ["cancel"]
    operations.cancel(db, "jobq", [id], actor="ann")
    assert live(db, id)["cancel_requested_at"] == first["cancel_requested_at"]


def test_cancel_refuses_what_is_finished(db: Conn) -> None:
    ids = [add_finished(db, state) for state in ("succeeded", "failed", "cancelled", "expired")]
    assert operations.cancel(db, "jobq", ids, actor="ann").refused == {
        ids[0]: "it has succeeded already",
        ids[1]: "it has failed already",
        ids[2]: "it is cancelled already",
        ids[3]: "it has expired already",
    }


def test_a_job_that_a_worker_is_changing_is_refused_not_waited_for(db: Conn, database_url: str) -> None:
    dead, idle, running = add_finished(db, "failed"), add_job(db), add_job(db, state="running")
    with psycopg.connect(database_url) as other:
        other.execute("SELECT FROM jobq.job FOR UPDATE")
        other.execute("SELECT FROM jobq.job_history FOR UPDATE")
        busy = "a worker or another operator is changing it at this moment: try again"
        assert operations.retry(db, "jobq", [dead], actor="ann").refused == {dead: busy}
        assert operations.cancel(db, "jobq", [idle, running], actor="ann").refused == {
            idle: busy,
            running: busy,
        }


def test_in_the_callers_transaction_nothing_is_committed(db: Conn, database_url: str) -> None:
    id = add_finished(db, "failed")
    with psycopg.connect(database_url) as mine:
        mine.execute("SELECT 1")
        assert operations.retry(mine, "jobq", [id], actor="ann").done == [id]
        mine.rollback()
    assert finished(db, id)["state"] == "failed"
    assert audit(db) == []


def test_the_audit_has_the_values_before_and_after(db: Conn) -> None:
    one, two = add_job(db, priority=3), add_job(db, queue="mail")
    who = operations.Actor("ann", "operator", "2001:db8::7")
    operations.move(db, "jobq", [one, two], priority=9, actor=who)
    operations.cancel(db, "jobq", [one], actor=who)
    operations.retry(db, "jobq", [one], actor=who)
    operations.delete(db, "jobq", [one, two], actor="bob", reason="by law")
    told = [(a["action"], a["role"], a["address"], a["before"], a["after"]) for a in audit(db)]
    ann = ("operator", "2001:db8::7")
    assert told == [
        ("move", *ann,
         {str(one): {"queue": "default", "priority": 3}, str(two): {"queue": "mail", "priority": 5}},
         {str(one): {"queue": "default", "priority": 9}, str(two): {"queue": "mail", "priority": 9}}),
        ("cancel", *ann, {"state": "ready"}, {"state": "cancelled"}),
        ("retry", *ann, {"state": "cancelled", "attempt": 0}, {"state": "ready", "attempt": 0}),
        ("delete", None, None,
         {str(one): {"state": "ready", "task": "mail.send", "queue": "default"},
          str(two): {"state": "ready", "task": "mail.send", "queue": "mail"}}, None),
    ]  # fmt: skip


def test_snooze_and_move_refuse_what_runs_and_what_has_ended(db: Conn) -> None:
    running, done, parked = add_job(db, state="running"), add_finished(db, "succeeded"), add_job(db, state="parked")
    there = add_job(db, queue="slow")
    ids = [running, done, parked, there, 4711]
    absent = "there is no job with this id"
    assert operations.snooze(db, "jobq", [*ids[:2], 4711], seconds=1, actor="ann").refused == {
        running: "it is running",
        done: "it has succeeded already",
        4711: absent,
    }
    moved = operations.move(db, "jobq", ids, queue="slow", actor="ann")
    assert moved.done == [parked]
    assert moved.refused == {
        running: "it is running",
        done: "it has succeeded already",
        there: "it is there already, or a worker or another operator is changing it at this moment",
        4711: absent,
    }
    assert operations.run_now(db, "jobq", [done], actor="ann").refused == {done: "it has succeeded already"}
    deleted = operations.delete(db, "jobq", [running, done, 4711], actor="ann")
    assert (deleted.done, deleted.refused) == ([done], {running: "it is running: cancel it first", 4711: absent})
    assert [a["action"] for a in audit(db)] == ["move", "delete"]


def test_changes_wake_the_queues_concerned_and_set_no_time_in_the_past(db: Conn) -> None:
    due, later = add_job(db, queue="a", run_in=-3600), add_job(db, queue="a", run_in=3600)
    db.execute("LISTEN jobq")
    before = one(db, "SELECT clock_timestamp() AS at")["at"]
    was = live(db, later)["run_at"]
    operations.move(db, "jobq", [due, later], queue="b", actor="ann")
    assert notifications(db) == ["insert b"]
    assert live(db, due)["run_at"] >= before
    assert live(db, later)["run_at"] == was
    operations.snooze(db, "jobq", [due], until=before, actor="ann")
    assert notifications(db) == ["insert b"]
    assert live(db, due)["run_at"] > before
    parked = add_job(db, state="parked", queue="c")
    notifications(db)
    operations.move(db, "jobq", [parked], queue="d", actor="ann")
    assert notifications(db) == []


@pytest.mark.parametrize(("holds", "left"), [("until_finished", 0), ("until_started", 0), ("period", 0)])
def test_delete_frees_keys_as_cancel_does_and_takes_the_attempts_along(db: Conn, holds: str, left: int) -> None:
    row = db.execute("SELECT jobq.enqueue('mail.send', key => 'k', key_holds => %s)", (holds,)).fetchone()
    assert row is not None
    other = add_finished(db, "failed")
    for id in (row[0], other):
        add_attempt(db, id)
    assert operations.delete(db, "jobq", [row[0]], actor="ann").done == [row[0]]
    assert one(db, "SELECT count(*) AS n FROM jobq.job_key")["n"] == left
    assert one(db, "SELECT array_agg(job_id) AS ids FROM jobq.job_attempt")["ids"] == [other]
    assert operations.delete(db, "jobq", [other], actor="ann").done == [other]
    assert one(db, "SELECT count(*) AS n FROM jobq.job_attempt")["n"] == 0


def test_many_ids_go_in_batches_each_with_its_audit(db: Conn) -> None:
    ids = [add_finished(db, "failed") for _ in range(1001)]
    changed = operations.retry(db, "jobq", [*reversed(ids), ids[0]], actor="ann")
    assert changed.done == ids
    assert [len(entry["target"]["ids"]) for entry in audit(db)] == [500, 500, 1]


def test_operators_with_the_same_ids_in_different_orders_do_not_deadlock(db: Conn, database_url: str) -> None:
    ids = [add_finished(db, "failed") for _ in range(300)]
    results: list[operations.Changed] = []

    def run(mine: list[int]) -> None:
        with psycopg.connect(database_url, autocommit=True) as connection:
            results.append(operations.retry(connection, "jobq", mine, actor="ann"))

    threads = [threading.Thread(target=run, args=(ids[:: 1 if n % 2 else -1],)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(id for result in results for id in result.done) == ids
    assert len(results) == 6


def test_retry_where_takes_only_what_fits(db: Conn) -> None:
    mail = [add_finished(db, "failed", queue="mail", task="a") for _ in range(3)]
    add_finished(db, "failed", queue="mail", task="b")
    add_finished(db, "failed", queue="pdf", task="a")
    add_finished(db, "cancelled", queue="mail", task="a")
    assert operations.count_where(db, "jobq", state="failed", queue="mail", task="a") == 3
    assert operations.count_where(db, "jobq", state="failed", bound=2) == 2

    seen: list[int] = []
    changed = operations.retry_where(db, "jobq", queue="mail", task="a", limit=2, actor="ann", progress=seen.append)
    assert changed.done == mail[:2]
    assert seen == [2]
    assert audit(db)[0]["target"] == {
        "ids": mail[:2],
        "filter": "state:failed queue:mail task:a",
    }
    assert operations.retry_where(db, "jobq", queue="mail", task="a", actor="ann").done == mail[2:]


def test_cancel_where_tells_due_from_scheduled(db: Conn) -> None:
    due, later, running = add_job(db), add_job(db, run_in=60), add_job(db, state="running")
    assert operations.cancel_where(db, "jobq", actor="ann").done == [due]
    assert operations.cancel_where(db, "jobq", state="scheduled", actor="ann").done == [later]
    assert operations.cancel_where(db, "jobq", state="running", actor="ann").done == [running]
    assert finished(db, later)["state"] == "cancelled"


def test_a_filter_goes_over_windows_and_gaps(db: Conn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "WINDOW", 10)
    wanted = [add_job(db, task="rare", id=0)]
    for _ in range(45):
        add_job(db)
    wanted += [add_job(db, task="rare"), add_job(db, task="rare", id=10**15)]
    assert operations.count_where(db, "jobq", state="ready", task="rare") == 3
    assert operations.cancel_where(db, "jobq", task="rare", actor="ann").done == wanted


def test_retry_where_in_several_batches(db: Conn) -> None:
    ids = [add_finished(db, "failed") for _ in range(1200)]
    seen: list[int] = []
    assert operations.retry_where(db, "jobq", actor="ann", progress=seen.append).done == ids
    assert seen == [500, 1000, 1200]


def test_pause_and_resume(db: Conn) -> None:
    db.execute("LISTEN jobq")
    add_job(db, queue="mail")
    notifications(db)
    assert operations.pause(db, "jobq", "mail", actor="ann", reason="smtp down")
    row = one(db, "SELECT * FROM jobq.queue")
    assert (row["name"], row["paused_by"], row["pause_reason"]) == ("mail", "ann", "smtp down")
    assert row["paused_at"] is not None
    assert not operations.pause(db, "jobq", "mail", actor="bob")
    assert one(db, "SELECT * FROM jobq.queue") == row

    assert operations.resume(db, "jobq", "mail", actor="bob")
    row = one(db, "SELECT * FROM jobq.queue")
    assert row["paused_at"] is row["paused_by"] is row["pause_reason"] is None
    assert not operations.resume(db, "jobq", "mail", actor="bob")
    assert [(a["actor"], a["action"], a["target"]) for a in audit(db)] == [
        ("ann", "pause", {"queue": "mail"}),
        ("bob", "resume", {"queue": "mail"}),
    ]
    assert notifications(db) == ["queues", "queues"]


def test_a_queue_is_known_by_its_row_its_jobs_or_a_worker(db: Conn) -> None:
    with pytest.raises(UnknownQueue, match="queue 'nosuch': no job"):
        operations.pause(db, "jobq", "nosuch", actor="ann")
    with pytest.raises(UnknownQueue):
        operations.resume(db, "jobq", "nosuch", actor="ann")
    add_job(db, queue="parked", state="parked")
    add_job(db, queue="running", state="running")
    add_finished(db, "succeeded", queue="done")
    add_worker(db, queues=["served"])
    for queue in ("parked", "running", "done", "served"):
        assert operations.pause(db, "jobq", queue, actor="ann")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"actor": ""}, "actor=''"),
        ({"actor": " "}, "say who"),
        ({"actor": "a\x00b"}, "contains a NUL character"),
        ({"actor": "a" * 201}, "at most 200"),
        ({"actor": "ann", "reason": "r" * 1001}, "at most 1000"),
    ],
)
def test_unusable_notes_are_named(db: Conn, arguments: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        operations.retry(db, "jobq", [1], **arguments)


def test_unusable_filters_are_named(db: Conn) -> None:
    with pytest.raises(InvalidOption, match="state='succeeded': expected one of failed"):
        operations.retry_where(db, "jobq", state="succeeded", actor="ann")
    with pytest.raises(InvalidOption, match="state='failed': expected one of ready"):
        operations.cancel_where(db, "jobq", state="failed", actor="ann")
    with pytest.raises(InvalidOption, match="limit=0"):
        operations.cancel_where(db, "jobq", limit=0, actor="ann")
