"""Logging in with the page's own users: sessions, what ends them, and who is not let in."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

import psycopg.conninfo
import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.security import check_password_hash
from werkzeug.test import TestResponse

from jobq.web.auth import sessions, users
from jobq.web.auth.login import local
from jobq.web.auth.throttle import Throttle
from jobq.web.context import current_page
from tests.support.checks import some
from tests.support.rows import add_finished
from tests.support.web import Conn, token

PASSWORD = "correct horse"


@pytest.fixture
def app(make_app: Callable[..., Flask], database_url: str, db: Conn) -> Flask:
    users.add(db, "jobq", "ann", "operator", PASSWORD, actor="test")
    return make_app(database_url, users=True, secret_key="s")


def log_in(client: FlaskClient, name: str = "ann", password: str = PASSWORD, **more: Any) -> TestResponse:
    form = {"name": name, "password": password, "csrf": token(client, "/login"), **more.pop("form", {})}
    return client.post("/login", data=form, **more)


def inside(client: FlaskClient) -> bool:
    """Whether this client is let in."""
    response = client.get("/queues")
    assert response.status_code in (200, 303)
    return response.status_code == 200


def test_log_in_and_out(app: Flask, db: Conn) -> None:
    client = app.test_client()
    response = client.get("/jobs?queue=a&state=ready")
    assert (response.status_code, response.location) == (303, "/login?next=/jobs?queue%3Da%26state%3Dready")
    form = client.get(response.location).text
    assert 'name="next" value="/jobs?queue=a&amp;state=ready"' in form
    before = token(client, "/login")
    response = log_in(client, form={"next": "/jobs?queue=a&state=ready"})
    assert (response.status_code, response.location) == (303, "/jobs?queue=a&state=ready")
    cookie = next(value for value in response.headers.getlist("Set-Cookie") if value.startswith(sessions.COOKIE))
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert "Path=/;" in cookie
    assert "Secure" not in cookie
    assert PASSWORD not in cookie
    assert inside(client)
    id = add_finished(db, "failed")
    # The form that was open before the login was another's.
    assert client.post(f"/jobs/{id}/retry", data={"csrf": before}).status_code == 403
    assert client.post(f"/jobs/{id}/retry", data={"csrf": token(client)}).status_code == 303
    assert db.execute("SELECT actor FROM jobq.audit WHERE action = 'retry'").fetchall() == [("ann",)]
    assert client.get("/logout").status_code == 405
    assert inside(client)
    assert client.post("/logout", data={"csrf": token(client)}).location == "/login"
    assert not inside(client)


def test_who_has_not_logged_in_is_told_in_their_own_way(app: Flask) -> None:
    client = app.test_client()
    assert client.get("/").location == "/login"
    api = client.get("/api/stats")
    assert (api.status_code, api.json["status"]) == (401, 401)  # type: ignore[index]
    assert client.get("/", headers={"HX-Request": "true"}).status_code == 401
    assert client.get("/", headers={"Sec-Fetch-Mode": "cors"}).status_code == 401
    assert client.post("/jobs/1/retry").status_code == 401
    assert client.get("/jobq-static/page.css", buffered=True).status_code == 200
    assert client.get("/livez").status_code == 200


def test_wrong_names_and_passwords_are_told_alike(app: Flask) -> None:
    texts = set()
    for name, password in (
        ("ann", "wrong wrong"),
        ("nobody", PASSWORD),
        ("", ""),
        ("ann\x00", PASSWORD),
        ("x" * 500, "y" * 5000),
    ):
        client = app.test_client()
        response = log_in(client, name, password)
        assert response.status_code == 403
        assert "The name or the password is wrong." in response.text
        texts.add(re.sub(r'value="[^"]*"', "", response.text))
        assert not inside(client)
    assert len(texts) == 1


def test_an_unknown_name_takes_the_same_work(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    real = check_password_hash

    def check(hashed: str, password: str) -> bool:
        done.append(hashed.partition("$")[0])
        return real(hashed, password)

    monkeypatch.setattr(sessions, "check_password_hash", check)
    log_in(app.test_client(), "ann", "wrong wrong")
    log_in(app.test_client(), "nobody", "wrong wrong")
    assert len(done) == 2
    assert done[0] == done[1]
    assert done[0].startswith("scrypt:")


@pytest.mark.parametrize("change", ["password", "role", "removed", "other key"])
def test_what_ends_a_session(
    app: Flask,
    db: Conn,
    make_app: Callable[..., Flask],
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    change: str,
) -> None:
    monkeypatch.setattr(sessions, "_USER_CACHE_SECONDS", 0.0)
    client = app.test_client()
    log_in(client)
    assert inside(client)
    kept = client.get_cookie(sessions.COOKIE)
    assert kept is not None
    if change == "password":
        users.set_password(db, "jobq", "ann", "another one", actor="test")
    elif change == "role":
        users.set_role(db, "jobq", "ann", "viewer", actor="test")
    elif change == "removed":
        users.remove(db, "jobq", "ann", actor="test")
    else:
        client = make_app(database_url, users=True, secret_key="other").test_client()
        client.set_cookie(sessions.COOKIE, kept.value)
    assert not inside(client)
    if change == "password":
        assert log_in(client).status_code == 403
        assert log_in(client, password="another one").status_code == 303
        assert inside(client)


def test_a_change_asks_the_database_whether_the_session_is_still_good(app: Flask, db: Conn) -> None:
    client = app.test_client()
    log_in(client)
    id = add_finished(db, "failed")
    good = token(client)
    users.set_role(db, "jobq", "ann", "viewer", actor="test")
    # Reads may believe for 5 s what was so; this one must not.
    response = client.post(f"/jobs/{id}/retry", data={"csrf": good})
    assert response.status_code == 401
    assert db.execute("SELECT count(*) FROM jobq.audit WHERE action = 'retry'").fetchone() == (0,)


def test_sessions_end_by_themselves(app: Flask) -> None:
    now = 1_000_000.0
    client = app.test_client()
    kept = sessions_of(client)
    kept._clock = lambda: now
    log_in(client)
    assert inside(client)
    for _ in range(20):  # clicks keep it, up to its lifetime
        now += 7 * 3600
        assert inside(client)
    for _ in range(7):  # polls do not
        now += 3600
        assert client.get("/queues", headers={"Sec-Fetch-Mode": "cors"}).status_code == 200
    now += 2 * 3600
    assert not inside(client)
    log_in(client)
    began = now
    while inside(client):
        now += 7 * 3600
    assert 7 * 86400 < now - began < 7 * 86400 + 8 * 3600


def test_a_short_session_goes_on_with_clicks(app: Flask) -> None:
    now = 1_000_000.0
    client = app.test_client()
    kept = sessions_of(client)
    kept._clock, kept._idle = (lambda: now), 50.0
    log_in(client)
    for _ in range(10):
        now += 30
        assert inside(client)
    now += 51
    assert not inside(client)


def test_a_session_is_good_in_every_process_of_the_page(app: Flask, make_app: Callable[..., Flask], db: Conn) -> None:
    client = app.test_client()
    log_in(client)
    cookie = client.get_cookie(sessions.COOKIE)
    assert cookie is not None
    # On another machine, whose clock is a little behind, and whose database sessions are in another time zone.
    zoned = psycopg.conninfo.make_conninfo(db.info.dsn, options="-c timezone=Asia/Kathmandu")
    other = make_app(zoned, users=True, secret_key=app.config["JOBQ_OPTIONS"].secret_key).test_client()
    sessions_of(other)._clock = lambda: time.time() - 5
    other.set_cookie(sessions.COOKIE, cookie.value)
    assert inside(other)


def sessions_of(client: FlaskClient) -> sessions.Sessions:
    """The sessions of the page that `client` asks."""
    with client:
        client.get("/login")
        found = current_page().auth.sessions
    assert found is not None
    return found


def test_forged_cookies_are_nobodys(app: Flask) -> None:
    client = app.test_client()
    log_in(client)
    good = client.get_cookie(sessions.COOKIE)
    assert good is not None
    for forged in (
        "",
        "x",
        good.value[:-1],
        good.value[:-1] + "A",
        good.value.replace(".", ""),
        "W10." + good.value.split(".")[-1],
    ):
        client.set_cookie(sessions.COOKIE, forged)
        if forged != good.value:
            assert not inside(client), forged


def test_guessing_is_slowed_down(app: Flask) -> None:
    # Its clock stands still: twelve tries can take longer than it takes to earn another one.
    with app.test_client() as client:
        client.get("/login")
        current_page().auth.throttle = Throttle(clock=lambda: 0.0)
    codes = [log_in(app.test_client(), "ann", f"guess number {n}").status_code for n in range(12)]
    assert codes == [403] * 10 + [429] * 2
    response = log_in(app.test_client())
    assert response.status_code == 429
    assert int(response.headers["Retry-After"]) == 10
    assert "Too many wrong passwords" in response.text
    # Elsewhere its owner still gets in.
    assert log_in(app.test_client(), environ_overrides={"REMOTE_ADDR": "192.0.2.7"}).status_code == 303


def test_the_throttle() -> None:
    now = 0.0
    throttle = Throttle(clock=lambda: now)
    assert [throttle.take(f"192.0.2.{n}", "ann") for n in range(21)] == [0] * 20 + [3]
    assert throttle.take("198.51.100.1", "ben") == 0
    now += 3
    assert throttle.take("198.51.100.1", "ann") == 0
    # What is right costs nothing.
    for _ in range(50):
        assert throttle.take("198.51.100.2", "carl") == 0
        throttle.give_back("198.51.100.2", "carl")
    # One IPv6 network is one address.
    waits = [throttle.take(f"2001:db8::{n:x}", f"name {n}") for n in range(12)]
    assert waits == [0] * 10 + [10, 10]
    assert throttle.take("2001:db8:1::1", "name") == 0
    # What a socket for both families calls an IPv4 address is that address, and no network of all of them.
    assert [throttle.take(f"::ffff:203.0.113.{n}", None) for n in range(12)] == [0] * 12
    assert [throttle.take("::ffff:203.0.113.77", None) for _ in range(5)] == [0] * 5
    assert [throttle.take("203.0.113.77", None) for _ in range(6)] == [0] * 5 + [10]
    throttle.take("203.0.113.78", "x" * 60_000)
    assert max(len(name) for _, name in throttle._left) <= 100
    for n in range(30_000):
        throttle.take(f"name {n}", None)
    assert len(throttle._left) <= 10_000


@pytest.mark.parametrize(
    ("wanted", "good"),
    [("/jobs?q=a", True), ("/", True), ("//evil.example", False), ("/\\evil.example", False), ("https://evil.example", False),
     ("/\t/evil.example", False), ("\\\\evil.example", False), ("javascript:alert(1)", False), ("/%2f/evil.example", True),
     ("evil", False), ("", False), ("/../../other", False), ("/\n/evil", False), ("///evil.example", False)],
)  # fmt: skip
def test_a_login_leads_to_this_page_only(app: Flask, wanted: str, good: bool) -> None:
    assert (local(wanted, "/") == wanted) is good
    assert local(wanted, "/ops/jobs/") is None
    assert log_in(app.test_client(), form={"next": wanted}).location == (wanted if good else "/")
    assert ('name="next"' in app.test_client().get("/login", query_string={"next": wanted}).text) is good


def test_cookies_are_for_https_where_there_is_https(
    make_app: Callable[..., Flask], database_url: str, db: Conn
) -> None:
    users.add(db, "jobq", "ann", "viewer", PASSWORD, actor="test")
    app = make_app(database_url, users=True, trusted_proxies=["10.0.0.0/8"])
    for address, secure in (("10.1.2.3", True), ("192.0.2.1", False)):
        client = app.test_client()
        client.environ_base |= {"REMOTE_ADDR": address, "HTTP_X_FORWARDED_PROTO": "https"}
        form = client.get("/login")
        assert ("Secure" in form.headers["Set-Cookie"]) is secure
        found = re.search(r'name="csrf" value="([^"]+)"', form.text)
        cookie = client.get_cookie("jobq_csrf")
        assert found is not None
        assert cookie is not None
        response = client.post(
            "/login",
            data={"name": "ann", "password": PASSWORD, "csrf": found[1]},
            base_url="https://localhost" if secure else "http://localhost",
        )
        assert all(("Secure" in one) is secure for one in some(response.headers.getlist("Set-Cookie")))
