"""Workflows in tests of applications: `drain` runs them to their end, without a worker."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from jobq import WorkflowFailed, WorkflowRun
from jobq.errors import ConfigurationError, WorkflowNotFound
from jobq.testing import JobqTester, eager, on
from tests.apps import workflows as apps

q = apps.q


@pytest.fixture
def tester(database_url: str) -> Iterator[JobqTester]:
    q.configure(database_url=database_url)
    with JobqTester(q, database_url) as tester:
        yield tester
    q.close()


def order(number: int = 3) -> WorkflowRun[list[str]]:
    with q.workflow("order", key=f"order-{number}") as wf:
        fetched = apps.fetch.node(number)
        paid = apps.charge.node(fetched.result, currency="CHF")
        mails = apps.notify.map(fetched.result.addresses, subject="paid")
        closed = apps.close.node(paid.outcome, mails.outcomes)
    return wf.submit(closed)


def test_drain_runs_a_workflow_to_its_end(tester: JobqTester) -> None:
    run = order()
    assert tester.node_states(run) == {
        "fetch": "ready",
        "charge": "waiting",
        "notify": "waiting",
        "close": "waiting",
    }
    assert tester.drain().succeeded == 6
    assert run.result() == [
        "succeeded 12.5 CHF",
        *(f"succeeded paid {name}@example.org" for name in ("ann", "bob", "cyd")),
    ]
    assert set(tester.node_states(run.id).values()) == {"succeeded"}
    assert tester.assert_workflow("order", state="succeeded").id == run.id


def test_runs_are_found_by_their_names_and_keys(tester: JobqTester) -> None:
    with pytest.raises(
        AssertionError, match="no run of workflow 'order' is enqueued and committed; there is none at all"
    ):
        tester.assert_workflow("order")
    first, second = order(1), order(2)
    assert tester.assert_workflow("order").id == second.id
    assert tester.assert_workflow("order", key="order-1").id == first.id
    with pytest.raises(
        AssertionError, match=r"no run of workflow 'order' with key 'order-9' .*; there are runs of: order"
    ):
        tester.assert_workflow("order", key="order-9")
    with pytest.raises(
        AssertionError, match=r"run \d+ of workflow 'order' is running, not succeeded: {'fetch': 'ready'"
    ):
        tester.assert_workflow("order", state="succeeded")
    with pytest.raises(WorkflowNotFound, match="there is no workflow run 999"):
        tester.node_states(999)


@pytest.mark.slow
def test_a_large_map_is_expanded(tester: JobqTester) -> None:
    """Of more than 1,000 items over a result: a worker's loop does that, not the statement that ends the node before."""
    with q.workflow("large") as wf:
        many = apps.number.map(apps.numbers.node(1500).result)
        end = apps.total.node(many.results)
    run = wf.submit(end)
    assert tester.drain(max_jobs=1).succeeded == 1
    assert tester.node_states(run) == {"numbers": "succeeded", "number": "running", "total": "waiting"}
    assert tester.connection.execute("SELECT count(*) FROM jobq.job").fetchone() == (1500,)
    assert tester.drain().succeeded == 1501
    assert run.result() == sum(range(1500))


def test_a_run_is_cancelled_by_its_rule(tester: JobqTester) -> None:
    with q.workflow("rule", on_failure="cancel") as wf:
        apps.add.node(apps.odd.node(2).result, 1)
        apps.noop.options(delay=3600).node().named("later")
    run = wf.submit()
    assert tester.drain().failed == 1
    assert tester.node_states(run)["later"] == "cancelled"
    with pytest.raises(WorkflowFailed, match="failed: a node has failed"):
        run.result()


def test_a_run_that_holds_is_blocked_until_it_is_retried(tester: JobqTester, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.touch()
    with q.workflow("held") as wf:
        end = apps.add.node(apps.maybe.node(1, str(broken)).result, 2)
    run = wf.submit(end)
    assert tester.drain().failed == 1
    assert tester.assert_workflow("held", state="blocked").id == run.id
    broken.unlink()
    from jobq.operations import retry_workflow

    retry_workflow(tester.connection, "jobq", run.id, actor="test")
    assert tester.drain().succeeded == 2
    assert run.result() == 3


@pytest.mark.parametrize("task", [apps.grow, apps.grow_in_transaction])
def test_nodes_that_a_node_adds(tester: JobqTester, task: Any) -> None:
    with q.workflow("growing") as wf:
        first = task.node(1).named("first")
    run = wf.submit(first)
    assert tester.drain().succeeded == 3
    assert tester.node_states(run) == dict.fromkeys(("first", "first/many", "first/total"), "succeeded")


def test_time_passes_for_delays_and_deadlines(tester: JobqTester) -> None:
    with q.workflow("slow", deadline=timedelta(hours=2)) as wf:
        first = apps.noop.node()
        apps.noop.options(delay=3600).node().after(first)
    run, late = wf.submit(), wf.submit()
    assert tester.drain().succeeded == 2
    assert tester.node_states(run) == {"noop": "succeeded", "noop-2": "scheduled"}
    tester.run(tester.enqueued(apps.noop)[0].id)
    assert run.state() == "succeeded"
    tester.advance(hours=3)
    tester.connection.execute("UPDATE jobq.job SET run_at = now() + interval '1 hour'")
    tester.drain()
    assert late.state() == "failed"


def test_scheduled_nodes_may_run_at_once(tester: JobqTester) -> None:
    with q.workflow("slow") as wf:
        apps.noop.options(delay=3600).node().after(apps.noop.options(delay=60).node())
    run = wf.submit()
    assert tester.drain(with_scheduled=True).succeeded == 2
    assert run.state() == "succeeded"


@pytest.mark.slow
def test_within_a_transaction_of_the_test(tester: JobqTester, database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        with on(q, connection) as inside:
            run = order()
            assert inside.drain().succeeded == 6
            assert run.result()[0] == "succeeded 12.5 CHF"
            with q.workflow("large") as wf:
                end = apps.total.node(apps.number.map(apps.numbers.node(1001).result).results)
            large = wf.submit(end)
            inside.drain()
            assert large.result() == sum(range(1001))
        connection.rollback()
    assert tester.connection.execute("SELECT count(*) FROM jobq.workflow").fetchone() == (0,)


def test_the_same_jobs_run_in_the_same_order_each_time(tester: JobqTester) -> None:
    orders = []
    for number in (1, 2):
        order(number)
        tester.drain()
        rows = tester.connection.execute("SELECT task FROM jobq.job_history ORDER BY started_at, id").fetchall()
        orders.append([task for (task,) in rows if task != "notify"])
        tester.connection.execute("DELETE FROM jobq.job_history")
    assert orders[0] == orders[1] == ["fetch", "charge", "close"]


async def test_eager_mode_has_no_workflows(tester: JobqTester) -> None:
    with q.workflow("order") as wf:
        apps.noop.node()
    with eager(q):
        with pytest.raises(ConfigurationError, match=r"workflows need one: test them with the fixture jobq"):
            wf.submit()
        with pytest.raises(ConfigurationError, match="workflows need one"):
            await wf.submit_async()
    assert wf.submit().created
