"""Fixtures of the browser tests: one Chromium for all of them, the data sets served, pages that are watched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from playwright.sync_api import Browser, expect

from tests.browser import chromium, seeds
from tests.browser.serving import PageProcess
from tests.browser.watching import PATIENCE, Visitor
from tests.support.jobs import Jobs
from tests.support.rows import add_finished
from tests.support.servers import postgres
from tests.support.waiting import wait_until
from tests.support.workers import WorkerProcess

Conn = psycopg.Connection[Any]

expect.set_options(timeout=PATIENCE)


@dataclass(frozen=True, slots=True)
class DataSet:
    """A seeded database and the page over it."""

    url: str
    seeded: seeds.Seeded
    conn: Conn


# Package, not session: while Chromium's driver runs, no other event loop can run in this process, and the tests that come
# after these have loops of their own.
@pytest.fixture(scope="package")
def chrome() -> Iterator[Browser]:
    """A running Chromium."""
    with chromium.running() as browser:
        yield browser


@pytest.fixture(scope="package")
def data_set(
    server: postgres.Server, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[seeds.Name], DataSet]]:
    """A function that returns the data set of a name, made when first asked for. Shared: only look at it."""
    made: dict[str, DataSet] = {}
    with ExitStack() as stack:

        def get(name: seeds.Name) -> DataSet:
            if name not in made:
                url = stack.enter_context(postgres.database(server, template))
                conn = stack.enter_context(psycopg.connect(url, autocommit=True))
                seeded = seeds.fill(conn, name)
                served = PageProcess(url, tmp_path_factory.mktemp(name) / "log", refresh_seconds=0)
                stack.callback(served.close)
                made[name] = DataSet(served.url, seeded, conn)
            made[name].seeded.beat(made[name].conn)
            return made[name]

        yield get


@pytest.fixture
def visit(chrome: Browser) -> Iterator[Callable[..., Visitor]]:
    """A function that opens a browser window on a page: ``visit(url, java_script_enabled=False)``.

    At the test's end each window must have been free of errors, unless the test said otherwise.
    """
    opened: list[Visitor] = []

    def visit(url: str, **options: Any) -> Visitor:
        opened.append(Visitor(chrome.new_context(base_url=url, **options)))
        return opened[-1]

    yield visit
    try:
        for visitor in opened:
            visitor.check()
    finally:
        for visitor in opened:
            visitor.close()


@pytest.fixture
def serve(database_url: str, tmp_path: Path) -> Iterator[Callable[..., PageProcess]]:
    """A function that serves the page of `database_url`, with options of `create_app`."""
    running: list[PageProcess] = []

    def start(**options: Any) -> PageProcess:
        running.append(PageProcess(database_url, tmp_path / f"page{len(running)}.log", **options))
        return running[-1]

    yield start
    for process in running:
        process.close()


@dataclass(frozen=True, slots=True)
class Site:
    """The page of a test's own database, its jobs, and a real worker that runs tests.apps.plain."""

    url: str
    conn: Conn
    jobs: Jobs
    worker: WorkerProcess

    def failed(self, number: int, *, error: str = "ConnectionError: bank {n} is away", **columns: Any) -> list[int]:
        """Insert dead jobs that will succeed when they run again, and leave their number as a trace; return their ids."""
        given: dict[str, Any] = {"task": "record", "ago": 9 * 3600, "attempt": 10, "claims": 10} | columns
        with self.conn.transaction():
            return [
                add_finished(self.conn, "failed", args={"note": f"{n}"}, error=error.replace("{n}", str(n)), **given)
                for n in range(number)
            ]

    def heard(self) -> None:
        """Wait until the worker has heard what is set now: which queues are paused comes with a heartbeat."""
        beats = self.jobs.one("SELECT beats FROM jobq.worker")
        wait_until(lambda: self.jobs.one("SELECT beats FROM jobq.worker") > beats + 1, what="two heartbeats")

    def audit(self) -> list[tuple[str, str, str | None]]:
        """Each actor, action and reason, in order."""
        rows = self.jobs.all("SELECT actor, action, reason FROM jobq.audit ORDER BY id")
        return [(row["actor"], row["action"], row["reason"]) for row in rows]


@pytest.fixture
def plain(database_url: str) -> Iterator[Conn]:
    """A connection that commits each statement by itself and returns rows as tuples."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def site(plain: Conn, jobs: Jobs, serve: Callable[..., PageProcess], worker: Callable[..., WorkerProcess]) -> Site:
    """A page that refreshes itself each second, and a worker."""
    running = worker("--heartbeat-interval", "0.5")
    served = serve(refresh_seconds=1, actor="ann")
    wait_until(lambda: jobs.one("SELECT count(*) FROM jobq.worker WHERE state = 'running'"), what="the worker")
    return Site(served.url, plain, jobs, running)
