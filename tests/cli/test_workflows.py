"""``jobq workflows``: lists, one run as a tree, why it waits, cancel, retry, and the graph as text."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result

from jobq import operations
from jobq.cli import main
from tests.apps import workflows as apps
from tests.support.jobs import Jobs
from tests.support.waiting import wait_until
from tests.support.workers import WorkerProcess
from tests.support.workflows.runs import end_node, start_node

q = apps.q
Run = Callable[..., Result]


@pytest.fixture
def run(database_url: str) -> Run:
    q.configure(database_url=database_url)

    def call(*arguments: object, answer: str | None = None, code: int = 0, group: str = "workflows") -> Result:
        environment = {"JOBQ_DATABASE_URL": database_url, "JOBQ_ACTOR": "ann"}
        result = CliRunner().invoke(main, [group, *map(str, arguments)], input=answer, env=environment)
        assert result.exit_code == code, result.output
        return result

    return call


def read(result: Result) -> Any:
    return json.loads(result.stdout)


def insert(jobs: Jobs, name: str = "order") -> int:
    with q.workflow(name, key=f"{name}-1") as wf:
        order = apps.fetch.node(3)
        paid = apps.charge.node(order.result, currency="CHF")
        with wf.part("mail"):
            mails = apps.notify.map(order.result.addresses)
        apps.close.node(paid.outcome, mails.outcomes)
        apps.noop.node().when(order.result.gift)
    return wf.enqueue(jobs.connection, order).id


def test_list(run: Run, jobs: Jobs) -> None:
    assert "no runs of workflows" in run("list").stderr
    first, second = insert(jobs), insert(jobs, "nightly")
    shown = run("list").stdout
    for text in ("order", "nightly", "running", "0 of 5", "order-1"):
        assert text in shown
    assert [each["id"] for each in read(run("list", "--json"))["workflows"]] == [second, first]
    assert [each["id"] for each in read(run("list", "--name", "order", "--json"))["workflows"]] == [first]
    assert read(run("list", "--state", "blocked", "--json")) == {"workflows": [], "next_before": None}
    page = run("list", "--limit", "1")
    assert f"perhaps more runs: --before {second}" in page.stderr
    assert [each["id"] for each in read(run("list", "--before", second, "--json"))["workflows"]] == [first]


def test_show_draws_the_nodes_as_a_tree(run: Run, jobs: Jobs) -> None:
    id = insert(jobs)
    shown = run("show", id).stdout
    rows = [line.split("  ")[1:2] for line in shown.splitlines()]
    assert "workflow    order" in shown
    names = [line.rstrip() for row in rows for line in row]
    assert any("├─ charge" in line for line in names)
    assert "├─ mail/notify" in shown
    assert "└─ noop" in shown
    # It stands below the last of its parents, whose only child it is: without one more indentation.
    assert "│  close" in shown
    assert "It waits for 'fetch' (ready)." in shown
    found = read(run("show", id, "--json"))
    assert [node["parents"] for node in found["nodes"]] == [[], [1], [1], [2, 3], [1]]
    assert found["workflow"]["key"] == "order-1"
    cut = run("show", id, "--limit", "2")
    assert "3 more nodes: --limit 5" in cut.stderr
    assert "workflow run 99" in run("show", 99, code=64).stderr


def test_why(run: Run, jobs: Jobs) -> None:
    id = insert(jobs)
    said = run("why", id).stdout
    assert said == f"run {id} of workflow order is running\nfetch: No worker is alive: start one with `jobq worker`.\n"
    assert run("why", id, "charge").stdout == "charge: It waits for 'fetch' (ready).\n"
    assert run("why", id, "1").stdout == "fetch: No worker is alive: start one with `jobq worker`.\n"
    assert read(run("why", id, "noop", "--json"))["nodes"] == [
        {
            "node": "noop",
            "state": "waiting",
            "why": "Its condition fetch.result.gift is not known yet: 'fetch' is ready.",
        }
    ]
    assert "has no node 'nosuch'" in run("why", id, "nosuch", code=64).stderr


def test_a_job_says_which_node_it_is(run: Run, jobs: Jobs) -> None:
    id = insert(jobs)
    node = jobs.one("SELECT id FROM jobq.job")
    shown = run("show", node, group="jobs").stdout
    assert f"node 'fetch' of workflow run {id} 'order'" in shown
    found = read(run("show", node, "--json", group="jobs"))
    assert found["workflow"] == {
        "id": id,
        "name": "order",
        "node": "fetch",
        "number": 1,
        "item": None,
        "parent_job_id": None,
    }
    with q.workflow("items") as wf:
        apps.number.map([7, 8])
    wf.enqueue(jobs.connection)
    last = jobs.one("SELECT max(id) FROM jobq.job")
    assert "node 'number', item 1, of workflow run" in run("show", last, group="jobs").stdout
    plain = apps.noop.enqueue(jobs.connection)
    assert read(run("show", plain.id, "--json", group="jobs"))["workflow"] is None
    operations.cancel(jobs.connection, "jobq", [node], actor="ann")
    assert f"workflow run {id} 'order'" in run("show", node, group="jobs").stdout


def test_cancel_and_retry_ask_first(run: Run, jobs: Jobs) -> None:
    id = insert(jobs)
    said = run("cancel", id, "--reason", "wrong", answer="n\n", code=1)
    assert f"Cancel run {id} of workflow order, running, 0 of 5 nodes ended?" in said.stderr
    assert jobs.one("SELECT count(*) FROM jobq.job") == 1
    said = run("cancel", id, "--reason", "wrong", answer="y\n")
    assert f"run {id} is cancelled: 1 job cancelled or asked to stop" in said.stdout
    shown = read(run("show", id, "--json"))["workflow"]
    assert (shown["state"], shown["reason"]) == ("cancelled", "cancelled by ann: wrong")
    assert "has ended already" in run("cancel", id, "--yes", code=1).stderr
    assert read(run("retry", id, "--yes", "--json")) == {"workflow": id, "done": True, "jobs": 1, "refused": []}
    assert read(run("show", id, "--json"))["workflow"]["state"] == "running"
    rows = jobs.all("SELECT actor, action, reason FROM jobq.audit ORDER BY id")
    assert [(row["actor"], row["action"], row["reason"]) for row in rows] == [
        ("ann", "cancel_workflow", "wrong"),
        ("ann", "retry_workflow", None),
    ]


def test_a_blocked_run(run: Run, jobs: Jobs, worker: Callable[..., WorkerProcess], tmp_path: Path) -> None:
    worker("--processes", "1", app="tests.apps.workflows:q")
    broken = tmp_path / "broken"
    broken.touch()
    with q.workflow("held") as wf:
        bad = apps.maybe.node(1, str(broken)).named("bad")
        end = apps.add.node(bad.result, 5)
    ref = wf.enqueue(jobs.connection, end)
    wait_until(lambda: read(run("list", "--state", "blocked", "--json"))["workflows"], what="the failure")
    said = run("why", ref.id).stdout
    assert said.startswith(f"run {ref.id} of workflow held is blocked: node 'bad' failed: broken\n")
    assert "add: It waits for 'bad', which failed " in said
    assert run("why", ref.id, "bad").stdout == "bad: It has ended: failed (broken).\n"
    broken.unlink()
    assert f"run {ref.id} goes on: 1 job put back" in run("retry", ref.id, "--yes").stdout
    assert ref.result(timeout=30) == 6
    assert f"run {ref.id} has succeeded; nothing was changed" in run("retry", ref.id, "--yes", code=1).stderr


def test_undo_of_a_run_that_has_succeeded(run: Run, jobs: Jobs, database_url: str) -> None:
    db = psycopg.connect(database_url, autocommit=True)
    with q.workflow("sum") as wf:
        one = apps.number.node(1).named("one").undo(apps.take_back)
    ref = wf.enqueue(jobs.connection, one)
    assert f"run {ref.id} cannot be undone; nothing was changed" in run("undo", ref.id, "--yes", code=1).stderr
    end_node(db, ref.id, "one", result=1)
    said = run("undo", ref.id, answer="y\n")
    assert f"Undo run {ref.id} of workflow sum, succeeded, 1 of 1 nodes ended?" in said.stderr
    assert f"run {ref.id} is being undone by run {ref.id + 1}" in said.stdout
    shown = " ".join(run("show", ref.id).stdout.split())
    assert f"undone by run {ref.id + 1}" in shown
    shown = " ".join(run("show", ref.id + 1).stdout.split())
    assert f"run {ref.id + 1} workflow sum (undo) undoes run {ref.id}" in shown
    told = read(run("undo", ref.id, "--yes", "--json", code=1))
    assert (told["done"], told["undo_run"], len(told["refused"])) == (False, None, 1)
    assert f"run {ref.id + 1} undoes the nodes" in run("retry", ref.id, "--from", "1", "--yes", code=1).stderr


def test_retry_from_a_node_and_of_all(run: Run, jobs: Jobs, database_url: str) -> None:
    db = psycopg.connect(database_url, autocommit=True)
    with q.workflow("sum") as wf:
        one = apps.number.node(1).named("one")
        two = apps.add.node(one.result, 1).named("two")
    ref = wf.enqueue(jobs.connection, two)
    end_node(db, ref.id, "one", result=1)
    end_node(db, ref.id, "two", result=2)
    assert ref.result(timeout=0) == 2
    said = run("retry", ref.id, "--from", "two", answer="y\n")
    assert f"Retry run {ref.id} of workflow sum, succeeded, 2 of 2 nodes ended, from node two on?" in said.stderr
    assert f"run {ref.id} goes on: 1 node to run again" in said.stdout
    end_node(db, ref.id, "two", result=3)
    assert ref.result(timeout=0) == 3
    told = read(run("retry", ref.id, "--all", "--yes", "--json"))
    assert told == {"workflow": ref.id, "done": True, "jobs": 0, "refused": [], "nodes": 2}
    start_node(db, ref.id, "one", started=1)
    refused = run("retry", ref.id, "--from", "1", "--yes", code=1)
    assert f"run {ref.id} cannot be retried like this now; nothing was changed" in refused.stderr
    assert "node 'one' is running: job" in refused.stderr
    assert "no node of this name" in run("retry", ref.id, "--from", "x", "--yes", code=1).stderr
    assert "pass one of" in run("retry", ref.id, "--from", "x", "--all", code=64).stderr
    rows = jobs.all("SELECT target, after FROM jobq.audit ORDER BY id")
    assert rows == [
        {"target": {"workflow": ref.id, "from": "two"}, "after": {"nodes": 1}},
        {"target": {"workflow": ref.id}, "after": {"nodes": 2}},
    ]
    db.close()


def test_export(run: Run, jobs: Jobs) -> None:
    id = insert(jobs)
    dot = run("export", id).stdout
    assert dot == run("export", id, "--dot").stdout
    assert dot.startswith(f'digraph "order {id}" {{')
    assert 'n1 [label="fetch\\nready"' in dot
    assert 'subgraph "cluster mail" { label="mail";' in dot
    assert "n1 -> n2;" in dot
    assert "n2 -> n4 [style=dashed];" in dot
    mermaid = run("export", id, "--mermaid").stdout
    assert mermaid.startswith("flowchart LR\n")
    assert 'n3[["mail/notify × ?<br/>waiting"]]:::waiting' in mermaid
    assert "n3 -.-> n4" in mermaid
    assert len(read(run("export", id, "--json"))["nodes"]) == 5
    assert "pass one of" in run("export", id, "--dot", "--mermaid", code=64).stderr


def test_a_long_chain_stays_narrow(run: Run, jobs: Jobs) -> None:
    with q.workflow("chain") as wf:
        last = apps.number.node(0)
        for n in range(1, 300):
            last = apps.add.node(last.result, n)
    id = wf.enqueue(jobs.connection, last).id
    lines = run("show", id, "--limit", "300").stdout.splitlines()
    assert len([line for line in lines if "waiting" in line]) == 299
    assert max(map(len, lines)) < 200


def test_names_cannot_forge_lines(run: Run, jobs: Jobs) -> None:
    with q.workflow('a"b\n]') as wf:
        apps.noop.node().named('x"\ny')
    id = wf.enqueue(jobs.connection).id
    assert 'label="x\\"\\ny\\nready"' in run("export", id).stdout
    assert "x&quot;<br/>y<br/>ready" in run("export", id, "--mermaid").stdout
    assert 'x"\\ny' in run("show", id).stdout
