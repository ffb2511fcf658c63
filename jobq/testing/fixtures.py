"""The fixtures of the pytest plugin."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from jobq.settings import url_of

if TYPE_CHECKING:
    from jobq.app import JobQ
    from jobq.testing.eager_jobs import EagerJobs
    from jobq.testing.tester import JobqTester


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the setting `jobq_app`."""
    parser.addini("jobq_app", "the JobQ that the fixture `jobq` runs, as module:attribute", default="")


@pytest.fixture(scope="session")
def jobq_server_url() -> Iterator[str]:
    """URL of a database on the test server; `postgres` on an embedded server."""
    if given := os.environ.get("JOBQ_TEST_DATABASE_URL"):
        yield url_of(given)
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
    from jobq.settings import Settings

    name = f"jobq_template_{uuid.uuid4().hex[:12]}"
    _administer(jobq_server_url, "CREATE DATABASE {}", name)
    migrate.upgrade(url_of(jobq_server_url, dbname=name), Settings.load().schema)
    yield name
    _administer(jobq_server_url, "DROP DATABASE {} WITH (FORCE)", name)


@pytest.fixture
def jobq_database_url(jobq_server_url: str, jobq_template: str) -> Iterator[str]:
    """URL of a database for this test alone: ``postgresql://…``, as psycopg accepts it.

    ``jobq.sqlalchemy_url`` is the same for SQLAlchemy. To use a database of your own that has
    jobq's tables, override this fixture.
    """
    name = f"jobq_test_{uuid.uuid4().hex[:12]}"
    _administer(jobq_server_url, "CREATE DATABASE {} TEMPLATE {}", name, jobq_template)
    yield url_of(jobq_server_url, dbname=name)
    _administer(jobq_server_url, "DROP DATABASE {} WITH (FORCE)", name)


@pytest.fixture
def jobq_app(request: pytest.FixtureRequest) -> JobQ:
    """The application under test, from the setting `jobq_app`. Override it to use another one."""
    from jobq.app import load

    spec = str(request.config.getini("jobq_app"))
    if not spec:
        raise pytest.UsageError('set jobq_app = "module:attribute" in pytest\'s configuration, or override the fixture')
    return load(spec)


@pytest.fixture
def jobq(jobq_app: JobQ, jobq_database_url: str) -> Iterator[JobqTester]:
    """A `JobqTester` on this test's database.

    The application's settings are restored afterwards.
    """
    from jobq.testing.tester import JobqTester

    before = jobq_app.settings
    jobq_app.configure(database_url=jobq_database_url)
    tester = JobqTester(jobq_app, jobq_database_url)
    yield tester
    tester.close()
    jobq_app.configure(database_url=before.database_url)


@pytest.fixture
def jobq_eager(jobq_app: JobQ) -> Iterator[EagerJobs]:
    """`jobq.testing.eager` during a test: enqueued jobs run at once, without a database."""
    from jobq.testing.eager_jobs import eager

    with eager(jobq_app) as jobs:
        yield jobs


def _administer(url: str, query: str, *names: str) -> None:
    from psycopg import sql

    from jobq._postgres import connecting

    with connecting.connect(url, "testing", autocommit=True) as connection:
        identifiers = [sql.Identifier(name) for name in names]
        connection.execute(sql.SQL(query).format(*identifiers))
