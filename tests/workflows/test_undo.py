"""Nodes that have succeeded are undone if their run fails or is cancelled: by a run of their own, the last to end first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from jobq import WorkflowError, operations
from jobq._worker.workflows.inline import EVERYTHING
from jobq.operations.audit import AuditRecord
from jobq.operations.workflows import undo as undo_script
from tests.apps import workflows as apps
from tests.support.jobs import Jobs
from tests.support.waiting import wait_until
from tests.support.workers import WorkerProcess
from tests.support.workflows.node_ends import Conn, cancel, end, fold, play, redrive, retry
from tests.support.workflows.node_ends import run as steps
from tests.workflows.test_joins import Beside, items, node, run_state, states

q = apps.q


@pytest.fixture
def db(database_url: str) -> Iterator[Conn]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


def undo_run(db: Conn, run: int) -> int | None:
    [(found,)] = db.execute("SELECT undo_id FROM jobq.workflow WHERE id = %s", (run,)).fetchall()
    return None if found is None else int(found)


def jobs_of(db: Conn, run: int) -> list[tuple[int, str, Any]]:
    """Id, task and arguments of the live jobs of a run."""
    query = (
        "SELECT job.id, job.task, job.args FROM jobq.job AS job JOIN jobq.workflow_node AS node ON node.id = job.node_id"
        " WHERE node.workflow_id = %s ORDER BY job.id"
    )
    return db.execute(query, (run,)).fetchall()


def three(db: Conn, **options: Any) -> int:
    """a, then b, then c; a and b can be undone."""
    with q.workflow("w", **options) as wf:
        a = apps.number.node(1).named("a").undo(apps.take_back.options(queue="undo", max_attempts=7))
        b = apps.add.node(a.result, 10).named("b").undo(apps.take_back)
        apps.add.node(b.result, 100).named("c")
    return wf.enqueue(db).id


def failed(db: Conn, **options: Any) -> int:
    run = three(db, **{"on_failure": "cancel", **options})
    for name, result in (("a", 1), ("b", 11)):
        end(db, [node(db, run, name)], result=result)
    end(db, [node(db, run, "c")], "failed")
    fold(db)
    for ids in [cancel(db, run)] if run_state(db, run) == "running" else []:
        assert ids is not None
    fold(db)
    return run


def test_a_run_that_fails_is_undone_the_last_node_first(db: Conn) -> None:
    run = failed(db)
    undo = undo_run(db, run)
    assert undo is not None
    [(first, task, args)] = jobs_of(db, undo)
    assert (task, args) == (apps.take_back.name, {"number": 11})
    end(db, [first])
    fold(db)
    [(second, _, args)] = jobs_of(db, undo)
    assert args == {"number": 1}
    [(queue, most)] = db.execute("SELECT queue, max_attempts FROM jobq.job WHERE id = %s", (second,)).fetchall()
    assert (queue, most) == ("undo", 7)
    end(db, [second])
    assert run_state(db, undo) == "succeeded"
    assert db.execute("SELECT name FROM jobq.workflow WHERE id = %s", (undo,)).fetchall() == [("w (undo)",)]


def test_a_run_that_succeeds_is_not_undone_unless_an_operator_asks(db: Conn) -> None:
    run = three(db)
    for name, result in (("a", 1), ("b", 11), ("c", 111)):
        end(db, [node(db, run, name)], result=result)
    fold(db)
    assert run_state(db, run) == "succeeded"
    assert undo_run(db, run) is None
    done = operations.undo_workflow(db, "jobq", run, actor="test", reason="a mistake")
    assert done.done
    assert done.undo_run == undo_run(db, run) is not None
    again = operations.undo_workflow(db, "jobq", run, actor="test")
    assert not again.done
    assert f"run {done.undo_run} undoes it" in again.refused[0]
    [(action, target, after)] = db.execute("SELECT action, target, after FROM jobq.audit").fetchall()
    assert (action, target, after) == ("undo_workflow", {"workflow": run}, {"undo_run": done.undo_run})


def test_a_run_that_is_held_is_not_undone_before_it_is_cancelled(db: Conn) -> None:
    run = three(db)
    end(db, [node(db, run, "a")], result=1)
    end(db, [node(db, run, "b")], "failed")
    fold(db)
    assert (run_state(db, run), undo_run(db, run)) == ("running", None)
    assert "cancel it" in operations.undo_workflow(db, "jobq", run, actor="test").refused[0]
    cancel(db, run)
    fold(db)
    assert run_state(db, run) == "cancelled"
    undo = undo_run(db, run)
    assert undo is not None
    assert [args for _, _, args in jobs_of(db, undo)] == [{"number": 1}]


def test_nothing_is_undone_where_nothing_was_done(db: Conn) -> None:
    run = three(db, on_failure="cancel")
    end(db, [node(db, run, "a")], "failed")
    fold(db)
    cancel(db, run)
    fold(db)
    assert run_state(db, run) in ("failed", "cancelled")
    assert undo_run(db, run) is None
    assert db.execute("SELECT count(*) FROM jobq.workflow_turn WHERE kind = 'undo'").fetchall() == [(0,)]
    assert "none of its nodes" in operations.undo_workflow(db, "jobq", run, actor="test").refused[0]


def test_the_items_of_a_map_are_undone_if_they_have_succeeded(db: Conn) -> None:
    with q.workflow("w", on_failure="cancel") as wf:
        first = apps.number.node(1).named("first").undo(apps.take_back)
        apps.number.map([1, 2, 3]).after(first).named("map").undo(apps.take_back)
        last = apps.number.map([4]).after(first).named("other").undo(apps.take_back)
    run = wf.enqueue(db).id
    assert last is not None
    end(db, [node(db, run, "first")], result=10)
    one, two, three = items(db, node(db, run, "map"))
    end(db, [one], result=100)
    end(db, [three], result=300)
    end(db, items(db, node(db, run, "other")), result=400)
    end(db, [two], "failed")
    fold(db)
    cancel(db, run)
    fold(db)
    undo = undo_run(db, run)
    assert undo is not None
    order = []
    while jobs := jobs_of(db, undo):
        order.append(sorted(args["number"] for _, _, args in jobs))
        end(db, [id for id, _, _ in jobs])
        fold(db)
    assert order == [[400], [100, 300], [10]]
    assert run_state(db, undo) == "succeeded"


def test_a_run_that_was_undone_can_only_be_retried_as_a_whole_and_after_the_undo(db: Conn) -> None:
    run = failed(db)
    undo = undo_run(db, run)
    assert undo is not None
    refused = operations.retry_workflow(db, "jobq", run, actor="test")
    assert (refused.done, refused.refused) == (
        False, (f"run {undo} undoes the nodes that have succeeded: retry all nodes of run {run} (--all)",)
    )  # fmt: skip
    refused = operations.retry_workflow(db, "jobq", run, actor="test", from_node="b")
    assert "retry all nodes" in refused.refused[0]
    assert "has not ended" in operations.retry_workflow(db, "jobq", run, actor="test", all_nodes=True).refused[0]
    while jobs := jobs_of(db, undo):
        end(db, [id for id, _, _ in jobs])
        fold(db)
    assert operations.retry_workflow(db, "jobq", run, actor="test", all_nodes=True).done
    assert (run_state(db, run), undo_run(db, run)) == ("running", None)
    end(db, [node(db, run, "a")], result=1)
    end(db, [node(db, run, "b")], "failed")
    fold(db)
    cancel(db, run)
    fold(db)
    assert undo_run(db, run) not in (None, undo)


def test_a_retry_before_the_undo_has_begun_goes_on(db: Conn) -> None:
    run = three(db, on_failure="continue")
    end(db, [node(db, run, "a")], result=1)
    end(db, [node(db, run, "b")], "failed")
    assert run_state(db, run) == "failed"
    assert db.execute("SELECT count(*) FROM jobq.workflow_turn WHERE kind = 'undo'").fetchall() == [(1,)]
    retry(db, run)
    fold(db)
    assert (run_state(db, run), undo_run(db, run)) == ("running", None)


def test_an_undo_that_fails_blocks_its_own_run(db: Conn) -> None:
    run = failed(db)
    undo = undo_run(db, run)
    assert undo is not None
    end(db, [jobs_of(db, undo)[0][0]], "failed")
    fold(db)
    assert run_state(db, undo) == "running"
    assert states(db, undo) == {"undo b": "failed"}
    assert jobs_of(db, undo) == []


def test_two_workers_undo_a_run_once(db: Conn, database_url: str) -> None:
    run = three(db, on_failure="continue")
    end(db, [node(db, run, "a")], result=1)
    end(db, [node(db, run, "b")], "failed")
    with psycopg.connect(database_url) as other:
        steps(other, "workflow_step")
        # The other one has not committed: it holds the run.
        assert steps(db, "workflow_step")[0][0] == 0
    fold(db)
    assert db.execute("SELECT count(*) FROM jobq.workflow WHERE name = 'w (undo)'").fetchall() == [(1,)]
    assert EVERYTHING["turns_left_out"] == []
    assert play(db, undo_script(10**9, AuditRecord("undo_workflow", "test", None))) is None


@pytest.mark.parametrize(
    "wrong",
    [
        lambda node: node.undo(apps.join),
        lambda node: node.undo(apps.add),
        lambda node: node.undo(print),
        lambda node: node.undo(apps.take_back.options(key="one")),
        lambda node: node.undo(apps.noop),
    ],
)
def test_what_cannot_undo_is_refused(wrong: Callable[[Any], Any]) -> None:
    with q.workflow("w"), pytest.raises(WorkflowError, match=r"node 'number': undo\("):
        wrong(apps.number.node(1))


def test_workers_undo_a_run(jobs: Jobs, worker: Callable[..., WorkerProcess]) -> None:
    with q.workflow("w", on_failure="cancel") as wf:
        a = apps.number.node(1).undo(apps.take_back)
        apps.refuse.node(a.result)
    run = wf.enqueue(jobs.connection)
    worker("--processes", "1", app="tests.apps.workflows:q")
    wait_until(lambda: jobs.one("SELECT count(*) FROM jobq.workflow WHERE state = 'succeeded'") == 1, what="the undo")
    assert jobs.one("SELECT state FROM jobq.workflow WHERE id = %s", run.id) == "failed"
    assert jobs.one("SELECT args FROM jobq.job_history WHERE task LIKE '%%take_back'") == {"number": 1}


def test_single_jobs_of_a_run_that_is_undone_are_not_retried(db: Conn) -> None:
    run = failed(db)
    undo = undo_run(db, run)
    job = node(db, run, "c")
    found = operations.retry(db, "jobq", [job], actor="test")
    assert f"run {undo} undoes the nodes that have succeeded: retry all nodes of run {run}" in str(found)
    assert db.execute("SELECT count(*) FROM jobq.job WHERE id = %s", (job,)).fetchall() == [(0,)]
    assert run_state(db, run) != "running"


def test_a_retry_of_a_job_that_meets_the_undo_fails(db: Conn, database_url: str) -> None:
    run = three(db, on_failure="continue")
    end(db, [node(db, run, "a")], result=1)
    end(db, [node(db, run, "b")], "failed")
    with psycopg.connect(database_url) as other:
        steps(other, "workflow_step")
        with psycopg.connect(database_url, autocommit=True) as third:
            retried = Beside(db, third, caught, redrive, [node(db, run, "b")])
            other.commit()
            assert isinstance(retried.result(), psycopg.errors.SerializationFailure)
    assert run_state(db, run) == "failed"
    assert undo_run(db, run) is not None


def caught(connection: Conn, call: Callable[..., Any], *args: Any) -> Any:
    try:
        return call(connection, *args)
    except psycopg.Error as error:
        return error


def test_maps_do_not_wait_for_a_run_whose_lock_is_held(db: Conn, database_url: str) -> None:
    run = three(db, on_failure="continue")
    end(db, [node(db, run, "a")], result=1)
    end(db, [node(db, run, "b")], "failed")
    with q.workflow("m") as wf:
        first = apps.number.node(1).named("first")
        apps.number.map(range(3000)).after(first).named("map")
    other_run = wf.enqueue(db).id
    with psycopg.connect(database_url) as other:
        lock = "SELECT pg_advisory_xact_lock_shared('jobq.workflow'::regclass::oid::integer, %s::integer)"
        other.execute(lock, (run % 64,))
        end(db, [node(db, other_run, "first")], result=1)
        steps(db, "workflow_step")
        assert len(items(db, node(db, other_run, "map"))) == 3000
        assert undo_run(db, run) is None
    fold(db)
    assert undo_run(db, run) is not None


def test_the_undo_of_a_run_that_was_retried_since_does_not_go_on(db: Conn) -> None:
    run = failed(db)
    undo = undo_run(db, run)
    assert undo is not None
    cancel(db, undo)
    fold(db)
    assert operations.retry_workflow(db, "jobq", run, actor="test", all_nodes=True).done
    for all_nodes in (False, True):
        found = operations.retry_workflow(db, "jobq", undo, actor="test", all_nodes=all_nodes)
        assert found.refused == (f"run {run}, which it undoes, was retried since",)
    assert jobs_of(db, undo) == []


def test_the_results_of_a_map_are_copied_in_parts(db: Conn) -> None:
    with q.workflow("w", on_failure="continue") as wf:
        many = apps.number.options(headers={"a": 1, "b": 1}).map(range(4)).named("map")
        many.undo(apps.take_back.options(headers={"b": 2}))
        apps.number.node(1).after(many).named("last")
    run = wf.enqueue(db).id
    for job in items(db, node(db, run, "map")):
        end(db, [job], result="x" * 12_000_000)
    end(db, [node(db, run, "last")], "failed")
    fold(db)
    undo = undo_run(db, run)
    assert undo is not None
    [(first,), (second,)] = db.execute(
        "SELECT jsonb_array_length(items) FROM jobq.workflow_node WHERE workflow_id = %s ORDER BY number", (undo,)
    ).fetchall()
    assert (first, second) == (2, 2)
    assert db.execute("SELECT DISTINCT headers FROM jobq.job").fetchall() == [({"a": 1, "b": 2},)]
    while jobs := jobs_of(db, undo):
        end(db, [id for id, _, _ in jobs])
        fold(db)
    assert run_state(db, undo) == "succeeded"


def test_retention_removes_a_run_that_was_undone_and_not_one_that_is_to_be(db: Conn) -> None:
    run, other = failed(db), three(db, on_failure="continue")
    end(db, [node(db, other, "a")], result=1)
    end(db, [node(db, other, "b")], "failed")
    db.execute("UPDATE jobq.workflow SET finished_at = now() - interval '1 year' WHERE id IN (%s, %s)", (run, other))
    keep = {"most": 10, "aside": [], "keep_succeeded": "7 days", "keep_others": "90 days"}
    [(old,)] = steps(db, "workflows_old", **keep)
    assert old == [run]
    steps(db, "workflow_prune", ids=old, most=1000)
    assert db.execute("SELECT count(*) FROM jobq.workflow WHERE id = %s", (run,)).fetchall() == [(0,)]
    fold(db)
    assert undo_run(db, other) is not None
