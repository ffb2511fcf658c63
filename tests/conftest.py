"""Fixtures: one server a session (and xdist worker), one database a test."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from jobq import migrate
from tests.support import apps, postgres
from tests.support.jobs import Jobs
from tests.support.workers import WorkerProcess

# A shell that starts us in the background has SIGINT ignored, nohup has SIGHUP, and what is ignored is handed down to every
# program that a test starts and signals.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("chaos", "tests/chaos: faults at random")
    default = os.environ.get("JOBQ_CHAOS_SEED", "1")
    group.addoption("--chaos-seed", type=int, default=default, help="what the faults are drawn from (default: 1)")
    group.addoption("--chaos-long", action="store_true", help="the long form: minutes and thousands of jobs")


def pytest_report_header(config: pytest.Config) -> str:
    return f"chaos: seed {config.option.chaos_seed}, {'long' if config.option.chaos_long else 'short'} form"


@pytest.fixture(scope="session")
def server() -> Iterator[postgres.Server]:
    """A running server, shared by the session's tests."""
    running = postgres.start()
    yield running
    running.stop()


@pytest.fixture(scope="session")
def template(server: postgres.Server) -> str:
    """The name of a migrated database without connections."""
    name = "jobq_template"
    with server.admin() as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    migrate.upgrade(server.database_url(name))
    return name


@pytest.fixture
def database_url(server: postgres.Server, template: str) -> Iterator[str]:
    """The URL of a fresh, migrated database."""
    with postgres.database(server, template) as url:
        yield url


@pytest.fixture
def empty_database_url(server: postgres.Server) -> Iterator[str]:
    """The URL of a fresh database without anything in it."""
    with postgres.database(server) as url:
        yield url


@pytest.fixture
def conn(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection to `database_url` in its own transaction; rolled back at the end."""
    connection = psycopg.connect(database_url)
    try:
        yield connection
    finally:
        connection.close()


@pytest.fixture
def own_server() -> Iterator[postgres.OwnServer]:
    """A server for this test alone, not migrated: `.url`, `.kill()`, `.restart()`."""
    own = postgres.OwnServer()
    yield own
    own.close()


@pytest.fixture
def worker(database_url: str, tmp_path: Path) -> Iterator[Callable[..., WorkerProcess]]:
    """A function that starts a worker on `database_url`: ``worker("--drain", env={…}, app="module:q")``."""
    started: list[WorkerProcess] = []

    def start(*args: str, database_url: str = database_url, **options: Any) -> WorkerProcess:
        process = WorkerProcess(database_url, tmp_path / f"worker{len(started)}.log", *args, **options)
        started.append(process)
        return process

    yield start
    for process in started:
        process.close()


@pytest.fixture
def jobs(database_url: str) -> Iterator[Jobs]:
    """The states of the jobs in `database_url`, where the tasks of tests.support.apps leave their traces."""
    found = Jobs(database_url)
    apps.create_traces(found.connection)
    yield found
    found.close()
