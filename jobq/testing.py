"""For tests of applications that use jobq: a pytest plugin with a real database, in force wherever jobq is installed.

Name your application in pytest's configuration::

    [tool.pytest.ini_options]
    jobq_app = "shop.jobs:q"

and ask for the fixture `jobq`::

    def test_an_order_is_confirmed(jobq):
        place_order(7)                                   # enqueues with q, or on a connection to jobq.database_url
        jobq.assert_enqueued(send_receipt, order_id=7)
        assert jobq.drain().succeeded == 1

Each test gets a database of its own, copied from a migrated template. The server is an embedded Postgres (extra
``embedded``, or binaries that are installed), or the one that JOBQ_TEST_DATABASE_URL names, whose user must be allowed to
create databases.
"""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import psycopg

    from jobq.app import JobQ
    from jobq.jobs import JobRef
    from jobq.queries import JobDetail, JobRow
    from jobq.tasks import BaseTask
    from jobq.worker.inprocess import Drained


class JobqTester:
    """What the fixture `jobq` gives: the test's database, and an application whose jobs are run in this process."""

    def __init__(self, app: JobQ, database_url: str) -> None:
        from jobq import sessions

        self.app = app
        """The application, its settings turned to this test's database."""
        self.database_url = database_url
        """URL of this test's database: make your own engine or connection with it."""
        self.connection: psycopg.Connection[Any] = sessions.connect(database_url, autocommit=True)
        """A connection in autocommit mode, for looks and for enqueueing."""

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()

    def enqueued(self, task: BaseTask[..., Any] | str | None = None, /, **args: Any) -> list[JobRow]:
        """Return the committed jobs that have not finished, oldest first: those of `task`, with these arguments.

        Arguments are compared as they are stored, as JSON; those that are not named may be anything.
        """
        from pydantic_core import to_jsonable_python

        from jobq import queries
        from jobq.filters import LIVE_STATES, JobFilter

        wanted = {name: to_jsonable_python(value) for name, value in args.items()}
        name = task if task is None or isinstance(task, str) else task.name
        found: list[JobRow] = []
        jobs = JobFilter(states=LIVE_STATES, task=name)
        for row in queries.list_jobs(self.connection, self._schema, jobs, limit=1000):
            stored = queries.get_job(self.connection, self._schema, row.id).args
            if all(key in stored and stored[key] == value for key, value in wanted.items()):
                found.append(row)
        return sorted(found, key=lambda row: row.id)

    def assert_enqueued(self, task: BaseTask[..., Any] | str, /, **args: Any) -> JobRow:
        """Fail unless a job of `task` with these arguments is committed and has not finished; return the oldest."""
        __tracebackhide__ = True
        if found := self.enqueued(task, **args):
            return found[0]
        name = task if isinstance(task, str) else task.name
        others = [f"{row.task} (job {row.id}, {row.state})" for row in self.enqueued()]
        raise AssertionError(
            f"no job of task {name!r} with {args or 'any arguments'} is enqueued and committed; "
            f"there {'are: ' + ', '.join(others[:20]) if others else 'is none at all'}"
        )

    def refute_enqueued(self, task: BaseTask[..., Any] | str, /, **args: Any) -> None:
        """Fail if a job of `task` with these arguments is committed and has not finished."""
        __tracebackhide__ = True
        if found := self.enqueued(task, **args):
            raise AssertionError(f"job {found[0].id} of task {found[0].task!r} is enqueued: {found[0].state}")

    def drain(
        self, *, queues: tuple[str, ...] | None = None, with_scheduled: bool = False, max_jobs: int = 10_000
    ) -> Drained:
        """Run every job that is due, and what they enqueue, in this process; return how many ended how.

        `with_scheduled`: run future jobs and retries too, as though their time had come. At most `max_jobs` executions.
        """
        from jobq.worker.inprocess import Drained, drain

        total = Drained(0, 0, 0)
        while True:
            if with_scheduled:
                self._execute(
                    "WITH due AS (UPDATE {0}.job SET run_at = now() WHERE state IN ('ready', 'waiting') AND run_at > now() "
                    "RETURNING queue, group_key, state) "
                    "INSERT INTO {0}.job_turn (queue, group_key) SELECT queue, group_key FROM due WHERE state = 'waiting'"
                )
            left = max_jobs - total.succeeded - total.failed - total.retried
            done = drain(self.app, self.connection, queues=queues, max_jobs=left)
            total = Drained(total.succeeded + done.succeeded, total.failed + done.failed, total.retried + done.retried)
            if not with_scheduled or done == Drained(0, 0, 0):
                return total

    def run(self, job: JobRef[Any] | int, /) -> JobDetail:
        """Run this one job now, whenever it is due, and return what became of it. Raises JobNotFound, and
        InvalidOption for a job that has finished or is running.
        """
        from jobq import queries
        from jobq.errors import InvalidOption
        from jobq.worker.inprocess import drain

        job_id = job if isinstance(job, int) else job.id
        row = queries.get_job(self.connection, self._schema, job_id)
        if row.state == "waiting":
            raise InvalidOption(f"job {job_id} waits for the turn of its group: `drain` runs it after those before it")
        if row.state not in ("ready", "scheduled"):
            raise InvalidOption(f"job {job_id} is {row.state}: only a job that waits can be run")
        # First in its lane, and the lane first in its queue.
        self._execute("UPDATE {}.job SET run_at = '1970-01-02', priority = 9 WHERE id = %s AND state = 'ready'", job_id)
        drain(self.app, self.connection, queues=(row.queue,), max_jobs=1)
        return queries.get_job(self.connection, self._schema, job_id)

    @property
    def _schema(self) -> str:
        return self.app.settings.schema

    def _execute(self, query: str, *parameters: Any) -> None:
        from psycopg import sql

        composed = sql.SQL(query).format(sql.Identifier(self._schema))
        self.connection.execute(composed, parameters)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the setting `jobq_app`."""
    parser.addini("jobq_app", "the JobQ that the fixture `jobq` runs, as module:attribute", default="")


@pytest.fixture(scope="session")
def jobq_server_url() -> Iterator[str]:
    """URL of a database on the server that tests use; `postgres` on an embedded one."""
    if given := os.environ.get("JOBQ_TEST_DATABASE_URL"):
        yield given
        return
    from jobq.dev import DevPostgres

    with tempfile.TemporaryDirectory(prefix="jobq-test-") as home:
        Path(home).chmod(0o755)
        with DevPostgres(Path(home) / "pg", fsync="off", synchronous_commit="off", full_page_writes="off") as server:
            yield server.url("postgres")


@pytest.fixture(scope="session")
def jobq_template(jobq_server_url: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """Name of a database with jobq's schema, copied for each test."""
    from jobq import migrate
    from jobq.config import Settings

    name = f"jobq_template_{uuid.uuid4().hex[:12]}"
    _administer(jobq_server_url, "CREATE DATABASE {}", name)
    migrate.upgrade(_at(jobq_server_url, name), Settings.load().schema)
    yield name
    _administer(jobq_server_url, "DROP DATABASE {} WITH (FORCE)", name)


@pytest.fixture
def jobq_database_url(jobq_server_url: str, jobq_template: str) -> Iterator[str]:
    """URL of a database for this test alone."""
    name = f"jobq_test_{uuid.uuid4().hex[:12]}"
    _administer(jobq_server_url, "CREATE DATABASE {} TEMPLATE {}", name, jobq_template)
    yield _at(jobq_server_url, name)
    _administer(jobq_server_url, "DROP DATABASE {} WITH (FORCE)", name)


@pytest.fixture
def jobq_app(request: pytest.FixtureRequest) -> JobQ:
    """The application under test: the one that the setting `jobq_app` names. Override it to choose by yourself."""
    from jobq.app import load

    spec = str(request.config.getini("jobq_app"))
    if not spec:
        raise pytest.UsageError('set jobq_app = "module:attribute" in pytest\'s configuration, or override the fixture')
    return load(spec)


@pytest.fixture
def jobq(jobq_app: JobQ, jobq_database_url: str) -> Iterator[JobqTester]:
    """A `JobqTester` on this test's database; the application's own settings come back afterwards."""
    before = jobq_app.settings
    jobq_app.configure(database_url=jobq_database_url)
    tester = JobqTester(jobq_app, jobq_database_url)
    yield tester
    tester.close()
    jobq_app.configure(database_url=before.database_url)


def _at(url: str, name: str) -> str:
    from psycopg.conninfo import make_conninfo

    return make_conninfo(url, dbname=name)


def _administer(url: str, query: str, *names: str) -> None:
    from psycopg import sql

    from jobq import sessions

    with sessions.connect(url, autocommit=True) as connection:
        identifiers = [sql.Identifier(name) for name in names]
        connection.execute(sql.SQL(query).format(*identifiers))
