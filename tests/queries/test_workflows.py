"""Runs of workflows as they are read: lists, nodes, parents, and why a node has not ended."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from jobq import InvalidOption, queries
from jobq.workflow import Workflow
from tests.apps import workflows as apps
from tests.support.jobs import Jobs
from tests.support.waiting import wait_until
from tests.support.workers import WorkerProcess

q = apps.q
APP = "tests.apps.workflows:q"


@pytest.fixture(autouse=True)
def configured(database_url: str) -> None:
    q.configure(database_url=database_url)


def small(name: str = "small") -> Workflow:
    with q.workflow(name) as wf:
        apps.noop.node()
    return wf


def test_a_run_that_has_not_begun(jobs: Jobs) -> None:
    with q.workflow("order", key="o-1", deadline=3600) as wf:
        order = apps.fetch.node(3)
        paid = apps.charge.node(order.result, currency="CHF")
        mails = apps.notify.map(order.result.addresses)
        apps.close.node(paid.outcome, mails.outcomes)
        apps.noop.node().when(order.result.gift)
        apps.number.map([1, 2, 3]).after(paid)
    run = wf.enqueue(jobs.connection)
    detail = queries.get_workflow(jobs.connection, "jobq", run.id)
    assert detail is not None
    info = detail.run
    assert (info.name, info.key, info.state, info.on_failure) == ("order", "o-1", "running", "hold")
    assert (info.nodes, info.ended, info.failed, info.counted_to, detail.left_out) == (6, 0, 0, None, 0)
    assert info.deadline_at is not None
    assert info.finished_at is None
    nodes = {node.name: node for node in detail.nodes}
    assert [node.number for node in detail.nodes] == [1, 2, 3, 4, 5, 6]
    assert {name: node.parents for name, node in nodes.items()} == {
        "fetch": (),
        "charge": (1,),
        "notify": (1,),
        "close": (2, 3),
        "noop": (1,),
        "number": (2,),
    }
    assert nodes["close"].any_end == (2, 3)
    assert nodes["charge"].any_end == ()
    fetch = nodes["fetch"]
    assert (fetch.state, fetch.kind, fetch.job_id) == ("ready", "task", fetch.id)
    assert fetch.why == "No worker is alive: start one with `jobq worker`."
    assert (nodes["charge"].state, nodes["charge"].job_id) == ("waiting", None)
    assert nodes["charge"].why == "It waits for 'fetch' (ready)."
    assert nodes["close"].why == "It waits for 'charge' (waiting) and 1 more."
    assert nodes["noop"].why == "Its condition fetch.result.gift is not known yet: 'fetch' is ready."
    assert (nodes["notify"].kind, nodes["notify"].items) == ("map", None)
    assert nodes["number"].items == 3
    cheap = queries.get_workflow(jobs.connection, "jobq", run.id, explain=0)
    assert cheap is not None
    assert cheap.nodes[0].why is not None
    assert cheap.nodes[0].why.startswith("It has been queued for ")


def test_only_the_first_nodes_are_listed(jobs: Jobs) -> None:
    with q.workflow("long") as wf:
        last = apps.number.node(0)
        for n in range(9):
            last = apps.number.node(n).after(last)
    run = wf.enqueue(jobs.connection)
    detail = queries.get_workflow(jobs.connection, "jobq", run.id, limit=4)
    assert detail is not None
    assert ([node.number for node in detail.nodes], detail.left_out) == ([1, 2, 3, 4], 6)
    with pytest.raises(InvalidOption, match="limit"):
        queries.get_workflow(jobs.connection, "jobq", run.id, limit=0)
    assert queries.get_workflow(jobs.connection, "jobq", 10**12) is None
    assert queries.get_workflow(jobs.connection, "jobq", -1) is None


def test_lists_by_name_and_state(jobs: Jobs) -> None:
    a, b, c = (small(name).enqueue(jobs.connection).id for name in ("a", "b", "a"))
    assert q.workflow_run(b).cancel("no need") is True
    connection = jobs.connection

    def ids(**given: object) -> list[int]:
        return [run.id for run in queries.workflows(connection, "jobq", **given)]  # type: ignore[arg-type]

    assert ids() == [c, b, a]
    assert ids(limit=1) == [c]
    assert ids(before=c) == [b, a]
    assert ids(name="a") == [c, a]
    assert ids(name="a", state="running") == [c, a]
    assert ids(state="running", limit=1, before=c) == [a]
    assert ids(state="cancelled") == [b]
    assert ids(state="blocked") == ids(state="succeeded") == ids(name="z") == []
    assert queries.workflow_names(connection, "jobq") == ["a", "b"]
    [cancelled] = queries.workflows(connection, "jobq", name="b")
    assert (cancelled.state, cancelled.ended, cancelled.nodes) == ("cancelled", 1, 1)
    assert cancelled.reason is not None
    assert cancelled.reason.endswith(": no need")
    with pytest.raises(InvalidOption, match="state"):
        ids(state="odd")


def test_a_blocked_run_and_what_its_nodes_wait_for(
    jobs: Jobs, worker: Callable[..., WorkerProcess], tmp_path: Path
) -> None:
    worker("--processes", "1", app=APP)
    gate = tmp_path / "gate"
    broken = tmp_path / "broken"
    broken.touch()
    with q.workflow("held") as wf:
        bad = apps.maybe.node(1, str(broken)).named("bad")
        apps.add.node(bad.result, 1).named("below")
        first = apps.gate.node(str(gate)).named("gate")
        apps.text.map(["a", "b"]).named("texts").after(first)
        apps.odd.map([1, 2, 3]).named("odds")
    run = wf.enqueue(jobs.connection)

    def read() -> queries.WorkflowDetail:
        found = queries.get_workflow(jobs.connection, "jobq", run.id)
        assert found is not None
        return found

    def whys() -> dict[str, str | None]:
        return {node.name: node.why for node in read().nodes}

    wait_until(lambda: read().run.ended == 2, what="the failures")
    assert read().run.state == "running"
    said = whys()
    assert said["texts"] == "It waits for 'gate' (running)."
    assert said["gate"] is not None
    assert said["gate"].startswith("It has been running for ")
    below = said["below"]
    assert below is not None
    assert below.startswith("It waits for 'bad', which failed ")
    assert below.endswith(" ago: retry it.")
    assert queries.workflows(jobs.connection, "jobq", state="blocked") == []
    gate.touch()
    wait_until(lambda: read().run.state == "blocked", what="the end of the rest")
    detail = read()
    odds = detail.nodes[4]
    assert (odds.state, odds.items, odds.items_ended, odds.items_failed) == ("failed", 3, 3, 1)
    # In the order of their ends, which is either.
    told = {"bad": "node 'bad' failed: broken", "odds": "node 'odds' failed: too many of its items failed"}
    ended = {node.name: node.finished_at.timestamp() for node in detail.nodes if node.finished_at is not None}
    assert detail.run.reason == "; ".join(told[name] for name in sorted(told, key=lambda name: ended[name]))
    assert (detail.run.ended, detail.run.failed) == (4, 2)
    assert [found.id for found in queries.workflows(jobs.connection, "jobq", state="blocked")] == [run.id]
    assert queries.workflows(jobs.connection, "jobq", state="running") == []
    [listed] = queries.workflows(jobs.connection, "jobq")
    assert listed.state == "blocked"


def test_counts_have_a_bound(jobs: Jobs) -> None:
    with q.workflow("wide") as wf:
        for n in range(150):
            apps.number.options(delay=60).node(n)
    wf.enqueue(jobs.connection)
    [run] = queries.workflows(jobs.connection, "jobq", limit=1000)
    assert (run.nodes, run.counted_to, run.ended) == (150, 100, 0)
    [run] = queries.workflows(jobs.connection, "jobq", limit=50)
    assert run.counted_to is None
