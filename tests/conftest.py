"""Fixtures: one server a session (and xdist worker), one database a test."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient
from psycopg import sql

from jobq import migrate
from jobq.web import create_app
from jobq.web.server import close
from tests.apps import plain as apps
from tests.support import installed, programs, suites
from tests.support.jobs import Jobs
from tests.support.servers import postgres
from tests.support.workers import WorkerProcess

Conn = psycopg.Connection[Any]
# A busy machine makes any example slow, and how long one takes is nothing that a test asserts.
hypothesis.settings.register_profile(
    "jobq", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow], print_blob=True
)
hypothesis.settings.load_profile("jobq")
# Containers often forbid Python to keep what it has compiled. Then each of a thousand programs that the tests start would
# compile jobq again, and each process of xdist every test.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# A shell that starts us in the background has SIGINT ignored, nohup has SIGHUP, and what is ignored is handed down to every
# program that a test starts and signals.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("jobq", "jobq's own tests")
    group.addoption(
        "--suite",
        choices=["all", "quick", "rest"],
        default="all",
        help="which tests run if neither paths nor -k nor -m choose: all, the quick ones, or the rest (default: all)",
    )
    group.addoption(
        "--require-programs", action="store_true", help="fail a test that is skipped because a program is missing"
    )
    group = parser.getgroup("chaos", "tests/chaos: faults at random")
    default = os.environ.get("JOBQ_CHAOS_SEED", "1")
    group.addoption("--chaos-seed", type=int, default=default, help="what the faults are drawn from (default: 1)")
    group.addoption("--chaos-long", action="store_true", help="the long form: minutes and thousands of jobs")


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        return  # xdist hands down what was decided here
    # Write --suite=quick: in two words pytest takes the second for a path until it knows the option.
    chosen = config.args_source is not pytest.Config.ArgsSource.TESTPATHS
    if chosen or config.option.keyword or config.option.markexpr:
        config.option.suite = "all"


def pytest_report_header(config: pytest.Config) -> list[str]:
    return [
        f"suite: {config.option.suite}",
        f"chaos: seed {config.option.chaos_seed}, {'long' if config.option.chaos_long else 'short'} form",
    ]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        suites.mark(item)
        if config.pluginmanager.hasplugin("xdist"):
            suites.group(item)
    if config.option.suite == "all":
        return
    quick = config.option.suite == "quick"
    left = [item for item in items if suites.is_quick(item) is not quick]
    config.hook.pytest_deselected(items=left)
    items[:] = [item for item in items if suites.is_quick(item) is quick]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    suites.begin(item)
    try:
        return (yield)
    finally:
        suites.begin(None)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    programs.check(item)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if item.config.option.require_programs:
        programs.refuse(report)
    if report.when == "call" and suites.is_quick(item):
        report.user_properties.append((suites.QUICK, True))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    suites.summarize(terminalreporter)


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


@pytest.fixture(scope="session")
def _next_migrations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installed.next_migrations(tmp_path_factory.mktemp("next"))


@pytest.fixture
def next_migrations(_next_migrations: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a next version's migrations, which `jobq.migrate` applies from here on: see tests.support.installed."""
    monkeypatch.setattr(migrate, "SCRIPT_LOCATION", str(_next_migrations))
    return _next_migrations


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
    """The states of the jobs in `database_url`, where the tasks of tests.apps.plain leave their traces."""
    found = Jobs(database_url)
    apps.create_traces(found.connection)
    yield found
    found.close()


@pytest.fixture
def db(database_url: str) -> Iterator[Conn]:
    """A connection to `database_url` that commits each statement by itself."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def make_app() -> Iterator[Callable[..., Flask]]:
    """`create_app`, which keeps no page unless asked to; what it opened is closed at the end."""
    made: list[Flask] = []

    def make(database_url: str, **options: Any) -> Flask:
        made.append(create_app(database_url=database_url, **{"cache_seconds": 0.0, **options}))
        return made[-1]

    yield make
    for app in made:
        close(app)


@pytest.fixture
def client(make_app: Callable[..., Flask], database_url: str) -> FlaskClient:
    """A browser on the status page of `database_url`."""
    return make_app(database_url).test_client()
