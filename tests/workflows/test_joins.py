"""Joins: each counts every end once, whoever else changes the run at the same time, and is released once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from tests.apps import workflows as apps
from tests.support.waiting import wait_until
from tests.support.workflows.node_ends import Conn, cancel, end, fold, redrive, retry
from tests.support.workflows.node_ends import run as steps

q = apps.q


@pytest.fixture
def connect(database_url: str) -> Iterator[Callable[[], Conn]]:
    opened: list[Conn] = []

    def make() -> Conn:
        opened.append(psycopg.connect(database_url, autocommit=True))
        return opened[-1]

    yield make
    for each in opened:
        each.close()


@pytest.fixture
def db(connect: Callable[[], Conn]) -> Conn:
    return connect()


def node(db: Conn, run: int, name: str) -> int:
    [(id,)] = db.execute(
        "SELECT id FROM jobq.workflow_node WHERE workflow_id = %s AND name = %s", (run, name)
    ).fetchall()
    return int(id)


def states(db: Conn, run: int) -> dict[str, str]:
    """The states of the nodes that have ended, or "job" for those that have a job."""
    rows = db.execute(
        "SELECT node.name, coalesce(result.state, (SELECT 'job' FROM jobq.job WHERE node_id = node.id LIMIT 1))"
        " FROM jobq.workflow_node AS node LEFT JOIN jobq.workflow_result AS result"
        " ON result.node_id = node.id AND result.item = CASE node.kind WHEN 'map' THEN -1 ELSE 0 END"
        " WHERE node.workflow_id = %s",
        (run,),
    )
    return {name: state for name, state in rows if state is not None}


def run_state(db: Conn, run: int) -> str:
    [(state,)] = db.execute("SELECT state FROM jobq.workflow WHERE id = %s", (run,)).fetchall()
    return str(state)


def items(db: Conn, map_id: int) -> list[int]:
    """The ids of the jobs of a map's items, in their order."""
    return [id for (id,) in db.execute("SELECT id FROM jobq.job WHERE node_id = %s ORDER BY node_item", (map_id,))]


class Beside:
    """A call in a thread, which waits for a lock that another transaction has."""

    def __init__(self, watching: Conn, connection: Conn, call: Callable[..., Any], *args: Any) -> None:
        self._found: list[Any] = []
        self._thread = threading.Thread(target=lambda: self._found.append(call(connection, *args)), daemon=True)
        self._thread.start()
        pid = connection.info.backend_pid
        waiting = "SELECT count(*) FROM pg_locks WHERE pid = %s AND NOT granted"
        wait_until(
            lambda: self._found or watching.execute(waiting, (pid,)).fetchone() == (1,),
            what="the call's end, or its wait",
        )

    @property
    def waits(self) -> bool:
        return not self._found

    def result(self) -> Any:
        self._thread.join(30)
        return self._found[0]


def test_a_node_that_ends_at_once_counts_once(db: Conn) -> None:
    with q.workflow("w") as wf:
        none = apps.number.map([])
        one = apps.number.node(1).named("one")
        apps.add.node(apps.total.node(none.results).named("total").result, one.result).named("sum").after(none)
    run = wf.enqueue(db).id
    assert states(db, run) == {"number": "succeeded", "one": "job", "total": "job"}
    end(db, [node(db, run, "total")], result=0)
    assert "sum" not in states(db, run), "it has started before its last parent has ended"
    end(db, [node(db, run, "one")], result=1)
    assert states(db, run)["sum"] == "job"


def test_a_node_that_a_step_of_the_loop_ends_counts_once(connect: Callable[[], Conn], db: Conn) -> None:
    """Its result is written outside of a trigger, unlike that of a node which an end has ended."""
    with q.workflow("w", on_failure="continue") as wf:
        one, two, three = (apps.number.node(n).named(str(n)) for n in range(3))
        below = apps.add.node(one.result, two.result).named("below")
        apps.noop.node().named("last").after(below, three)
    run = wf.enqueue(db).id
    other = connect()
    with other.transaction():
        end(other, [node(db, run, "0")], "failed")
        end(db, [node(db, run, "1")], result=1)
    assert "below" not in states(db, run)
    fold(db)
    assert states(db, run) == {"0": "failed", "1": "succeeded", "below": "upstream_failed", "2": "job"}
    assert run_state(db, run) == "running"
    end(db, [node(db, run, "2")], result=1)
    assert run_state(db, run) == "failed"


def test_an_item_that_is_put_back_while_its_map_ends(connect: Callable[[], Conn], db: Conn) -> None:
    with q.workflow("w") as wf:
        many = apps.number.map([1, 2]).named("many")
        apps.total.node(many.results).named("total")
    run = wf.enqueue(db).id
    first, second = items(db, node(db, run, "many"))
    end(db, [first], "failed")
    other = connect()
    with other.transaction():
        end(other, [second], result=2)
        beside = Beside(db, connect(), redrive, [first])
    assert beside.result() == [first]
    fold(db)
    assert states(db, run) == {"many": "job"}
    end(db, [first], result=1)
    fold(db)
    assert states(db, run) == {"many": "succeeded", "total": "job"}


def test_no_node_starts_without_the_result_of_a_parent_that_is_put_back(connect: Callable[[], Conn], db: Conn) -> None:
    """The join is locked and counted by one transaction, when another takes a parent's end back."""
    with q.workflow("w", on_failure="continue") as wf:
        bad = apps.number.node(1).named("bad")
        good = apps.number.node(2).named("good")
        apps.add.node(bad.result_or(7), good.result).named("sum")
    run = wf.enqueue(db).id
    end(db, [node(db, run, "bad")], "failed")
    holder, operator = connect(), connect()
    with holder.transaction():
        holder.execute("SELECT FROM jobq.workflow_join WHERE workflow_id = %s FOR NO KEY UPDATE", (run,))
        with operator.transaction():
            assert redrive(operator, [node(db, run, "bad")])
            end(db, [node(db, run, "good")], result=2)
        # Both are arrivals now, and what has been taken back is among them.
    fold(db)
    assert states(db, run) == {"bad": "job", "good": "succeeded"}
    end(db, [node(db, run, "bad")], result=1)
    [(args,)] = db.execute("SELECT args FROM jobq.job WHERE id = %s", (node(db, run, "sum"),)).fetchall()
    assert args == {"left": 1, "right": 2}


def test_a_job_that_is_put_back_while_its_run_is_cancelled(connect: Callable[[], Conn], db: Conn) -> None:
    with q.workflow("w") as wf:
        apps.number.node(1).named("bad")
        apps.noop.options(delay=60).node().named("later")
    run = wf.enqueue(db).id
    end(db, [node(db, run, "bad")], "failed")
    operator = connect()
    with operator.transaction():
        redrive(operator, [node(db, run, "bad")])
        beside = Beside(db, connect(), cancel, run)
        assert beside.waits
    assert beside.result().jobs == 2
    assert states(db, run) == {"bad": "cancelled", "later": "cancelled"}
    assert run_state(db, run) == "cancelled"


@pytest.mark.parametrize("on_failure", ["continue", "cancel"])
def test_a_job_of_a_run_that_has_ended_is_put_back(db: Conn, on_failure: Any) -> None:
    """What needs it has ended without it: the run stays ended, and does not wait for ever. A retry of the run goes on there."""
    with q.workflow("w", on_failure=on_failure) as wf:
        bad = apps.number.node(1).named("bad")
        apps.add.node(bad.result, 1).named("below")
    run = wf.enqueue(db).id
    end(db, [node(db, run, "bad")], "failed")
    assert run_state(db, run) == "failed"
    redrive(db, [node(db, run, "bad")])
    assert run_state(db, run) == "failed"
    assert fold(db) == 0, "its end is counted at the join, although that was released"
    end(db, [node(db, run, "bad")], result=1)
    assert states(db, run) == {"bad": "succeeded", "below": "upstream_failed"}
    assert run_state(db, run) == "failed"
    assert retry(db, run)
    assert states(db, run) == {"bad": "succeeded", "below": "job"}
    end(db, [node(db, run, "below")], result=2)
    assert run_state(db, run) == "succeeded"


def test_a_run_is_retried_while_a_job_that_was_put_back_runs(db: Conn) -> None:
    with q.workflow("w", on_failure="continue") as wf:
        bad = apps.number.node(1).named("bad")
        apps.add.node(bad.result, 1).named("below")
    run = wf.enqueue(db).id
    end(db, [node(db, run, "bad")], "failed")
    redrive(db, [node(db, run, "bad")])
    assert retry(db, run)
    assert states(db, run) == {"bad": "job"}, "its dependant waits for it"
    end(db, [node(db, run, "bad")], result=1)
    assert states(db, run) == {"bad": "succeeded", "below": "job"}


def test_a_retry_of_a_run_with_nothing_to_repeat(db: Conn) -> None:
    with q.workflow("w") as wf:
        apps.noop.node().named("one")
    run = wf.enqueue(db).id
    end(db, [node(db, run, "one")])
    done = retry(db, run)
    assert done is not None
    assert not done.done
    assert run_state(db, run) == "succeeded"


def test_a_retry_forgets_a_deadline_that_has_passed(db: Conn) -> None:
    with q.workflow("w", deadline=3600) as wf:
        apps.noop.node().named("one")
    run = wf.enqueue(db).id
    db.execute("UPDATE jobq.workflow SET deadline_at = clock_timestamp()")
    assert cancel(db, run)
    assert run_state(db, run) == "cancelled"
    assert retry(db, run)
    assert db.execute("SELECT state, deadline_at FROM jobq.workflow").fetchall() == [("running", None)]


def test_a_cancelled_run_ends_after_its_last_job(db: Conn) -> None:
    with q.workflow("w") as wf:
        one = apps.number.node(1).named("one")
        apps.add.node(one.result, 1).named("below")
    run = wf.enqueue(db).id
    db.execute("UPDATE jobq.job SET state = 'running', started_at = now(), claims = 1")
    assert cancel(db, run)
    assert (run_state(db, run), states(db, run)) == ("running", {"one": "job"})
    end(db, [node(db, run, "one")], result=1)
    assert (run_state(db, run), states(db, run)) == ("cancelled", {"one": "succeeded", "below": "cancelled"})
    assert db.execute("SELECT error FROM jobq.workflow_result WHERE state = 'cancelled'").fetchall() == [
        ("not wanted",)
    ]


def test_a_cancellation_that_its_caller_has_not_finished_is_remembered(connect: Callable[[], Conn], db: Conn) -> None:
    with q.workflow("w") as wf:
        apps.noop.node().named("one")
        apps.noop.node().named("two")
    run = wf.enqueue(db).id
    other = connect()
    with other.transaction():
        other.execute("SELECT FROM jobq.job WHERE id = %s FOR UPDATE", (node(db, run, "one"),))
        done = cancel(db, run)
        assert done is not None
        assert (done.jobs, done.left) == (1, 1)
    assert db.execute("SELECT kind, subject_id FROM jobq.workflow_turn").fetchall() == [("cancel", run)]


def test_a_node_whose_default_a_map_uses_is_put_back_while_it_expands(db: Conn) -> None:
    with q.workflow("w", on_failure="continue") as wf:
        bad = apps.number.node(1).named("bad")
        apps.add.map(list(range(12_000)), bad.result_or(7)).named("many")
    run = wf.enqueue(db).id
    end(db, [node(db, run, "bad")], "failed")
    steps(db, "workflow_step")
    redrive(db, [node(db, run, "bad")])
    end(db, [node(db, run, "bad")], result=1)
    fold(db)
    rows = db.execute("SELECT args FROM jobq.job WHERE node_id = %s ORDER BY id", (node(db, run, "many"),))
    assert [args for (args,) in rows] == [{"left": n, "right": 7} for n in range(12_000)]


def test_a_node_that_the_database_refuses_fails_alone(db: Conn) -> None:
    """The end of its parent is written, and the other nodes start."""
    db.execute("ALTER TABLE jobq.job ADD CONSTRAINT mine CHECK (args ->> 'note' <> 'no')")
    with q.workflow("w", on_failure="continue") as wf:
        first = apps.text.node("a").named("first")
        apps.join.node([first.result], note="no").named("refused")
        apps.join.node([first.result], note="yes").named("started")
        many = apps.join.map([["x"]], note="no").after(first).named("many")
        apps.noop.node().named("last").after(many)
    run = wf.enqueue(db).id
    end(db, [node(db, run, "first")], result="a")
    assert states(db, run) == {
        "first": "succeeded", "refused": "failed", "started": "job", "many": "failed", "last": "upstream_failed",
    }  # fmt: skip
    [(error,)] = db.execute(
        "SELECT error FROM jobq.workflow_result WHERE node_id = %s", (node(db, run, "refused"),)
    ).fetchall()
    assert error.startswith('it cannot start: new row for relation "job" violates check constraint "mine"')
    db.execute("ALTER TABLE jobq.job DROP CONSTRAINT mine")
    end(db, [node(db, run, "started")], result="a")
    assert run_state(db, run) == "failed"
    assert retry(db, run)
    assert states(db, run) == {"first": "succeeded", "refused": "job", "started": "succeeded", "many": "job"}


def test_a_large_map_that_the_database_refuses_fails_alone(db: Conn) -> None:
    db.execute("ALTER TABLE jobq.job ADD CONSTRAINT mine CHECK (args ->> 'value' <> '9000')")
    runs = []
    for over in (range(10_000), range(6_000)):
        with q.workflow("w", on_failure="continue") as wf:
            apps.number.map(apps.numbers.node(1).named("source").result).named("many")
        runs.append(wf.enqueue(db).id)
        end(db, [node(db, runs[-1], "source")], result=list(over))
    fold(db)
    assert len(items(db, node(db, runs[1], "many"))) == 6_000
    refused = node(db, runs[0], "many")
    assert len(items(db, refused)) == 5_000
    end(db, items(db, refused), result=1)
    assert states(db, runs[0])["many"] == "failed"
    db.execute("ALTER TABLE jobq.job DROP CONSTRAINT mine")
    assert retry(db, runs[0])
    fold(db)
    assert len(items(db, refused)) == 5_000
    end(db, items(db, refused), result=1)
    assert run_state(db, runs[0]) == "succeeded"


def test_a_long_chain_of_skips_is_left_to_the_loop(db: Conn) -> None:
    with q.workflow("w") as wf:
        first = apps.number.node(0).named("first")
        last = apps.noop.node().when(first.result)
        for _ in range(120):
            last = apps.noop.node().after(last)
    run = wf.enqueue(db).id
    end(db, [node(db, run, "first")], result=0)
    assert 40 < len(states(db, run)) < 60
    assert fold(db) == 2
    assert (len(states(db, run)), run_state(db, run)) == (122, "succeeded")


@pytest.mark.parametrize("isolation", ["REPEATABLE READ", "SERIALIZABLE"])
def test_ends_in_other_isolation_levels_are_counted_by_the_loop(
    connect: Callable[[], Conn], db: Conn, isolation: str
) -> None:
    with q.workflow("w") as wf:
        one, two = (apps.number.node(n).named(str(n)) for n in range(2))
        apps.add.node(one.result, two.result).named("sum")
    run = wf.enqueue(db).id
    others = [connect(), connect()]
    for n, each in enumerate(others):
        each.execute(f"BEGIN ISOLATION LEVEL {isolation}".encode())
        end(each, [node(db, run, str(n))], result=n)
    for each in others:
        each.execute("COMMIT")
    assert "sum" not in states(db, run)
    fold(db)
    assert states(db, run)["sum"] == "job"


def test_a_run_is_retried_in_another_isolation_level(connect: Callable[[], Conn], db: Conn) -> None:
    with q.workflow("w") as wf:
        bad = apps.number.node(1).named("bad")
        apps.add.node(bad.result, 1).named("below")
    run = wf.enqueue(db).id
    end(db, [node(db, run, "bad")], "failed")
    cancel(db, run)
    assert run_state(db, run) == "cancelled"
    other = connect()
    other.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    assert retry(other, run)
    other.execute("COMMIT")
    end(db, [node(db, run, "bad")], result=1)
    fold(db)
    end(db, [node(db, run, "below")], result=1)
    fold(db)
    assert run_state(db, run) == "succeeded"
