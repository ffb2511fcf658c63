"""Every route of the page x every role x every way of asking, generated from the routes themselves: what the table allows is
answered, and what it refuses changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from typing import Any

import pytest
from flask import Blueprint, Flask
from flask.testing import FlaskClient
from psycopg import sql
from werkzeug.routing import Rule
from werkzeug.test import TestResponse

from jobq import JobQ
from jobq.web import Identity, routes
from jobq.web.auth import access
from jobq.web.routes import Route
from tests.support.checks import some
from tests.support.rows import add_finished, add_job, add_worker
from tests.support.web import Conn
from tests.support.workflows.runs import end_node

ROLES = (*access.ROLES, None)
# The host's way to identify a user: the tests' own header.
WHO = "X-Test-Role"


def who() -> Identity | None:
    from flask import request

    role = request.headers.get(WHO)
    return Identity("ann", role) if role else None


@pytest.fixture
def app(make_app: Callable[..., Flask], database_url: str) -> Flask:
    # Users are on, too, so that the login's own routes are among those tried.
    return make_app(database_url, identify=who, users=True, secret_key="s", cache_seconds=2)


@pytest.fixture
def seeded(db: Conn) -> dict[str, Any]:
    """Rows for the addresses: what stands in them is tried on real ones."""
    dead, idle = add_finished(db, "failed", queue="mail"), add_job(db, queue="mail")
    worker = add_worker(db)
    row = db.execute(
        "INSERT INTO jobq.operation (up_to, action, filter, actor) VALUES (0, 'retry', 'state:failed', 'ann') RETURNING id"
    ).fetchone()
    assert row is not None
    db.execute("INSERT INTO jobq.schedule (name, task, cron) VALUES ('mail', 'mail.send', '0 7 * * *')")
    return {"id": dead, "idle": idle, "worker": worker, "operation": row[0], "workflow": held_run(db)}


def held_run(db: Conn) -> int:
    """A run that can be cancelled and retried: its first node has failed, and the second one waits for it."""
    q = JobQ(database_url="postgresql://127.0.0.1:1/none")
    step = q.task(name="step")(lambda: None)
    with q.workflow("held") as wf:
        step.node().named("second").after(step.node().named("first"))
    run = wf.enqueue(db).id
    end_node(db, run, "first", "failed")
    return run


def rules(app: Flask, method: str) -> list[Rule]:
    """The page's routes; the file server and the addresses that are none are no views."""
    return [
        rule
        for rule in app.url_map.iter_rules()
        if rule.endpoint.startswith("jobq.")
        and rule.endpoint not in ("jobq.static", "jobq.nothing")
        and method in (rule.methods or ())
    ]


def path_of(rule: Rule, seeded: dict[str, Any]) -> str:
    """An address that `rule` matches, of something that is there."""
    values = {
        "id": seeded["operation"] if rule.rule.startswith("/operations")
        else seeded["workflow"] if "/workflows" in rule.rule
        else seeded["id"],
        "name": "mail", "fingerprint": "0" * 12, "part": "args",
    }  # fmt: skip

    def value(match: re.Match[str]) -> str:
        return str(seeded["worker"] if match[1] == "uuid" else values[match[2]])

    built = re.sub(r"<(?:(\w+)(?:\([^)]*\))?:)?(\w+)>", value, rule.rule)
    assert "<" not in built
    # What these are about stands in the query.
    return f"{built}?name=mail" if rule.rule in ("/queue", "/schedule") else built


def contents(db: Conn) -> dict[str, Any]:
    """Every row of every table."""
    tables = db.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'jobq'::regnamespace AND relkind = 'r'"
    ).fetchall()
    return {
        name: db.execute(sql.SQL("SELECT t.*::text FROM jobq.{} t ORDER BY 1").format(sql.Identifier(name))).fetchall()
        for (name,) in tables
    }


@contextmanager
def unchanged(db: Conn, what: str) -> Iterator[None]:
    before = contents(db)
    yield
    assert contents(db) == before, what


def client_of(app: Flask, role: str | None) -> FlaskClient:
    client = app.test_client()
    if role is not None:
        client.environ_base["HTTP_" + WHO.upper().replace("-", "_")] = role
    return client


def form_token(client: FlaskClient) -> str:
    """A token of this client's: the login's page has a form for everybody."""
    found = re.search(r'name="csrf" value="([^"]+)"', client.get("/login").text)
    assert found is not None
    return found[1]


def form_of(seeded: dict[str, Any]) -> dict[str, Any]:
    """Every field that any form has, so that a view which came to run would change something."""
    return {
        "id": str(seeded["id"]), "action": "retry", "queue": "mail", "q": "state:failed", "what": "quiet", "seconds": "60",
        "priority": "3", "reason": "tried", "typed": "1", "name": "ann", "password": "wrong wrong", "to": "other",
        "schedule": "mail",
        "limit": "3", "groups": "fair", "group": "a",
    }  # fmt: skip


def needs(app: Flask) -> dict[str, str]:
    """What each endpoint needs, as its route says."""
    found = {
        f"jobq.{endpoint}": permission
        for endpoint, permission in routes.required_permissions(app.blueprints["jobq"]).items()
    }
    assert {rule.endpoint for method in ("GET", "POST") for rule in rules(app, method)} == set(found)
    return found


class Forms(HTMLParser):
    """The addresses that the forms of a page post to."""

    def __init__(self) -> None:
        super().__init__()
        self.actions: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "form" and values.get("method") == "post":
            self.actions.append(values["action"] or "")


def offers(app: Flask, client: FlaskClient, seeded: dict[str, Any]) -> set[str]:
    """The endpoints that the forms of all pages post to."""
    adapter = app.url_map.bind("localhost")
    forms = Forms()
    for rule in rules(app, "GET"):
        forms.feed(client.get(path_of(rule, seeded)).text)
    return {adapter.match(action.partition("?")[0], method="POST")[0] for action in forms.actions}


def refused(response: TestResponse, role: str | None) -> bool:
    """Whether this is the answer to a user without the right: the login or 401 without a user, 403 for a role."""
    if role is None:
        return response.status_code == 401 or (response.status_code == 303 and response.location.startswith("/login"))
    return response.status_code == 403


@pytest.mark.parametrize("role", ROLES)
def test_every_change_by_every_role(app: Flask, db: Conn, seeded: dict[str, Any], role: str | None) -> None:
    needed = needs(app)
    stranger = form_token(client_of(app, "admin"))
    tried = 0
    for rule in some(rules(app, "POST")):
        path, form = path_of(rule, seeded), form_of(seeded)
        needs_, open_ = needed[rule.endpoint], needed[rule.endpoint] == access.ANYONE
        with unchanged(db, f"{role} {path} without a good token"):
            client = client_of(app, role)
            good = form_token(client)
            for wrong in (
                {"data": form},
                {"data": form | {"csrf": "x"}},
                {"data": form | {"csrf": good + "x"}},
                {"data": form | {"csrf": stranger}},
                {"data": form | {"csrf": good}, "headers": {"Sec-Fetch-Site": "cross-site"}},
                {"data": form | {"csrf": good}, "headers": {"Sec-Fetch-Site": "same-site"}},
                {"data": form, "query_string": {"csrf": good}},
            ):
                response = client.post(path, **wrong)
                assert response.status_code == 403 or refused(response, role), (role, path, wrong, response.status_code)
            # Under another user's name the same browser's token is none.
            if role == "admin":
                client.environ_base["HTTP_X_TEST_ROLE"] = ""
                assert client.post(path, data=form | {"csrf": good}).status_code in (401, 403)
            adapter = app.url_map.bind("localhost")
            for method in ("GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"):
                # Some share their address with something to read: a queue can have the name "pause".
                if method in ("GET", "HEAD") and adapter.match(path, method=method)[0] != "jobq.nothing":
                    client_of(app, role).open(path, method=method, query_string=form | {"csrf": good})
                    continue
                response = client_of(app, role).open(path, method=method, query_string=form | {"csrf": good})
                expected = 200 if method == "OPTIONS" else 405
                assert response.status_code == expected or refused(response, role), (role, method, path)
        allowed = open_ or access.may(role, needs_)
        client = client_of(app, role)
        form["csrf"] = form_token(client)
        if not allowed:
            with unchanged(db, f"{role} {path}"):
                assert refused(client.post(path, data=form), role), (role, path)
        elif not open_:
            response = client.post(path, data=form, headers={"Sec-Fetch-Site": "same-origin"})
            # Past the check: what the view then says of the values is its own matter.
            assert not refused(response, role) or "This needs the role" not in response.text, (
                role,
                path,
                response.text,
            )
            assert response.status_code != 401
        tried += 1
    assert tried >= 24


@pytest.mark.parametrize("role", ROLES)
def test_every_read_by_every_role(app: Flask, db: Conn, seeded: dict[str, Any], role: str | None) -> None:
    needed = needs(app)
    with unchanged(db, f"reads of {role}"):
        for rule in some(rules(app, "GET")):
            path = path_of(rule, seeded)
            for method in ("GET", "HEAD"):
                response = client_of(app, role).open(path, method=method)
                if needed[rule.endpoint] == access.ANYONE or access.may(role, needed[rule.endpoint]):
                    assert response.status_code in (200, 400, 404), (role, path, response.status_code)
                else:
                    assert refused(response, role), (role, path, response.status_code)
                assert not (method == "HEAD" and response.data)
            assert client_of(app, role).open(path, method="OPTIONS").status_code == 200


def test_a_read_only_page_refuses_every_change_to_everybody(
    make_app: Callable[..., Flask], database_url: str, db: Conn, seeded: dict[str, Any]
) -> None:
    app = make_app(database_url, identify=who, users=True, secret_key="s", read_only=True)
    needed = needs(app)
    client = client_of(app, "admin")
    with unchanged(db, "a read-only page"):
        for rule in some(rules(app, "POST")):
            if needed[rule.endpoint] != access.ANYONE:
                form = form_of(seeded) | {"csrf": form_token(client)}
                response = client.post(path_of(rule, seeded), data=form)
                assert response.status_code == 403
                assert "read-only" in response.text
    offered = offers(app, client, seeded)
    # The pages were read: what anyone may send is still offered.
    assert offered == {"jobq.login_post"}


@pytest.mark.parametrize("role", access.ROLES)
def test_a_role_is_offered_only_what_it_may_do(app: Flask, seeded: dict[str, Any], role: str) -> None:
    needed = needs(app)
    everything = offers(app, client_of(app, "admin"), seeded)
    assert len(everything) > 10
    expected = {endpoint for endpoint in everything if access.may(role, needed[endpoint])} | {"jobq.login_post"}
    assert offers(app, client_of(app, role), seeded) == expected


# --- The table, and what keeps a route from being forgotten ---


def test_the_table() -> None:
    reads, steers = (
        {"view", "export"},
        {
            "retry",
            "cancel",
            "run_now",
            "snooze",
            "move",
            "signal",
            "pause",
            "configure",
            "bulk",
            "worker_quiet",
            "schedule",
        },
    )
    wanted = {
        "viewer": reads,
        "operator": reads | steers,
        "admin": reads | steers | {"delete", "worker_stop", "schedule_add"},
    }
    assert {role: {name for name in access.REQUIRED_ROLE if access.may(role, name)} for role in access.ROLES} == wanted
    assert not any(access.may(None, name) or access.may("root", name) for name in access.REQUIRED_ROLE)
    assert access.may(None, access.ANYONE)
    with pytest.raises(KeyError):
        access.may("admin", "misspelt")
    with pytest.raises(ValueError, match="role='root'"):
        Identity("ann", "root")


def test_a_route_without_its_permission_cannot_be() -> None:
    def view() -> str:
        return "seen"

    with pytest.raises(TypeError, match="needs"):
        Route("/x", "GET", view)  # type: ignore[call-arg]
    for method, permission in (("GET", ""), ("GET", "vieww"), ("GET", "retry"), ("POST", "view"), ("PUT", "retry")):
        with pytest.raises(ValueError, match="route"):
            Route("/x", method, view, permission)
    mounted = Blueprint("x", "x")
    for wrong in (("/x", "GET", view), ("/x", "GET", view, None)):
        with pytest.raises(TypeError, match="Route"):
            routes.register(mounted, [wrong])  # type: ignore[list-item]


@pytest.mark.parametrize("role", ROLES)
def test_the_test_finds_routes_without_their_check(
    make_app: Callable[..., Flask],
    database_url: str,
    db: Conn,
    seeded: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    role: str | None,
) -> None:
    monkeypatch.setattr(routes, "_guarded", lambda route: route.view)
    app = make_app(database_url, identify=who, users=True, secret_key="s")
    with pytest.raises(AssertionError):
        test_every_change_by_every_role(app, db, seeded, role)


def test_a_rule_that_was_added_past_the_routes_is_found(app: Flask) -> None:
    app.add_url_rule("/back-door", "jobq.back_door", lambda: "in", methods=["POST"])
    with pytest.raises(AssertionError):
        needs(app)
