"""What a worker is given wrongly: each gets a sentence that says what and how to fix it, and nothing is lost."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.apps import plain as apps
from tests.support.jobs import Jobs
from tests.support.servers.postgres import OwnServer
from tests.support.waiting import wait_until
from tests.support.workers import WorkerProcess

StartWorker = Callable[..., WorkerProcess]


def start(url: str, *arguments: str, app: str = "tests.apps.plain:q", **environ: str) -> tuple[int, str]:
    """Run a worker that should not start; return its exit code and the last line that it says."""
    done = subprocess.run(
        [sys.executable, "-m", "jobq", "worker", app, "--drain", *arguments],
        env={**os.environ, "JOBQ_DATABASE_URL": url, **environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.stdout == ""
    return done.returncode, done.stderr.splitlines()[-1]


def test_a_queue_that_nobody_names(jobs: Jobs, worker: StartWorker) -> None:
    """It may be misspelt, and it may be new: said, and served."""
    apps.record.options(queue="mail").enqueue(jobs.connection, "for a known one")
    running = worker("--queues", "default,mail,mial")
    wait_until(lambda: "working" in running.log, what="the worker")
    lines = [line for line in running.log.splitlines() if "names this queue" in line]
    assert len(lines) == 1
    assert "mial" in lines[0]
    assert "mail" in lines[0].replace("mial", "")
    job = apps.record.options(queue="mial").enqueue(jobs.connection, "after all").id
    assert jobs.wait(job)["state"] == "succeeded"


def test_every_queue_is_no_unknown_one(worker: StartWorker, jobs: Jobs) -> None:
    running = worker("--drain")
    assert running.wait() == 0
    assert "names this queue" not in running.log


def test_a_task_that_nobody_knows(jobs: Jobs, worker: StartWorker) -> None:
    """Its jobs wait, unpunished, and do not fill the log; the others go on."""
    insert = "INSERT INTO jobq.job (task, args) SELECT 'recrod', '{}' FROM generate_series(1, 300) RETURNING id"
    lost = [row["id"] for row in jobs.all(insert)]
    running = worker("--drain")
    assert running.wait() == 0
    lines = [line for line in running.log.splitlines() if "waits for a worker with other code" in line]
    assert len(lines) == 1
    assert "no task 'recrod' here (there is 'record'" in lines[0]
    rows = jobs.all("SELECT state, attempt, crashes FROM jobq.job ORDER BY id")
    assert rows == [{"state": "parked", "attempt": 0, "crashes": 0}] * len(lost)


def test_arguments_that_no_longer_fit(jobs: Jobs, worker: StartWorker) -> None:
    """They fit when the job was made; the application has changed since. A dead letter, and a redrive when it is fixed."""
    insert = "INSERT INTO jobq.job (task, args) VALUES (%s, %s) RETURNING id"
    job = jobs.one(insert, "record", Jsonb({"text": "renamed"}))
    running = worker("--drain", "--park-patience", "0")
    assert running.wait() == 0
    ended = jobs.wait(job)
    assert (ended["state"], ended["args"]) == ("failed", {"text": "renamed"})
    assert "note" in ended["error"]
    assert "record" in ended["error"]


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        ("import nothing_of_this_name", 78, "nothing_of_this_name"),
        ("raise RuntimeError('the cache is cold')", 78, "RuntimeError: the cache is cold"),
        ("def broken(:", 78, "SyntaxError"),
        ("import sys; sys.exit(3)", 78, "SystemExit"),
        ("x = 1", 78, "is no JobQ"),
        ("from jobq import JobQ; other = JobQ()", 78, "did you mean"),
    ],
)
def test_a_module_that_does_not_import(
    database_url: str, jobs: Jobs, tmp_path: Path, text: str, code: int, says: str
) -> None:
    job = apps.record.enqueue(jobs.connection, "x").id
    (tmp_path / "broken_app.py").write_text(text)
    ended, said = start(database_url, app="broken_app:q", PYTHONPATH=str(tmp_path))
    assert (ended, said.startswith("jobq: ")) == (code, True)
    assert says in said
    row = jobs.live(job)
    assert row is not None
    assert (row["state"], row["claims"]) == ("ready", 0)
    assert jobs.one("SELECT count(*) FROM jobq.worker") == 0


@pytest.mark.parametrize(
    ("url", "code", "says"),
    [
        ("postgresql://nosuch.invalid/none", 69, "correct the host"),
        ("postgresql://127.0.0.1:1/none", 69, "is it running"),
        ("host=127.0.0.1,127.0.0.1 port=1,2 dbname=none", 69, "is it running"),
        ("no url at all", 78, "see JOBQ_DATABASE_URL"),
        ("", 78, "JOBQ_DATABASE_URL"),
    ],
)
def test_an_address_that_leads_nowhere(url: str, code: int, says: str) -> None:
    ended, said = start(url)
    assert (ended, said.startswith("jobq: ")) == (code, True)
    assert says in said


def test_names_and_passwords_that_the_server_refuses(own_server: OwnServer) -> None:
    url = own_server.url
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute("CREATE ROLE shop LOGIN PASSWORD 'right'")
        row = admin.execute("SELECT current_setting('hba_file')").fetchone()
        assert row is not None
        hba = Path(row[0])
        hba.write_text(f"host all shop 127.0.0.1/32 scram-sha-256\n{hba.read_text()}")
        admin.execute("SELECT pg_reload_conf()")

    def told(**changed: str) -> tuple[int, str]:
        return start(psycopg.conninfo.make_conninfo(url, **changed))

    wait_until(lambda: "password" in told(user="shop", password="wrong")[1], what="the new rules")
    code, said = told(user="shop", password="wrong")
    assert code == 69
    assert "password authentication failed" in said
    assert "correct the user and the password in JOBQ_DATABASE_URL" in said
    assert "wrong" not in said
    assert told(dbname="nosuch") == (69, told(dbname="nosuch")[1])
    assert "create that database" in told(dbname="nosuch")[1]
    assert "create that role" in told(user="nosuch")[1]


def test_a_schema_that_is_not_there_or_of_another_version(
    empty_database_url: str, database_url: str, conn: psycopg.Connection[tuple[object]]
) -> None:
    code, said = start(empty_database_url)
    assert code == 78
    assert "has no jobq tables: run `jobq migrate`" in said
    conn.execute("UPDATE jobq.schema_version SET version_num = '9999'")
    conn.commit()
    code, said = start(database_url)
    assert code == 78
    assert "revision 9999" in said
    assert "upgrade this one" in said


def test_a_role_without_the_rights(database_url: str, conn: psycopg.Connection[tuple[object]]) -> None:
    role = "jobq_test_no_rights"
    conn.execute(f"DROP ROLE IF EXISTS {role}".encode())
    conn.execute(f"CREATE ROLE {role} LOGIN".encode())
    conn.commit()
    try:
        code, said = start(psycopg.conninfo.make_conninfo(database_url, user=role))
        assert code == 78
        assert "deploy/" in said
    finally:
        conn.execute(f"DROP ROLE {role}".encode())
        conn.commit()


@pytest.mark.parametrize("variable", ["JOBQ_POOLER", "JOBQ_POOL_SIZE"])
def test_a_setting_that_cannot_be_used(database_url: str, variable: str) -> None:
    code, said = start(database_url, **{variable: "perhaps"})
    assert code == 78
    assert "'perhaps'" in said
