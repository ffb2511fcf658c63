"""What the documents print is what happens: each code block is run, or says why not."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from jobq import queries
from jobq._worker.inline import drain
from tests.docs.blocks import blocks
from tests.docs.names import application
from tests.docs.reader import ROOT, Reader
from tests.support.inline_durable import durable
from tests.support.servers import postgres

DOCS = ROOT / "docs"
DOCUMENTS = [
    ROOT / "README.md",
    *(
        DOCS / name
        for name in (
            "tutorial.md",
            "tutorial-workflows.md",
            "tutorial-durable.md",
            "how-to.md",
            "reference.md",
            "cli.md",
        )
    ),
]
# Blocks that are not run, of each document. A new one is a decision.
NOT_RUN = {
    "README.md": 2,
    "tutorial.md": 1,
    "tutorial-workflows.md": 3,
    "tutorial-durable.md": 0,
    "how-to.md": 7,
    "reference.md": 0,
    "cli.md": 0,
}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "shop").mkdir()
    return tmp_path / "shop"


@pytest.fixture
def reader(place: Path, server: postgres.Server) -> Iterator[Callable[..., Reader]]:
    made: list[Reader] = []

    def make(names: dict[str, Any] | None = None, **environment: str) -> Reader:
        tests = {"JOBQ_TEST_DATABASE_URL": server.database_url("postgres")}
        made.append(Reader(place, {**tests, **environment}, names))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_blocks_that_are_not_run_are_few_and_say_why(document: Path) -> None:
    assert sum(block.not_run is not None for block in blocks(document)) == NOT_RUN[document.name]
    assert {block.language for block in blocks(document) if block.not_run is None} <= {
        "python",
        "console",
        "sql",
        "ini",
    }


@pytest.mark.slow
@pytest.mark.timeout(300)  # a dozen programs, one after the other
def test_the_tutorial_from_an_empty_directory(reader: Callable[..., Reader]) -> None:
    """With nothing set, and the Postgres that comes along."""
    read = reader()
    read.read(blocks(DOCS / "tutorial.md"))
    # Step 5 says that the traceback is there.
    assert 'raise ConnectionError("the mail server is away")' in read.log
    assert "task=send_receipt queue=mail attempt=1 max_attempts=8" in read.log


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_tutorial_on_workflows(reader: Callable[..., Reader], database_url: str) -> None:
    read = reader(JOBQ_DATABASE_URL=database_url)
    read.read(blocks(DOCS / "tutorial-workflows.md"))
    with psycopg.connect(database_url) as connection:
        runs = queries.workflows(connection, "jobq")
    assert [(run.name, run.state) for run in runs] == [
        ("canvas", "succeeded"),
        ("visits", "succeeded"),
        ("site", "succeeded"),
        ("count", "succeeded"),
        ("page", "succeeded"),
    ]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_tutorial_on_durable_tasks(reader: Callable[..., Reader], database_url: str) -> None:
    """The first sections by a worker, the others in this process."""
    with durable(database_url) as run:
        read = reader({"q": run.app}, JOBQ_DATABASE_URL=database_url)
        read.read(blocks(DOCS / "tutorial-durable.md"))
        assert read.log.count("reserve a bicycle") == 1
        # Or its worker would take the jobs from here on, whose tasks it does not know.
        read.close()
        run.tester.connection.execute("CREATE TABLE account (id integer PRIMARY KEY, cents integer NOT NULL)")
        run.tester.connection.execute("INSERT INTO account VALUES (1, 100)")
        expected = {
            read.names["remind"].submit(7, 3): 3,
            read.names["fulfil"].submit(7): "invoice-7.pdf, 1 parcel",
            read.names["deposit"].submit(1, 50): 150,
            read.names["cheapest"].submit(["slow", "quick"]): {"quick": 12},
            read.names["deliver"].submit(7): "delivered",
        }
        run.tester.drain(with_scheduled=True)
        assert {job.id: job.result(timeout=0) for job in expected} == {job.id: value for job, value in expected.items()}


def test_the_readme(reader: Callable[..., Reader], database_url: str) -> None:
    with application(database_url) as names:
        reader(names, JOBQ_DATABASE_URL=database_url).read(blocks(ROOT / "README.md"))
        with psycopg.connect(database_url, autocommit=True) as connection:
            assert drain(names["q"], connection).failed == 0


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_recipes(reader: Callable[..., Reader], database_url: str, place: Path) -> None:
    """The last one removes jobq."""
    [shop] = [block for block in blocks(ROOT / "README.md") if block.file == "shop.py"]
    (place / "shop.py").write_text(shop.text)
    found = blocks(DOCS / "how-to.md")
    removal = next(n for n, block in enumerate(found) if "--downgrade base" in block.text)
    with application(database_url) as names, psycopg.connect(database_url, autocommit=True) as connection:
        read = reader(names, JOBQ_DATABASE_URL=database_url)
        read.execute = lambda text: connection.execute(text.encode())
        read.read(found[:removal])
        names["session"].commit()
        _transfer_and_page(read.names, connection)
        for role in ("operator", "producer", "viewer", "worker"):
            connection.execute(f"CREATE ROLE docs_{role}_{os.getpid()}".encode())
        # Other tests need the roles themselves.
        read.execute = lambda text: connection.execute(_own_roles(text).encode())
        read.read(found[removal:])
        assert connection.execute("SELECT to_regnamespace('jobq')").fetchone() == (None,)


def _own_roles(text: str) -> str:
    for role in ("operator", "producer", "viewer", "worker"):
        text = text.replace(f"jobq_{role}", f"docs_{role}_{os.getpid()}")
    return text


def _transfer_and_page(names: dict[str, Any], connection: psycopg.Connection[Any]) -> None:
    """What the recipes define does what they say."""
    q = names["q"]
    moved = names["transfer"].submit(1, 2, 200)
    client = names["app"].test_client()
    job = client.post("/reports/5").json["job"]
    assert client.get(f"/jobs/{job}").json == {"state": "ready", "progress": None, "error": None}
    waiting = client.post("/reports/6").json["job"]
    assert client.delete(f"/jobs/{waiting}").json == {"cancelled": True}
    names["nightly_load"].submit(datetime(2026, 3, 28, 2, tzinfo=UTC))
    done = drain(q, connection)
    assert done.failed == 0
    assert queries.get_job(connection, "jobq", moved.id).state == "succeeded"
    assert connection.execute("SELECT cents FROM account ORDER BY id").fetchall() == [(300,), (200,)]
    assert client.get(f"/jobs/{job}").json == {"state": "succeeded", "url": "/files/report-5.pdf"}
    assert client.get("/jobs/999999").status_code == 404
    assert names["album"].state() == "succeeded"
    runs = queries.workflows(connection, "jobq")
    assert {(run.name, run.key, run.state) for run in runs} == {
        ("album", "album-7", "succeeded"),
        ("nightly load", "2026-03-28", "succeeded"),
    }
