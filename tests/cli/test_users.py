"""``jobq users`` on a real database: what it keeps, what it tells, and what no one gets to see."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner, Result

from jobq._postgres.tables.page import WEB_ROLES
from jobq.cli import main
from jobq.cli.exits import Exit
from jobq.errors import InvalidOption
from jobq.web.auth import users
from tests.support.web import Conn

Run = Callable[..., Result]
PASSWORD = "correct horse"


@pytest.fixture
def run(database_url: str) -> Run:
    def call(*arguments: str, answer: str | None = None, code: int = 0) -> Result:
        environment = {"JOBQ_DATABASE_URL": database_url, "JOBQ_ACTOR": "root"}
        result = CliRunner().invoke(main, ["users", *arguments], input=answer, env=environment)
        assert result.exit_code == code, result.output
        return result

    return call


def audit(db: Conn) -> list[tuple[Any, ...]]:
    return db.execute("SELECT actor, action, target, before, after FROM jobq.audit ORDER BY id").fetchall()


def test_users_come_change_and_go(run: Run, db: Conn) -> None:
    assert "no users" in run("list").stderr
    assert run("add", "ann", "--password-stdin", answer=f"{PASSWORD}\n").stdout == "user ann is added, as viewer\n"
    run("add", "ben", "--role", "admin", "--password-stdin", answer="another one")
    assert "already exists" in run("add", "ann", "--password-stdin", answer=PASSWORD, code=64).stderr
    first = users.find(db, "jobq", "ann")
    assert first is not None
    assert first.password_hash.startswith("scrypt:")
    run("set-role", "ann", "operator")
    changed = users.find(db, "jobq", "ann")
    assert changed is not None
    assert (changed.role, changed.password_hash) == ("operator", first.password_hash)
    assert changed.changed_at > first.changed_at
    run("set-password", "ann", "--password-stdin", answer="yet another\r\n")
    again = users.find(db, "jobq", "ann")
    assert again is not None
    assert again.password_hash != first.password_hash
    assert again.changed_at > changed.changed_at
    listed = json.loads(run("list", "--json").stdout)["users"]
    assert [(user["name"], user["role"]) for user in listed] == [("ann", "operator"), ("ben", "admin")]
    assert "scrypt" not in run("list", "--json").output + run("list").output
    run("remove", "ann")
    assert users.find(db, "jobq", "ann") is None
    assert audit(db) == [
        ("root", "user_add", {"user": "ann"}, None, {"role": "viewer"}),
        ("root", "user_add", {"user": "ben"}, None, {"role": "admin"}),
        ("root", "user_set_role", {"user": "ann"}, {"role": "viewer"}, {"role": "operator"}),
        ("root", "user_set_password", {"user": "ann"}, {"role": "operator"}, {"role": "operator"}),
        ("root", "user_remove", {"user": "ann"}, {"role": "operator"}, None),
    ]


@pytest.mark.parametrize(
    "arguments", [("set-role", "nobody", "admin"), ("set-password", "nobody", "--password-stdin"), ("remove", "nobody")]
)
def test_unknown_users_are_told(run: Run, db: Conn, arguments: tuple[str, ...]) -> None:
    assert "does not exist" in run(*arguments, answer=PASSWORD, code=64).stderr
    assert audit(db) == []


@pytest.mark.parametrize("name", ["", " ann", "ann ", "a\tb", "x" * 101, "a\u202eb"])
def test_names_that_cannot_be(run: Run, db: Conn, name: str) -> None:
    assert re.search("name(=| of 101)", run("add", "--password-stdin", "--", name, answer=PASSWORD, code=64).stderr)
    assert users.listed(db, "jobq") == []


@pytest.mark.parametrize("password", ["", "short", "x" * 1001])
def test_passwords_that_cannot_be_are_not_repeated(run: Run, db: Conn, password: str) -> None:
    told = run("add", "ann", "--password-stdin", answer=password + "\n", code=64).stderr
    assert f"got {len(password)}" in told
    assert not password or password not in told
    assert users.listed(db, "jobq") == []


def test_a_password_is_no_argument(run: Run) -> None:
    run("add", "ann", "--password", PASSWORD, code=64)
    assert "--password-stdin" in run("add", "ann", answer=PASSWORD, code=64).stderr


def test_roles_are_those_of_the_table(db: Conn) -> None:
    for role in WEB_ROLES:
        assert users.add(db, "jobq", role, role, PASSWORD, actor="x")
    with pytest.raises(InvalidOption, match="role='root'"):
        users.add(db, "jobq", "ann", "root", PASSWORD, actor="x")
    with pytest.raises(InvalidOption, match="role='root'"):
        users.set_role(db, "jobq", "viewer", "root", actor="x")


def test_without_flask_it_says_what_to_install(database_url: str) -> None:
    code = "import sys; sys.modules['flask'] = None; from jobq.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "users", "list"],
        env={**os.environ, "JOBQ_DATABASE_URL": database_url},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == Exit.CONFIGURATION
    assert done.stderr == "jobq: the status page's users need flask: pip install 'jobq[web]'\n"
