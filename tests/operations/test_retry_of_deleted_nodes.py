"""A retry of a run starts nodes again whose jobs are gone: deleted by an operator, or removed by retention."""

from __future__ import annotations

from typing import Any

import pytest

from jobq import operations, queries
from jobq._worker.inline import drain
from jobq.operations.workflows import RunChange
from tests.apps import workflows as apps
from tests.support.jobs import Jobs
from tests.support.workflows.node_ends import end, redrive

q = apps.q


@pytest.fixture(autouse=True)
def configured(database_url: str) -> None:
    q.configure(database_url=database_url)


def live(jobs: Jobs) -> dict[str, int]:
    """The live jobs of nodes, by name, or by name and item."""
    rows = jobs.all(
        "SELECT node.name || CASE WHEN node.kind = 'map' THEN '/' || job.node_item ELSE '' END AS name, job.id"
        " FROM jobq.job JOIN jobq.workflow_node AS node ON node.id = job.node_id"
    )
    return {row["name"]: row["id"] for row in rows}


def delete(jobs: Jobs, *ids: int) -> None:
    assert operations.delete(jobs.connection, "jobq", list(ids), actor="ann").done == sorted(ids)


def retry(jobs: Jobs, run: int) -> RunChange:
    return operations.retry_workflow(jobs.connection, "jobq", run, actor="bob")


def run_state(jobs: Jobs, run: int) -> str:
    found = queries.get_workflow(jobs.connection, "jobq", run)
    assert found is not None
    return found.run.state


def finish(jobs: Jobs, run: int) -> None:
    """Run what is ready; the counts of all joins must be right in the end."""
    drain(q, jobs.connection)
    errors = jobs.all("SELECT node_id, item, state, error FROM jobq.workflow_result WHERE state <> 'succeeded'")
    assert (errors, run_state(jobs, run)) == ([], "succeeded")
    wrong = "SELECT count(*) FROM jobq.workflow_join WHERE remaining <> 0 OR failed <> 0 OR released_at IS NULL"
    assert jobs.one(wrong) == 0
    assert jobs.one("SELECT count(*) FROM jobq.job") == 0


def test_a_first_node(jobs: Jobs) -> None:
    with q.workflow("sum") as wf:
        one, two = apps.number.node(1).named("one"), apps.number.node(2).named("two")
        apps.add.node(one.result, two.result).named("sum")
    run = wf.enqueue(jobs.connection).id
    before = live(jobs)
    delete(jobs, before["one"])
    drain(q, jobs.connection)
    assert run_state(jobs, run) == "blocked"
    done = retry(jobs, run)
    assert (done.done, done.jobs, done.left, done.refused) == (True, 1, 0, ())
    assert live(jobs) == {"one": before["one"]}
    finish(jobs, run)
    assert jobs.one("SELECT result::text FROM jobq.workflow_result ORDER BY node_id DESC LIMIT 1") == "3"


def test_a_node_with_parents_takes_their_results_again(jobs: Jobs) -> None:
    with q.workflow("chain") as wf:
        doubled = apps.add.options(delay=60).node(apps.number.node(20).result, 22).named("second")
        apps.number.node(doubled.result)
    run = wf.enqueue(jobs.connection).id
    drain(q, jobs.connection)
    second = live(jobs)["second"]
    delete(jobs, second)
    assert retry(jobs, run).jobs == 1
    assert live(jobs) == {"second": second}
    assert jobs.one("SELECT args FROM jobq.job") == {"left": 20, "right": 22}
    operations.run_now(jobs.connection, "jobq", [second], actor="ann")
    finish(jobs, run)


def test_an_item_of_a_map(jobs: Jobs) -> None:
    with q.workflow("many") as wf:
        many = apps.number.map([10, 20, 30]).named("many")
        apps.total.node(many.results)
    run = wf.enqueue(jobs.connection).id
    ids = live(jobs)
    delete(jobs, ids["many/1"])
    drain(q, jobs.connection)
    assert run_state(jobs, run) == "blocked"
    assert retry(jobs, run).jobs == 1
    assert list(live(jobs)) == ["many/1"]
    assert jobs.one("SELECT args FROM jobq.job") == {"value": 20}
    finish(jobs, run)
    assert jobs.one("SELECT result::text FROM jobq.workflow_result ORDER BY node_id DESC LIMIT 1") == "60"


def test_an_item_of_a_map_over_a_result(jobs: Jobs) -> None:
    with q.workflow("many") as wf:
        apps.number.options(delay=60).map(apps.numbers.node(3).result).named("many")
    run = wf.enqueue(jobs.connection).id
    drain(q, jobs.connection)
    ids = live(jobs)
    delete(jobs, *ids.values())
    assert retry(jobs, run).jobs == 3
    assert sorted(live(jobs)) == ["many/0", "many/1", "many/2"]
    assert [row["args"] for row in jobs.all("SELECT args FROM jobq.job ORDER BY node_item")] == [
        {"value": 0}, {"value": 1}, {"value": 2},
    ]  # fmt: skip
    operations.run_now(jobs.connection, "jobq", sorted(live(jobs).values()), actor="ann")
    finish(jobs, run)


@pytest.mark.parametrize("on_failure", ["hold", "continue", "cancel"])
def test_a_failed_job_that_retention_has_removed(jobs: Jobs, on_failure: Any) -> None:
    """Beside one that is kept, and one that was deleted: each runs once."""
    with q.workflow("three", on_failure=on_failure) as wf:
        nodes = [apps.number.node(n).named(f"node{n}") for n in range(3)]
        apps.noop.node().named("last").after(*nodes)
    run = wf.enqueue(jobs.connection).id
    ids = live(jobs)
    end(jobs.connection, [ids["node0"], ids["node1"]], "failed")
    delete(jobs, ids["node2"])
    jobs.connection.execute("DELETE FROM jobq.job_history WHERE id = %s", (ids["node1"],))
    drain(q, jobs.connection)
    assert run_state(jobs, run) == {"hold": "blocked", "continue": "failed", "cancel": "failed"}[on_failure]
    done = retry(jobs, run)
    assert (done.done, done.jobs, done.left, done.refused) == (True, 3, 0, ())
    assert live(jobs) == {name: id_ for name, id_ in ids.items() if name != "last"}
    finish(jobs, run)


def test_a_deleted_child_of_a_failed_parent_waits_for_it(jobs: Jobs) -> None:
    """It took its parent's end whatever that was; after the retry it takes the new one."""
    with q.workflow("told", on_failure="continue") as wf:
        parent = apps.text.node("5").named("parent")
        apps.close.options(delay=60).node(parent.outcome, []).named("child")
    run = wf.enqueue(jobs.connection).id
    end(jobs.connection, [live(jobs)["parent"]], "failed")
    delete(jobs, live(jobs)["child"])
    done = retry(jobs, run)
    assert (done.jobs, done.refused) == (2, ())
    assert list(live(jobs)) == ["parent"]
    drain(q, jobs.connection)
    child = live(jobs)["child"]
    operations.run_now(jobs.connection, "jobq", [child], actor="ann")
    finish(jobs, run)
    assert jobs.one("SELECT result FROM jobq.workflow_result WHERE node_id = %s", child) == ["succeeded 5"]


def test_a_second_retry_changes_nothing(jobs: Jobs) -> None:
    with q.workflow("one") as wf:
        apps.number.node(1).named("one")
    run = wf.enqueue(jobs.connection).id
    delete(jobs, live(jobs)["one"])
    assert live(jobs) == {}
    assert retry(jobs, run).jobs == 1
    again = retry(jobs, run)
    assert (again.done, again.jobs, again.refused) == (True, 0, ())
    assert list(live(jobs)) == ["one"]
    assert redrive(jobs.connection, list(live(jobs).values())) == []
    finish(jobs, run)
