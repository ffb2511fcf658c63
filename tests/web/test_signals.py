"""The page of a durable job: its steps and signals, and the forms that send one."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from html import unescape
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from jobq import operations
from jobq.testing import JobqTester
from tests.apps import approvals as apps
from tests.support.web import Conn, audit, token, words

q = apps.q
ANSWER = 'class="answer"'


@pytest.fixture(autouse=True)
def tester(database_url: str) -> Iterator[JobqTester]:
    q.configure(database_url=database_url)
    with JobqTester(q, database_url) as made:
        yield made
    q.close()


def rows(html: str, name: str) -> list[str]:
    """The rows of a table, as words."""
    return [words(row) for row in re.findall(rf'<tr id="{name}-\d+".*?</tr>', html, re.DOTALL)]


def test_steps_and_signals_of_a_job(client: FlaskClient, db: Conn, tester: JobqTester) -> None:
    job = apps.order.enqueue(db, 7).id
    assert 'id="steps"' not in client.get(f"/jobs/{job}").text
    tester.drain()
    text = client.get(f"/jobs/{job}").text
    first, second, third = rows(text, "step")
    assert "reserve" in first
    assert '{"order": 7}' in first
    assert '{"items": 3, "order": 7}' in first
    assert "done" in first
    # Secrets of arguments and of results are hidden.
    assert second.count("(hidden)") == 2
    assert "tok-4711" not in text
    assert "approval signal" in third
    assert "waiting" in third
    assert "no time limit" in third
    assert "It waits for the signal 'approval', without a time limit." in words(text)
    assert text.count('<rect class="succeeded"') == 2
    assert 'id="signals"' not in text
    operations.send_signal(db, "jobq", job, "refund", {"a token": "tok-1", "amount": 3}, actor="ann")
    [signal] = rows(client.get(f"/jobs/{job}").text, "signal")
    assert "refund unread" in signal
    assert "by ann" in signal
    assert '{"amount": 3, "a token": "(hidden)"}' in signal


def test_one_click_sends_the_signal_that_is_waited_for(client: FlaskClient, db: Conn, tester: JobqTester) -> None:
    job = apps.order.enqueue(db, 7).id
    tester.drain()
    text = client.get(f"/jobs/{job}").text
    form = text[text.index(ANSWER) :]
    assert 'name="name" value="approval"' in form
    assert "Send 'approval'" in unescape(form)
    data = {"csrf": token(client), "name": "approval", "payload": '{"by": "ada"}', "reason": "agreed"}
    assert client.post(f"/jobs/{job}/signal", data=data).status_code == 303
    row = db.execute("SELECT action, reason, target, after, actor FROM jobq.audit").fetchone()
    signal = db.execute("SELECT id, name, payload, sent_by FROM jobq.job_signal WHERE job_id = %s", (job,)).fetchone()
    assert row is not None
    assert signal is not None
    assert row[:4] == ("send_signal", "agreed", {"ids": [job]}, {"signal": signal[0], "name": "approval"})
    assert signal[1:] == ("approval", {"by": "ada"}, row[4])
    text = client.get(f"/jobs/{job}").text
    assert ANSWER not in text
    assert "It is about to be woken" in words(text)
    tester.drain()
    text = client.get(f"/jobs/{job}").text
    assert ANSWER not in text
    assert f"signal {signal[0]} by {row[4]}" in rows(text, "step")[2]
    assert "approval read" in rows(text, "signal")[0]
    # Finished: nothing is sent.
    response = client.post(f"/jobs/{job}/signal", data=data, follow_redirects=True)
    assert "Nothing was sent: the job has finished." in words(response.text)
    assert audit(db) == [(row[4], "send_signal")]


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"name": "approval", "payload": "yes"}, "payload: not valid JSON"),
        ({"name": "approval", "payload": '"\\u0000"'}, "cannot be stored"),
        ({"name": "approval", "payload": "NaN"}, "cannot be stored"),
        ({"name": " "}, "name: expected the name of the signal"),
        ({"name": "x" * 201}, "Name of 201 characters"),
    ],
)
def test_what_cannot_be_sent(client: FlaskClient, db: Conn, form: dict[str, str], said: str) -> None:
    job = apps.order.enqueue(db, 7).id
    response = client.post(f"/jobs/{job}/signal", data={"csrf": token(client), **form})
    assert response.status_code == 400
    assert said in words(response.text)
    assert audit(db) == []
    assert db.execute("SELECT count(*) FROM jobq.job_signal").fetchone() == (0,)


def test_unknown_targets(client: FlaskClient, db: Conn) -> None:
    apps.order.enqueue(db, 7)
    data = {"csrf": token(client), "name": "approval"}
    assert client.post("/jobs/4711/signal", data=data).status_code == 404
    assert client.post("/workflows/4711/signal", data=data).status_code == 404
    assert audit(db) == []


def test_a_run_takes_signals(client: FlaskClient, db: Conn, tester: JobqTester) -> None:
    with q.workflow("orders") as wf:
        apps.order.node(1).named("one")
        apps.order.node(2).named("two")
    run = wf.enqueue(db).id
    assert ANSWER not in client.get(f"/workflows/{run}").text
    tester.drain()
    text = client.get(f"/workflows/{run}").text
    assert "2 jobs wait for the signal 'approval'. One signal to the run is for one of them." in words(text)
    assert ANSWER in text
    data = {"csrf": token(client), "name": "approval", "payload": '{"by": "ada"}'}
    assert client.post(f"/workflows/{run}/signal", data=data).status_code == 303
    assert db.execute("SELECT action, target FROM jobq.audit").fetchall() == [("send_signal", {"workflow": run})]
    tester.drain()
    text = client.get(f"/workflows/{run}").text
    [row] = rows(text, "signal")
    assert "approval read" in row
    assert re.search(r"by job \d+", row)
    assert re.search(r"(one|two) waits for the signal 'approval'\.", words(text))
    client.post(f"/workflows/{run}/signal", data=data)
    tester.drain()
    response = client.post(f"/workflows/{run}/signal", data=data, follow_redirects=True)
    assert "Nothing was sent: the run has finished." in words(response.text)


def test_children_and_parents_are_linked(client: FlaskClient, db: Conn, tester: JobqTester) -> None:
    job = apps.parent.enqueue(db, 20)
    tester.run(job)
    text = client.get(f"/jobs/{job.id}").text
    child = re.search(r'<a href="/jobs/(\d+)">job \d+</a>', text)
    assert child is not None
    assert f'<dd><a href="/jobs/{job.id}">job {job.id}</a></dd>' in client.get(f"/jobs/{child[1]}").text
    run = db.execute("SELECT id FROM jobq.workflow WHERE parent_job_id = %s", (job.id,)).fetchone()
    assert run is not None
    assert f'<dd><a href="/jobs/{job.id}">job {job.id}</a></dd>' in client.get(f"/workflows/{run[0]}").text


def test_a_step_that_is_tried_again_and_one_that_did_not_end(client: FlaskClient, db: Conn, tester: JobqTester) -> None:
    job = apps.persistent.enqueue(db, 3)
    tester.run(job)
    [row] = rows(client.get(f"/jobs/{job.id}").text, "step")
    assert "retrying" in row
    assert "next try" in row
    assert "ConnectionError: the bank is away, order 3" in row
    operations.cancel(db, "jobq", [job.id], actor="ann")
    [row] = rows(client.get(f"/jobs/{job.id}").text, "step")
    assert "unfinished" in row


def test_shortened_arguments_hide_secrets(
    db: Conn, tester: JobqTester, make_app: Callable[..., Flask], database_url: str
) -> None:
    job = apps.wordy.enqueue(db, "my password is " + "x" * 2000)
    tester.drain()
    for options, hidden in [({}, True), ({"reveal_to": "viewer"}, False)]:
        client = make_app(database_url, **options).test_client()
        text = words(client.get(f"/jobs/{job.id}").text)
        assert ("password" not in text.split("Arguments")[0]) is hidden
        read = client.get(f"/api/jobs/{job.id}/steps").get_json()
        assert (read["steps"][0]["shortened_args"] == "(hidden)") is hidden


def test_a_path_of_payloads_hides_the_result_of_a_wait(
    db: Conn, tester: JobqTester, make_app: Callable[..., Flask], database_url: str
) -> None:
    job = apps.order.enqueue(db, 7).id
    operations.send_signal(db, "jobq", job, "approval", {"by": "ada", "limit": 3}, actor="ann")
    tester.drain()
    for path, result, items in [("payload.by", {"by": "(hidden)", "limit": 3}, 3), ("result.items", None, "(hidden)")]:
        client = make_app(database_url, redact=[path]).test_client()
        steps = client.get(f"/api/jobs/{job}/steps").get_json()["steps"]
        assert steps[2]["result"] == (result or {"by": "ada", "limit": 3})
        assert steps[0]["result"] == {"order": 7, "items": items}


def test_the_name_of_a_function_that_undoes_is_no_secret(
    db: Conn, tester: JobqTester, make_app: Callable[..., Flask], database_url: str
) -> None:
    job = apps.refused.enqueue(db, 7).id
    tester.drain()
    for options in [{}, {"redact": ["args.card.number"]}]:
        client = make_app(database_url, **options).test_client()
        assert any("revoke_token" in row for row in rows(client.get(f"/jobs/{job}").text, "step"))
        steps = client.get(f"/api/jobs/{job}/steps").get_json()["steps"]
        undone = [step["shortened_args"] for step in steps if step["kind"] == "undo" and step["name"]]
        assert undone == ["revoke_token"]


def test_the_json_has_steps_waits_and_signals(client: FlaskClient, db: Conn, tester: JobqTester) -> None:
    job = apps.order.enqueue(db, 7).id
    tester.drain()
    operations.send_signal(db, "jobq", job, "other", {"token": "tok-2"}, actor="ann")
    response = client.get(f"/api/jobs/{job}/steps")
    assert "tok-" not in response.text
    found: dict[str, Any] = json.loads(response.text)
    assert [step["name"] for step in found["steps"]] == ["reserve", "pay", "approval"]
    assert found["steps"][1]["args"] == {"order": 7, "card_token": "(hidden)"}
    assert [wait["name"] for wait in found["waits"]] == ["approval"]
    assert [(signal["name"], signal["payload"]) for signal in found["signals"]] == [("other", {"token": "(hidden)"})]
    assert found["left_out"] == 0
    assert len(client.get(f"/api/jobs/{job}/steps?limit=1").get_json()["steps"]) == 1
    assert client.get("/api/jobs/4711/steps").status_code == 404


def test_a_viewer_reads_and_cannot_send(
    db: Conn, tester: JobqTester, make_app: Callable[..., Flask], database_url: str
) -> None:
    job = apps.order.enqueue(db, 7).id
    tester.drain()
    client = make_app(database_url, default_role="viewer").test_client()
    text = client.get(f"/jobs/{job}").text
    assert len(rows(text, "step")) == 3
    assert ANSWER not in text
    assert "Send signal" not in text


def test_many_steps(client: FlaskClient, db: Conn) -> None:
    row = db.execute(
        "INSERT INTO jobq.job (task, queue, args, claims) VALUES ('long', 'default', '{}', 1) RETURNING id"
    ).fetchone()
    assert row is not None
    db.execute(
        "INSERT INTO jobq.job_step (job_id, kind, name, args_hash, number, place, state, attempt, started_at, finished_at, "
        "result) SELECT %s, 'run', 'step', n::text, 0, n, 'done', 1, now(), now(), to_jsonb(n) "
        "FROM generate_series(1, 1000) AS n",
        row,
    )
    text = client.get(f"/jobs/{row[0]}").text
    assert len(rows(text, "step")) == 50
    assert "Only the newest 50 of 1,000 steps are listed." in words(text)
    assert len(text) < 100_000
