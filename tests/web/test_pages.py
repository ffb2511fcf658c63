"""The pages of one queue, failures, operations and the system; charts, files and suggestions."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html import unescape

import pytest
from flask import Flask
from flask.testing import FlaskClient

from jobq import operations
from jobq._core.fingerprint import fingerprint
from jobq.cron import Cron
from jobq.filters import JobFilter
from jobq.schedule import Schedule
from jobq.web.auth import users
from tests.apps import workflows
from tests.support.rows import add_attempt, add_finished, add_job, add_worker
from tests.support.web import Conn, token, words
from tests.support.workflows.runs import end_node
from tests.web.test_access import held_run

ERROR = "ConnectionError: bank 7 did not answer"


def forms(html: str) -> list[str]:
    """Where the forms of a page that change something go."""
    return re.findall(r'<form[^>]* method="post"[^>]*action="([^"]+)"', html)


# --- Failures ---


def test_failures_by_group(client: FlaskClient, db: Conn) -> None:
    ids = [add_finished(db, "failed", task="pay", error=ERROR.replace("7", str(n)), queue="mail") for n in range(3)]
    add_finished(db, "failed", task="pay", error="KeyError: 'a'")
    add_attempt(db, ids[-1], message="no answer", traceback="Traceback: bank.py line 31")
    group = fingerprint("pay", ERROR)
    for path in ("/", "/failures"):
        text = client.get(path).text
        assert f'href="/failures/{group}"' in text
        assert "ConnectionError: bank 2 did not answer" in text
    text = client.get(f"/failures/{group}").text
    assert "3 failed" in words(text)
    assert "Traceback: bank.py line 31" in text
    assert all(f'href="/jobs/{id}"' in text for id in ids)
    assert f'name="q" value="task:pay failure:{group}"' in text
    assert "/operations/draft" in forms(text)


def test_from_a_failure_to_a_started_operation_without_javascript(client: FlaskClient, db: Conn) -> None:
    for n in range(3):
        add_finished(db, "failed", task="pay", error=ERROR.replace("7", str(n)), ago=5)
    text = client.get(f"/failures/{fingerprint('pay', ERROR)}").text
    form = re.search(r'<form method="post" action="/operations/draft">(.*?)</form>', text, re.S)
    assert form is not None
    fields = {name: unescape(value) for name, value in re.findall(r'name="(\w+)" value="([^"]*)"', form[1])}
    assert (fields["action"], set(fields)) == ("retry", {"csrf", "q", "action"})
    preview = client.post("/operations/draft", data=fields)
    assert preview.status_code == 303
    text = client.get(preview.location).text
    assert "Preview: 3 jobs match" in words(text)
    assert 'name="typed"' not in text
    (start,) = [action for action in forms(text) if action.endswith("/start")]
    started = client.post(start, data={"csrf": token(client, preview.location), "reason": "the bank is back"})
    assert started.status_code == 303
    assert "the bank is back" in client.get(started.location).text


@pytest.mark.parametrize(("group", "code"), [("0" * 12, 404), ("nosuch", 400), ("<script>", 400)])
def test_no_such_failure(client: FlaskClient, group: str, code: int) -> None:
    response = client.get(f"/failures/{group}")
    assert response.status_code == code
    assert "<script>" not in re.sub(r'<script src="[^"]+"( defer)?></script>', "", response.text)


# --- One queue ---


def test_one_queue(client: FlaskClient, db: Conn) -> None:
    for _ in range(3):
        add_job(db, queue="a/b c", task="mail.send", run_in=-1)
    add_worker(db, host="box-1", queues=["a/b c"])
    text = client.get("/queues/a/b%20c").text
    assert "mail.send" in text
    assert "box-1" in text
    assert "q=queue%3A%22a/b+c%22+state%3Aready" in text or "state:ready" in unescape(text)
    assert "/queues/pause?queue=a/b+c" in forms(text)
    assert client.get("/queues/nosuch").status_code == 404
    assert client.get("/queues/a/b%20c?hours=2").status_code == 400


def test_a_queue_that_nobody_serves_says_so(client: FlaskClient, db: Conn) -> None:
    add_job(db, queue="lonely")
    assert "No worker is alive: no live worker serves queue lonely (1 job due" in client.get("/queues/lonely").text


# --- Charts ---


def test_charts_and_their_table(client: FlaskClient, db: Conn) -> None:
    db.execute(
        "INSERT INTO jobq.rollup_queue (span, at, queue, succeeded, failed, ready) SELECT 60, date_trunc('minute', now())"
        " - n * interval '1 min', name, 40, 2, 7 FROM generate_series(1, 30) n, unnest(ARRAY['', 'mail']) name"
    )
    text = client.get("/").text
    assert 'class="f-good" d="M' in text
    assert "1,200 finished" in text
    assert text.count('<th scope="row" class="time">') == 60
    found = client.get("/series?hours=1&queue=mail").json
    assert found is not None
    assert len(found["at"]) == len(found["wait_p99"]) == 60
    assert sum(number or 0 for number in found["succeeded"]) == 1200
    assert len(client.get("/series?hours=168").json["at"]) == 168  # type: ignore[index]
    assert client.get("/series?hours=0").status_code == 400
    assert client.get("/series?queue=%00").status_code == 400


# --- Jobs ---


def test_the_whole_of_an_argument_is_a_file(client: FlaskClient, db: Conn) -> None:
    args = {"text": "x" * 200_000, "big": 12345678901234567890123, "password": "hunter2"}
    id = add_job(db, args=args)
    text = client.get(f"/jobs/{id}").text
    assert f'href="/jobs/{id}/args.json"' in text
    assert "The download has the whole value (200 kB)." in text
    response = client.get(f"/jobs/{id}/args.json")
    assert response.headers["Content-Disposition"] == f'attachment; filename="job-{id}-args.json"'
    assert json.loads(response.text) == args | {"password": "(hidden)"}
    assert client.get(f"/jobs/{id}/worker_id.json").status_code == 404
    assert client.get("/jobs/999999/args.json").status_code == 404


def test_jobs_as_lines(client: FlaskClient, db: Conn) -> None:
    ids = [add_finished(db, "failed", args={"n": n, "token": "t1"}) for n in range(3)]
    add_job(db)
    response = client.get("/jobs.ndjson?q=state:failed")
    found = [json.loads(line) for line in response.text.splitlines()]
    assert [row["id"] for row in found] == ids[::-1]
    assert found[0]["args"] == {"n": 2, "token": "(hidden)"}
    assert client.get("/jobs.ndjson?q=state:nosuch").status_code == 400


def test_no_more_than_two_exports_at_once(make_app: Callable[..., Flask], database_url: str, db: Conn) -> None:
    add_job(db)
    app = make_app(database_url)
    held = [app.test_client().get("/jobs.ndjson", buffered=False) for _ in range(2)]
    assert app.test_client().get("/jobs.ndjson").status_code == 503
    for response in held:
        response.close()
    assert app.test_client().get("/jobs.ndjson").status_code == 200


def test_suggestions(client: FlaskClient, db: Conn) -> None:
    add_job(db, queue="mail")
    assert "state:failed" in client.get("/suggest?q=state:fa").json["suggestions"]  # type: ignore[index]
    assert "queue:mail" in client.get("/suggest?q=queue:m&cursor=7").json["suggestions"]  # type: ignore[index]
    assert client.get("/suggest?q=" + "x" * 3000).status_code == 400
    assert client.get("/suggest?q=a&cursor=x").status_code == 200


def test_a_filter_that_is_wrong_stays_in_its_field(client: FlaskClient) -> None:
    response = client.get("/jobs?q=stat:failed+%22<b>")
    assert response.status_code == 400
    assert 'value="stat:failed &#34;&lt;b&gt;"' in response.text
    assert 'role="alert"' in response.text
    assert "<b>" not in response.text


def test_states_are_tabs_that_keep_the_filter(client: FlaskClient, db: Conn) -> None:
    add_finished(db, "failed", queue="mail")
    text = client.get("/jobs?q=queue:mail+state:failed").text
    assert re.search(r'href="/jobs\?q=state:cancelled\+queue:mail"', unescape(text).replace("%3A", ":"))
    assert re.search(r'aria-current="page"><span class="state failed">', text)
    assert "Change all that match…" in text
    assert "Change all that match…" not in client.get("/jobs").text


def test_why_it_waits_and_what_differs(client: FlaskClient, db: Conn) -> None:
    id = add_job(db, run_in=600, attempt=2, claims=2)
    for n in (1, 2):
        add_attempt(db, id, claims=n, attempt=n, message=f"boom {n}", traceback=f"Traceback\nValueError: boom {n}")
    text = client.get(f"/jobs/{id}").text
    assert "due in 10 min" in text
    assert '<span class="del">-ValueError: boom 1</span>' in text
    assert '<span class="add">+ValueError: boom 2</span>' in text


def test_the_log_of_an_attempt_is_folded_and_escaped(client: FlaskClient, db: Conn) -> None:
    id = add_job(db, attempt=2, claims=2)
    add_attempt(db, id, claims=1, attempt=1, log="first\n" + "x" * 60 + "\n" + "y" * 8_000)
    add_attempt(db, id, claims=2, attempt=2, log="<script>alert(1)</script>\n\u202e spelled out")
    text = client.get(f"/jobs/{id}").text
    newest, older = re.findall(r"<details class=\"fold log-of\">(.*?)</details>", text, re.DOTALL)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;\n\\u202e spelled out" in newest
    assert "… (67 earlier characters)\n" + "y" * 8_000 in older
    found = client.get(f"/api/jobs/{id}").get_json()
    assert found["attempts"][0]["log"].startswith("first\n")


# --- For whom ---


def test_a_viewer_is_offered_nothing_to_change(make_app: Callable[..., Flask], database_url: str, db: Conn) -> None:
    dead = add_finished(db, "failed", error=ERROR)
    add_worker(db)
    client = make_app(database_url, read_only=True).test_client()
    group = fingerprint("mail.send", ERROR)
    for path in ("/", "/queues", "/queues/default", "/jobs", f"/jobs/{dead}", f"/failures/{group}", "/workers"):
        text = client.get(path).text
        assert forms(text) == []
        assert "read-only" in text


def test_the_audit_offers_the_actions_that_are_written_there(client: FlaskClient, db: Conn) -> None:
    offered = re.findall(r'<option value="(\w+)">', client.get("/audit").text)
    worker, dead = add_worker(db), [add_finished(db, "failed") for _ in range(3)]
    for what in ("quiet", None, "stop"):
        operations.ask_worker(db, "jobq", worker, what, actor="ann")
    operations.retry(db, "jobq", dead[:1], actor="ann")
    operations.snooze(db, "jobq", dead[:1], seconds=60, actor="ann")
    operations.run_now(db, "jobq", dead[:1], actor="ann")
    operations.move(db, "jobq", dead[:1], priority=9, actor="ann")
    operations.cancel(db, "jobq", dead[:1], actor="ann")
    operations.delete(db, "jobq", dead[:1], actor="ann")
    operations.pause(db, "jobq", "default", actor="ann")
    operations.resume(db, "jobq", "default", actor="ann")
    operations.configure(db, "jobq", "default", groups="fair", actor="ann")
    operations.configure_group(db, "jobq", "default", "a", limit=1, actor="ann")
    ids = [
        operations.draft(db, "jobq", action="retry", filter=JobFilter.parse("state:failed"), actor="ann").id
        for _ in range(2)
    ]
    operations.cancel_operation(db, "jobq", ids[0], actor="ann")
    operations.start(db, "jobq", ids[1], reason="fixed", actor="ann")
    operations.pause_operation(db, "jobq", ids[1], actor="ann")
    operations.resume_operation(db, "jobq", ids[1], actor="ann")
    operations.run_operation(db, "jobq", ids[1])
    nightly = Schedule(name="nightly", task="t", when=Cron("30 2 * * *"))
    operations.set_schedule(db, "jobq", nightly, actor="ann")
    operations.pause_schedule(db, "jobq", "nightly", actor="ann")
    operations.resume_schedule(db, "jobq", "nightly", actor="ann")
    operations.run_schedule(db, "jobq", "nightly", actor="ann")
    operations.remove_schedule(db, "jobq", "nightly", actor="ann")
    with workflows.q.workflow("stopped") as wf:
        workflows.noop.options(delay=60).node()
    run = wf.enqueue(db).id
    operations.send_workflow_signal(db, "jobq", run, "approval", actor="ann")
    operations.cancel_workflow(db, "jobq", run, actor="ann")
    operations.retry_workflow(db, "jobq", run, actor="ann")
    run = held_run(db)
    operations.retry_workflow(db, "jobq", run, actor="ann")
    operations.cancel_workflow(db, "jobq", run, actor="ann")
    with workflows.q.workflow("unwanted") as wf:
        workflows.number.node(1).named("one").undo(workflows.take_back)
    run = wf.enqueue(db).id
    end_node(db, run, "one", result=1)
    operations.undo_workflow(db, "jobq", run, actor="ann")
    users.add(db, "jobq", "bob", "viewer", "correct horse", actor="ann")
    users.set_role(db, "jobq", "bob", "admin", actor="ann")
    users.set_password(db, "jobq", "bob", "another horse", actor="ann")
    users.remove(db, "jobq", "bob", actor="ann")
    written = {row[0] for row in db.execute("SELECT action FROM jobq.audit")}
    assert set(offered) - {"operation_failed"} == written


def test_the_audit_of_one_person_and_of_one_kind(client: FlaskClient, db: Conn) -> None:
    for actor, action in (("ann", "retry"), ("bob", "retry"), ("ann", "pause")):
        db.execute(
            "INSERT INTO jobq.audit (actor, action, target, reason, before, after) VALUES (%s, %s, '{\"ids\": [1]}', %s,"
            " '{\"priority\": 5}', '{\"priority\": 9}')",
            (actor, action, f"{actor} {action}"),
        )
    found = {
        query: set(re.findall("(?:ann|bob) (?:retry|pause)", client.get(f"/audit{query}").text))
        for query in ("", "?actor=ann", "?action=retry", "?actor=ann&action=retry", "?actor=nobody")
    }
    assert found[""] == {"ann retry", "bob retry", "ann pause"}
    assert found["?actor=ann"] == {"ann retry", "ann pause"}
    assert found["?action=retry"] == {"ann retry", "bob retry"}
    assert found["?actor=ann&action=retry"] == {"ann retry"}
    assert found["?actor=nobody"] == set()
    assert '{"priority": 5} → {"priority": 9}' in words(client.get("/audit").text)
    assert client.get("/audit?actor=%00").status_code == 400
