"""Nodes of a run run again with all that is downstream of them, whatever they ended as, and never beside themselves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from jobq import queries
from tests.apps import workflows as apps
from tests.support.workflows.node_ends import Conn, cancel, end, fold, redrive, retry, retry_from
from tests.workflows.test_joins import Beside, items, node, run_state, states

q = apps.q
AUDIT = "SELECT target, after FROM jobq.audit ORDER BY id"


@pytest.fixture
def connections(database_url: str) -> Iterator[list[Conn]]:
    opened: list[Conn] = [psycopg.connect(database_url, autocommit=True) for _ in range(2)]
    yield opened
    for each in opened:
        each.close()


@pytest.fixture
def db(connections: list[Conn]) -> Conn:
    return connections[0]


def diamond(db: Conn, **options: Any) -> int:
    """a, then b and c, then d; e stands alone."""
    with q.workflow("w", **options) as wf:
        a = apps.number.node(1).named("a")
        b = apps.add.node(a.result, 10).named("b")
        c = apps.add.node(a.result, 100).named("c")
        apps.add.node(b.result, c.result).named("d")
        apps.number.node(5).named("e")
    return wf.enqueue(db).id


def ends(db: Conn, run: int, results: dict[str, Any]) -> None:
    for name, result in results.items():
        assert end(db, [node(db, run, name)], result=result) != [], name


def arguments(db: Conn, run: int, name: str) -> Any:
    return db.execute("SELECT args FROM jobq.job WHERE id = %s", (node(db, run, name),)).fetchall()[0][0]


FIRST = {"a": 1, "b": 11, "c": 101, "d": 112, "e": 5}


def test_a_node_and_what_is_downstream_of_it_run_again(db: Conn) -> None:
    run = diamond(db)
    ends(db, run, FIRST)
    assert run_state(db, run) == "succeeded"
    done = retry_from(db, run, "b")
    assert done is not None
    assert (done.done, done.nodes, done.refused) == (True, 2, ())
    assert states(db, run) == {"a": "succeeded", "b": "job", "c": "succeeded", "e": "succeeded"}
    assert run_state(db, run) == "running"
    assert arguments(db, run, "b") == {"left": 1, "right": 10}
    ends(db, run, {"b": 7})
    assert arguments(db, run, "d") == {"left": 7, "right": 101}, "its new parent's result, and the old one of the other"
    ends(db, run, {"d": 108})
    assert run_state(db, run) == "succeeded"
    assert db.execute(AUDIT).fetchall() == [({"workflow": run, "from": "b"}, {"nodes": 2})]


def test_all_nodes_run_again(db: Conn) -> None:
    run = diamond(db)
    for result in (1, 2):
        ends(db, run, {"e": 5, "a": result, "b": result, "c": result, "d": result})
        assert run_state(db, run) == "succeeded"
        done = retry_from(db, run, None)
        assert done is not None
        assert done.nodes == 5
        assert states(db, run) == {"a": "job", "e": "job"}
    assert db.execute("SELECT count(*) FROM jobq.workflow_result").fetchone() == (0,)


def test_results_are_set_aside(db: Conn) -> None:
    """A job of a task has its node's id, which the next one needs; what has not succeeded can be retried by this one only."""
    run = diamond(db, on_failure="continue")
    ends(db, run, {"e": 5, "a": 1, "b": 11})
    db.execute("UPDATE jobq.job SET claims = 3")
    end(db, [node(db, run, "c")], "failed")
    assert retry_from(db, run, "a")
    rows = "SELECT id, node_id, state, result, headers ->> 'jobq.set_aside' FROM jobq.job_history ORDER BY finished_at"
    kept = db.execute(rows).fetchall()
    assert [row[1:] for row in kept] == [
        (node(db, run, "e"), "succeeded", 5, None),
        (None, "succeeded", 1, f"run {run}, node a"),
        (None, "succeeded", 11, f"run {run}, node b"),
    ]
    found = queries.get_job(db, "jobq", kept[1][0])
    assert (found.state, found.workflow) == ("succeeded", None)
    ends(db, run, {"a": 1})
    assert db.execute("SELECT claims FROM jobq.job WHERE id = %s", (node(db, run, "c"),)).fetchall() == [(3,)]
    assert redrive(db, [kept[1][0]]) == [], "it has succeeded"


def test_a_map_expands_again_over_what_its_parent_returns_this_time(db: Conn) -> None:
    with q.workflow("w") as wf:
        source = apps.numbers.node(1).named("source")
        many = apps.add.map(source.result, apps.number.node(7).named("seven").result).named("many")
        apps.total.node(many.results).named("total")
    run = wf.enqueue(db).id
    for count in (1_500, 3, 0, 2):
        end(db, [node(db, run, "seven")], result=7)
        end(db, [node(db, run, "source")], result=list(range(count)))
        fold(db)
        jobs = items(db, node(db, run, "many"))
        assert len(jobs) == count
        end(db, jobs, result=1)
        fold(db)
        assert states(db, run)["total"] == "job"
        if count == 2:
            break
        assert retry_from(db, run, "source")
        assert states(db, run) == {"source": "job", "seven": "succeeded"}
    assert retry_from(db, run, "many")
    assert len(items(db, node(db, run, "many"))) == 2
    assert db.execute("SELECT count(*) FROM jobq.workflow_turn").fetchone() == (0,)


def test_a_map_that_is_being_expanded_begins_again(db: Conn) -> None:
    with q.workflow("w") as wf:
        many = apps.number.map(apps.numbers.node(1).named("source").result).named("many")
        apps.total.node(many.results).named("total")
    run = wf.enqueue(db).id
    end(db, [node(db, run, "source")], result=list(range(12_000)))
    done = retry_from(db, run, "many")
    assert done is not None
    assert done.done
    fold(db)
    jobs = items(db, node(db, run, "many"))
    assert len(jobs) == 12_000
    end(db, jobs[:11_000], result=1)
    assert retry_from(db, run, "source")
    end(db, [node(db, run, "source")], result=[1])
    end(db, items(db, node(db, run, "many")), result=1)
    fold(db)
    end(db, [node(db, run, "total")], result=1)
    fold(db)
    assert run_state(db, run) == "succeeded"


def test_a_running_node_is_named_and_nothing_changes(db: Conn) -> None:
    run = diamond(db)
    ends(db, run, {"a": 1, "b": 11})
    c = node(db, run, "c")
    db.execute("UPDATE jobq.job SET state = 'running', started_at = now(), claims = 1 WHERE id = %s", (c,))
    done = retry_from(db, run, "a")
    assert done is not None
    assert (done.done, done.nodes, done.refused) == (False, 0, (f"node 'c' is running: job {c}",))
    assert states(db, run) == {"a": "succeeded", "b": "succeeded", "c": "job", "e": "job"}
    assert db.execute(AUDIT).fetchall() == []
    assert retry_from(db, run, "b"), "c is not downstream of it"
    assert states(db, run) == {"a": "succeeded", "b": "job", "c": "job", "e": "job"}


@pytest.mark.parametrize(
    "what",
    [
        "SELECT FROM jobq.job WHERE args ->> 'right' = '100' FOR UPDATE",
        "UPDATE jobq.job SET state = 'running' WHERE args ->> 'right' = '100'",
    ],
)
def test_a_node_that_starts_at_this_moment(connections: list[Conn], what: str) -> None:
    db, other = connections
    run = diamond(db)
    ends(db, run, {"a": 1})
    with other.transaction():
        other.execute(what.encode())
        done = retry_from(db, run, "a")
    assert done is not None
    assert (done.done, done.refused) == (False, ("node 'c' starts or ends at this moment",))


def test_a_node_that_is_released_at_this_moment(connections: list[Conn], database_url: str) -> None:
    """Its job was inserted with the former result of its parent: the retry waits for it, and takes it back."""
    db, other = connections
    with q.workflow("w") as wf:
        a = apps.number.node(1).named("a")
        apps.add.node(a.result, apps.number.node(2).named("b").result).named("c")
    run = wf.enqueue(db).id
    ends(db, run, {"a": 1})
    with psycopg.connect(database_url, autocommit=True) as operator:
        with other.transaction():
            end(other, [node(db, run, "b")], result=2)
            beside = Beside(db, operator, retry_from, run, "a")
            assert beside.waits
        assert beside.result().nodes == 2
    assert states(db, run) == {"a": "job", "b": "succeeded"}
    ends(db, run, {"a": 7})
    assert arguments(db, run, "c") == {"left": 7, "right": 2}


def test_a_node_that_is_put_back_at_this_moment(connections: list[Conn]) -> None:
    """It holds the run's lock, and ends before the call goes on; a delete of a finished job does not."""
    db, other = connections
    run = diamond(db)
    ends(db, run, {"a": 1})
    with other.transaction():
        other.execute("SELECT FROM jobq.job_history FOR UPDATE")
        done = retry_from(db, run, "a")
    assert done is not None
    assert (done.done, done.refused) == (False, ("node 'a' is being changed at this moment",))


def test_jobs_that_have_not_started_are_taken_back(db: Conn) -> None:
    db.execute("INSERT INTO jobq.queue (name, group_mode) VALUES ('grouped', 'ordered')")
    with q.workflow("w") as wf:
        a = apps.number.node(1).named("a")
        apps.add.options(queue="grouped", group="g").node(a.result, 1).named("b")
    run = wf.enqueue(db).id
    ends(db, run, {"a": 1})
    db.execute("DELETE FROM jobq.group_ready")
    assert retry_from(db, run, "a")
    assert states(db, run) == {"a": "job"}
    assert db.execute("SELECT queue, group_key FROM jobq.group_ready").fetchall() == [("grouped", "g")]
    ends(db, run, {"a": 2})
    assert arguments(db, run, "b") == {"left": 2, "right": 1}
    done = retry_from(db, run, "b")
    assert done is not None
    assert done.done
    assert states(db, run) == {"a": "succeeded", "b": "job"}


@pytest.mark.parametrize("name", ["d", "4", "nosuch"])
def test_a_node_that_has_not_started_or_does_not_exist(db: Conn, name: str) -> None:
    run = diamond(db)
    ends(db, run, {"a": 1})
    done = retry_from(db, run, name)
    assert done is not None
    assert not done.done
    [said] = done.refused
    assert said == (
        "node 'nosuch': the run has no node of this name or number"
        if name == "nosuch"
        else "node 'd' has not started: retry from a node that it waits for"
    )


def test_runs_that_failed_or_were_cancelled(db: Conn) -> None:
    run = diamond(db, on_failure="continue")
    ends(db, run, {"a": 1, "b": 11, "e": 5})
    end(db, [node(db, run, "c")], "failed")
    assert (run_state(db, run), states(db, run)["d"]) == ("failed", "upstream_failed")
    done = retry_from(db, run, "d")
    assert done is not None
    assert "has not started" in done.refused[0]
    assert retry_from(db, run, "3")
    ends(db, run, {"c": 101, "d": 112})
    assert run_state(db, run) == "succeeded"

    run = diamond(db)
    ends(db, run, {"a": 1})
    assert cancel(db, run)
    assert run_state(db, run) == "cancelled"
    assert retry_from(db, run, "b")
    assert states(db, run) == {"a": "succeeded", "b": "job", "c": "cancelled", "e": "cancelled"}
    ends(db, run, {"b": 11})
    assert "d" not in states(db, run), "it waits for an operator: c was cancelled"
    assert retry(db, run)
    ends(db, run, {"c": 101, "e": 5, "d": 112})
    assert run_state(db, run) == "succeeded"


def test_a_run_that_is_being_cancelled(db: Conn) -> None:
    run = diamond(db)
    db.execute("UPDATE jobq.job SET state = 'running', started_at = now(), claims = 1")
    assert cancel(db, run)
    done = retry_from(db, run, "a")
    assert done is not None
    assert (done.done, done.refused) == (False, ())


def test_conditions_are_looked_at_again(db: Conn) -> None:
    with q.workflow("w") as wf:
        gift = apps.number.node(1).named("gift")
        apps.noop.node().named("wrap").when(gift.result)
        apps.noop.node().named("last").after(gift)
    run = wf.enqueue(db).id
    ends(db, run, {"gift": 0, "last": None})
    assert (states(db, run)["wrap"], run_state(db, run)) == ("skipped", "succeeded")
    assert retry_from(db, run, "gift")
    ends(db, run, {"gift": 1})
    assert states(db, run) == {"gift": "succeeded", "wrap": "job", "last": "job"}
    assert retry_from(db, run, "gift")
    ends(db, run, {"gift": 0, "last": None})
    assert (states(db, run)["wrap"], run_state(db, run)) == ("skipped", "succeeded")


@pytest.mark.parametrize("isolation", ["REPEATABLE READ", "SERIALIZABLE"])
def test_in_another_isolation_level(connections: list[Conn], isolation: str) -> None:
    db, other = connections
    run = diamond(db)
    ends(db, run, FIRST)
    other.execute(f"BEGIN ISOLATION LEVEL {isolation}".encode())
    assert retry_from(other, run, "b")
    other.execute("COMMIT")
    fold(db)
    ends(db, run, {"b": 1})
    fold(db)
    ends(db, run, {"d": 1})
    fold(db)
    assert run_state(db, run) == "succeeded"
