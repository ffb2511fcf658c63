"""The status page's headers, password, errors, mounting and serving."""

from __future__ import annotations

import base64
import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

import psycopg
import psycopg.conninfo
import pytest
from flask import Flask, abort, request
from flask.testing import FlaskClient
from itsdangerous import URLSafeSerializer
from jinja2 import StrictUndefined
from psycopg import sql

from jobq import migrate, operations, queries
from jobq.errors import ConfigurationError
from jobq.filters import JobFilter
from jobq.web import blueprint, create_app, serve
from jobq.web.server import close, is_loopback
from tests.support.checks import some
from tests.support.rows import add_finished, add_job
from tests.support.servers import postgres
from tests.support.waiting import wait_until
from tests.support.web import PAGES, Conn, audit
from tests.web.test_access import held_run

# --- Headers, password, errors ---


@pytest.mark.parametrize("path", [*PAGES, "/nothing", "/api/stats", "/jobq-static/page.js", "/favicon.ico", "/livez"])
def test_headers(client: FlaskClient, path: str) -> None:
    response = client.get(path, buffered=True)
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["X-Frame-Options"] == "DENY"
    stored = path.startswith("/jobq-static")
    assert (response.headers["Cache-Control"] == "no-store") is not stored


@pytest.mark.parametrize("path", [*PAGES, "/nothing"])
def test_nothing_in_a_page_needs_a_looser_policy(client: FlaskClient, db: Conn, path: str) -> None:
    add_finished(db, "failed", error="e")
    text = client.get(path).text
    assert re.findall(r"<script(?![^>]* src=)|<style| style=| on\w+=|javascript:|https?://(?!www\.w3\.org)", text) == []


def test_a_password_guards_all_but_livez(
    make_app: Callable[..., Flask], database_url: str, db: Conn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOBQ_WEB_PASSWORD", "päss:word")
    client = make_app(database_url).test_client()
    good = {"Authorization": "Basic " + base64.b64encode("ann:päss:word".encode()).decode()}
    for path in (*PAGES, "/api/stats", "/nothing", "/livez/x"):
        response = client.get(path)
        assert response.status_code == 401
        assert response.headers["WWW-Authenticate"].startswith("Basic")
    assert client.post("/queues/pause").status_code == 401
    for wrong in ("Basic !", "Basic " + base64.b64encode(b"ann:wrong").decode(), "Bearer x", "Basic"):
        assert client.get("/", headers={"Authorization": wrong}).status_code == 401
    assert client.get("/livez").text == "ok\n"
    assert client.get("/", headers=good).status_code == 200

    id = add_finished(db, "failed")
    found = re.search(r'name="csrf" value="([^"]+)"', client.get(f"/jobs/{id}", headers=good).text)
    assert found is not None
    client.post(f"/jobs/{id}/retry", data={"csrf": found[1]}, headers=good)
    assert audit(db) == [("ann", "retry")]


def test_unknown_addresses_and_methods(client: FlaskClient) -> None:
    for path in ("/nothing", "/jobs/x", "/jobs/404", "/jobs/99999999999999999999999", "/jobq-static/no.css"):
        response = client.get(path)
        assert response.status_code == 404
        assert "<h1>Not found</h1>" in response.text
    assert client.get("/api/jobs/404").json == {
        "error": "Job 404: there is none with this id, neither live nor in the history still kept.",
        "status": 404,
    }
    assert client.get("/jobs/change").status_code == 405
    assert client.post("/").status_code == 405


def test_without_tables(make_app: Callable[..., Flask], empty_database_url: str) -> None:
    client = make_app(empty_database_url).test_client()
    for path in PAGES:
        response = client.get(path)
        assert response.status_code == 503
        # The overview says it among what it has found.
        assert ("Run `jobq migrate`" if path == "/" else "Run “jobq migrate”") in response.text
    assert client.get("/livez").status_code == 200


def test_a_failure_of_ours(make_app: Callable[..., Flask], database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    client = make_app(database_url).test_client()

    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("secret detail")

    monkeypatch.setattr("jobq.queries.workers", fail)
    for path in ("/workers", "/api/workers"):
        response = client.get(path)
        assert response.status_code == 500
        assert "secret detail" not in response.text
        assert "server&#39;s log" in response.text or "server's log" in response.text


def test_a_slow_statement_makes_a_partial_page(
    make_app: Callable[..., Flask], database_url: str, db: Conn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobq.web.database.QUERY_TIMEOUT", 0.1)
    client = make_app(database_url).test_client()
    db.execute("DELETE FROM jobq.maintenance_task")
    db.execute("INSERT INTO jobq.maintenance_task (name) VALUES ('seen-all-the-same')")
    with db.transaction():
        db.execute("LOCK jobq.worker")
        response = client.get("/workers")
        assert response.status_code == 200
        assert "Some queries of this page timed out" in response.text
        assert "Missing: workers." in response.text
        assert "seen-all-the-same" in response.text
        assert "queries of this page timed out" in client.get("/").text
        response = client.get("/api/workers")
        assert (response.status_code, response.headers["Retry-After"]) == (503, "5")
        assert "too long" in response.text
    assert "queries of this page timed out" not in client.get("/workers").text


def test_no_table_that_somebody_holds_makes_an_error_page(
    make_app: Callable[..., Flask], database_url: str, db: Conn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobq.web.database.QUERY_TIMEOUT", 0.1)
    client = make_app(database_url).test_client()
    dead, live = add_finished(db, "failed", error="boom"), add_job(db)
    made = operations.draft(db, "jobq", action="retry", filter=JobFilter.parse("state:failed"), actor="ann")
    group = queries.failures(db, "jobq").groups[0].fingerprint
    paths = [
        *PAGES, f"/jobs/{dead}", f"/jobs/{live}", "/jobs?q=args.a:1", "/queues/default", f"/failures/{group}",
        f"/operations/{made.id}", f"/workflows/{held_run(db)}",
    ]  # fmt: skip
    tables = db.execute(
        "SELECT relname FROM pg_class"
        " WHERE relnamespace = 'jobq'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition"
    ).fetchall()
    assert ("operation",) in tables
    for (table,) in some(tables):
        with db.transaction():
            db.execute(sql.SQL("LOCK jobq.{}").format(sql.Identifier(table)))
            found = {path: client.get(path).status_code for path in paths}
        assert set(found.values()) == {200}, (table, found)


def test_the_database_goes_and_comes_back(make_app: Callable[..., Flask], own_server: postgres.OwnServer) -> None:
    migrate.upgrade(own_server.url)
    client = make_app(own_server.url).test_client()
    assert client.get("/").status_code == 200
    own_server.kill()
    response = client.get("/")
    assert response.status_code == 503
    assert "The database cannot be reached" in response.text
    assert response.headers["Retry-After"] == "5"
    assert client.get("/api/stats").status_code == 503
    assert client.get("/livez").status_code == 200
    # No one can log in, and a session cannot be looked at: the page says so, and lets no one in.
    behind = make_app(own_server.url, users=True, secret_key="s").test_client()
    found = re.search(r'name="csrf" value="([^"]+)"', behind.get("/login").text)
    assert found is not None
    login = behind.post("/login", data={"name": "ann", "password": "correct horse", "csrf": found[1]})
    assert login.status_code == 503
    cookie = URLSafeSerializer("s", salt="jobq.web session").dumps(["ann", "x", time.time(), time.time()])
    behind.set_cookie("jobq_session", cookie)
    assert behind.get("/queues").status_code == 503
    assert behind.head("/queues").status_code == 503
    own_server.restart()
    wait_until(lambda: client.get("/").status_code == 200, what="the page to come back")


def test_no_connection_is_held_between_requests(client: FlaskClient, db: Conn) -> None:
    client.get("/")
    row = db.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'jobq web' AND state <> 'idle'"
    ).fetchone()
    assert row == (0,)


# --- Mounting and serving ---


def test_mounted_in_another_application(database_url: str, db: Conn) -> None:
    host = Flask("host")
    host.secret_key = "s"
    mounted = blueprint(database_url=database_url, actor="ann")
    host.register_blueprint(mounted, url_prefix="/ops/jobs")
    # As many applications have it, in words that the page uses, too.
    host.context_processor(lambda: {"now": datetime.now, "page": "the host's", "missing": 7})
    host.add_url_rule("/", "home", lambda: "home")
    client = host.test_client()
    try:
        id = add_finished(db, "failed")
        assert "Content-Security-Policy" not in client.get("/").headers
        text = client.get("/ops/jobs/").text
        assert 'href="/ops/jobs/queues"' in text
        assert 'src="/ops/jobs/jobq-static/page.js"' in text
        page = client.get(f"/ops/jobs/jobs/{id}")
        assert "Path=/ops/jobs/" in page.headers["Set-Cookie"]
        found = re.search(r'name="csrf" value="([^"]+)"', page.text)
        assert found is not None
        response = client.post(f"/ops/jobs/jobs/{id}/retry", data={"csrf": found[1]})
        assert response.location.startswith(f"/ops/jobs/jobs/{id}?note=")
        assert audit(db) == [("ann", "retry")]
        missing = client.get("/ops/jobs/nothing")
        assert missing.status_code == 404
        assert "Go to the overview" in missing.text
        assert "Go to the overview" not in client.get("/nothing").text
    finally:
        close(host)


def test_mounted_at_the_root_of_an_application_with_files_of_its_own(database_url: str, tmp_path: Path) -> None:
    (tmp_path / "page.css").write_text("the host's")
    host = Flask("host", static_folder=str(tmp_path), static_url_path="/static")
    host.register_blueprint(blueprint(database_url=database_url))
    client = host.test_client()
    try:
        files = re.findall(r'(?:href|src)="([^"]+\.(?:css|js|svg))"', client.get("/").text)
        assert len(files) > 8
        for file in files:
            with client.get(file) as response:
                assert response.status_code == 200, file
        with client.get("/static/page.css") as response:
            assert response.data == b"the host's"
    finally:
        close(host)


def test_the_pages_forms_where_the_host_checks_tokens_of_its_own(database_url: str, db: Conn) -> None:
    """As Flask-WTF's CSRFProtect does it: before the request, but for the views and blueprints that were exempted."""
    host = Flask("host")
    host.secret_key = "s"
    exempt: set[str] = set()

    @host.before_request
    def protect() -> None:
        if request.method == "POST" and request.blueprint not in exempt and "csrf_token" not in request.form:
            abort(400, "The CSRF token is missing.")

    mounted = blueprint(database_url=database_url)
    host.register_blueprint(mounted, url_prefix="/jobs")
    client = host.test_client()
    try:
        add_job(db, queue="mail")
        found = re.search(r'name="csrf" value="([^"]+)"', client.get("/jobs/queues").text)
        assert found is not None
        form = {"csrf": found[1], "queue": "mail"}
        assert client.post("/jobs/queues/pause", data=form).status_code == 400
        exempt.add(mounted.name)
        assert client.post("/jobs/queues/pause", data=form).status_code == 303
        # The page's own check stays.
        assert client.post("/jobs/queues/resume", data=form | {"csrf": "x"}).status_code == 403
    finally:
        close(host)


class _Host(Flask):
    """An application whose own templates are of another kind."""

    jinja_options: ClassVar[dict[str, Any]] = {  # type: ignore[misc]
        "variable_start_string": "[[",
        "variable_end_string": "]]",
        "undefined": StrictUndefined,
    }

    def select_jinja_autoescape(self, filename: str | None) -> bool:
        return False


def test_a_host_whose_templates_are_of_another_kind(database_url: str, db: Conn) -> None:
    host = _Host("host")
    host.register_blueprint(blueprint(database_url=database_url, cache_seconds=0), url_prefix="/ops")
    script = "<script>alert(1)</script>"
    dead = add_finished(db, "failed", task=script, queue=script, error=script, args={"a": script})
    made = operations.draft(db, "jobq", action="retry", filter=JobFilter.parse("state:failed"), actor=script)
    operations.pause(db, "jobq", script, actor=script)
    group = queries.failures(db, "jobq").groups[0].fingerprint
    client = host.test_client()
    try:
        for path in (*PAGES, f"/jobs/{dead}", f"/queues/{script}", f"/failures/{group}", f"/operations/{made.id}"):
            response = client.get(f"/ops{path}")
            assert (response.status_code, script in response.text) == (200, False), path
            assert "{{" not in response.text
    finally:
        close(host)


def test_another_schema(make_app: Callable[..., Flask], empty_database_url: str) -> None:
    migrate.upgrade(empty_database_url, "other")
    client = make_app(empty_database_url, schema="other").test_client()
    assert "<code>other</code>" in client.get("/").text


def test_no_database_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JOBQ_DATABASE_URL", raising=False)
    with pytest.raises(ConfigurationError, match="no database"):
        create_app()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org", ""])
def test_serve_refuses_other_machines_without_a_password(
    make_app: Callable[..., Flask], database_url: str, host: str
) -> None:
    with pytest.raises(ConfigurationError, match="JOBQ_WEB_PASSWORD"):
        serve(make_app(database_url), host, 0)


def test_serve_tells_an_address_that_is_taken(make_app: Callable[..., Flask], database_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ConfigurationError, match="cannot listen"):
        serve(make_app(database_url), "127.0.0.1", taken.getsockname()[1])


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("[::1]", True), ("localhost", True),
     ("0.0.0.0", False), ("localhost.example.org", False)],
)  # fmt: skip
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


_SERVE = """
import sys
from jobq.web import create_app, serve
serve(create_app(database_url=sys.argv[1]), "127.0.0.1", 0, ready=lambda address: print(address, flush=True))
"""


@contextmanager
def served(database_url: str, **env: str) -> Iterator[int]:
    """The port of a status page that serves in a process of its own."""
    command = [sys.executable, "-c", _SERVE, database_url]
    environment = {**os.environ, **env}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline().strip().rstrip("/").rsplit(":", 1)[1])
        finally:
            process.send_signal(signal.SIGINT)
        process.wait(20)


@pytest.mark.parametrize("framing", ["Content-Length: 104857600", "Transfer-Encoding: chunked"])
def test_a_huge_body_is_not_read(database_url: str, db: Conn, framing: str) -> None:
    chunk = b"x" * 65_536
    framed = b"10000\r\n" + chunk + b"\r\n" if "chunked" in framing else chunk
    head = (
        f"POST /queues/pause HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n"
        "Content-Type: application/x-www-form-urlencoded\r\n\r\n"
    )
    with served(database_url) as port, socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(head.encode())
        sent = 0
        # The server answers and hangs up after little of it; what the sockets hold is sent all the same.
        with suppress(ConnectionError):
            while sent < 100 * 1024 * 1024:
                connection.sendall(framed)
                sent += len(framed)
        assert sent < 50 * 1024 * 1024
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        text = answer.read().decode()
        assert answer.status == 413
        assert "<h1>Too large</h1>" in text
        assert "Content-Security-Policy" in answer.headers
        # And it goes on serving.
        other = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        other.request("GET", "/livez")
        assert other.getresponse().status == 200
        other.close()


def test_a_poll_that_finds_nothing_new_keeps_its_connection(database_url: str, db: Conn) -> None:
    with served(database_url, JOBQ_WEB_CACHE_SECONDS="600") as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        try:
            headers: dict[str, str] = {}
            for _ in range(2):
                connection.request("GET", "/queues", headers=headers)
                response = connection.getresponse()
                response.read()
                headers.setdefault("Cookie", response.headers.get("Set-Cookie", "").partition(";")[0])
            headers["If-None-Match"] = response.headers["ETag"]
            used = connection.sock
            for _ in range(3):
                connection.request("GET", "/queues", headers=headers)
                response = connection.getresponse()
                assert (response.status, response.read()) == (304, b"")
                assert "Content-Length" not in response.headers
            assert connection.sock is used
            connection.request("GET", "/queues", headers=headers | {"Connection": "close"})
            assert connection.getresponse().headers["Connection"] == "close"
        finally:
            connection.close()


def test_a_large_body_in_another_server(client: FlaskClient) -> None:
    response = client.post("/queues/pause", data=b"x", environ_overrides={"CONTENT_LENGTH": "104857600"})
    assert response.status_code == 413
    assert "<h1>Too large</h1>" in response.text


_FORK = """
import os, sys
from jobq.web import create_app
app = create_app(database_url=sys.argv[1], cache_seconds=0)
if sys.argv[2] == "after":
    assert app.test_client().get("/queues").status_code == 200
children = []
for _ in range(2):
    if not (child := os.fork()):
        os._exit(0 if app.test_client().get("/queues").status_code == 200 else 1)
    children.append(child)
assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
assert app.test_client().get("/queues").status_code == 200
"""


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_server_that_forks(database_url: str, when: str) -> None:
    """Before the first request, as gunicorn --preload does, and after it."""
    command = [sys.executable, "-c", _FORK, database_url, when]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_serve_answers_this_machines_names_only(database_url: str) -> None:
    command = [sys.executable, "-c", _SERVE, database_url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            assert address.startswith("http://127.0.0.1:")
            port = int(address.rstrip("/").rsplit(":", 1)[1])
            codes = {}
            for name in (
                f"127.0.0.1:{port}",
                f"localhost:{port}",
                f"[::1]:{port}",
                "[::1].example.org",
                "[::1]example.org",
                "rebound.example.org",
                f"127.0.0.1.example.org:{port}",
            ):
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
                connection.request("GET", "/queues", headers={"Host": name})
                response = connection.getresponse()
                codes[name] = response.status
                assert "Server" not in response.headers
                assert b"Traceback" not in response.read()
                connection.close()
            assert list(codes.values()) == [200, 200, 200, 400, 400, 400, 400]
        finally:
            process.send_signal(signal.SIGINT)
        process.wait(20)


def test_a_role_without_rights_is_told(make_app: Callable[..., Flask], database_url: str, db: Conn) -> None:
    db.execute("DROP ROLE IF EXISTS web_nobody")
    db.execute("CREATE ROLE web_nobody LOGIN")
    try:
        client = make_app(psycopg.conninfo.make_conninfo(database_url, user="web_nobody")).test_client()
        response = client.get("/")
        assert response.status_code == 503
        assert "Grant it" in response.text
        db.execute("GRANT USAGE ON SCHEMA jobq TO web_nobody")
        assert client.get("/queues").status_code == 503
    finally:
        close(client.application)
        db.execute("DROP OWNED BY web_nobody")
        db.execute("DROP ROLE web_nobody")


def test_tables_of_another_shape_are_told(client: FlaskClient, db: Conn) -> None:
    db.execute("ALTER TABLE jobq.worker RENAME COLUMN slots TO places")
    response = client.get("/workers")
    assert response.status_code == 503
    assert "do not fit this version of jobq" in response.text
