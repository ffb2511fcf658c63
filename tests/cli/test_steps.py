"""`jobq steps check`: stored steps against the code that is to be deployed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result

from jobq._worker.inline import drain
from jobq.cli import main
from tests.apps import durable_next as apps

Conn = psycopg.Connection[Any]
Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def configured(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    apps.q.configure(database_url=database_url)
    apps.called.clear()
    yield
    apps.q.close()


@pytest.fixture
def run(database_url: str) -> Run:
    def invoke(*args: str) -> Result:
        command = ["steps", "check", "--app", "tests.apps.durable_next:q", *args]
        return CliRunner().invoke(main, command, env={"JOBQ_DATABASE_URL": database_url})

    return invoke


def test_code_that_fits(db: Conn, run: Run) -> None:
    for task in (apps.same, apps.other_arguments, apps.with_a_new_step, apps.other_type):
        task.enqueue(db, 1)
    # One that has no steps, one that has finished, and one that is not durable.
    drain(apps.q, db)
    done = apps.same.enqueue(db, 5)
    apps.q.send_signal(db, done, "go", payload=True)
    drain(apps.q, db)
    apps.same.enqueue(db, 1)
    apps.plain.enqueue(db)
    called = list(apps.called)
    before = db.execute("SELECT * FROM jobq.job_step ORDER BY 1, 2, 3").fetchall()
    found = run()
    assert (found.exit_code, found.output) == (0, "4 durable jobs checked, 0 do not fit the code\n")
    assert apps.called == called
    assert db.execute("SELECT * FROM jobq.job_step ORDER BY 1, 2, 3").fetchall() == before


def test_code_that_does_not_fit(db: Conn, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [task.enqueue(db, 1).id for task in (apps.same, apps.other_arguments, apps.with_a_new_step, apps.other_type)]
    drain(apps.q, db)
    monkeypatch.setattr(apps, "VERSION", "2")
    found = run()
    assert found.exit_code == 1
    assert f"job {jobs[1]}, task other_arguments: " in found.output
    assert "step 'load' is stored with {\"number\": 1}" in found.output.replace('{"number":1}', '{"number": 1}')
    assert "4 durable jobs checked, 2 do not fit the code" in found.output
    document = json.loads(run("--json").stdout)
    assert document["checked"] == 4
    assert [(each["job_id"], each["outcome"], each["step"]) for each in document["changed"]] == [
        (jobs[1], "changed", "load"),
        (jobs[3], "misfit", None),
    ]


def test_job_data_forges_no_line(db: Conn, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    apps.other_arguments.enqueue(db, 1)
    drain(apps.q, db)
    db.execute("UPDATE jobq.job_step SET args = %s WHERE kind = 'run'", ('{"number": "\x9b1\njob 9, task same: "}',))
    monkeypatch.setattr(apps, "VERSION", "2")
    told = run().output
    assert "\x9b" not in told
    assert [line.split()[0] for line in told.splitlines()] == ["job", "step", "the", "1"]
    assert told.endswith("\n1 durable job checked, 1 does not fit the code\n")


def test_many_jobs_are_read_in_parts(db: Conn, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobq.queries.steps._MOST_UNFINISHED", 2)
    for number in range(5):
        apps.same.enqueue(db, number)
    drain(apps.q, db)
    assert "5 durable jobs checked" in run().output


def test_an_application_is_needed(database_url: str) -> None:
    found = CliRunner().invoke(main, ["steps", "check"], env={"JOBQ_DATABASE_URL": database_url})
    assert found.exit_code != 0
    assert "app" in found.output.lower()
