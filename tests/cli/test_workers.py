"""``jobq workers``: which workers are meant, what is asked of them, and what is said of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result
from flask.testing import FlaskClient

from jobq.cli import main
from tests.support.rows import add_job, add_worker
from tests.support.waiting import wait_until
from tests.support.workers import WorkerProcess

Conn = psycopg.Connection[Any]
Run = Callable[..., Result]


@pytest.fixture
def db(database_url: str) -> Iterator[Conn]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def run(database_url: str) -> Run:
    def call(*arguments: str, answer: str | None = None, code: int = 0) -> Result:
        environment = {"JOBQ_DATABASE_URL": database_url, "JOBQ_ACTOR": "ann"}
        result = CliRunner().invoke(main, ["workers", *arguments], input=answer, env=environment)
        assert result.exit_code == code, result.output
        return result

    return call


def asked(db: Conn) -> dict[str, str | None]:
    return {str(id): what for id, what in db.execute("SELECT id, requested_state FROM jobq.worker").fetchall()}


def test_list(run: Run, db: Conn) -> None:
    assert "no workers" in run("list").stderr
    first = add_worker(db, host="east", app="shop:q", queues=["mail"], rss=300 * 2**20, requested_state="quiet")
    add_worker(db, host="west", ago=60)
    shown = run("list").stdout
    for text in (str(first)[:8], "shop:q", "mail", "300 MiB", "running (requested: quiet)", "silent", "0 of 16"):
        assert text in shown
    found = json.loads(run("list", "--json").stdout)["workers"]
    assert [(worker["host"], worker["requested_state"], worker["rss"], worker["health"]) for worker in found] == [
        ("east", "quiet", 300 * 2**20, "alive"),
        ("west", None, None, "silent"),
    ]


def test_one_worker_by_the_beginning_of_its_id(run: Run, db: Conn) -> None:
    worker, other = str(add_worker(db)), str(add_worker(db, pid=2))
    said = run("quiet", worker[:13], "--reason", "deploy")
    assert "asked to be quiet: 1 worker" in said.stdout
    assert asked(db) == {worker: "quiet", other: None}
    [(actor, action, target, reason)] = db.execute("SELECT actor, action, target, reason FROM jobq.audit").fetchall()
    assert (actor, action, reason) == ("ann", "worker_quiet", "deploy")
    assert target["worker"] == worker
    assert json.loads(run("quiet", worker, "--json").stdout) == {
        "selected": 1, "done": [], "unchanged": [worker], "refused": {},
    }  # fmt: skip
    assert "asked to resume: 1 worker" in run("resume", worker).stdout
    assert "asked to stop: 1 worker" in run("stop", worker).stdout
    refused = run("resume", worker, code=1)
    assert "cannot be undone" in refused.stderr
    assert asked(db)[worker] == "stop"


def test_several_are_told_and_asked_for(run: Run, db: Conn) -> None:
    here = {str(add_worker(db, host="east", pid=n)) for n in range(3)}
    there, silent = str(add_worker(db, host="west")), str(add_worker(db, host="west", pid=9, ago=60))
    said = run("quiet", "--host", "east", answer="n\n", code=1)
    assert "Make 3 workers quiet?" in said.stderr
    assert "--yes" in run("stop", "--all", answer="", code=64).stderr
    assert "4 workers" not in run("quiet", "--all", "--dry-run").stdout
    assert set(asked(db).values()) == {None}
    assert "3 workers" in run("quiet", "--host", "east", answer="y\n").stdout
    assert {id for id, what in asked(db).items() if what == "quiet"} == here
    said = run("quiet", "--all", "--yes")
    assert "asked to be quiet: 1 worker" in said.stdout
    assert "3 workers unchanged" in said.stderr
    assert "leaving out 1 worker" in said.stderr
    assert (asked(db)[there], asked(db)[silent]) == ("quiet", None)
    assert json.loads(run("resume", "--all", "--yes", "--json").stdout)["selected"] == 4


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "exactly one of"),
        (("0", "--all"), "exactly one of"),
        (("--all", "--host", "box"), "exactly one of"),
        (("nonsense",), "no worker matches"),
        (("",), "no worker matches"),
        (("--host", "elsewhere"), "hosts with workers: box"),
    ],
)
def test_bad_input_changes_nothing(run: Run, db: Conn, arguments: tuple[str, ...], says: str) -> None:
    add_worker(db)
    assert says in run("stop", *arguments, "--yes", code=64).stderr
    assert set(asked(db).values()) == {None}


def test_an_ambiguous_beginning_is_refused(run: Run, db: Conn) -> None:
    for end in "12":
        add_worker(db, id=f"12345678-0000-4000-8000-00000000000{end}")
    assert "2 workers match" in run("quiet", "1234", code=64).stderr
    assert set(asked(db).values()) == {None}


def test_a_real_worker_heeds_it(run: Run, db: Conn, worker: Callable[..., WorkerProcess]) -> None:
    running = worker()
    wait_until(lambda: "working" in running.log, what="the worker")
    shown = "SELECT state FROM jobq.worker"
    run("quiet", "--all", "--yes")
    wait_until(lambda: db.execute(shown).fetchone() == ("quiet",), what="quiet")
    run("resume", "--all", "--yes")
    wait_until(lambda: db.execute(shown).fetchone() == ("running",), what="its going on")
    run("stop", "--all", "--yes")
    assert running.wait() == 0


def test_the_overview_and_the_doctor_tell_of_quiet_workers(db: Conn, client: FlaskClient, database_url: str) -> None:
    add_job(db)
    add_worker(db, state="quiet", requested_state="quiet")
    said = "1 of 1 live worker claims nothing, since an operator asked for that"
    assert f"{said}; no other is alive, so no job starts" in client.get("/").text
    add_worker(db, pid=2)
    assert (
        "1 of 2 live workers claims nothing, since an operator asked for that: box:4242"
        in client.get("/?hours=24").text
    )
    told = CliRunner().invoke(main, ["doctor", "--json"], env={"JOBQ_DATABASE_URL": database_url}).stdout
    assert "1 of 2 live workers claims nothing" in told
