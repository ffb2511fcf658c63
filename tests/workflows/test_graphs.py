"""Workflows by real workers: results reach their nodes, each node runs once, and ends are ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobq import WorkflowFailed
from tests.apps import workflows as apps
from tests.support.jobs import Jobs
from tests.support.waiting import wait_until
from tests.support.workers import WorkerProcess

q = apps.q
APP = "tests.apps.workflows:q"


@pytest.fixture(autouse=True)
def running(jobs: Jobs, database_url: str, worker: Callable[..., WorkerProcess]) -> Iterator[WorkerProcess]:
    q.configure(database_url=database_url)
    yield worker("--processes", "1", app=APP)
    q.close()


def states(jobs: Jobs, run: int) -> dict[str, str]:
    rows = jobs.all(
        "SELECT node.name, result.state"
        " FROM jobq.workflow_node AS node JOIN jobq.workflow_result AS result ON result.node_id = node.id"
        f" WHERE node.workflow_id = {run} AND result.item IN (0, -1)"
    )
    return {row["name"]: row["state"] for row in rows}


def test_results_reach_the_nodes_that_need_them(jobs: Jobs) -> None:
    with q.workflow("order") as wf:
        order = apps.fetch.node(3)
        paid = apps.charge.node(order.result, currency="CHF")
        mails = apps.notify.map(order.result.addresses, subject="paid")
        closed = apps.close.node(paid.outcome, mails.outcomes)
    run = wf.enqueue(jobs.connection, closed)
    assert run.created
    assert run.result(timeout=30) == [
        "succeeded 12.5 CHF",
        "succeeded paid ann@example.org",
        "succeeded paid bob@example.org",
        "succeeded paid cyd@example.org",
    ]
    assert run.state() == "succeeded"


def test_a_chain_a_diamond_and_a_map(jobs: Jobs) -> None:
    with q.workflow("numbers") as wf:
        first = apps.number.node(1)
        left = apps.add.node(first.result, 10)
        right = apps.add.node(first.result, 100)
        both = apps.add.node(left.result, right.result)
        many = apps.number.map(range(50)).after(both)
        listed = apps.as_list.node(many.results)
        end = apps.add.node(apps.total.node(many.results).result, listed.result)
    assert wf.enqueue(jobs.connection, end).result(timeout=30) == sum(range(50)) + 50
    assert jobs.one("SELECT count(*) FROM jobq.workflow_join WHERE released_at IS NULL") == 0
    assert jobs.one("SELECT count(*) FROM jobq.job") == 0


def test_an_empty_map_and_a_map_over_a_result(jobs: Jobs) -> None:
    with q.workflow("empty") as wf:
        none = apps.number.map([])
        some = apps.number.map(apps.numbers.node(3000).result)
        end = apps.add.node(apps.total.node(none.results).result, apps.total.node(some.results).result)
    assert wf.enqueue(jobs.connection, end).result(timeout=60) == sum(range(3000))


def test_references_within_arguments(jobs: Jobs) -> None:
    with q.workflow("parts") as wf:
        end = apps.join.node([apps.text.node("a").result, "b", apps.hello.node("c").result], note="!")
    assert wf.enqueue(jobs.connection, end).result(timeout=30) == "a b hello c!"


def test_conditions_skip_what_depends_on_them(jobs: Jobs) -> None:
    with q.workflow("gift") as wf:
        plain, gift = apps.fetch.node(3), apps.fetch.node(103)
        no = apps.noop.node().named("no").when(plain.result.gift)
        apps.noop.node().named("below").after(no)
        apps.noop.node().named("yes").when(gift.result.gift)
        otherwise = apps.number.node(1).named("one").when(plain.result.gift)
        end = apps.add.node(otherwise.result_or(5), 1)
    run = wf.enqueue(jobs.connection, end)
    assert run.result(timeout=30) == 6
    assert states(jobs, run.id) == {
        "fetch": "succeeded",
        "fetch-2": "succeeded",
        "no": "skipped",
        "below": "skipped",
        "yes": "succeeded",
        "one": "skipped",
        "add": "succeeded",
    }


def test_hold_waits_for_the_operator_and_a_retry_goes_on(jobs: Jobs, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.touch()
    with q.workflow("held") as wf:
        bad = apps.maybe.node(1, str(broken)).named("bad")
        end = apps.add.node(bad.result, apps.number.node(2).result)
    run = wf.enqueue(jobs.connection, end)
    with pytest.raises(WorkflowFailed, match=r"blocked: node 'bad' is failed: .*broken"):
        run.result(timeout=30)
    assert states(jobs, run.id) == {"bad": "failed", "number": "succeeded"}
    broken.unlink()
    [dead] = jobs.all("SELECT id FROM jobq.job_history WHERE state = 'failed'")
    from jobq.operations import jobs as operations

    assert operations.retry(jobs.connection, "jobq", [dead["id"]], actor="test").done == [dead["id"]]
    assert run.result(timeout=30) == 3


def test_continue_ends_what_needs_a_failed_node(jobs: Jobs) -> None:
    with q.workflow("continued", on_failure="continue") as wf:
        odd = apps.odd.node(2)
        below = apps.add.node(odd.result, 1)
        apps.add.node(below.result, 1).named("further")
        kept = apps.number.node(7)
        apps.close.node(apps.text.node("x").outcome, apps.text.map(["y"]).outcomes).after(kept)
    run = wf.enqueue(jobs.connection)
    with pytest.raises(WorkflowFailed, match="2 is even"):
        run.result(timeout=30)
    assert states(jobs, run.id)["add"] == states(jobs, run.id)["further"] == "upstream_failed"
    assert states(jobs, run.id)["close"] == "succeeded"
    assert run.state() == "failed"


def test_cancel_on_failure_ends_the_rest(jobs: Jobs) -> None:
    with q.workflow("cancelled", on_failure="cancel") as wf:
        apps.add.node(apps.odd.node(2).result, 1)
        apps.noop.options(delay=3600).node().named("later")
    run = wf.enqueue(jobs.connection)
    with pytest.raises(WorkflowFailed, match="failed: a node has failed"):
        run.result(timeout=30)
    assert states(jobs, run.id) == {"odd": "failed", "add": "upstream_failed", "later": "cancelled"}
    assert jobs.one("SELECT count(*) FROM jobq.job") == 0


def test_min_success(jobs: Jobs) -> None:
    with q.workflow("most") as wf:
        most = apps.odd.map(range(10)).min_success(0.5)
        end = apps.total.node(most.results)
    assert wf.enqueue(jobs.connection, end).result(timeout=30) == 25


def test_a_run_is_cancelled(jobs: Jobs, tmp_path: Path) -> None:
    with q.workflow("stopped") as wf:
        first = apps.gate.node(str(tmp_path / "gate"))
        apps.text.node(first.result)
        apps.noop.options(delay=60).node()
    run = wf.enqueue(jobs.connection)
    wait_until(lambda: jobs.one("SELECT count(*) FROM jobq.job WHERE state = 'running'") == 1, what="the first node")
    assert run.cancel("not wanted") is True
    # A run ends after its last job.
    assert run.state() == "running"
    assert states(jobs, run.id) == {"noop": "cancelled"}
    (tmp_path / "gate").touch()
    wait_until(lambda: run.state() == "cancelled", what="the end")
    assert run.cancel() is False
    assert states(jobs, run.id) == {"gate": "succeeded", "text": "cancelled", "noop": "cancelled"}


def test_a_deadline(jobs: Jobs) -> None:
    with q.workflow("late", deadline=1) as wf:
        apps.noop.options(delay=60).node()
    with pytest.raises(WorkflowFailed, match="failed: its deadline has passed"):
        wf.enqueue(jobs.connection).result(timeout=30)


def test_a_key_admits_one_run(jobs: Jobs) -> None:
    runs = []
    for _ in range(2):
        with q.workflow("keyed", key="k") as wf:
            apps.noop.node()
        runs.append(wf.enqueue(jobs.connection))
    assert [run.created for run in runs] == [True, False]
    assert runs[0].id == runs[1].id
    assert jobs.one("SELECT count(*) FROM jobq.workflow_node") == 1
