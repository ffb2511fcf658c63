"""A worker that starts on a schema newer than its code goes on where the schema says so; else it waits for its replacement."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from jobq import migrate, queries
from jobq._postgres.sql import REVISION
from jobq._worker import compatibility
from jobq.diagnostics.finding import Status
from jobq.diagnostics.server import schema_fits
from jobq.diagnostics.snapshot import Snapshot
from tests.apps import plain as apps
from tests.support.jobs import Jobs
from tests.support.servers.postgres import OwnServer
from tests.support.waiting import wait_until
from tests.support.workers import WorkerProcess

pytestmark = pytest.mark.process

StartWorker = Callable[..., WorkerProcess]


@pytest.fixture
def newer(db: psycopg.Connection[Any]) -> Callable[[str | None], None]:
    """Make the schema one of revision 9999, which works with programs from a revision on, or does not say."""

    def make(oldest: str | None) -> None:
        db.execute("UPDATE jobq.schema_version SET version_num = '9999'")
        says = "NULL" if oldest is None else f"CASE at_revision WHEN '9999' THEN '{oldest}' END"
        db.execute(
            "CREATE OR REPLACE FUNCTION jobq.oldest_program(at_revision text) RETURNS text LANGUAGE sql IMMUTABLE "
            f"SET search_path = pg_catalog, pg_temp AS $$ SELECT {says} $$".encode()
        )

    return make


def test_it_goes_on_where_the_schema_says_so(
    jobs: Jobs, worker: StartWorker, newer: Callable[[str | None], None]
) -> None:
    newer(REVISION)
    running = worker()
    assert jobs.wait(apps.record.enqueue(jobs.connection, "one").id)["state"] == "succeeded"
    assert "is newer than this worker, and works with it" in running.log
    (finding,) = schema_fits(Snapshot(jobs.connection, "jobq"))
    assert (finding.status, finding.check) == (Status.WARN, "schema")


@pytest.mark.parametrize("oldest", [None, "9998"])
def test_else_it_waits_for_its_replacement(
    jobs: Jobs, worker: StartWorker, newer: Callable[[str | None], None], oldest: str | None
) -> None:
    newer(oldest)
    waiting = worker()
    job = apps.record.enqueue(jobs.connection, "one").id
    wait_until(lambda: "waits for its replacement" in waiting.log, what="the word of the one that waits")
    assert "is at revision 9999" in waiting.log
    assert "Traceback" not in waiting.log
    assert queries.workers(jobs.connection, "jobq") == []
    (finding,) = schema_fits(Snapshot(jobs.connection, "jobq"))
    assert finding.status is Status.FAIL
    # The migration is taken back, or a schema comes that fits.
    jobs.connection.execute("UPDATE jobq.schema_version SET version_num = %s", (REVISION,))
    assert jobs.wait(job)["state"] == "succeeded"


def test_the_one_that_waits_rides_out_the_database(own_server: OwnServer, tmp_path: Path) -> None:
    migrate.upgrade(own_server.url)
    with psycopg.connect(own_server.url, autocommit=True) as connection:
        connection.execute("UPDATE jobq.schema_version SET version_num = '9999'")
    waiting = WorkerProcess(own_server.url, tmp_path / "log")
    try:
        wait_until(lambda: "waits for its replacement" in waiting.log, what="the word of the one that waits")
        own_server.kill()
        # Two looks at least: each fails.
        end = time.monotonic() + 2 * compatibility.LOOK_EVERY
        wait_until(lambda: time.monotonic() > end or not waiting.is_running(), what="some looks")
        assert waiting.is_running(), waiting.log
        own_server.restart()
        with psycopg.connect(own_server.url, autocommit=True) as connection:
            connection.execute("UPDATE jobq.schema_version SET version_num = %s", (REVISION,))
        wait_until(lambda: "working" in waiting.log, what="the worker")
    finally:
        waiting.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_the_one_that_waits_stops_when_it_is_told_to(
    worker: StartWorker, newer: Callable[[str | None], None], number: signal.Signals
) -> None:
    newer(None)
    waiting = worker()
    wait_until(lambda: "waits for its replacement" in waiting.log, what="the word of the one that waits")
    waiting.process.send_signal(number)
    assert waiting.wait() == 0


def test_a_worker_that_only_drains_does_not_wait(worker: StartWorker, newer: Callable[[str | None], None]) -> None:
    newer(None)
    draining = worker("--drain")
    assert draining.wait() == 78
    assert "it was made by a newer jobq" in draining.log


def test_a_look_that_fails_changes_nothing_for_the_one_that_waits(
    database_url: str, newer: Callable[[str | None], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The session is ended in the midst of a look: the exit code 78 would keep the supervisor from starting it again."""
    newer(None)

    def end(*_: object) -> None:
        raise psycopg.errors.AdminShutdown("terminating connection due to administrator command")

    monkeypatch.setattr("jobq.queries.schema_revision", end)
    assert compatibility._newer(database_url, "jobq", known="9999") == "9999"
