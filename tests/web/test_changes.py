"""What the status page changes, for whom, and which forms it refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests.support.rows import add_finished, add_job
from tests.support.web import Conn, audit, token, words


def test_retry_and_cancel_one(client: FlaskClient, db: Conn) -> None:
    dead, idle = add_finished(db, "failed"), add_job(db)
    response = client.post(f"/jobs/{dead}/retry", data={"csrf": token(client)})
    assert response.status_code == 303
    text = client.get(response.location).text
    assert "The job is due now." in text
    assert 'class="state ready"' in text
    response = client.post(f"/jobs/{idle}/cancel", data={"csrf": token(client), "reason": "not wanted"})
    assert "cancelled by web: not wanted" in client.get(response.location).text
    response = client.post(f"/jobs/{idle}/cancel", data={"csrf": token(client)})
    assert "Nothing changed: it is cancelled already." in client.get(response.location).text
    assert audit(db) == [("web", "retry"), ("web", "cancel")]


def test_change_the_ticked_jobs(client: FlaskClient, db: Conn) -> None:
    dead, done = [add_finished(db, "failed") for _ in range(3)], add_finished(db, "succeeded")
    form = {"csrf": token(client), "id": [str(id) for id in (*dead, done)], "action": "retry", "q": "queue:default"}
    response = client.post("/jobs/change", data=form)
    assert "q=queue:default" in response.location
    text = client.get(response.location).text
    assert f"Retried: 3. Refused: 1 (job {done}: it has succeeded)." in text
    form = {"csrf": token(client), "id": [str(id) for id in dead], "action": "cancel"}
    assert "Cancelled: 3." in client.get(client.post("/jobs/change", data=form).location).text
    form = {"csrf": token(client), "action": "cancel"}
    assert "No job was selected" in client.get(client.post("/jobs/change", data=form).location).text


@pytest.mark.parametrize(
    ("form", "code"),
    [({"action": "drop"}, 400), ({"action": "retry", "id": "x"}, 400), ({"action": "retry", "id": ["1"] * 501}, 400),
     ({"action": "retry", "id": ["1" * 19] * 9000}, 413)],
)  # fmt: skip
def test_unusable_forms_change_nothing(client: FlaskClient, db: Conn, form: dict[str, Any], code: int) -> None:
    add_job(db)
    assert client.post("/jobs/change", data={"csrf": token(client), **form}).status_code == code
    assert audit(db) == []


def test_pause_and_resume(client: FlaskClient, db: Conn) -> None:
    add_job(db, queue="mail")
    form = {"csrf": token(client, "/queues"), "queue": "mail", "reason": "smtp down"}
    text = client.get(client.post("/queues/pause", data=form).location).text
    assert "Queue mail is paused." in text
    assert "by web: smtp down" in words(text)
    assert "was already paused" in client.get(client.post("/queues/pause", data=form).location).text
    assert "Queue mail is resumed." in client.get(client.post("/queues/resume", data=form).location).text
    assert client.post("/queues/pause", data=form | {"queue": "nosuch"}).status_code == 404
    assert audit(db) == [("web", "pause"), ("web", "resume")]


def test_a_queue_is_set(client: FlaskClient, db: Conn) -> None:
    add_job(db, queue="mail/eu")
    assert "No limit, no rate and no group rule" in words(client.get("/queues/mail/eu").text)
    form = {
        "csrf": token(client, "/queues/mail/eu"), "queue": "mail/eu", "limit": "20", "rate": "50/s", "burst": "10",
        "groups": "fair:3", "group_rate": "5/s", "group_burst": "", "reason": "their API",
    }  # fmt: skip
    response = client.post("/queues/set", data=form)
    assert response.location.startswith("/queue?name=mail/eu&note=")
    text = words(client.get(response.location).text)
    assert "At most 20 jobs run at a time; at most 50 starts a second, up to 10 of them at once;" in text
    assert "The groups take turns, at most 3 of each at a time." in text
    assert "0 of 20 running" in text
    assert 'name="burst" inputmode="numeric" maxlength="13" autocomplete="off" placeholder="1" value="10"' in client.get(
        "/queues/mail/eu"
    ).text  # fmt: skip
    assert "Nothing changed." in words(client.get(client.post("/queues/set", data=form).location).text)
    assert "at most 20, 50/s, groups fair:3, 5/s each" in words(client.get("/queues").text)
    entry = db.execute("SELECT actor, role, reason, after FROM jobq.audit").fetchone()
    assert entry == (
        "web", "admin", "their API",
        {"limit": 20, "rate": "50/s", "burst": 10, "groups": "fair:3", "group_rate": "5/s", "group_burst": 1},
    )  # fmt: skip

    group = {"csrf": form["csrf"], "queue": "mail/eu", "group": "customer:42", "limit": "2"}
    assert "Group customer:42 runs at most 2 at a time." in client.get(
        client.post("/queues/set-group", data=group).location
    ).text  # fmt: skip
    text = words(client.get("/queues/mail/eu").text)
    assert "customer:42" in text
    group["limit"] = ""
    assert "no longer has its own limit" in client.get(client.post("/queues/set-group", data=group).location).text
    cleared = {"csrf": form["csrf"], "queue": "mail/eu", "burst": "10"}
    response = client.post("/queues/set", data=cleared)
    assert "No limit, no rate and no group rule." in client.get(response.location).text
    assert audit(db) == [("web", "configure"), *[("web", "configure_group")] * 2, ("web", "configure")]


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("limit", "0", "Limit=0: expected a whole number from 1"),
        ("limit", "-1", "limit=&#39;-1&#39;"),
        ("limit", "two", "limit=&#39;two&#39;: expected a whole number"),
        ("rate", "0/s", "Rate=&#39;0/s&#39;"),
        ("rate", "<b>", "Rate=&#39;&lt;b&gt;&#39;"),
        ("groups", "fifo", "Groups=&#39;fifo&#39;: expected ordered"),
        ("group_rate", "5/s", "no rule for its groups"),
        ("queue", "", "Queue=&#39;&#39;: expected text"),
    ],
)
def test_settings_that_cannot_be(client: FlaskClient, db: Conn, field: str, value: str, says: str) -> None:
    add_job(db, queue="mail")
    form = {"csrf": token(client, "/queues"), "queue": "mail", field: value}
    response = client.post("/queues/set", data=form)
    assert response.status_code == 400
    assert says in response.text
    assert audit(db) == []


POSTS = (
    "/queues/set",
    "/queues/set-group",
    "/jobs/1/retry",
    "/jobs/1/cancel",
    "/jobs/change",
    "/queues/pause",
    "/queues/resume",
)


@pytest.mark.parametrize("path", POSTS)
def test_forms_from_elsewhere_are_refused(client: FlaskClient, db: Conn, path: str) -> None:
    id = add_finished(db, "failed", queue="mail")
    path = path.replace("/1/", f"/{id}/")
    form = {"id": str(id), "action": "retry", "queue": "mail", "group": "a"}
    good = token(client, "/jobs")
    stranger = client.application.test_client()
    attempts: list[TestResponse] = [
        client.post(path, data=form),
        client.post(path, data=form | {"csrf": "x"}),
        client.post(path, data=form | {"csrf": good + "x"}),
        client.post(path, data=form | {"csrf": token(stranger)}),
        client.application.test_client().post(path, data=form | {"csrf": good}),
        client.post(path, data=form | {"csrf": good}, headers={"Sec-Fetch-Site": "cross-site"}),
        client.post(path, data=form | {"csrf": good}, headers={"Sec-Fetch-Site": "same-site"}),
    ]
    assert [response.status_code for response in attempts] == [403] * len(attempts)
    assert audit(db) == []
    assert client.post(path, data=form | {"csrf": good}, headers={"Sec-Fetch-Site": "same-origin"}).status_code == 303


def test_a_note_in_the_address_must_be_ours(client: FlaskClient) -> None:
    assert "You won" not in client.get("/?note=You+won").text


def test_the_form_cookie_is_for_this_page_alone(client: FlaskClient) -> None:
    cookie = client.get("/queues").headers.get("Set-Cookie", "") + client.get("/jobs").headers.get("Set-Cookie", "")
    assert cookie == "" or ("HttpOnly" in cookie and "SameSite=Lax" in cookie)


@pytest.mark.parametrize(
    ("actor", "environ", "expected"),
    [(None, {}, "web"), (None, {"REMOTE_USER": "ann"}, "ann"), ("ben", {"REMOTE_USER": "ann"}, "ben"),
     (lambda: "carl", {}, "carl"), (lambda: None, {}, "web"), (None, {"REMOTE_USER": "x" * 999}, "x" * 200)],
)  # fmt: skip
def test_who_did_it(
    make_app: Callable[..., Flask], database_url: str, db: Conn, actor: Any, environ: dict[str, str], expected: str
) -> None:
    client = make_app(database_url, actor=actor).test_client()
    id = add_finished(db, "failed")
    add_finished(db, "failed")
    client.environ_base |= environ
    client.post(f"/jobs/{id}/retry", data={"csrf": token(client)})
    assert audit(db) == [(expected, "retry")]
