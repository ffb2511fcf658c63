"""Bulk operations: what was previewed is what runs, once, whatever is killed or comes between."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import psycopg
import pytest

from jobq import operations, queries
from jobq._core.fingerprint import fingerprint
from jobq.errors import InvalidFilter, InvalidOption, OperationNotFound, OperationRefused
from jobq.filters import JobFilter
from jobq.operations import bulk, selection
from jobq.queries.values.bulk import Operation
from tests.support.rows import add_finished, add_job
from tests.support.waiting import wait_until

Conn = psycopg.Connection[Any]


def draft(db: Conn, action: str, text: str, **options: Any) -> Operation:
    return operations.draft(db, "jobq", action=action, filter=JobFilter.parse(text), options=options, actor="ann")


def begin(db: Conn, action: str, text: str, *, rate: float | None = None, **options: Any) -> int:
    made = draft(db, action, text, **options)
    return operations.start(db, "jobq", made.id, reason="fixed", typed=made.typed, rate=rate, actor="ann").id


def run(db: Conn, id: int) -> Operation:
    return operations.run_operation(db, "jobq", id)


def ids(db: Conn, query: str) -> list[int]:
    return [row[0] for row in db.execute(query.encode()).fetchall()]


def batches(db: Conn, id: int) -> list[list[int]]:
    return [batch.done for batch in queries.operation_batches(db, "jobq", id)]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of 5 and windows of 40 ids."""
    monkeypatch.setattr("jobq.operations.bulk_steps.BATCH", 5)
    monkeypatch.setattr(selection, "WINDOW", 40)


def test_from_the_preview_to_the_end(db: Conn, small: None) -> None:
    wanted = [add_finished(db, "failed", task="mail.send") for _ in range(12)]
    other = [add_finished(db, "failed", task="pdf"), add_finished(db, "succeeded", task="mail.send")]
    made = draft(db, "retry", "task:mail.send")
    assert (made.state, made.expected, made.typed, made.count_text) == ("draft", 12, None, "12")
    assert made.filter == "state:failed task:mail.send"
    assert ids(db, "SELECT id FROM jobq.job") == []

    assert not operations.step(db, "jobq", made.id)
    assert ids(db, "SELECT id FROM jobq.job") == []
    started = operations.start(db, "jobq", made.id, reason="fixed", actor=operations.Actor("bob", "admin", "192.0.2.7"))
    assert (started.state, started.actor, started.reason) == ("running", "bob", "fixed")
    assert operations.step(db, "jobq", made.id)
    half = queries.operation(db, "jobq", made.id)
    assert (half.seen, half.done, half.after_id) == (5, 5, wanted[4])
    assert half.progress == pytest.approx(5 / 12)

    done = run(db, made.id)
    assert (done.state, done.seen, done.done, done.refused, done.progress) == ("done", 12, 12, 0, 1.0)
    assert done.finished_at is not None
    assert ids(db, "SELECT id FROM jobq.job ORDER BY id") == wanted
    assert ids(db, "SELECT id FROM jobq.job_history ORDER BY id") == other
    assert batches(db, made.id) == [wanted[:5], wanted[5:10], wanted[10:]]
    told = [(a.actor, a.role, a.address, a.action, a.reason, a.target) for a in reversed(queries.audit_log(db, "jobq"))]
    what = {"operation": made.id, "action": "retry", "filter": "state:failed task:mail.send"}
    who = ("bob", "admin", "192.0.2.7")
    assert told == [
        (*who, "operation_start", "fixed", what | {"expected": 12, "counted": 12}),
        (*who, "operation_done", "fixed", what | {"done": 12, "refused": 0}),
    ]
    assert not operations.step(db, "jobq", made.id)
    assert [found.id for found in queries.operations(db, "jobq")] == [made.id]


@pytest.mark.parametrize(
    ("action", "options", "text"),
    [
        ("cancel", {}, "state:ready,scheduled,running,parked,waiting task:mail.send"),
        ("snooze", {"seconds": 600}, "state:ready,scheduled,parked,waiting task:mail.send"),
        ("snooze", {"until": "2199-01-31T08:00Z"}, "state:ready,scheduled,parked,waiting task:mail.send"),
        ("move", {"queue": "slow", "priority": 2}, "state:ready,scheduled,parked,waiting task:mail.send"),
    ],
)
def test_each_change_says_which_states_it_is_for(db: Conn, action: str, options: dict[str, Any], text: str) -> None:
    kept = [add_finished(db, "succeeded"), add_job(db, task="other")]
    changed = [add_job(db), add_job(db, run_in=60)]
    running = add_job(db, state="running")
    id = begin(db, action, "task:mail.send", **options)
    found = run(db, id)
    assert (found.filter, found.state) == (text, "done")
    assert batches(db, id) == [changed if action != "cancel" else [*changed, running]]
    assert not set(ids(db, "SELECT id FROM jobq.job_history WHERE state = 'succeeded'")) ^ {kept[0]}
    assert db.execute("SELECT queue, priority, run_at <= now() FROM jobq.job WHERE id = %s", (kept[1],)).fetchone() == (
        "default", 5, True,
    )  # fmt: skip
    if action == "snooze":
        assert ids(db, "SELECT id FROM jobq.job WHERE run_at > now() + interval '9 min' ORDER BY id") == changed
    elif action == "move":
        assert ids(db, "SELECT id FROM jobq.job WHERE queue = 'slow' AND priority = 2 ORDER BY id") == changed


def test_delete_is_for_states_that_are_named(db: Conn) -> None:
    dead, ready = add_finished(db, "failed"), add_job(db)
    with pytest.raises(InvalidOption, match="say which states are to be deleted"):
        draft(db, "delete", "task:mail.send")
    with pytest.raises(InvalidOption, match="state:running: delete is for succeeded"):
        draft(db, "delete", "state:running")
    run(db, begin(db, "delete", "state:failed"))
    assert ids(db, "SELECT id FROM jobq.job_history") == []
    assert ids(db, "SELECT id FROM jobq.job") == [ready]
    assert not ids(db, f"SELECT id FROM jobq.job WHERE id = {dead}")


def test_drafts_that_cannot_be_meant_are_refused(db: Conn) -> None:
    with pytest.raises(InvalidOption, match="no term, so it would be every job"):
        operations.draft(db, "jobq", action="cancel", filter=JobFilter(), actor="ann")
    for action, text, options, message in (
        ("retry", "state:succeeded", {}, "state:succeeded: retry is for failed"),
        ("cancel", "error:boom", {}, "no job that fits can be in a state for cancel"),
        ("explode", "state:failed", {}, "action='explode': expected one of retry, cancel"),
        ("retry", "state:failed", {"queue": "a"}, "queue='a': retry has no options"),
        ("snooze", "state:ready", {}, "expected either seconds or until"),
        ("snooze", "state:ready", {"seconds": 0}, "seconds=0: expected a number of seconds above 0"),
        ("snooze", "state:ready", {"seconds": float("nan")}, "seconds=nan"),
        ("snooze", "state:ready", {"until": "tomorrow"}, "until='tomorrow': expected a time with its zone"),
        ("snooze", "state:ready", {"until": "2030-01-01T00:00"}, "expected a time with its zone"),
        # In UTC they are out of the calendar.
        ("snooze", "state:ready", {"until": "9999-12-31T23:59-14:00"}, "expected a time before the year 9999"),
        ("move", "state:ready", {}, "expected a queue or a priority"),
        ("move", "state:ready", {"queue": ""}, "queue='': expected text"),
        ("move", "state:ready", {"priority": 10}, "priority=10: expected a whole number from 0 to 9"),
        ("move", "state:ready", {"priority": "high"}, "priority='high': expected a whole number"),
    ):
        with pytest.raises(InvalidOption, match=message):
            draft(db, action, text, **options)
    with pytest.raises(InvalidFilter):
        draft(db, "retry", "colour:blue")
    assert queries.operations(db, "jobq") == []


def test_starting_needs_a_reason_the_count_and_a_fresh_preview(db: Conn) -> None:
    for _ in range(101):
        add_finished(db, "failed")
    made = draft(db, "retry", "state:failed")
    assert made.typed == 101

    def start(**how: Any) -> Operation:
        return operations.start(db, "jobq", made.id, **({"actor": "ann"} | how))

    for how, message in (
        ({"reason": " ", "typed": 101}, "say why"),
        ({"reason": "x"}, "typed=None: it is about 101 jobs; above 100, type the number 101"),
        ({"reason": "x", "typed": 100}, "typed=100"),
        ({"reason": "x", "typed": 101, "rate": 0}, "rate=0: expected a number of jobs a second"),
        ({"reason": "x", "typed": 101, "rate": float("inf")}, "rate=inf"),
        ({"reason": "x", "typed": 101, "actor": " "}, "say who"),
    ):
        with pytest.raises(InvalidOption, match=message):
            start(**how)
    db.execute("UPDATE jobq.operation SET created_at = created_at - interval '61 min'")
    assert queries.operation(db, "jobq", made.id).is_stale
    with pytest.raises(OperationRefused, match="older than an hour; make a new one"):
        start(reason="x", typed=101)
    db.execute("UPDATE jobq.operation SET created_at = created_at + interval '61 min'")
    assert start(reason="x", typed=101).state == "running"
    with pytest.raises(OperationRefused, match="it was started before, and is running; nothing was done twice"):
        start(reason="x", typed=101)
    with pytest.raises(OperationNotFound, match="operation 4711"):
        operations.start(db, "jobq", 4711, reason="x", actor="ann")
    assert len(queries.audit_log(db, "jobq")) == 1

    empty = draft(db, "retry", "task:nosuch")
    with pytest.raises(OperationRefused, match="no job fits"):
        operations.start(db, "jobq", empty.id, reason="x", actor="ann")


def test_a_count_that_stops_says_so(db: Conn, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(7):
        add_finished(db, "failed")
    monkeypatch.setattr(bulk, "COUNT_BOUND", 6)
    made = draft(db, "retry", "state:failed")
    assert (made.expected, made.counted, made.typed, made.count_text) == (None, 6, 6, "more than 6")
    monkeypatch.setattr(bulk, "COUNT_BOUND", 7)
    assert draft(db, "retry", "state:failed").expected == 7
    with pytest.raises(InvalidOption, match="it is about more than 6 jobs; above 100, type the number 6"):
        operations.start(db, "jobq", made.id, reason="x", actor="ann")
    operations.start(db, "jobq", made.id, reason="x", typed=6, actor="ann")
    assert run(db, made.id).done == 7


def test_a_count_that_takes_long_stops_and_says_so(db: Conn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "WINDOW", 10)
    monkeypatch.setattr(bulk, "COUNT_SECONDS", 0.0)
    for _ in range(25):
        add_finished(db, "failed")
    made = draft(db, "retry", "state:failed")
    assert made.expected is None
    assert 0 < made.counted < 25
    operations.start(db, "jobq", made.id, reason="x", typed=made.typed, actor="ann")
    assert run(db, made.id).done == 25


@pytest.mark.slow
def test_a_filter_that_matches_a_million(db: Conn) -> None:
    """The preview stops at 100,000, is bounded in time, and the first batches are as small as any."""
    db.execute(
        "INSERT INTO jobq.job (task, run_at) SELECT 'many', now() + interval '1 day' FROM generate_series(1, 1000000)"
    )
    db.execute("ANALYZE jobq.job")
    made = draft(db, "cancel", "task:many")
    assert made.expected is None
    assert made.counted <= 100_000
    operations.start(db, "jobq", made.id, reason="x", typed=made.typed, actor="ann")
    for _ in range(3):
        assert operations.step(db, "jobq", made.id)
    found = operations.pause_operation(db, "jobq", made.id, actor="ann")
    assert (found.done, found.seen) == (1500, 1500)
    assert 0 < found.progress < 0.01


def test_jobs_that_come_to_match_later_are_not_touched(db: Conn) -> None:
    before = [add_finished(db, "failed"), add_finished(db, "failed")]
    ends = add_job(db, state="running")
    made = draft(db, "retry", "state:failed")
    after = add_finished(db, "failed")
    db.execute("DELETE FROM jobq.job WHERE id = %s", (ends,))
    add_finished(db, "failed", id=ends)
    operations.start(db, "jobq", made.id, reason="x", actor="ann")
    run(db, made.id)
    assert batches(db, made.id) == [before]
    assert ids(db, "SELECT id FROM jobq.job_history ORDER BY id") == sorted([after, ends])


def test_what_is_due_and_how_old_is_told_as_of_the_preview(db: Conn) -> None:
    due, later = add_job(db), add_job(db, run_in=60)
    young = add_finished(db, "failed", ago=30)
    old = add_finished(db, "failed", ago=7200)
    cancel, retry = draft(db, "cancel", "state:ready"), draft(db, "retry", "state:failed age:>1h")
    assert (cancel.expected, retry.expected) == (1, 1)
    # As if an hour had passed since.
    db.execute("UPDATE jobq.operation SET created_at = created_at - interval '59 min'")
    db.execute("UPDATE jobq.job SET run_at = run_at - interval '59 min'")
    db.execute("UPDATE jobq.job_history SET finished_at = finished_at - interval '59 min'")
    for made in (cancel, retry):
        operations.start(db, "jobq", made.id, reason="x", actor="ann")
        run(db, made.id)
    assert batches(db, cancel.id) == [[due]]
    assert batches(db, retry.id) == [[old]]
    assert ids(db, "SELECT id FROM jobq.job WHERE task = 'mail.send' ORDER BY id") == [later, old]
    assert ids(db, "SELECT id FROM jobq.job_history WHERE state = 'failed'") == [young]


def test_a_job_that_fails_again_at_once_is_not_retried_again(db: Conn, small: None) -> None:
    wanted = [add_finished(db, "failed") for _ in range(7)]
    id = begin(db, "retry", "state:failed")
    more = True
    while more:
        more = operations.step(db, "jobq", id)
        for job in ids(db, "DELETE FROM jobq.job RETURNING id"):
            add_finished(db, "failed", id=job)
    assert [job for batch in batches(db, id) for job in batch] == wanted
    assert queries.operation(db, "jobq", id).done == 7


def test_refusals_are_counted_by_reason_and_told_by_job(db: Conn, database_url: str) -> None:
    held, free = add_job(db), add_job(db)
    id = begin(db, "cancel", "state:ready")
    with psycopg.connect(database_url) as other:
        other.execute("SELECT FROM jobq.job WHERE id = %s FOR UPDATE", (held,))
        found = run(db, id)
    why = "a worker or another operator is changing it at this moment: try again"
    assert (found.done, found.refused, found.refusals) == (1, 1, {why: 1})
    [batch] = queries.operation_batches(db, "jobq", id)
    assert (batch.n, batch.done, batch.refused) == (1, [free], {held: why})


@pytest.mark.parametrize("action", ["retry", "delete"])
def test_jobs_that_the_database_refuses_to_change_cost_no_others(db: Conn, small: None, action: str) -> None:
    wanted = [add_finished(db, "failed") for _ in range(12)]
    bad = [wanted[1], wanted[7]]
    db.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" IF OLD.id IN ({bad[0]}, {bad[1]}) THEN RAISE EXCEPTION 'the rule'; END IF; RETURN OLD; END $$"
    )
    db.execute("CREATE TRIGGER refuse BEFORE DELETE ON jobq.job_history FOR EACH ROW EXECUTE FUNCTION refuse()")
    done = run(db, begin(db, action, "state:failed"))
    assert (done.state, done.done, done.refused) == ("done", 10, 2)
    assert done.refusals == {"the database refuses to change it": 2}
    assert ids(db, "SELECT id FROM jobq.job_history") == bad
    # By their ids as well.
    changed = getattr(operations, action)(db, "jobq", bad, actor="ann")
    assert changed.refused == dict.fromkeys(bad, "the database refuses to change it: the rule")


LACKS = ["40001", "53100", "55000", "55P03", "57014"]


@pytest.mark.parametrize("state", [*LACKS, "25006", "42501", "XX000"])
def test_a_job_for_which_something_is_lacking_each_time_costs_no_others(db: Conn, small: None, state: str) -> None:
    """One in the middle of a batch, and one that is the last batch."""
    wanted = [add_job(db, run_in=3600) for _ in range(11)]
    raise_for(db, f"OLD.id IN ({wanted[6]}, {wanted[10]})", state)
    done = run(db, begin(db, "snooze", "state:scheduled", seconds=100))
    assert (done.state, done.done, done.refused) == ("done", 9, 2)
    assert done.refusals == {"the database refuses to change it": 2}
    changed = operations.snooze(db, "jobq", wanted, seconds=200, actor="ann")
    assert changed.refused == dict.fromkeys((wanted[6], wanted[10]), "the database refuses to change it: no such luck")


def raise_for(db: Conn, condition: str, state: str) -> None:
    db.execute(
        "CREATE FUNCTION bad() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN"
        f" IF {condition} THEN RAISE EXCEPTION 'no such luck' USING ERRCODE = '{state}'; END IF; RETURN NEW; END$$"
    )
    db.execute("CREATE TRIGGER bad BEFORE UPDATE ON jobq.job FOR EACH ROW EXECUTE FUNCTION bad()")


def test_what_is_lacking_once_is_tried_again(db: Conn) -> None:
    db.execute("CREATE SEQUENCE tries")
    wanted = [add_job(db, run_in=3600) for _ in range(30)]
    raise_for(db, "nextval('tries') = 1", "40P01")
    assert operations.snooze(db, "jobq", wanted, seconds=200, actor="ann").done == wanted


def test_a_lock_on_each_of_many_jobs_is_not_waited_for_without_end(
    db: Conn, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trigger that waits for a lock that another session has: after some seconds the operation fails, and can be resumed."""
    monkeypatch.setattr("jobq.operations.change._LACKING_SECONDS", 1.0)
    wanted = [add_job(db, run_in=3600) for _ in range(100)]
    db.execute("CREATE TABLE kept (n integer)")
    db.execute(
        "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN"
        f" IF OLD.id > {wanted[0]} THEN PERFORM FROM kept; END IF; RETURN NEW; END$$"
    )
    db.execute("CREATE TRIGGER wait BEFORE UPDATE ON jobq.job FOR EACH ROW EXECUTE FUNCTION wait()")
    id = begin(db, "snooze", "state:scheduled", seconds=100)
    with psycopg.connect(database_url) as other:
        other.execute("LOCK TABLE kept")
        db.execute("SET lock_timeout = '200ms'")
        begun = time.monotonic()
        failed = run(db, id)
        # Else 200 tries of a fifth of a second.
        assert time.monotonic() - begun < 10
    assert (failed.state, failed.done) == ("failed", 0)
    assert (failed.error or "").startswith("LockNotAvailable")
    operations.resume_operation(db, "jobq", id, actor="ann")
    assert run(db, id).done == 100


@pytest.mark.parametrize("action", ["snooze", "cancel", "move", "delete"])
def test_a_job_that_is_refused_at_the_commit_costs_no_others(db: Conn, small: None, action: str) -> None:
    wanted = [add_job(db, run_in=3600) for _ in range(12)]
    defer(db, f"OLD.id = {wanted[3]}")
    every: dict[str, dict[str, Any]] = {"snooze": {"seconds": 100}, "move": {"queue": "other"}}
    options = every.get(action, {})
    done = run(db, begin(db, action, "state:scheduled", **options))
    assert (done.state, done.done, done.refused) == ("done", 11, 1)
    if action != "delete":
        changed = getattr(operations, action)(db, "jobq", [wanted[3]], actor="ann", **options)
        assert changed.refused == {wanted[3]: "the database refuses to change it: the rule"}


def defer(db: Conn, condition: str) -> None:
    db.execute(
        "CREATE FUNCTION defer() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN"
        f" IF {condition} THEN RAISE EXCEPTION 'the rule' USING ERRCODE = '23514'; END IF; RETURN NULL; END$$"
    )
    db.execute(
        "CREATE CONSTRAINT TRIGGER defer AFTER UPDATE OR DELETE ON jobq.job DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION defer()"
    )


def test_a_callers_transaction_keeps_its_deferred_constraints_deferred(db: Conn, database_url: str) -> None:
    db.execute("CREATE TABLE customer (id integer PRIMARY KEY)")
    db.execute("CREATE TABLE invoice (customer integer REFERENCES customer DEFERRABLE INITIALLY DEFERRED)")
    wanted = [add_job(db, run_in=3600) for _ in range(2)]
    with psycopg.connect(database_url) as caller:
        for customer in (1, 2):
            caller.execute("INSERT INTO invoice VALUES (%s)", (customer,))
            assert operations.snooze(caller, "jobq", wanted, seconds=200, actor="ann").done == wanted
            caller.execute("INSERT INTO customer VALUES (%s)", (customer,))
    assert db.execute("SELECT count(*) FROM invoice").fetchall() == [(2,)]
    # What one of the jobs would be refused for is told there, too.
    defer(db, f"OLD.id = {wanted[1]}")
    with psycopg.connect(database_url) as caller:
        caller.execute("SELECT 1")
        operations.snooze(caller, "jobq", wanted, seconds=200, actor="ann")
        with pytest.raises(psycopg.errors.CheckViolation):
            caller.commit()


def test_a_callers_transaction_that_has_to_begin_again_is_told_so(db: Conn, database_url: str) -> None:
    wanted = [add_job(db, run_in=3600) for _ in range(2)]
    raise_for(db, f"OLD.id = {wanted[1]}", "40001")
    with psycopg.connect(database_url) as caller:
        caller.execute("SELECT 1")
        with pytest.raises(psycopg.errors.SerializationFailure):
            operations.snooze(caller, "jobq", wanted, seconds=200, actor="ann")


def test_an_operation_of_which_the_database_refuses_every_job_fails(db: Conn) -> None:
    wanted = [add_finished(db, "failed") for _ in range(30)]
    db.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'the rule'; END $$"
    )
    db.execute("CREATE TRIGGER refuse BEFORE DELETE ON jobq.job_history FOR EACH ROW EXECUTE FUNCTION refuse()")
    failed = run(db, begin(db, "retry", "state:failed"))
    assert (failed.state, failed.done, failed.seen) == ("failed", 0, 0)
    assert "the rule" in (failed.error or "")
    db.execute("DROP TRIGGER refuse ON jobq.job_history")
    operations.resume_operation(db, "jobq", failed.id, actor="ann")
    assert run(db, failed.id).done == len(wanted)


def test_pause_resume_and_cancel_between_batches(db: Conn, small: None) -> None:
    wanted = [add_finished(db, "failed") for _ in range(20)]
    id = begin(db, "retry", "state:failed")
    operations.step(db, "jobq", id)
    assert operations.pause_operation(db, "jobq", id, actor="bob", reason="looks wrong").state == "paused"
    assert not operations.step(db, "jobq", id)
    assert not operations.running_operations(db, "jobq")
    with pytest.raises(OperationRefused, match="it is paused; only one that is running can be paused"):
        operations.pause_operation(db, "jobq", id, actor="bob")
    assert operations.resume_operation(db, "jobq", id, actor="bob").state == "running"
    assert operations.running_operations(db, "jobq") == [id]
    operations.step(db, "jobq", id)
    assert operations.cancel_operation(db, "jobq", id, actor="bob").state == "cancelled"
    assert not operations.step(db, "jobq", id)
    assert ids(db, "SELECT id FROM jobq.job ORDER BY id") == wanted[:10]
    for again in (operations.resume_operation, operations.cancel_operation, operations.pause_operation):
        with pytest.raises(OperationRefused, match="it is cancelled"):
            again(db, "jobq", id, actor="bob")
    told = [(a.actor, a.action, a.before, a.after) for a in reversed(queries.audit_log(db, "jobq"))][1:]
    assert told == [
        ("bob", "operation_pause", {"state": "running"}, {"state": "paused"}),
        ("bob", "operation_resume", {"state": "paused"}, {"state": "running"}),
        ("bob", "operation_cancel", {"state": "running"}, {"state": "cancelled"}),
    ]


def test_a_draft_can_be_dropped(db: Conn) -> None:
    add_finished(db, "failed")
    made = draft(db, "retry", "state:failed")
    assert operations.cancel_operation(db, "jobq", made.id, actor="ann").state == "cancelled"
    with pytest.raises(OperationRefused, match="it was started before, and is cancelled"):
        operations.start(db, "jobq", made.id, reason="x", actor="ann")


def test_a_lack_of_time_fails_the_operation_which_can_be_resumed(db: Conn, small: None) -> None:
    wanted = [add_finished(db, "failed") for _ in range(12)]
    db.execute(
        f"""CREATE FUNCTION bad() RETURNS trigger LANGUAGE plpgsql AS
        $$BEGIN IF NEW.id > {wanted[4]} THEN RAISE EXCEPTION 'no such luck'
              USING ERRCODE = '57014'; END IF; RETURN NEW; END$$""".encode()
    )
    db.execute("CREATE TRIGGER bad BEFORE INSERT ON jobq.job FOR EACH ROW EXECUTE FUNCTION bad()")
    id = begin(db, "retry", "state:failed")
    found = run(db, id)
    assert (found.state, found.done, found.after_id) == ("failed", 5, wanted[4])
    assert found.error is not None
    assert found.error.startswith("QueryCanceled: no such luck")
    assert queries.audit_log(db, "jobq")[0].after == {"state": "failed", "error": found.error}
    db.execute("DROP TRIGGER bad ON jobq.job")
    resumed = operations.resume_operation(db, "jobq", id, actor="ann")
    assert (resumed.state, resumed.error) == ("running", None)
    assert run(db, id).done == 12
    assert ids(db, "SELECT id FROM jobq.job ORDER BY id") == wanted


def test_a_rate_is_kept(db: Conn, small: None) -> None:
    """By the database's clock: batches of what a second allows, none before its time, and nothing is made up for later."""
    for _ in range(9):
        add_finished(db, "failed")
    id = begin(db, "retry", "state:failed", rate=4)

    def later(seconds: float) -> None:
        db.execute("UPDATE jobq.operation SET progressed_at = progressed_at - %s * interval '1 second'", (seconds,))

    def done() -> int:
        assert operations.step(db, "jobq", id)
        return queries.operation(db, "jobq", id).done

    later(-3600)
    assert done() == 0
    waits = operations.run_batch(db, "jobq", id)
    assert (waits.more, waits.wait) == (True, 1.0)
    later(7200)
    assert done() == 4
    later(3600)
    assert done() == 8
    assert queries.operation(db, "jobq", id).state == "running"


def test_two_who_step_the_same_one(db: Conn, database_url: str, small: None) -> None:
    wanted = [add_finished(db, "failed") for _ in range(200)]
    id = begin(db, "retry", "state:failed")
    states: list[str] = []

    def work() -> None:
        with psycopg.connect(database_url, autocommit=True) as connection:
            states.append(operations.run_operation(connection, "jobq", id, sleep=lambda _: None).state)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert states == ["done"] * 3
    done = db.execute("SELECT done FROM jobq.operation_batch ORDER BY n").fetchall()
    assert [job for (batch,) in done for job in batch] == wanted
    assert len(done) == 40
    assert queries.operation(db, "jobq", id).done == 200


_KILLED = """
import sys, psycopg
from jobq import operations
import jobq.operations.bulk_steps as steps
steps.BATCH = 5
with psycopg.connect(sys.argv[1], autocommit=True) as connection:
    operations.run_operation(connection, "jobq", int(sys.argv[2]))
"""


def test_killed_in_the_middle_of_a_batch(db: Conn, database_url: str, small: None) -> None:
    """The batch under way is undone with its progress, and the next process does all, and nothing twice."""
    wanted = [add_finished(db, "failed") for _ in range(60)]
    # The batch with the 23rd job waits here, with half of its statements done.
    db.execute(
        f"""CREATE FUNCTION halt() RETURNS trigger LANGUAGE plpgsql AS
        $$BEGIN IF NEW.id = {wanted[22]} THEN PERFORM pg_advisory_xact_lock(7); END IF; RETURN NEW; END$$""".encode()
    )
    db.execute("CREATE TRIGGER halt AFTER INSERT ON jobq.job FOR EACH ROW EXECUTE FUNCTION halt()")
    id = begin(db, "retry", "state:failed")
    waiting = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    with psycopg.connect(database_url) as gate:
        gate.execute("SELECT pg_advisory_xact_lock(7)")
        process = subprocess.Popen([sys.executable, "-c", _KILLED, database_url, str(id)])
        wait_until(lambda: ids(db, waiting), timeout=30, what="the batch that waits")
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        # Its backend is still in the batch, and holds the operation: others wait for it, and do nothing.
        taken = operations.run_batch(db, "jobq", id)
        assert taken.more
        assert taken.wait > 0
        assert queries.operation(db, "jobq", id).done == 20
        for backend in ids(db, waiting):
            db.execute("SELECT pg_terminate_backend(%s)", (backend,))
        wait_until(lambda: not ids(db, waiting), what="the end of its backend")
    found = run(db, id)
    assert (found.state, found.done, found.refused) == ("done", 60, 0)
    assert [job for batch in batches(db, id) for job in batch] == wanted
    assert ids(db, "SELECT id FROM jobq.job ORDER BY id") == wanted


def test_the_loss_of_the_connection_is_not_written_down_as_a_failure(db: Conn, database_url: str) -> None:
    add_finished(db, "failed")
    db.execute(
        """CREATE FUNCTION quit() RETURNS trigger LANGUAGE plpgsql AS
        $$BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NEW; END$$"""
    )
    db.execute("CREATE TRIGGER quit BEFORE INSERT ON jobq.job FOR EACH ROW EXECUTE FUNCTION quit()")
    id = begin(db, "retry", "state:failed")
    with psycopg.connect(database_url, autocommit=True) as connection, pytest.raises(psycopg.OperationalError):
        operations.step(connection, "jobq", id)
    assert queries.operation(db, "jobq", id).state == "running"
    db.execute("DROP TRIGGER quit ON jobq.job")
    assert run(db, id).done == 1


def test_ids_far_apart_are_not_walked_through(db: Conn) -> None:
    near, far = add_job(db, id=5, task="rare"), add_job(db, id=10**15, task="rare")
    id = begin(db, "cancel", "task:rare")
    assert run(db, id).done == 2
    assert batches(db, id) == [[near, far]] or batches(db, id) == [[near], [far]]


def test_what_another_version_wrote_fails_with_its_reason(db: Conn) -> None:
    add_finished(db, "failed")
    id = begin(db, "retry", "state:failed")
    db.execute("UPDATE jobq.operation SET filter = 'colour:blue'")
    found = run(db, id)
    assert found.state == "failed"
    assert found.error is not None
    assert "colour" in found.error


def test_a_group_of_failures(db: Conn, small: None) -> None:
    """The fingerprint is not SQL's: windows are read through, and only what is in the group is changed."""
    group = [add_finished(db, "failed", task="pdf", error=f"ValueError: page {n} is missing") for n in range(14)]
    for n in range(100):
        add_finished(db, "failed", task="pdf", error=f"KeyError: 'title {'x' * (n % 7)}'")
    group.append(add_finished(db, "failed", task="pdf", error="ValueError: page 4711 is missing"))
    made = draft(db, "retry", f"failure:{fingerprint('pdf', 'ValueError: page 1 is missing')}")
    assert made.expected == 15
    operations.start(db, "jobq", made.id, reason="x", actor="ann")
    assert run(db, made.id).done == 15
    assert [job for batch in batches(db, made.id) for job in batch] == group


@pytest.mark.parametrize(
    ("action", "text", "meanwhile", "why"),
    [
        ("delete", "state:failed", "retry", "it is ready by now"),
        ("cancel", "state:ready", "begin", "it is running by now"),
        ("retry", "state:scheduled", "fail", "it is failed by now"),
    ],
)
def test_what_has_moved_on_between_the_look_and_the_change_is_left_alone(
    db: Conn, monkeypatch: pytest.MonkeyPatch, action: str, text: str, meanwhile: str, why: str
) -> None:
    job = (
        add_finished(db, "failed") if meanwhile == "retry" else add_job(db, run_in=60 if meanwhile == "fail" else None)
    )
    look = selection.next_jobs

    def and_then(*args: Any, **options: Any) -> selection.Found:
        found = look(*args, **options)
        # Another operator, or a worker, is quicker.
        with psycopg.connect(db.info.dsn, autocommit=True) as other:
            if meanwhile == "retry":
                operations.retry(other, "jobq", found.ids, actor="bob")
            elif meanwhile == "begin":
                other.execute(
                    "UPDATE jobq.job SET state = 'running', started_at = now(), worker_id = gen_random_uuid()"
                )
            else:
                other.execute("DELETE FROM jobq.job")
                add_finished(other, "failed", id=job)
        return found

    id = begin(db, action, text)
    monkeypatch.setattr("jobq.operations.bulk_steps.next_jobs", and_then)
    done = run(db, id)
    assert (done.state, done.done, done.refusals) == ("done", 0, {why: 1})
    rows = db.execute("SELECT cancel_requested_at FROM jobq.job").fetchall()
    assert rows == ([] if meanwhile == "fail" else [(None,)])
