"""A worker counts as lost after its own lease, which its row tells: on every surface, and to the other workers."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from click.testing import CliRunner
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families

from jobq import queries
from jobq._postgres.statements import fetch
from jobq._worker import WorkerOptions
from jobq._worker.database import Database
from jobq._worker.lease import Lease
from jobq.cli import main
from jobq.diagnostics import metrics
from jobq.settings import Settings
from tests.support.rows import add_job, add_worker

Conn = psycopg.Connection[Any]
# Which lease, how long ago the last heartbeat was, and whether the worker is lost.
CASES = pytest.mark.parametrize(("lease", "ago", "lost"), [(120.0, 60, False), (10.0, 30, True)])


@pytest.fixture
def run(database_url: str) -> Callable[..., Any]:
    """A command's document."""

    def call(*arguments: str) -> Any:
        environment = {"JOBQ_DATABASE_URL": database_url}
        result = CliRunner().invoke(main, [*arguments, "--json"], env=environment)
        assert result.exit_code in (0, 1), result.stderr
        return json.loads(result.stdout)

    return call


def with_job(db: Conn, lease: float, ago: float) -> tuple[UUID, int]:
    """A worker, and a job that it runs."""
    worker = add_worker(db, lease=lease, ago=ago, host="other", tasks=["mail.send"])
    job = add_job(db, task="mail.send", state="running", worker_id=worker, attempt=1, claims=1)
    db.execute("UPDATE jobq.job SET started_at = now() - interval '1 hour' WHERE id = %s", (job,))
    return worker, job


@CASES
def test_reads(db: Conn, lease: float, ago: int, lost: bool) -> None:
    _, job = with_job(db, lease, ago)
    (worker,) = queries.workers(db, "jobq")
    assert (worker.lease, worker.health) == (lease, "silent" if lost else "late")
    assert queries.overview(db, "jobq").workers_alive == queries.stats(db, "jobq").workers_alive == (not lost)
    why = queries.why_waiting(db, "jobq", queries.get_job(db, "jobq", job))
    assert why is not None
    assert ("has not been heard of" in why) is lost
    waiting = add_job(db, task="mail.send")
    why = queries.why_waiting(db, "jobq", queries.get_job(db, "jobq", waiting))
    assert why is not None
    assert ("worker" in why and "no" in why.lower()) is lost, why
    known = fetch(db, "jobq", "parked_workers", {"task": "mail.send", "refused": None})
    assert bool(known) is not lost


@CASES
def test_the_command_line(db: Conn, run: Callable[..., Any], lease: float, ago: int, lost: bool) -> None:
    with_job(db, lease, ago)
    (worker,) = run("workers", "list")["workers"]
    assert worker["health"] == ("silent" if lost else "late")
    assert worker["lease"] == lease
    found = {(line["check"], line["status"]) for line in run("doctor")["checks"]}
    assert (("workers", "fail") in found) is lost
    assert (("workers", "ok") in found) is not lost


@CASES
def test_the_page_and_its_metrics(
    db: Conn, client: FlaskClient, database_url: str, lease: float, ago: int, lost: bool
) -> None:
    with_job(db, lease, ago)
    assert ("No worker is alive" in client.get("/").text) is lost
    text = client.get("/workers").text
    assert bool(re.search(r'class="state silent"', text)) is lost
    assert bool(re.search(r'class="state late"', text)) is not lost
    samples = {
        sample.labels["health"]: sample.value
        for family in text_string_to_metric_families(metrics.render(db, "jobq"))
        for sample in family.samples
        if sample.name == "jobq_workers" and sample.value
    }
    assert samples == {"silent" if lost else "late": 1.0}


@CASES
async def test_other_workers(database_url: str, db: Conn, lease: float, ago: int, lost: bool) -> None:
    """They count from when they first saw it, and do not take its jobs before its lease has passed, whatever theirs is."""
    worker, job = with_job(db, lease, ago)
    options = WorkerOptions(app="shop:q", settings=Settings(database_url=database_url), lease=30.0)
    watcher = Lease(options, "0")
    connection = await Database(options.settings).connect("watch")
    try:
        await watcher.look(connection)
        watch = watcher._watched[worker]
        # As if the watch had begun then.
        watch.since -= ago
        await watcher.look(connection)
    finally:
        await connection.close()
    states = db.execute("SELECT state FROM jobq.job WHERE id = %s", (job,)).fetchall()
    assert states == [("ready" if lost else "running",)]


def test_a_row_without_a_lease_has_the_default(db: Conn) -> None:
    """That of a worker from before there was the column."""
    db.execute(
        "INSERT INTO jobq.worker (id, lock_key, pid, slots, host, version) VALUES (%s, 1, 1, 1, 'h', '0')", (uuid4(),)
    )
    (worker,) = queries.workers(db, "jobq")
    assert math.isclose(
        worker.lease, WorkerOptions(app="shop:q", settings=Settings(database_url="postgresql://")).lease
    )
