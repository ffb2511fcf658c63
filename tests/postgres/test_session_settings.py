"""Settings of a role that are legal and unusual: jobq's own connections set what they rely on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner
from flask.testing import FlaskClient
from psycopg.conninfo import make_conninfo
from psycopg.pq import TransactionStatus

from jobq import JobQ, migrate
from jobq._postgres.connecting import adjust, adjust_async
from jobq._postgres.guarded_transaction import AsyncTaskConnection, TaskConnection
from jobq.cli import main
from tests.apps import plain as apps
from tests.support.jobs import Jobs
from tests.support.waiting import wait_until

pytestmark = pytest.mark.process

ODD = {
    "DateStyle": "'SQL, DMY'",
    "IntervalStyle": "'sql_standard'",
    "bytea_output": "'escape'",
    "TimeZone": "'America/St_Johns'",
    "array_nulls": "off",
    "extra_float_digits": "-10",
    "standard_conforming_strings": "off",
    "client_encoding": "'SQL_ASCII'",
}
COMMANDS = (
    ("jobs", "list"),
    ("stats",),
    ("doctor",),
    ("queues", "list"),
    ("workers", "list"),
    ("schedules", "list"),
    ("migrate",),
)


@pytest.fixture(params=["all", "German"])
def odd_url(request: pytest.FixtureRequest, database_url: str) -> Iterator[str]:
    """The URL of a role that has one or all of these settings."""
    settings = ODD if request.param == "all" else {"DateStyle": f"'{request.param}, DMY'"}
    role = f"odd_{os.getpid()}"
    with psycopg.connect(database_url, autocommit=True) as admin:
        admin.execute(f"CREATE ROLE {role} LOGIN SUPERUSER")
        for name, value in settings.items():
            admin.execute(f"ALTER ROLE {role} SET {name} = {value}")
        try:
            yield make_conninfo(database_url, user=role)
        finally:
            admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", (role,))
            admin.execute(f"DROP ROLE {role}")


def run(url: str, *command: str) -> str:
    found = CliRunner().invoke(main, [*command], env={"JOBQ_DATABASE_URL": url})
    assert found.exit_code == 0, (command, found.exit_code, found.output)
    return found.stdout


def work(url: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "jobq", "worker", "tests.apps.plain:q", "--drain", "--processes", "1"],
        env={**os.environ, "JOBQ_DATABASE_URL": url},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


def test_every_command_works(odd_url: str, jobs: Jobs, make_app: Any) -> None:
    job = apps.record.enqueue(jobs.connection, "ä").id
    apps.fail_until.enqueue(jobs.connection, 2)

    # A drain does not wait for a retry that is not due yet.
    def ended() -> bool:
        work(odd_url)
        return bool(jobs.one("SELECT count(*) FROM jobq.job") == 0)

    wait_until(ended, what="the retries")
    for command in COMMANDS:
        run(odd_url, *command)
    assert jobs.wait(job)["state"] == "succeeded"
    found = json.loads(run(odd_url, "jobs", "list", "--state", "succeeded", "--json"))
    assert {row["task"] for row in found["jobs"]} == {"record", "fail_until"}
    client: FlaskClient = make_app(odd_url).test_client()
    for path in ("/", f"/jobs/{job}", "/queues", "/workers", "/system"):
        assert client.get(path).status_code == 200, path


async def test_submit_and_result(odd_url: str, database_url: str, jobs: Jobs) -> None:
    q = JobQ(database_url=odd_url)

    @q.task(name="record")
    def record(note: str) -> str:
        return note

    refs = [record.submit("é"), await record.submit_async("ü")]
    migrate.check(odd_url)
    work(odd_url)
    assert [ref.result(timeout=20) for ref in refs] == ["é", "ü"]
    assert await refs[1].result_async(timeout=20) == "ü"
    await q.aclose()


async def test_the_connections_of_transactional_tasks(odd_url: str) -> None:
    with closing(TaskConnection.connect(odd_url, client_encoding="UTF8")) as made:
        adjust(made)
        assert made.info.transaction_status is TransactionStatus.IDLE
        [(moment, text)] = made.execute("SELECT now(), 'ä'::text").fetchall()
        assert (type(moment), text) == (datetime, "ä")
        psycopg.Connection.rollback(made)
    made_async = await AsyncTaskConnection.connect(odd_url, client_encoding="UTF8")
    await adjust_async(made_async)
    [(moment,)] = await (await made_async.execute("SELECT now()")).fetchall()
    assert type(moment) is datetime
    await made_async.close()
