"""A running node adds nodes to its own run: with its success or not at all, once, and the run ends after them."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from jobq import JobFailed, JobQ
from jobq.errors import NoCurrentJob, WorkflowError
from jobq.testing import eager
from jobq.workflow import Workflow
from tests.apps import workflows as apps
from tests.support.jobs import Jobs
from tests.support.waiting import wait_until
from tests.support.workers import WorkerProcess
from tests.support.workflows.join_watch import COUNTS
from tests.support.workflows.node_ends import Conn, cancel, end, fold, redrive, retry, retry_from
from tests.workflows.test_joins import Beside, node, run_state, states

q = apps.q
APP = "tests.apps.workflows:q"


@pytest.fixture
def db(database_url: str) -> Iterator[Conn]:
    q.configure(database_url=database_url)
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection
    q.close()


class Adder:
    """The running job of a node, which adds nodes."""

    def __init__(self, db: Conn, job: int) -> None:
        self.db, self.job, self.worker = db, job, uuid.uuid4()
        rows = db.execute(
            "UPDATE jobq.job SET state = 'running', claims = claims + 1, worker_id = %s, started_at = now() WHERE id = %s"
            " RETURNING claims, (extract(epoch FROM started_at) * 1e6)::bigint",
            (self.worker, job),
        ).fetchall()
        [(self.claims, self.started)] = rows

    def add(self, build: Callable[[Workflow], Any]) -> None:
        with q.additions() as more:
            build(more)
        fence = {"job": self.job, "claims": self.claims, "worker": self.worker, "started": self.started}
        q.insert_additions(more, fence, None)


def chain(db: Conn, **options: Any) -> tuple[int, Adder]:
    """a, which runs, then b."""
    with q.workflow("w", **options) as wf:
        apps.add.node(apps.number.node(1).named("a").result, 1).named("b")
    run = wf.enqueue(db).id
    return run, Adder(db, node(db, run, "a"))


def two(_: Workflow) -> None:
    apps.add.node(apps.number.node(5).named("x").result, 1).named("y")


def counts_are_right(db: Conn, run: int) -> bool:
    return all(counted == results for _, _, counted, results in db.execute(COUNTS.encode(), (run,)).fetchall())


def test_added_nodes_start_after_the_success_and_the_run_ends_after_them(db: Conn) -> None:
    run, adder = chain(db)
    adder.add(two)
    fold(db)
    assert states(db, run) == {"a": "job"}
    assert db.execute("SELECT nodes FROM jobq.workflow").fetchall() == [(4,)]
    end(db, [adder.job], result=1)
    assert states(db, run) == {"a": "succeeded", "b": "job", "a/x": "job"}
    assert counts_are_right(db, run)
    end(db, [node(db, run, "b")], result=2)
    assert run_state(db, run) == "running"
    end(db, [node(db, run, "a/x")], result=5)
    end(db, [node(db, run, "a/y")], result=6)
    assert run_state(db, run) == "succeeded"
    assert counts_are_right(db, run)
    rows = db.execute("SELECT number, name FROM jobq.workflow_node WHERE workflow_id = %s ORDER BY number", (run,))
    assert rows.fetchall() == [(1, "a"), (2, "b"), (3, "a/x"), (4, "a/y")]


def test_a_second_execution_replaces_what_the_first_one_added(db: Conn) -> None:
    run, adder = chain(db)
    adder.add(two)
    again = Adder(db, adder.job)
    adder.add(lambda _: apps.noop.node().named("late"))
    assert db.execute("SELECT nodes FROM jobq.workflow").fetchall() == [(4,)], "it is not the job's execution any more"
    again.add(lambda _: (apps.number.map([1, 2]).named("m"), apps.noop.node().named("z")))
    assert counts_are_right(db, run)
    end(db, [adder.job], result=1)
    assert set(states(db, run)) == {"a", "b", "a/m", "a/z"}
    assert db.execute("SELECT count(*) FROM jobq.workflow_join WHERE workflow_id = %s", (run,)).fetchone() == (4,)
    assert db.execute("SELECT nodes FROM jobq.workflow").fetchall() == [(4,)]


@pytest.mark.parametrize("on_failure", ["hold", "continue"])
def test_the_adding_node_fails_after_all(db: Conn, on_failure: Any) -> None:
    """Its next execution replaces the nodes, which have ended without having started."""
    run, adder = chain(db, on_failure=on_failure)
    adder.add(two)
    end(db, [adder.job], "failed")
    fold(db)
    ended = {"a"} if on_failure == "hold" else {"a", "b", "a/x", "a/y"}
    assert set(states(db, run)) == ended
    assert redrive(db, [adder.job])
    Adder(db, adder.job).add(lambda _: apps.noop.node().named("z"))
    assert counts_are_right(db, run)
    assert run_state(db, run) == "running"
    end(db, [adder.job], result=1)
    fold(db)
    assert states(db, run)["a/z"] == "job"
    for name, state in states(db, run).items():
        if state == "job":
            end(db, [node(db, run, name)], result=1)
    fold(db)
    assert counts_are_right(db, run)
    assert run_state(db, run) == ("succeeded" if on_failure == "hold" else "failed")


def test_a_retry_from_the_adding_node_removes_what_it_and_its_additions_added(db: Conn) -> None:
    run, adder = chain(db)
    adder.add(two)
    end(db, [adder.job], result=1)
    inner = Adder(db, node(db, run, "a/x"))
    inner.add(lambda _: (apps.number.map([1, 2]).named("m"), apps.noop.node().named("n")))
    end(db, [inner.job], result=1)
    assert set(states(db, run)) == {"a", "b", "a/x", "a/y", "a/x/m", "a/x/n"}
    assert retry_from(db, run, "a/x")
    assert states(db, run) == {"a": "succeeded", "b": "job", "a/x": "job"}
    assert db.execute("SELECT nodes FROM jobq.workflow").fetchall() == [(4,)]
    assert counts_are_right(db, run)
    done = retry_from(db, run, "a")
    assert done is not None
    assert states(db, run) == {"a": "job"}
    assert db.execute("SELECT nodes FROM jobq.workflow").fetchall() == [(2,)]
    assert db.execute("SELECT array_length(feeds, 1) FROM jobq.workflow_node WHERE name = 'a'").fetchone() == (1,)
    end(db, [node(db, run, "a")], result=1)
    end(db, [node(db, run, "b")], result=1)
    assert run_state(db, run) == "succeeded"
    assert counts_are_right(db, run)


def test_nodes_are_added_to_a_run_that_is_being_cancelled(db: Conn) -> None:
    run, adder = chain(db)
    cancel(db, run)
    adder.add(two)
    end(db, [adder.job], result=1)
    fold(db)
    assert states(db, run) == {"a": "succeeded", "b": "cancelled", "a/x": "cancelled", "a/y": "cancelled"}
    assert run_state(db, run) == "cancelled"


def test_the_end_of_another_node_does_not_wait_and_is_not_lost(db: Conn, database_url: str) -> None:
    with q.workflow("w") as wf:
        apps.number.node(1).named("a")
        apps.number.node(2).named("b")
    run = wf.enqueue(db).id
    adder = Adder(db, node(db, run, "a"))
    with q.additions() as more:
        two(more)
    fence = {"job": adder.job, "claims": adder.claims, "worker": adder.worker, "started": adder.started}
    with psycopg.connect(database_url) as other:
        q.insert_additions(more, fence, lambda query, values: other.execute(query, values).fetchone())
        end(db, [node(db, run, "b")], result=1)
        assert run_state(db, run) == "running"
        end(other, [adder.job], result=1)
    fold(db)
    assert counts_are_right(db, run)
    for name in ("a/x", "a/y"):
        assert run_state(db, run) == "running"
        end(db, [node(db, run, name)], result=1)
    fold(db)
    assert run_state(db, run) == "succeeded"


def test_a_second_addition_and_a_retry_do_not_wait_for_each_other_in_a_circle(db: Conn, database_url: str) -> None:
    """Both take the run's lock first, then its row, even if what was added before has ended without having started."""
    run, adder = chain(db, on_failure="continue")
    adder.add(two)
    end(db, [adder.job], "failed")
    fold(db)
    assert redrive(db, [adder.job])
    adder = Adder(db, adder.job)
    with q.additions() as more:
        two(more)
    fence = {"job": adder.job, "claims": adder.claims, "worker": adder.worker, "started": adder.started}

    def add(other: Conn) -> None:
        q.insert_additions(more, fence, lambda query, values: other.execute(query, values).fetchone())

    with psycopg.connect(database_url, autocommit=True) as other, psycopg.connect(database_url) as operator:
        operator.execute(
            "SELECT pg_advisory_xact_lock('jobq.workflow'::regclass::oid::integer, (%s %% 64)::integer)", (run,)
        )
        beside = Beside(db, other, add)
        assert beside.waits
        assert retry(operator, run)
        operator.commit()
        beside.result()
    assert counts_are_right(db, run)


def test_what_cannot_add_nodes(db: Conn) -> None:
    plain = apps.number.enqueue(db, 1)
    with pytest.raises(psycopg.Error, match=f"job {plain.id} is no node of a workflow"):
        Adder(db, plain.id).add(two)
    with q.workflow("w") as wf:
        apps.number.map([1]).named("m")
    wf.enqueue(db)
    item = db.execute("SELECT id FROM jobq.job WHERE node_id IS NOT NULL").fetchall()[0][0]
    with pytest.raises(psycopg.Error, match=f"job {item} is an item of the map m"):
        Adder(db, item).add(two)
    run, adder = chain(db)
    with pytest.raises(WorkflowError, match="workflow 'added' has no nodes"):
        adder.add(lambda _: None)
    db.execute("UPDATE jobq.workflow SET nodes = 99999 WHERE id = %s", (run,))
    with pytest.raises(psycopg.Error, match="expected at most 100,000: use maps"):
        adder.add(two)
    assert states(db, run) == {"a": "job"}
    with pytest.raises(WorkflowError, match="are added to the job's run when the job succeeds: do not enqueue it"):
        q.additions().submit()
    with pytest.raises(NoCurrentJob):
        q.add_nodes()


def test_in_eager_mode() -> None:
    app = JobQ()

    @app.task
    def adds() -> None:
        app.add_nodes()

    with eager(app), pytest.raises(JobFailed, match="workflows need one"):
        adds.submit().result()


@pytest.mark.parametrize("task", [apps.grow, apps.grow_async, apps.grow_in_transaction, apps.grow_in_transaction_async])
def test_by_a_real_worker(db: Conn, worker: Callable[..., WorkerProcess], task: Any) -> None:
    worker("--processes", "1", app=APP)
    with q.workflow("growing") as wf:
        first = task.node(2).named("first")
    run = wf.submit(first)
    assert run.result(timeout=30) == 2
    assert states(db, run.id) == dict.fromkeys(
        ("first", "first/many", "first/total", "first/again/grow", "first/again/grow/many", "first/again/grow/total"),
        "succeeded",
    )
    assert counts_are_right(db, run.id)


@pytest.mark.parametrize("task", [apps.grow, apps.grow_in_transaction])
def test_an_attempt_that_fails_adds_nothing(
    db: Conn, jobs: Jobs, worker: Callable[..., WorkerProcess], tmp_path: Any, task: Any
) -> None:
    broken = tmp_path / "broken"
    broken.touch()
    worker("--processes", "1", app=APP)
    with q.workflow("growing") as wf:
        task.node(1, str(broken))
    run = wf.submit()
    wait_until(lambda: jobs.one("SELECT count(*) FROM jobq.job_attempt") >= 2, what="two attempts")
    assert jobs.one("SELECT count(*) FROM jobq.workflow_node") == 1
    broken.unlink()
    run.result(timeout=30)
    assert jobs.one("SELECT count(*) FROM jobq.workflow_node") == 3
