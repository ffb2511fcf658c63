"""The stand-alone page below a path: by `url_prefix`, and by what a trusted proxy says in X-Forwarded-Prefix."""

from __future__ import annotations

import re
from collections.abc import Callable
from html import escape, unescape
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from jobq.errors import ConfigurationError
from jobq.web import Options
from jobq.web.auth import users
from jobq.web.url_prefix import clean_prefix
from tests.support.checks import some
from tests.support.rows import add_finished, add_job, add_worker
from tests.support.web import PAGES, Conn, audit, token

PREFIX = "/ops/jobq"
STRIPPED = {"X-Forwarded-Prefix": PREFIX}
# Addresses in an answer: links, forms, files, and those that scripts ask.
_ADDRESS = re.compile(r'(?:href|src|action|data-base|data-suggest|data-series)="([^"]*)"')

Ask = Callable[[str], tuple[str, dict[str, str]]]


def kept(path: str) -> tuple[str, dict[str, str]]:
    """As from a proxy that leaves the prefix in the path."""
    return PREFIX + path, {}


def taken_off(path: str) -> tuple[str, dict[str, str]]:
    """As from a proxy that takes it off, for a page that knows it."""
    return path, {}


def told(path: str) -> tuple[str, dict[str, str]]:
    """As from a proxy that takes it off and says so."""
    return path, STRIPPED


WAYS = [
    pytest.param(kept, {"url_prefix": PREFIX}, id="kept"),
    pytest.param(taken_off, {"url_prefix": f"{PREFIX}/"}, id="taken-off"),
    pytest.param(told, {"trusted_proxies": ["127.0.0.1"]}, id="told"),
    pytest.param(told, {"trusted_proxies": ["127.0.0.1"], "url_prefix": "/another"}, id="told-otherwise"),
]


def addresses(text: str) -> list[str]:
    return [unescape(found) for found in _ADDRESS.findall(text)]


@pytest.mark.parametrize(("ask", "options"), WAYS)
def test_every_address_of_every_page_stays_below_the_prefix(
    make_app: Callable[..., Flask], database_url: str, db: Conn, ask: Ask, options: dict[str, Any]
) -> None:
    dead = add_finished(db, "failed", queue="mail", error="x")
    add_job(db, queue="mail")
    add_worker(db, queues=["mail"])
    db.execute("INSERT INTO jobq.schedule (name, task, queue, cron) VALUES ('nightly', 't', 'mail', '0 7 * * *')")
    client = make_app(database_url, **options).test_client()
    seen: set[str] = set()
    waiting = [*PAGES, f"/jobs/{dead}"]
    while waiting:
        path, headers = ask(waiting.pop())
        response = client.get(path, headers=headers)
        assert response.status_code == 200, path
        if response.mimetype != "text/html":
            response.close()
            continue
        assert (response.headers.get("Set-Cookie") or f"Path={PREFIX}/").partition("Path=")[2].partition(";")[
            0
        ] == f"{PREFIX}/"
        posted = set(re.findall(r'method="post" action="([^"]*)"', response.text))
        for address in some(addresses(response.text)):
            if address.startswith("#"):
                continue
            assert address.startswith(f"{PREFIX}/"), (path, address)
            inner = address.removeprefix(PREFIX).partition("#")[0]
            # Sorted and for another time they are the same.
            same = re.search(r"[?&](sort|hours|order)=", inner)
            if inner not in seen and escape(address) not in posted and not same:
                seen.add(inner)
                waiting.append(inner)
    assert {"/queue?name=mail", "/jobq-static/page.js", "/schedule?name=nightly", f"/jobs/{dead}"} <= seen


@pytest.mark.parametrize(("ask", "options"), WAYS)
def test_a_change_leads_back_below_the_prefix(
    make_app: Callable[..., Flask], database_url: str, db: Conn, ask: Ask, options: dict[str, Any]
) -> None:
    dead = add_finished(db, "failed")
    client = make_app(database_url, **options).test_client(use_cookies=False)
    path, headers = ask(f"/jobs/{dead}")
    shown = client.get(path, headers=headers)
    found = re.search(r'name="csrf" value="([^"]+)"', shown.text)
    assert found is not None
    path, headers = ask(f"/jobs/{dead}/retry")
    # A browser sends it, for its path is that of the address outside.
    cookie = shown.headers["Set-Cookie"].partition(";")[0]
    response = client.post(path, data={"csrf": found[1]}, headers={**headers, "Cookie": cookie})
    assert response.status_code == 303
    assert response.location.startswith(f"{PREFIX}/jobs/{dead}?note=")
    assert audit(db) == [("web", "retry")]


def test_the_login_goes_where_it_was_asked_for_and_nowhere_else(
    make_app: Callable[..., Flask], database_url: str, db: Conn
) -> None:
    users.add(db, "jobq", "ann", "operator", "correct horse battery", actor="test")
    client = make_app(database_url, users=True, secret_key="s", url_prefix=PREFIX).test_client()
    asked = client.get(f"{PREFIX}/jobs?q=state:failed")
    assert asked.location == f"{PREFIX}/login?next={PREFIX}/jobs?q%3Dstate:failed"
    assert client.get(f"{PREFIX}/").location == f"{PREFIX}/login"
    for wanted, leads in (
        (f"{PREFIX}/jobs?q=state:failed", f"{PREFIX}/jobs?q=state:failed"),
        ("/jobs", f"{PREFIX}/"),
        ("/ops/jobqx", f"{PREFIX}/"),
        (f"{PREFIX}//elsewhere/../..", f"{PREFIX}/"),
        ("//elsewhere/ops/jobq/", f"{PREFIX}/"),
    ):
        fresh = client.application.test_client()
        form = {
            "csrf": token(fresh, f"{PREFIX}/login"),
            "name": "ann",
            "password": "correct horse battery",
            "next": wanted,
        }
        response = fresh.post(f"{PREFIX}/login", data=form)
        assert (response.status_code, response.location) == (303, leads)
        assert all(f"Path={PREFIX}/" in cookie for cookie in some(response.headers.getlist("Set-Cookie")))


@pytest.mark.parametrize(
    ("headers", "options", "prefix"),
    [
        # From anybody else it is nothing.
        ({"X-Forwarded-Prefix": "/evil"}, {}, ""),
        ({"X-Forwarded-Prefix": "/evil"}, {"trusted_proxies": ["10.0.0.0/8"]}, ""),
        ({"X-Forwarded-Prefix": "/evil"}, {"trusted_proxies": ["10.0.0.0/8"], "url_prefix": "/ops"}, "/ops"),
        # A proxy's own is no other host and no way out.
        *(
            ({"X-Forwarded-Prefix": wrong}, {"trusted_proxies": ["127.0.0.1"]}, "")
            for wrong in ("//elsewhere.example", "/\\elsewhere", "/a/../..", "/a//b", "/a b", "/a?b", "/%2f%2fx", "/a;b", "/")
        ),
        ({"X-Forwarded-Prefix": "/a, /b/"}, {"trusted_proxies": ["127.0.0.1"]}, "/a/b"),
        ({"X-Forwarded-Prefix": "/a.b~c/@d"}, {"trusted_proxies": ["127.0.0.1"]}, "/a.b~c/@d"),
    ],
)  # fmt: skip
def test_what_a_header_may_say(
    make_app: Callable[..., Flask], database_url: str, headers: dict[str, str], options: dict[str, Any], prefix: str
) -> None:
    text = make_app(database_url, **options).test_client().get("/queues", headers=headers).text
    assert f'href="{prefix}/jobs"' in text
    assert f'src="{prefix}/jobq-static/page.js"' in text


def test_pages_of_two_prefixes_are_not_taken_for_each_other(make_app: Callable[..., Flask], database_url: str) -> None:
    client = make_app(database_url, trusted_proxies=["127.0.0.1"], cache_seconds=60).test_client()
    for prefix in ("/a", "/b"):
        assert f'href="{prefix}/jobs"' in client.get("/queues", headers={"X-Forwarded-Prefix": prefix}).text


def test_a_prefix_that_cannot_be() -> None:
    for wrong in ("/a/../b", "//elsewhere", "/a//b", "/a?b", "a b"):
        with pytest.raises(ConfigurationError, match="url_prefix="):
            Options(url_prefix=wrong)
    for said, prefix in (("/", None), ("", None), ("ops", "/ops"), ("/ops/", "/ops"), ("/a/b", "/a/b")):
        assert Options(url_prefix=said).url_prefix == prefix
    assert Options.load({"JOBQ_WEB_URL_PREFIX": "/ops"}).url_prefix == "/ops"
    assert clean_prefix("/%2e%2e/x") is None


@pytest.mark.parametrize(
    ("said", "secure"),
    [("https", True), ("https,http", True), ("https, http", True), ("http,https", False), ("http", False), ("", False)],
)
def test_a_list_of_protocols(
    make_app: Callable[..., Flask], database_url: str, db: Conn, said: str, secure: bool
) -> None:
    dead = add_finished(db, "failed")

    def cookie(client: FlaskClient) -> str:
        return client.get(f"/jobs/{dead}", headers={"X-Forwarded-Proto": said}).headers["Set-Cookie"]

    assert ("Secure" in cookie(make_app(database_url, trusted_proxies=["127.0.0.1"]).test_client())) is secure
    assert "Secure" not in cookie(make_app(database_url).test_client())
