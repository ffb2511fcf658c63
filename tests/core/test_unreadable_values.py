"""Values that Python cannot read, in rows that were written past the constraints: shown and run all the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner
from flask.testing import FlaskClient

from jobq import JobQ, queries
from jobq._postgres.connecting import read_every_time
from jobq._worker.inline import drain
from jobq.cli import main
from tests.apps import plain as apps
from tests.apps import transfers
from tests.support.checks import some
from tests.support.jobs import Jobs
from tests.support.workers import WorkerProcess

TIMEOUTS = ["Infinity", "NaN", "1e300"]
TIMES = ["infinity", "-infinity", "0044-03-15 BC", "20000-01-01"]


def without_constraints(jobs: Jobs) -> None:
    jobs.connection.execute("ALTER TABLE jobq.job DROP CONSTRAINT job_timeout_check, DROP CONSTRAINT job_run_at_check")


@pytest.mark.parametrize("value", TIMEOUTS)
def test_jobs_with_such_a_timeout_run(jobs: Jobs, worker: Callable[..., WorkerProcess], value: str) -> None:
    without_constraints(jobs)
    transfers.create(jobs.connection)
    made = [transfers.act.enqueue(jobs.connection, "x"), transfers.act_async.enqueue(jobs.connection, "x")]
    jobs.connection.execute("UPDATE jobq.job SET timeout = %s", (value,))
    worker("--drain", app="tests.apps.transfers:q").wait()
    for ref in made:
        assert jobs.wait(ref.id)["state"] == "succeeded"


@pytest.mark.parametrize("value", TIMEOUTS)
def test_in_this_process(jobs: Jobs, database_url: str, value: str) -> None:
    without_constraints(jobs)
    q = JobQ(database_url)

    @q.task(transactional=True)
    def keep() -> None: ...

    keep.enqueue(jobs.connection)
    jobs.connection.execute("UPDATE jobq.job SET timeout = %s", (value,))
    assert drain(q, jobs.connection).succeeded == 1


def test_the_page_and_the_command_line_show_them(jobs: Jobs, database_url: str, make_app: Any) -> None:
    without_constraints(jobs)
    client: FlaskClient = make_app(database_url).test_client()
    shown = []
    for number, value in enumerate([*TIMEOUTS, *TIMES], start=1):
        job = apps.record.enqueue(jobs.connection, "x").id
        column = "timeout" if value in TIMEOUTS else "run_at"
        jobs.connection.execute(f"UPDATE jobq.job SET {column} = '{value}' WHERE id = {job}".encode())
        if column == "run_at":
            jobs.connection.execute(f"UPDATE jobq.job SET expires_at = '{value}' WHERE id = {job}".encode())
        dead = 1000 + number
        jobs.connection.execute(
            "INSERT INTO jobq.job_history (id, claims, attempt, max_attempts, priority, crashes, queue, task, state, run_at,"
            " created_at, finished_at, timeout, args, headers)"
            f" VALUES ({dead}, 1, 1, 1, 5, 0, 'default', 'record', 'failed', '{value if column == 'run_at' else 'epoch'}',"
            f" now(), now(), {repr(value) if column == 'timeout' else 'NULL'}, '{{}}', '{{}}')".encode()
        )
        shown += [job, dead]
    for path in (
        "/",
        "/jobs",
        "/queues",
        "/queues/default",
        "/failures",
        "/system",
        *(f"/jobs/{job}" for job in shown),
    ):
        assert client.get(path).status_code == 200, path
    for job in some(shown):
        assert client.get(f"/api/jobs/{job}").get_json() is not None
        for more in ((), ("--json",)):
            found = CliRunner().invoke(main, ["jobs", "show", str(job), *more], env={"JOBQ_DATABASE_URL": database_url})
            assert found.exit_code == 0, found.output
            if more:
                assert json.loads(found.stdout, parse_constant=pytest.fail)["id"] == job
    for command in (("jobs", "list"), ("jobs", "list", "--json"), ("stats",), ("queues", "list"), ("doctor",)):
        found = CliRunner().invoke(main, [*command], env={"JOBQ_DATABASE_URL": database_url})
        assert found.exit_code in (0, 1, 78), found.output
    read_every_time(jobs.connection)
    assert queries.get_job(jobs.connection, "jobq", shown[0]).timeout is None
