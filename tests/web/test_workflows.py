"""The pages of workflows: the list of runs, one run, and what operators do to it."""

from __future__ import annotations

import re
from collections.abc import Callable
from html import unescape
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.apps import workflows as apps
from tests.support.rows import add_finished
from tests.support.web import Conn, audit, token, words
from tests.support.workflows.runs import end_node, move_times, start_node
from tests.web.test_lists import MOST, shown

q = apps.q
ORDER = {"id": 3, "addresses": ["a", "b"], "total": 1.5, "gift": False}


@pytest.fixture(autouse=True)
def configured(database_url: str) -> None:
    q.configure(database_url=database_url)


def order(db: Conn, name: str = "order", **options: Any) -> int:
    """Insert a run: fetch, then charge and the map notify, then close."""
    with q.workflow(name, **options) as wf:
        first = apps.fetch.node(3)
        paid = apps.charge.node(first.result, currency="CHF")
        mails = apps.notify.map(first.result.addresses)
        apps.close.node(paid.outcome, mails.outcomes)
    return wf.enqueue(db).id


def blocked(db: Conn) -> int:
    """Insert a run whose first node has failed."""
    run = order(db, "blocked")
    end_node(db, run, "fetch", "failed", error="ValueError: no such order")
    return run


# --- The list ---


def test_the_list_tells_state_progress_failures_and_reason(client: FlaskClient, db: Conn) -> None:
    assert "No runs yet" in client.get("/workflows").text
    run, held = order(db, key="order-7"), blocked(db)
    end_node(db, run, "fetch", result=ORDER)
    text = client.get("/workflows").text
    assert shown(text) == [str(held), str(run)]
    assert f'href="/workflows/{run}"' in text
    assert '<progress max="4" value="1" aria-label="Nodes that have ended">' in text
    rows = [words(row) for row in re.findall(r'<tr id="workflow-.*?</tr>', text, re.DOTALL)]
    assert "blocked" in rows[0]
    assert "1 / 4" in rows[0]
    assert "A node has failed. The run waits until a user retries or cancels it." in rows[0]
    assert "order-7" in rows[1]
    assert "running" in rows[1]


def test_filters_of_the_list(client: FlaskClient, db: Conn) -> None:
    first, second, held = order(db), order(db, "other & more"), blocked(db)
    for query, expected in {
        "": [held, second, first],
        "?state=blocked": [held],
        "?state=running": [second, first],
        "?name=other+%26+more": [second],
        "?state=running&name=order": [first],
        "?state=succeeded": [],
        f"?before={second}": [first],
    }.items():
        assert shown(client.get(f"/workflows{query}").text) == [str(run) for run in expected], query
    text = client.get("/workflows?state=succeeded&name=order").text
    assert "No run matches." in text
    assert 'value="other &amp; more"' in text
    # The tabs keep the name.
    assert "/workflows?state=failed&name=order" in unescape(text)


def test_pages_of_the_list_have_each_run_once(client: FlaskClient, db: Conn) -> None:
    db.execute("INSERT INTO jobq.workflow (name, nodes) SELECT 'w', 1 FROM generate_series(1, 120)")
    found: list[str] = []
    at: str | None = "/workflows?name=w"
    while at:
        text = client.get(at).text
        assert len(text) < MOST
        found += shown(text)
        following = re.search(r'<a href="([^"]+)" rel="next">', text)
        at = unescape(following[1]) if following else None
    assert len(found) == len(set(found)) == 120
    assert found == sorted(found, key=int, reverse=True)


# --- One run ---


def test_one_run_and_its_nodes(client: FlaskClient, db: Conn) -> None:
    run = order(db, key="order-7", deadline=3600)
    end_node(db, run, "fetch", result=ORDER, started=100, ended=90)
    start_node(db, run, "charge", started=60)
    end_node(db, run, "notify", started=80, ended=70)
    move_times(db, run, 120)
    text = client.get(f"/workflows/{run}").text
    said = words(text)
    assert "1 / 4 nodes have ended" in said
    assert "order-7" in said
    assert "Deadline" in said
    assert "2 nodes: 70 s running, 50 s queued" in said
    # Each box leads to its row.
    assert set(re.findall(r'<a class="state [^"]*" href="([^"]+)">', text)) == {f"#node-{n}" for n in range(1, 5)}
    rows = {
        name: words(row)
        for name, row in re.findall(r'<tr id="node-\d+".*?dir="auto">(.*?)<(.*?)</tr>', text, re.DOTALL)
    }
    assert list(rows) == ["fetch", "charge", "notify", "close"]
    assert "critical path" in rows["fetch"]
    assert "20 s" in rows["fetch"]
    assert "10 s" in rows["fetch"]
    assert "1 of 2 items" in rows["notify"]
    assert "critical path" not in rows["notify"]
    assert "It waits for 'charge' (running) and 1 more." in rows["close"]
    job = db.execute("SELECT id FROM jobq.job_history WHERE task LIKE '%%fetch'").fetchone()
    assert job is not None
    assert f'<a href="/jobs/{job[0]}">' in text


def test_nodes_of_one_state(client: FlaskClient, db: Conn) -> None:
    run = blocked(db)
    text = client.get(f"/workflows/{run}?state=waiting").text
    assert len(re.findall('<tr id="node-', text)) == 3
    assert "No node is in this state." in client.get(f"/workflows/{run}?state=skipped").text
    assert "ValueError: no such order" in words(text)
    assert "The run is blocked until a user retries or cancels it." in words(text)


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/workflows/4711", 404), ("/workflows/99999999999999999999", 404), ("/workflows/x", 404), ("/workflows/-1", 404),
        ("/workflows?state=waiting", 400), ("/workflows?name=%00", 400), ("/workflows?name=" + "x" * 201, 400),
        ("/workflows?before=x", 400), ("/workflows?before=0", 400), ("/workflows/{run}?state=blocked", 400),
        ("/workflows/{run}?from=x", 400), ("/workflows/{run}?from=99", 200),
        ("/api/workflows/4711", 404), ("/api/workflows?state=x", 400), ("/api/workflows?limit=201", 400),
        ("/api/workflows/{run}?limit=0", 400),
    ],
)  # fmt: skip
def test_addresses_that_are_wrong(client: FlaskClient, db: Conn, path: str, code: int) -> None:
    response = client.get(path.format(run=order(db)))
    assert response.status_code == code
    if path.startswith("/api") and code != 200:
        assert response.get_json()["status"] == code


def test_a_job_names_its_run_and_node(client: FlaskClient, db: Conn) -> None:
    run = order(db)
    first = end_node(db, run, "fetch", result=ORDER)
    item = start_node(db, run, "notify", item=1, started=5)
    text = client.get(f"/jobs/{first}").text
    assert f'<a href="/workflows/{run}">run {run} of ' in text
    assert f'href="/workflows/{run}?from=1#node-1"' in text
    assert "notify, item 1" in words(client.get(f"/jobs/{item}").text)
    assert "Workflow</dt>" not in client.get(f"/jobs/{add_finished(db, 'failed')}").text


def test_names_are_escaped_everywhere(client: FlaskClient, db: Conn) -> None:
    script = "<script>alert(1)</script>\u202e"
    run = order(db, script, key=script)
    end_node(db, run, "fetch", "failed", error=script)
    db.execute("UPDATE jobq.workflow_node SET name = %s || number", (script,))
    db.execute("UPDATE jobq.workflow SET reason = %s", (script,))
    for path in ("/workflows", f"/workflows/{run}"):
        text = client.get(path).text
        assert "<script>alert" not in text
        assert "\u202e" not in re.sub(r'href="[^"]*"|value="[^"]*"', "", text)
        assert "\\u202e" in text


# --- JSON ---


def test_json(client: FlaskClient, db: Conn) -> None:
    first, second = order(db), order(db, "other")
    listed = client.get("/api/workflows?limit=1").get_json()
    assert [run["id"] for run in listed["workflows"]] == [second]
    following = client.get(f"/api/workflows?limit=1&before={listed['before_id']}").get_json()
    assert [run["id"] for run in following["workflows"]] == [first]
    assert client.get("/api/workflows?name=other&state=running").get_json()["workflows"][0]["nodes"] == 4
    found = client.get(f"/api/workflows/{first}?limit=3").get_json()
    assert found["run"]["state"] == "running"
    assert found["left_out"] == 1
    assert [(node["name"], node["parents"]) for node in found["nodes"]] == [
        ("fetch", []),
        ("charge", [1]),
        ("notify", [1]),
    ]


# --- Changes ---


def test_a_run_is_cancelled_and_retried(client: FlaskClient, db: Conn) -> None:
    run = order(db)
    forms = re.findall(r'action="(/workflows/[^"]+)"', client.get(f"/workflows/{run}").text)
    assert forms == [f"/workflows/{run}/retry", f"/workflows/{run}/cancel"]
    forms.reverse()
    form = {"csrf": token(client, f"/workflows/{run}"), "reason": "not wanted"}
    response = client.post(forms[0], data=form)
    assert response.status_code == 303
    text = client.get(response.location).text
    assert "The run is cancelled. Its running jobs are asked to stop." in text
    assert "cancelled by web: not wanted" in words(text)
    assert "Nothing changed: the run has ended." in client.post(forms[0], data=form, follow_redirects=True).text
    retry = f"/workflows/{run}/retry"
    assert re.findall(r'action="(/workflows/[^"]+)"', text) == [retry]
    said = client.post(retry, data=form, follow_redirects=True).text
    assert "The run goes on. Jobs that are due again: 1." in said
    assert audit(db) == [("web", "cancel_workflow"), ("web", "retry_workflow")]
    log = client.get("/audit").text
    assert f'<a href="/workflows/{run}">workflow run {run}</a>' in log
    assert "not wanted" in log
    assert client.post("/workflows/4711/cancel", data=form).status_code == 404
    assert client.post("/workflows/4711/retry", data=form).status_code == 404


def test_a_run_that_has_succeeded_is_undone(client: FlaskClient, db: Conn) -> None:
    with q.workflow("once") as wf:
        apps.number.node(1).named("one").undo(apps.take_back)
    run = wf.enqueue(db).id
    at = f"/workflows/{run}/undo"
    form = {"csrf": token(client, f"/workflows/{run}"), "reason": "sold twice"}
    assert at not in client.get(f"/workflows/{run}").text
    refused = unescape(client.post(at, data=form, follow_redirects=True).text)
    assert "Nothing changed: it has not ended: cancel it" in refused
    end_node(db, run, "one", result=1)
    assert f'action="{at}"' in client.get(f"/workflows/{run}").text
    text = client.post(at, data=form, follow_redirects=True).text
    assert f"Run {run + 1} undoes this one." in text
    assert f'action="{at}"' not in text
    assert f'<dt>Undone by</dt><dd><a href="/workflows/{run + 1}">' in text
    assert f'<dt>Undoes</dt><dd><a href="/workflows/{run}">' in client.get(f"/workflows/{run + 1}").text
    assert audit(db) == [("web", "undo_workflow")]


def test_a_run_is_retried_from_a_node_on(client: FlaskClient, db: Conn) -> None:
    run = order(db)
    end_node(db, run, "fetch", result=ORDER)
    end_node(db, run, "charge", result="1 CHF")
    at = f"/workflows/{run}/retry"
    form = {"csrf": token(client, f"/workflows/{run}"), "reason": "wrong rates", "what": "from", "node": "charge"}
    page = client.get(f"/workflows/{run}").text
    assert re.findall('<option value="(failed|from|all)">', page) == ["from", "all"]
    said = client.post(at, data=form, follow_redirects=True).text
    assert "The run goes on. Nodes that run again: 2." in said
    start_node(db, run, "charge", started=1)
    refused = unescape(client.post(at, data=form | {"what": "all"}, follow_redirects=True).text)
    assert "Nothing changed: node 'charge' is running: job" in refused
    assert client.post(at, data=form | {"node": " "}).status_code == 400
    assert client.post(at, data=form | {"what": "some"}).status_code == 400
    assert audit(db) == [("web", "retry_workflow")]
    end_node(db, run, "charge", "failed")
    text = client.get(f"/workflows/{run}").text
    assert re.findall('<option value="(failed|from|all)">', text) == ["failed", "from", "all"]
    assert (
        "The run goes on. Nodes that run again: 4."
        in client.post(at, data=form | {"what": "all"}, follow_redirects=True).text
    )


def test_jobs_that_are_locked_do_not_undo_the_rest(
    client: FlaskClient, db: Conn, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import psycopg

    from jobq.operations import workflows as operations

    monkeypatch.setattr(operations, "_TRIES", 2)
    with q.workflow("two") as wf:
        apps.number.node(1).named("locked")
        apps.number.node(2).named("free")
    run = wf.enqueue(db).id
    form = {"csrf": token(client, f"/workflows/{run}")}
    with psycopg.connect(database_url) as other:
        other.execute("SELECT FROM jobq.job WHERE args = '{\"value\": 1}' FOR UPDATE")
        said = client.post(f"/workflows/{run}/cancel", data=form, follow_redirects=True).text
    assert "Some of the run&#39;s jobs are locked by others and unchanged." in said
    assert "is being cancelled" in said
    assert db.execute("SELECT args ->> 'value' FROM jobq.job").fetchall() == [("1",)]
    assert "The run is cancelled." in client.post(f"/workflows/{run}/cancel", data=form, follow_redirects=True).text
    assert db.execute("SELECT state FROM jobq.workflow").fetchone() == ("cancelled",)


def test_a_viewer_is_offered_no_change(make_app: Callable[..., Flask], database_url: str, db: Conn) -> None:
    run = blocked(db)
    for options in ({"read_only": True}, {"default_role": "viewer"}):
        text = make_app(database_url, **options).test_client().get(f"/workflows/{run}").text
        assert "blocked" in text
        assert 'method="post"' not in text


# --- Bounds ---


def test_a_run_of_5000_nodes_is_a_small_page(client: FlaskClient, db: Conn) -> None:
    with q.workflow("large") as wf:
        for part in range(500):
            with wf.part(f"a part with a name that is rather long, number {part:03}"):
                before = apps.number.node(part)
                for _ in range(9):
                    before = apps.add.node(before.result, 1)
    run = wf.enqueue(db).id
    response = client.get(f"/workflows/{run}")
    assert response.status_code == 200
    assert len(response.data) < MOST
    assert len(re.findall('<a class="state ready part', response.text)) == 500
    assert "parts as one box each" in response.text
    assert "1 to 50 of 5,000 nodes" in words(response.text)
    # The box of a part leads to the page of its first node.
    assert 'href="?from=4951#node-4991"' in response.text
    last = client.get(f"/workflows/{run}?from=4951").text
    assert '<tr id="node-4991"' in last
    assert 'href="#node-4991"' in last
    following = re.search(r'<a href="([^"]+)" rel="prev">', last)
    assert following is not None
    assert f"/workflows/{run}?from=4901#nodes" == following[1]


def test_the_worst_names_fit(client: FlaskClient, db: Conn) -> None:
    with q.workflow("n" * 200, key="k" * 500) as wf:
        nodes: list[Any] = []
        for n in range(501):
            nodes.append(apps.noop.node().named("文" * 190 + str(n)).after(*nodes[-9::2]))
    run = wf.enqueue(db).id
    response = client.get(f"/workflows/{run}")
    assert len(response.data) < MOST
    assert "1 of them are only in the table" in response.text
