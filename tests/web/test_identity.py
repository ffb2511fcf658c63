"""Which identity is believed: a proxy's header, the host's callable, one password, no login; and the options for it."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest
from flask import Flask, abort, g, request
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from jobq.errors import ConfigurationError
from jobq.operations import Actor
from jobq.web import Identity, Options, blueprint, create_app
from jobq.web.auth import users
from jobq.web.context import current_page
from jobq.web.options import OptionValues
from jobq.web.server import close
from tests.support.rows import add_finished
from tests.support.web import Conn, token

# --- Behind a proxy ---


def who(client: FlaskClient, **options: Any) -> str:
    """The user that the page takes this client for."""
    with client:
        assert client.get("/workers", **options).status_code == 200
        return f"{current_page().user} ({current_page().role})"


def proxied(make_app: Callable[..., Flask], database_url: str, **options: Any) -> FlaskClient:
    app = make_app(
        database_url, proxy_header="X-Forwarded-User", trusted_proxies=["127.0.0.1", "10.0.0.0/8"], **options
    )
    return app.test_client()


def test_a_proxy_names_the_user(make_app: Callable[..., Flask], database_url: str, db: Conn) -> None:
    client = proxied(make_app, database_url, default_role="operator")
    id = add_finished(db, "failed")
    assert client.get("/").status_code == 401
    client.environ_base |= {
        "REMOTE_ADDR": "10.1.2.3",
        "HTTP_X_FORWARDED_USER": "ann@example.org",
        "HTTP_X_FORWARDED_FOR": "203.0.113.9, 198.51.100.7, 10.9.9.9",
    }
    good = token(client)
    with client:
        assert client.post(f"/jobs/{id}/retry", data={"csrf": good}).status_code == 303
        # The nearest address that is none of our proxies'; what stands left of it, anybody may have written.
        assert current_page().actor() == Actor("ann@example.org", "operator", "198.51.100.7")


@pytest.mark.parametrize("address", ["192.0.2.1", "127.0.0.2", "11.0.0.1", "::1", ""])
def test_a_strangers_header_is_refused(
    make_app: Callable[..., Flask], database_url: str, db: Conn, address: str
) -> None:
    client = proxied(make_app, database_url, default_role="admin")
    client.environ_base |= {"REMOTE_ADDR": address, "HTTP_X_FORWARDED_USER": "ann"}
    id = add_finished(db, "failed")
    assert client.get("/").status_code == 403
    assert client.post(f"/jobs/{id}/retry").status_code == 403
    # Without it there is no user.
    del client.environ_base["HTTP_X_FORWARDED_USER"]
    assert client.get("/").status_code == 401


@pytest.mark.parametrize("name", ["evil,ann", "evil, ann", "x" * 201, "a\tb"])
def test_a_header_that_names_no_single_user_is_refused(
    make_app: Callable[..., Flask], database_url: str, name: str
) -> None:
    client = proxied(make_app, database_url)
    assert client.get("/", headers={"X-Forwarded-User": name}).status_code == 403
    assert client.get("/", headers={"X-Forwarded-User": "  "}).status_code == 401


@pytest.mark.parametrize(
    ("groups", "role"),
    [
        ("ops", "operator"),
        ("staff, ops,root", "admin"),
        ("staff", "viewer"),
        ("", "viewer"),
        ("admin", "viewer"),
        ("OPS", "viewer"),
    ],
)
def test_groups_are_roles(make_app: Callable[..., Flask], database_url: str, groups: str, role: str) -> None:
    client = proxied(
        make_app, database_url, proxy_role_header="X-Groups", proxy_roles={"ops": "operator", "root": "admin"}
    )
    headers = {"X-Forwarded-User": "ann", "X-Groups": groups}
    assert who(client, headers=headers) == f"ann ({role})"


def test_a_proxy_may_name_the_roles_themselves(make_app: Callable[..., Flask], database_url: str) -> None:
    client = proxied(make_app, database_url, proxy_role_header="X-Role")
    assert who(client, headers={"X-Forwarded-User": "ann", "X-Role": "admin"}) == "ann (admin)"
    assert who(client, headers={"X-Forwarded-User": "ann", "X-Role": "owner"}) == "ann (viewer)"


def test_an_address_of_both_families_is_one(make_app: Callable[..., Flask], database_url: str) -> None:
    client = proxied(make_app, database_url)
    client.environ_base["REMOTE_ADDR"] = "::ffff:10.0.0.9"
    assert client.get("/", headers={"X-Forwarded-User": "ann"}).status_code == 200


# --- The host's callable, the password, nothing ---


def test_the_hosts_callable(make_app: Callable[..., Flask], database_url: str) -> None:
    answers: list[Any] = [Identity("ann", "viewer"), None, "ann", Identity("ben", "admin")]
    client = make_app(database_url, identify=lambda: answers.pop(0)).test_client()
    assert who(client) == "ann (viewer)"
    assert client.get("/").status_code == 401
    # What it returned cannot be believed, and the page does not guess.
    assert client.get("/").status_code == 500
    assert who(client) == "ben (admin)"


def test_the_password_has_a_role_and_a_limit(make_app: Callable[..., Flask], database_url: str) -> None:
    client = make_app(database_url, password="pass word", password_role="viewer").test_client()

    def bring(password: str) -> dict[str, str]:
        return {"Authorization": "Basic " + base64.b64encode(f"ann:{password}".encode()).decode()}

    def ask(password: str) -> TestResponse:
        return client.get("/workers", headers=bring(password))

    for _ in range(30):
        assert who(client, headers=bring("pass word")) == "ann (viewer)"
    assert [ask("wrong").status_code for _ in range(12)] == [401] * 10 + [429] * 2
    response = ask("pass word")
    assert response.status_code == 429
    assert int(response.headers["Retry-After"]) > 0


def test_without_a_login_the_role_can_be_less(make_app: Callable[..., Flask], database_url: str, db: Conn) -> None:
    assert who(make_app(database_url).test_client()) == "web (admin)"
    client = make_app(database_url, default_role="viewer").test_client()
    assert who(client) == "web (viewer)"
    id = add_finished(db, "failed")
    assert 'method="post"' not in client.get(f"/jobs/{id}").text


# --- Options ---


def test_nothing_of_a_request_is_left_for_the_next(database_url: str, db: Conn) -> None:
    host = Flask("host")
    host.secret_key = "s"
    refuse = False

    @host.before_request
    def first() -> None:
        if refuse:
            abort(418)

    def who() -> Identity | None:
        role = request.headers.get("X-Role")
        return Identity(f"the {role}", role) if role else None

    host.register_blueprint(blueprint(database_url=database_url, identify=who, users=True, cache_seconds=0))
    users.add(db, "jobq", "ann", "admin", "correct horse", actor="test")
    try:
        # As modules do that servers import: Flask then has one `g` for every request of the thread.
        with host.app_context():
            client = host.test_client()
            assert "the admin" in client.get("/queues", headers={"X-Role": "admin"}).text
            assert client.get("/queues").status_code == 303
            assert "the viewer" in client.get("/queues", headers={"X-Role": "viewer"}).text
            form = {"name": "ann", "password": "correct horse", "csrf": token(client, "/login")}
            assert client.post("/login", data=form).status_code == 303
            assert client.get("/queues").status_code == 200
            other = host.test_client()
            answer = other.get("/queues")
            assert (answer.status_code, answer.headers.get_all("Set-Cookie")) == (303, [])
            assert "ann" not in other.get("/login").text
            refuse = True
            assert client.get("/queues").status_code == 418
            assert "the admin" not in other.get("/queues", headers={"X-Role": "admin"}).text
            assert client.get("/jobq-static/page.js").status_code == 418
            assert list(g) == []
    finally:
        close(host)


def test_a_page_below_an_address_of_an_api_is_a_page(database_url: str) -> None:
    host = Flask("host")
    host.secret_key = "s"
    host.register_blueprint(blueprint(database_url=database_url, users=True), url_prefix="/api/ops")
    client = host.test_client()
    try:
        assert client.get("/api/ops/queues").location == "/api/ops/login?next=/api/ops/queues"
        for path in ("api/jobs", "series", "jobs.ndjson"):
            refused = client.get(f"/api/ops/{path}")
            assert (refused.status_code, refused.mimetype) == (401, "application/json")
        missing = client.post("/api/ops/queues/api/a", data={})
        assert (missing.status_code, missing.mimetype) == (401, "text/html")
    finally:
        close(host)


@pytest.mark.parametrize(
    ("options", "told"),
    [({"default_role": "root"}, "default_role='root'"), ({"password_role": None}, "password_role=None"),
     ({"proxy_header": "X-User"}, "trusted_proxies"), ({"trusted_proxies": ["10.0.0.1/8"]}, "10.0.0.1/8"),
     ({"trusted_proxies": ["proxy.example"]}, "proxy.example"), ({"proxy_roles": {"a": "admin"}}, "proxy_header"),
     ({"proxy_header": "X", "trusted_proxies": ["::1"], "proxy_roles": {"a": "root"}}, "proxy_roles"),
     ({"proxy_header": "X", "trusted_proxies": ["::1"], "proxy_roles": {"a": "admin"}}, "proxy_role_header"),
     ({"session_idle": 0}, "session_idle=0"),
     ({"session_lifetime": float("inf")}, "session_lifetime=inf"), ({"password": ""}, "password=''"),
     ({"cache_seconds": -1}, "cache_seconds=-1"), ({"reveal_to": "x"}, "reveal_to"),
     ({"redact_for": {"root": []}}, "redact_for")],
)  # fmt: skip
def test_options_that_cannot_be(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(told)):
        Options(**options)


def test_options_from_variables(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = Options.load(
        {
            "JOBQ_WEB_USERS": "1", "JOBQ_WEB_READ_ONLY": "off", "JOBQ_WEB_SECRET_KEY": "k", "JOBQ_WEB_SESSION_IDLE": "60",
            "JOBQ_WEB_TRUSTED_PROXIES": "10.0.0.0/8, ::1", "JOBQ_WEB_PROXY_HEADER": "X-User", "JOBQ_WEB_REDACT": "args.a,*.b",
            "JOBQ_WEB_PROXY_ROLE_HEADER": "X-Groups", "JOBQ_WEB_PROXY_ROLES": "cn=ops=operator,root=admin",
            "JOBQ_WEB_HOST": "0.0.0.0", "JOBQ_WEB_ACTOR": "nobody",
        },
        read_only=True,
    )  # fmt: skip
    assert (loaded.users, loaded.read_only, loaded.secret_key, loaded.session_idle) == (True, True, "k", 60.0)
    assert list(loaded.trusted_proxies) == ["10.0.0.0/8", "::1"]
    assert loaded.proxy_roles == {"cn=ops": "operator", "root": "admin"}
    assert {"password", "args.a", "*.b"} <= set(loaded.redact)
    assert loaded.actor is None
    for name, value in (("USERS", "maybe"), ("SESSION_IDLE", "long"), ("PROXY_ROLES", "ops"), ("CACHE_BYTES", "1.5")):
        with pytest.raises(ConfigurationError, match=f"JOBQ_WEB_{name}"):
            Options.load({f"JOBQ_WEB_{name}": value})
    monkeypatch.setenv("JOBQ_WEB_DEFAULT_ROLE", "king")
    with pytest.raises(ConfigurationError, match="king"):
        create_app(database_url=database_url)


def test_every_option_is_a_keyword() -> None:
    assert [field.name for field in fields(Options)] == list(OptionValues.__annotations__)
