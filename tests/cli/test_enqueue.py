"""``jobq enqueue``: by a task's own rules with --app, by name without."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result
from psycopg.rows import dict_row

from jobq.cli import main
from tests.support.rows import add_worker

Conn = psycopg.Connection[Any]
Run = Callable[..., Result]

APP = """
from datetime import date
from jobq import JobQ

q = JobQ()

@q.task(queue="mail", max_attempts=3, name="send")
def send(to: str, copies: int = 1, on: date | None = None) -> None: ...
"""


@pytest.fixture
def db(database_url: str) -> Iterator[Conn]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of an application module, importable for this test."""
    (tmp_path / "cli_shop.py").write_text(APP)
    monkeypatch.syspath_prepend(tmp_path)
    yield "cli_shop:q"
    sys.modules.pop("cli_shop", None)


@pytest.fixture
def run(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    # The application reads it at its import, and outside of the runner's environment too.
    monkeypatch.setenv("JOBQ_DATABASE_URL", database_url)

    def call(*arguments: str, code: int = 0, answer: str | None = None, **env: str | None) -> Result:
        result = CliRunner().invoke(main, ["enqueue", *arguments], input=answer, env={"JOBQ_APP": None, **env})
        assert result.exit_code == code, result.output
        return result

    return call


def job(db: Conn) -> dict[str, Any]:
    rows = db.cursor(row_factory=dict_row).execute("SELECT * FROM jobq.job ORDER BY id DESC LIMIT 1").fetchall()
    return rows[0]


def count(db: Conn) -> int:
    return len(db.execute("SELECT FROM jobq.job").fetchall())


def test_the_task_gives_its_options_and_checks_the_arguments(run: Run, db: Conn, app: str) -> None:
    said = run("send", "to=ann", "on=2030-01-31", "--app", app).stdout
    found = job(db)
    assert said == f"inserted job {found['id']}\n"
    assert found["args"] == {"to": "ann", "on": "2030-01-31"}
    assert (found["queue"], found["max_attempts"]) == ("mail", 3)
    run("send", "--args", '{"to": "bob", "copies": 2}', "--queue", "slow", JOBQ_APP=app)
    assert (job(db)["args"]["copies"], job(db)["queue"]) == (2, "slow")


def test_wrong_calls_insert_nothing_and_exit_with_64(run: Run, db: Conn, app: str) -> None:
    for arguments in (
        ["send", "to=ann", "copies=many", "--app", app],
        ["send", "--app", app],
        ["send", "to=ann", "bcc=bob", "--app", app],
        ["sned", "to=ann", "--app", app],
        ["send", "ann", "--app", app],
        ["send", "--args", "[1]", "--app", app],
        ["send", "to=ann", "--app", app, "--delay", "-1"],
        ["send", "to=ann", "--app", app, "--run-at", "2030-01-01T00:00:00"],
        ["send", "to=ann", "--app", app, "--run-at", "2030-01-01T00:00:00Z", "--delay", "5"],
        ["send", "to=ann", "--app", app, "--key", "k" * 501],
        ["send", "to=ann", "--app", app, "--queue", ""],
        ["send", 'to="\\u0000"', "--app", app],
        ["x", 'to="\\ud800"', "--force"],
        ["x", "to=" + "y" * 2_000_000, "--force"],
        ["x" * 201, "--force"],
    ):
        result = run(*arguments, code=64)
        assert result.stdout == ""
        assert result.stderr.count("\n") >= 1
    assert count(db) == 0


def test_an_application_that_cannot_be_imported_exits_with_78(run: Run) -> None:
    assert "no_such_module" in run("send", "--app", "no_such_module:q", code=78).stderr
    run("send", "--app", "json:loads", code=78)


def test_by_name_the_task_must_be_known_to_a_worker(run: Run, db: Conn) -> None:
    assert "--force" in run("mail.send", "to=ann", code=64).stderr
    add_worker(db, tasks=["mail.send"])
    assert "did you mean mail.send" in run("mail.sent", "to=ann", code=64).stderr
    assert count(db) == 0
    run("mail.send", "to=ann")
    assert job(db)["args"] == {"to": "ann"}
    run("other", "--force")
    assert (job(db)["task"], job(db)["queue"], job(db)["args"]) == ("other", "default", {})


def test_options(run: Run, db: Conn) -> None:
    run("x", "--force", "--delay", "1h", "--priority", "9", "--timeout", "2m", "--max-attempts", "2")
    found = job(db)
    assert (found["priority"], found["timeout"], found["max_attempts"]) == (9, 120, 2)
    assert 3500 < (found["run_at"] - found["created_at"]).total_seconds() < 3700
    run("x", "--force", "--run-at", "2090-01-01T00:00:00+01:00", answer=None)
    assert job(db)["run_at"] == datetime(2089, 12, 31, 23, tzinfo=UTC)
    run("x", "--force", "--args", "-", answer='{"from": "stdin"}')
    assert job(db)["args"] == {"from": "stdin"}
    run("x", "--args", "{}", JOBQ_ENQUEUE_FORCE="1", JOBQ_ENQUEUE_QUEUE="by-variable")
    assert job(db)["queue"] == "by-variable"


def test_keys(run: Run, db: Conn) -> None:
    first = json.loads(run("x", "n=1", "--force", "--key", "k", "--delay", "60", "--json").stdout)
    again = json.loads(run("x", "n=2", "--force", "--key", "k", "--json").stdout)
    assert first == {"id": first["id"], "created": True, "replaced": False}
    assert again == {"id": first["id"], "created": False, "replaced": False}
    assert "holds the key" in run("x", "--force", "--key", "k").stdout
    assert job(db)["args"] == {"n": 1}
    assert "its arguments are replaced" in run("x", "n=3", "--force", "--key", "k", "--on-conflict", "replace").stdout
    assert job(db)["args"] == {"n": 3}
    assert "'k'" in run("x", "--force", "--key", "k", "--on-conflict", "raise", code=64).stderr
    assert count(db) == 1


def test_into_another_schema(run: Run, db: Conn, database_url: str) -> None:
    from jobq import migrate

    migrate.upgrade(database_url, "second")
    run("x", "--force", "--schema", "second")
    assert count(db) == 0
    assert db.execute("SELECT count(*) FROM second.job").fetchone() == (1,)


def test_arguments_that_do_not_fit_are_not_called_stored(run: Run, app: str) -> None:
    told = run("send", "copies=many", "to=ann", "--app", app, code=64).stderr
    assert "send: arguments do not fit: " in told
    assert "copies" in told
    assert "stored" not in told
