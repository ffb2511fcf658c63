"""The status page's forms that change single jobs and workers, and bulk operations from the preview to the end."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from flask import Flask
from flask.testing import FlaskClient

from jobq import operations, queries
from jobq.filters import JobFilter
from jobq.settings import Settings
from jobq.web import blueprint
from jobq.web.bulk_runner import BulkRunner
from jobq.web.server import close
from tests.support.rows import add_attempt, add_finished, add_job, add_worker
from tests.support.waiting import wait_until
from tests.support.web import Conn, audit, token


class Forms:
    """A browser that sends forms, and reads the notes that come back."""

    def __init__(self, client: FlaskClient, at: str = "/jobs") -> None:
        self.client = client
        self.csrf = token(client, at)

    def send(self, path: str, **form: Any) -> str:
        response = self.client.post(path, data={"csrf": self.csrf, **form})
        assert response.status_code == 303, response.text
        self.location: str = response.location
        note = re.search(r"note=([^&]+)", self.location)
        found = (
            re.search(r'role="status"[^>]*>(.*?)</', self.client.get(f"/audit?note={note[1]}").text) if note else None
        )
        return found[1].strip() if found else ""

    def refused(self, path: str, code: Any = 400, **form: Any) -> str:
        response = self.client.post(path, data={"csrf": self.csrf, **form})
        assert response.status_code == code, response.text
        return response.text


@pytest.fixture
def forms(client: FlaskClient, db: Conn) -> Forms:
    add_job(db, task="unconcerned", queue="elsewhere")
    return Forms(client)


def live(db: Conn, id: int) -> tuple[Any, ...] | None:
    return db.execute("SELECT queue, priority, run_at > now() FROM jobq.job WHERE id = %s", (id,)).fetchone()


def test_run_now_snooze_and_move_one(forms: Forms, db: Conn) -> None:
    id = add_job(db, run_in=600)
    forms.send(f"/jobs/{id}/run-now")
    assert live(db, id) == ("default", 5, False)
    forms.send(f"/jobs/{id}/snooze", seconds="1.5h", reason="later is better")
    row = db.execute(
        "SELECT run_at - now() BETWEEN '89 min' AND '90 min' FROM jobq.job WHERE id = %s", (id,)
    ).fetchone()
    assert row == (True,)
    forms.send(f"/jobs/{id}/snooze", until="2199-01-31T08:00")
    row = db.execute("SELECT run_at = '2199-01-31 08:00Z' FROM jobq.job WHERE id = %s", (id,)).fetchone()
    assert row == (True,)
    forms.send(f"/jobs/{id}/move", queue="slow", priority="9")
    assert live(db, id) == ("slow", 9, True)
    assert [action for _, action in audit(db)] == ["run_now", "snooze", "snooze", "move"]
    entry = queries.audit_log(db, "jobq")[0]
    assert (entry.actor, entry.role, entry.address) == ("web", "admin", "127.0.0.1")
    assert (entry.before, entry.after) == ({"queue": "default", "priority": 5}, {"queue": "slow", "priority": 9})
    assert queries.audit_log(db, "jobq")[2].reason == "later is better"


def test_delete_one(forms: Forms, db: Conn) -> None:
    dead, running = add_finished(db, "failed"), add_job(db, state="running")
    add_attempt(db, dead)
    forms.send(f"/jobs/{dead}/delete")
    assert forms.location.startswith("/jobs?")
    assert db.execute("SELECT FROM jobq.job_attempt").fetchall() == []
    forms.send(f"/jobs/{running}/delete")
    forms.send("/jobs/4711/delete")
    assert audit(db) == [("web", "delete")]
    assert queries.audit_log(db, "jobq")[0].before == {"state": "failed", "task": "mail.send", "queue": "default"}


@pytest.mark.parametrize(
    ("path", "form", "message"),
    [
        ("snooze", {}, "expected either seconds or until"),
        ("snooze", {"seconds": "soon"}, "seconds=&#39;soon&#39;: expected seconds, or a number with s, m, h, d or w"),
        ("snooze", {"seconds": "0"}, "seconds=0.0: expected a number of seconds above 0"),
        ("snooze", {"seconds": "5", "until": "2199-01-01T00:00"}, "either seconds or until"),
        ("snooze", {"until": "tomorrow"}, "until=&#39;tomorrow&#39;: expected a time such as"),
        ("move", {}, "expected a queue or a priority"),
        ("move", {"priority": "high"}, "priority=&#39;high&#39;: expected a whole number"),
        ("move", {"priority": "10"}, "priority=10: expected a whole number from 0 to 9"),
        ("move", {"queue": "q" * 101}, "expected text of 1 to 100 characters"),
        ("cancel", {"reason": "r" * 1001}, "expected text of at most 1000 characters"),
    ],
)
def test_unusable_fields_are_named_and_change_nothing(
    forms: Forms, db: Conn, path: str, form: dict[str, str], message: str
) -> None:
    id = add_job(db)
    assert message.lower() in forms.refused(f"/jobs/{id}/{path}", **form).lower()
    assert live(db, id) == ("default", 5, False)
    assert audit(db) == []


def test_ticked_jobs_are_snoozed_moved_and_deleted(forms: Forms, db: Conn) -> None:
    ids = [add_job(db) for _ in range(3)]
    form: dict[str, Any] = {"id": [str(id) for id in ids], "q": "state:ready"}
    forms.send("/jobs/change", action="move", priority="1", **form)
    assert forms.location.startswith("/jobs?q=state:ready")
    assert [live(db, id) for id in ids] == [("default", 1, False)] * 3
    forms.send("/jobs/change", action="snooze", seconds="60", **form)
    assert [live(db, id) for id in ids] == [("default", 1, True)] * 3
    forms.send("/jobs/change", action="delete", **form)
    assert [live(db, id) for id in ids] == [None] * 3
    assert queries.audit_log(db, "jobq")[2].after == {str(id): {"queue": "default", "priority": 1} for id in ids}


def test_ask_a_worker(forms: Forms, db: Conn) -> None:
    worker = add_worker(db)
    db.execute("LISTEN jobq")

    def asked() -> Any:
        row = db.execute("SELECT requested_state FROM jobq.worker").fetchone()
        assert row is not None
        return row[0]

    for what, stands in (("quiet", "quiet"), ("resume", None), ("stop", "stop"), ("resume", "stop")):
        forms.send(f"/workers/{worker}/ask", what=what, reason="deploy")
        assert asked() == stands
    assert [note.payload for note in db.notifies(timeout=0.5)] == ["workers"] * 3
    assert audit(db) == [("web", "worker_quiet"), ("web", "worker_resume"), ("web", "worker_stop")]
    entry = queries.audit_log(db, "jobq")[0]
    assert (entry.target, entry.before, entry.after) == (
        {"worker": str(worker), "host": "box", "pid": 4242}, {"requested_state": None}, {"requested_state": "stop"},
    )  # fmt: skip
    forms.send(f"/workers/{uuid4()}/ask", what="quiet")
    assert "expected quiet, stop or resume" in forms.refused(f"/workers/{worker}/ask", what="die")


def operation_of(location: str) -> int:
    found = re.match(r"/operations/([0-9]+)", location)
    assert found is not None, location
    return int(found[1])


def test_from_the_preview_to_the_end(forms: Forms, db: Conn) -> None:
    wanted = [add_finished(db, "failed") for _ in range(620)]
    forms.send("/operations/draft", action="retry", q="state:failed task:mail.send")
    id = operation_of(forms.location)
    made = queries.operation(db, "jobq", id)
    assert (made.state, made.expected, made.actor) == ("draft", 620, "web")
    start = f"/operations/{id}/start"
    assert "say why" in forms.refused(start, typed="620")
    assert "type the number 620" in forms.refused(start, reason="fixed", typed="619")
    assert "typed=&#39;all&#39;: expected a whole number" in forms.refused(start, reason="fixed", typed="all")
    assert "rate=&#39;fast&#39;: expected a number" in forms.refused(start, reason="fixed", typed="620", rate="fast")
    assert db.execute("SELECT count(*) FROM jobq.job_history").fetchone() == (620,)
    forms.send(start, reason="fixed", typed="620")
    wait_until(lambda: queries.operation(db, "jobq", id).state == "done", what="the end of the operation")
    done = queries.operation(db, "jobq", id)
    assert (done.done, done.refused, done.reason) == (620, 0, "fixed")
    assert db.execute("SELECT count(*) FROM jobq.job WHERE id >= %s", (wanted[0],)).fetchone() == (620,)
    # As a reload sends it.
    forms.send(start, reason="fixed", typed="620")
    assert operation_of(forms.location) == id
    assert audit(db) == [("web", "operation_start"), ("web", "operation_done")]


def test_pause_resume_and_cancel(forms: Forms, db: Conn) -> None:
    for _ in range(3):
        add_finished(db, "failed")
    forms.send("/operations/draft", action="retry", q="state:failed")
    id = operation_of(forms.location)
    forms.send(f"/operations/{id}/start", reason="x", rate="0.001")
    for what, state in (("pause", "paused"), ("resume", "running"), ("cancel", "cancelled"), ("cancel", "cancelled")):
        forms.send(f"/operations/{id}/{what}")
        assert queries.operation(db, "jobq", id).state == state
    assert forms.refused("/operations/4711/pause", 404)
    assert [action for _, action in audit(db)][1:] == ["operation_pause", "operation_resume", "operation_cancel"]


def test_unusable_drafts(forms: Forms, db: Conn) -> None:
    drafts: list[tuple[dict[str, Any], str]] = [
        ({"action": "drop", "q": "state:failed"}, "action=&#39;drop&#39;: expected one of retry"),
        ({"action": "retry", "q": ""}, "it would be every job there is"),
        ({"action": "retry", "q": "colour:blue"}, "colour"),
        ({"action": "retry", "q": "x" * 2001}, "2,0"),
        ({"action": "retry", "q": "state:succeeded"}, "state:succeeded: retry is for"),
        ({"action": "delete", "q": "task:a"}, "which states are to be deleted"),
        ({"action": "snooze", "q": "task:a"}, "expected either seconds or until"),
    ]
    for form, message in drafts:
        assert message.lower() in forms.refused("/operations/draft", **form).lower()
    assert queries.operations(db, "jobq") == []
    forms.send("/operations/draft", action="snooze", q="task:mail.send", until="2199-01-01T00:00")
    assert queries.operation(db, "jobq", operation_of(forms.location)).options == {"until": "2199-01-01T00:00:00+00:00"}


def test_an_operator_neither_deletes_nor_stops(make_app: Callable[..., Flask], database_url: str, db: Conn) -> None:
    dead, worker = add_finished(db, "failed"), add_worker(db)
    made = operations.draft(db, "jobq", action="delete", filter=JobFilter(states=("failed",)), actor="ann")
    # A browser that was logged in as an admin when it got its forms.
    forms = Forms(make_app(database_url, secret_key="s").test_client())
    app = Flask("theirs")
    app.register_blueprint(blueprint(database_url=database_url, secret_key="s", default_role="operator"))
    client = app.test_client()
    client.set_cookie("jobq_csrf", forms.client.get_cookie("jobq_csrf").value)  # type: ignore[union-attr]
    forms.client = client
    assert "needs the role admin" in forms.refused(f"/jobs/{dead}/delete", 403)
    assert "needs the role admin" in forms.refused("/jobs/change", 403, action="delete", id=str(dead))
    assert "needs the role admin" in forms.refused(f"/workers/{worker}/ask", 403, what="stop")
    assert "needs the role admin" in forms.refused("/operations/draft", 403, action="delete", q="state:failed")
    for what in ("start", "pause", "resume", "cancel"):
        assert "needs the role admin" in forms.refused(f"/operations/{made.id}/{what}", 403, reason="x")
    assert queries.operation(db, "jobq", made.id).state == "draft"
    assert audit(db) == []
    close(app)


def test_the_runner_ends_with_its_work_and_begins_anew(db: Conn, database_url: str) -> None:
    runner = BulkRunner(Settings.load(database_url=database_url))
    try:
        runner.wake()
        wait_until(lambda: not runner.busy, what="the end of a thread without work")
        for _ in range(3):
            add_finished(db, "failed")
            made = operations.draft(db, "jobq", action="retry", filter=JobFilter(states=("failed",)), actor="ann")
            operations.start(db, "jobq", made.id, reason="x", actor="ann")
            runner.wake()
            wait_until(lambda id=made.id: queries.operation(db, "jobq", id).state == "done", what="the operation")  # type: ignore[misc]
        wait_until(lambda: not runner.busy, what="the end of the thread")
    finally:
        runner.close()


def test_a_read_only_page_carries_nothing_out(db: Conn, database_url: str) -> None:
    runner = BulkRunner(Settings.load(database_url=database_url), enabled=False)
    runner.wake()
    assert not runner.busy


def test_the_runner_outlives_the_loss_of_its_connection(db: Conn, database_url: str) -> None:
    for _ in range(3):
        add_finished(db, "failed")
    made = operations.draft(db, "jobq", action="retry", filter=JobFilter(states=("failed",)), actor="ann")
    operations.start(db, "jobq", made.id, reason="x", actor="ann", rate=1)
    runner = BulkRunner(Settings.load(database_url=database_url))
    kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'jobq operations'"
    try:
        runner.wake()
        wait_until(lambda: db.execute(kill).fetchall(), what="its connection")
        wait_until(lambda: queries.operation(db, "jobq", made.id).state == "done", what="the operation")
    finally:
        runner.close()
    assert queries.operation(db, "jobq", made.id).done == 3


def test_a_fault_of_the_runner_is_logged_and_the_next_wake_goes_on(
    db: Conn, database_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    add_finished(db, "failed")
    made = operations.draft(db, "jobq", action="retry", filter=JobFilter(states=("failed",)), actor="ann")
    operations.start(db, "jobq", made.id, reason="x", actor="ann")
    runner = BulkRunner(Settings.load(database_url=database_url))
    try:
        with monkeypatch.context() as patched:
            patched.setattr(operations, "run_batch", lambda *_: {"": False}["no such step"])
            runner.wake()
            wait_until(lambda: not runner.busy, what="the end of the thread")
        assert [record.exc_info is not None for record in caplog.records if record.name == "jobq.web"] == [True]
        assert queries.operation(db, "jobq", made.id).done == 0
        runner.wake()
        wait_until(lambda: queries.operation(db, "jobq", made.id).state == "done", what="the operation")
    finally:
        runner.close()
