"""What the status page shows, through Flask's test client, on a real database."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

import pytest
from flask import Flask
from flask.testing import FlaskClient

from jobq import migrate, operations
from jobq.filters import JobFilter
from tests.support.checks import some
from tests.support.rows import add_attempt, add_finished, add_job, add_worker
from tests.support.web import PAGES, Conn

HOSTILE = '<script>alert(1)</script>"><img src=x onerror=alert(2)>'

# --- Showing ---


@pytest.mark.parametrize("path", PAGES)
def test_pages_of_an_empty_database(client: FlaskClient, path: str) -> None:
    response = client.get(path)
    assert response.status_code == 200
    assert response.text.count("<main") == response.text.count("</main>") == 1


def test_overview_tells_what_is_wrong(client: FlaskClient, db: Conn) -> None:
    assert "no worker is running" in client.get("/").text
    add_job(db, queue="mail", run_in=-300)
    add_finished(db, "failed", error="smtp down")
    add_worker(db, ago=100)
    operations.pause(db, "jobq", "default", actor="ann", reason="full disk")
    text = client.get("/").text
    assert "No worker is alive: no live worker serves queue mail (1 job due, the oldest for 5 min)." in text
    assert "Worker box:4242 sent no heartbeat for 1 min 40 s." in text
    assert "Queue default is paused by ann (full disk); no job is due in it." in text
    assert "1 job has failed permanently in the last 24 hours." in text
    assert "smtp down" in text
    add_worker(db)
    assert "No worker is alive" not in client.get("/").text


def test_overview_when_all_is_well(client: FlaskClient, db: Conn) -> None:
    add_worker(db, tasks=["mail.send"])
    add_finished(db, "succeeded", ago=200)
    text = client.get("/").text
    assert "No problems: 1 worker alive" in text
    assert 'aria-label="Jobs by state"' in text


def test_a_schema_of_another_revision_is_shown(client: FlaskClient, db: Conn) -> None:
    db.execute("UPDATE jobq.schema_version SET version_num = '0000'")
    text = client.get("/").text
    assert f"Schema &#39;jobq&#39; is at revision 0000, this jobq needs {migrate.head()}" in text
    db.execute("DELETE FROM jobq.schema_version")
    assert "Schema &#39;jobq&#39; has no jobq tables" in client.get("/").text


def test_jobs_are_filtered_and_paged(client: FlaskClient, db: Conn) -> None:
    ids = [add_job(db, queue="a") for _ in range(60)]
    other = add_finished(db, "failed", queue="b", task="pdf.make")
    first = client.get("/jobs?queue=a").text
    shown = [int(id) for id in re.findall(r'name="id" value="(\d+)"', first)]
    assert shown == ids[:9:-1]
    older = re.search(r'href="([^"]+)" rel="next"', first)
    assert older is not None
    second = client.get(older[1].replace("&amp;", "&")).text
    assert [int(id) for id in re.findall(r'name="id" value="(\d+)"', second)] == ids[9::-1]
    assert 'rel="next"' not in second
    for query in ("state=failed", "task=pdf.make", "state=failed&queue=b&task=pdf.make"):
        text = client.get(f"/jobs?{query}").text
        assert re.findall(r'name="id" value="(\d+)"', text) == [str(other)]
    assert "No job matches." in client.get("/jobs?queue=nosuch").text


@pytest.mark.parametrize(
    "query",
    ["state=done", "before=-1", "before=x", "before=1_0", "before=99999999999999999999", "before=٣", "queue=%00",
     "task=" + "x" * 201],
)  # fmt: skip
def test_unusable_filters_are_told(client: FlaskClient, query: str) -> None:
    for path in ("/jobs", "/api/jobs"):
        response = client.get(f"{path}?{query}")
        assert response.status_code == 400
        assert query.split("=", maxsplit=1)[0] in response.text


def test_a_long_search_says_where_it_stopped(client: FlaskClient, db: Conn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobq.queries.search._FIRST_WINDOW", 4)
    monkeypatch.setattr("jobq.queries.search._PATIENCE", -1.0)
    for _ in range(9):
        add_job(db)
    text = client.get("/jobs?task=rare").text
    assert "Searched 4 jobs" in text
    assert "Search further" in text
    assert "No job matches" not in text


def test_one_job(client: FlaskClient, db: Conn) -> None:
    id = add_finished(
        db, "failed", args={"order": 7}, headers={"trace": "t1"}, result={"partial": 1}, error="boom", key="order:7",
        timeout=30.0, crashes=1, ago=60,
    )  # fmt: skip
    add_attempt(db, id, message="boom", traceback="Traceback: line 1\nValueError: boom", worker_id=add_worker(db))
    text = client.get(f"/jobs/{id}").text
    for part in ("order:7", "trace", "partial", "ValueError: boom", "attempt 1: error", "1 crash", "30 s"):
        assert part in text
    assert "Retry</button>" in text
    assert "Cancel…" not in text


@pytest.mark.parametrize(
    ("state", "offered"),
    [("ready", "cancel snooze move delete"), ("running", "cancel"), ("parked", "run-now cancel snooze move delete"),
     ("scheduled", "run-now cancel snooze move delete"), ("succeeded", "delete"), ("failed", "retry delete"),
     ("cancelled", "retry delete"), ("expired", "retry delete")],
)  # fmt: skip
def test_a_job_offers_what_can_be_done(client: FlaskClient, db: Conn, state: str, offered: str) -> None:
    if state == "scheduled":
        id = add_job(db, run_in=60)
    elif state in ("ready", "running", "parked"):
        id = add_job(db, state=state, progress={"done": 3, "total": 10})
    else:
        id = add_finished(db, state)
    text = client.get(f"/jobs/{id}").text
    assert set(re.findall(rf'action="/jobs/{id}/([^"]+)"', text)) == set(offered.split())


def test_workers_and_maintenance_tasks_and_audit(client: FlaskClient, db: Conn) -> None:
    add_worker(db, host="box-1", queues=["mail"], app="shop:q", running=3, ago=10)
    db.execute("DELETE FROM jobq.maintenance_task")
    db.execute("INSERT INTO jobq.maintenance_task (name, last_error) VALUES ('retention', 'lock timeout')")
    text = client.get("/workers").text
    for part in ("box-1", "late", "mail", "shop:q", "3 of 16", "retention", "lock timeout"):
        assert part in text
    ids = [add_finished(db, "failed") for _ in range(8)]
    operations.retry_where(db, "jobq", actor="ann", reason="fixed")
    db.execute(
        "INSERT INTO jobq.audit (actor, action, target) VALUES ('x', 'y', '[1]'), ('x', 'y', '{\"ids\": \"no\"}')"
    )
    for _ in range(60):
        db.execute("INSERT INTO jobq.audit (actor, action, target) VALUES ('x', 'y', '{\"password\": \"hunter2\"}')")
    first = client.get("/audit").text
    assert "hunter2" not in first
    older = re.search(r'href="([^"]+)" rel="next"', first)
    assert older is not None
    text = client.get(older[1]).text
    for part in ("ann", "retry", "fixed", f"/jobs/{ids[0]}", "and 3 more"):
        assert part in text


# --- Hostile data ---


def test_hostile_data_is_only_text(client: FlaskClient, db: Conn) -> None:
    id = add_finished(
        db, "failed", task=HOSTILE, queue=HOSTILE, key=HOSTILE, error=HOSTILE, args={HOSTILE: HOSTILE},
        headers={HOSTILE: [HOSTILE]}, result=[HOSTILE],
    )  # fmt: skip
    add_attempt(db, id, error_type=HOSTILE, message=HOSTILE, traceback=f"</pre>{HOSTILE}")
    add_job(db, task=HOSTILE, queue=HOSTILE, progress={"done": HOSTILE}, state="running")
    add_worker(db, host=HOSTILE, version=HOSTILE, app=HOSTILE, queues=[HOSTILE])
    operations.pause(db, "jobq", HOSTILE, actor=HOSTILE, reason=HOSTILE)
    db.execute("INSERT INTO jobq.maintenance_task (name, last_error) VALUES (%s, %s)", (HOSTILE, HOSTILE))
    db.execute(
        "INSERT INTO jobq.operation (up_to, action, filter, actor, reason, error) VALUES (1, 'retry', %s, %s, %s, %s)",
        [HOSTILE] * 4,
    )
    db.execute(
        "INSERT INTO jobq.schedule (name, task, cron, timezone, last_error) VALUES (%s, %s, %s, %s, %s)", [HOSTILE] * 5
    )
    db.execute(
        "INSERT INTO jobq.workflow (name, nodes, state, reason, finished_at) VALUES (%s, 0, 'failed', %s, now())",
        [HOSTILE] * 2,
    )
    for path in (*PAGES, f"/jobs/{id}", "/jobs?task=" + HOSTILE, "/nothing/" + HOSTILE, "/jobs?state=" + HOSTILE):
        text = client.get(path).text
        assert "alert(1)" in text or path.startswith("/nothing")
        assert "<script>alert" not in text
        assert "<img src=x" not in text


def test_characters_that_deceive_are_spelled_out(client: FlaskClient, db: Conn) -> None:
    id = add_finished(db, "failed", task="a\u202egnp.exe", error="\x1b[31mred\u2066")
    text = client.get(f"/jobs/{id}").text
    assert "a\\u202egnp.exe" in text
    assert "\\u001b[31mred\\u2066" in text
    assert not re.search("[\u202e\u2066\x1b]", re.sub(r'href="[^"]*"|value="[^"]*"', "", text))


def test_large_and_deep_arguments_are_shortened(client: FlaskClient, db: Conn) -> None:
    id = add_job(db, args={"a": "x" * 1_000_000, "list": list(range(20_000)), "z": 1})
    response = client.get(f"/jobs/{id}")
    assert len(response.data) < 60_000
    assert "more characters" in response.text
    nested = '{"password": "hunter2", "a":' + "[" * 400 + "]" * 400 + "}"
    row = db.execute("INSERT INTO jobq.job (task, args) VALUES ('t', %s::jsonb) RETURNING id", (nested,)).fetchone()
    assert row is not None
    text = client.get(f"/jobs/{row[0]}").text
    assert "nested too deeply" in text
    assert "hunter2" not in text


@pytest.mark.parametrize("path", ["/jobs/{id}", "/jobs", "/api/jobs", "/api/jobs/{id}"])
def test_secrets_are_hidden_by_field_name(client: FlaskClient, db: Conn, path: str) -> None:
    secret = "hunter2"
    fields = {"password": secret, "API-Key": secret, "nested": [{"card_token": {"deep": secret}}], "plain": "seen"}
    id = add_finished(db, "succeeded", args=fields, headers={"Authorization": secret}, result={"client_secret": secret})
    text = client.get(path.format(id=id)).text
    assert secret not in text
    assert "(hidden)" in text
    assert "seen" in text


@pytest.mark.parametrize("path", ["/jobs/{id}", "/jobs", "/api/jobs", "/api/jobs/{id}"])
@pytest.mark.parametrize(
    "progress", [{"token": "hunter2", "step": "seen"}, {"step": "seen", "deep": [{"pwd": "hunter2"}]}]
)
def test_secrets_are_hidden_in_progress_too(client: FlaskClient, db: Conn, progress: dict[str, Any], path: str) -> None:
    id = add_job(db, state="running", worker_id=uuid.uuid4(), started_at=datetime.now(UTC), progress=progress)
    text = client.get(path.format(id=id)).text
    assert "hunter2" not in text
    assert "(hidden)" in text
    assert "seen" in text


def test_what_is_secret_is_a_setting(make_app: Callable[..., Flask], database_url: str, db: Conn) -> None:
    id = add_job(db, args={"salary": 17, "token": "t1"})
    text = make_app(database_url, redact=["Salary"]).test_client().get(f"/api/jobs/{id}").text
    assert json.loads(text)["args"] == {"salary": "(hidden)", "token": "t1"}


@pytest.mark.parametrize("path", ["/jobs/{id}", "/jobs", "/api/jobs", "/api/jobs/{id}"])
def test_what_a_role_may_see(make_app: Callable[..., Flask], database_url: str, db: Conn, path: str) -> None:
    fields = {"card": {"number": "4242", "name": "seen-name"}, "salary": 1717}
    id = add_job(db, args=fields, headers={"iban": "DE02"})
    options = {"redact": ["args.card.number", "*.iban"], "redact_for": {"viewer": ["salary"]}, "reveal_to": "admin"}
    texts = {
        role: make_app(database_url, default_role=role, **options).test_client().get(path.format(id=id)).text
        for role in ("viewer", "operator", "admin")
    }
    assert all("seen-name" in text for text in texts.values())
    assert {role for role, text in texts.items() if "4242" in text or "DE02" in text} == {"admin"}
    assert {role for role, text in texts.items() if "1717" in text} == {"operator", "admin"}


@pytest.mark.parametrize("path", ["/jobs", "/api/jobs", "/jobs.ndjson"])
def test_what_is_hidden_cannot_be_found_either(
    make_app: Callable[..., Flask], database_url: str, db: Conn, path: str
) -> None:
    fields = {
        "password": "hunter2",
        "card": {"number": "4242"},
        "list": [{"iban": "DE02"}],
        "api.key": "k",
        "plain": "x",
    }
    add_job(db, args=fields, headers={"tags": ["vip"]})
    options: dict[str, Any] = {
        "redact": ["password", "apikey", "args.card.number", "args.list.iban", "headers.tags"], "reveal_to": "admin"
    }  # fmt: skip
    for role, code in (("viewer", 403), ("admin", 200)):
        client = make_app(database_url, default_role=role, **options).test_client()
        for term in (
            "args.password:hunter2", "args.card.number:4242", "args.Password:x", "args.list.-1.iban:DE02",
            'args."api.key":k', "tag:vip",
        ):  # fmt: skip
            assert client.get(path, query_string={"q": term}).status_code == code
        assert client.get(path, query_string={"q": "args.plain:x"}).status_code == 200


def test_what_somebody_has_searched_by_is_hidden_from_others(
    make_app: Callable[..., Flask], database_url: str, db: Conn
) -> None:
    add_finished(db, "failed", args={"password": "hunter2", "city": "seen"})
    jobs = JobFilter.parse("state:failed args.password:hunter2 args.city:seen")
    made = operations.draft(db, "jobq", action="retry", filter=jobs, actor="ann")
    operations.start(db, "jobq", made.id, reason="fixed", actor="ann")
    texts = {}
    for role in ("viewer", "admin"):
        client = make_app(database_url, default_role=role, reveal_to="admin", read_only=True).test_client()
        for path in ("/operations", f"/operations/{made.id}", "/audit", "/api/audit"):
            texts[role, path] = unquote(client.get(path).text)
    assert all("args.city:seen" in text for text in texts.values())
    assert {role for (role, _), text in texts.items() if "hunter2" in text} == {"admin"}
    assert all(some("(hidden)" in text for (role, _), text in texts.items() if role == "viewer"))


# --- JSON ---


def test_json(client: FlaskClient, db: Conn) -> None:
    id = add_finished(db, "failed", args={"n": 1}, error="boom")
    add_attempt(db, id, message="boom")
    add_job(db, queue="mail")
    add_worker(db)
    operations.pause(db, "jobq", "mail", actor="ann")
    overview = client.get("/api/overview").json
    assert overview is not None
    assert (overview["counts"]["failed"], overview["revision"]) == (1, migrate.head())
    assert overview["failures"][0]["id"] == id
    assert len(overview["throughput"]["minutes"]) == 60
    assert client.get("/api/stats").json["workers_alive"] == 1  # type: ignore[index]
    assert {queue["name"] for queue in client.get("/api/queues").json["queues"]} == {"default", "mail"}  # type: ignore[index]
    job = client.get(f"/api/jobs/{id}").json
    assert job is not None
    assert (job["args"], job["attempts"][0]["message"], job["state"]) == ({"n": 1}, "boom", "failed")
    page = client.get("/api/jobs?limit=1").json
    assert page is not None
    assert len(page["jobs"]) == 1
    rest = client.get(f"/api/jobs?limit=1&before={page['before_id']}").json
    assert rest is not None
    assert (len(rest["jobs"]), rest["before_id"]) == (1, None)
    assert client.get("/api/workers").json["workers"][0]["health"] == "alive"  # type: ignore[index]
    assert client.get("/api/audit").json["audit"][0]["target"] == {"queue": "mail"}  # type: ignore[index]
    assert client.get("/api/maintenance-tasks").status_code == 200
    assert client.get("/api/jobs?limit=201").status_code == 400
