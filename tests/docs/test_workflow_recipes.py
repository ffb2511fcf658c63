"""The recipes for workflows at full size: 100,000 jobs by a worker, and nights that pass."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import psycopg
import pytest

from jobq import JobQ, current_job, queries
from jobq.testing import JobqTester
from tests.docs.blocks import blocks
from tests.docs.reader import ROOT
from tests.support.workers import WorkerProcess

HOW_TO = ROOT / "docs" / "how-to.md"


def recipe(heading: str) -> str:
    """Return the Python code of a recipe."""
    lines = HOW_TO.read_text(encoding="utf-8").splitlines()
    begin = lines.index(f"## {heading}") + 1
    end = next(n for n, line in enumerate([*lines[begin:], "## "], begin + 1) if line.startswith("## "))
    found = [block for block in blocks(HOW_TO) if begin < block.line <= end and block.language == "python"]
    assert found
    return "\n".join(block.text for block in found)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_100000_jobs_out_and_in_again(
    database_url: str, worker: Callable[..., WorkerProcess], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks, _, producer = recipe("Fan out to 100,000 jobs, and in again").partition("\nwith q.workflow")
    (tmp_path / "album_recipe.py").write_text(f"from jobq import JobQ, NodeOutcome\n\nq = JobQ()\n{tasks}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("JOBQ_DATABASE_URL", database_url)
    module = import_module("album_recipe")
    try:
        with psycopg.connect(database_url) as session:
            names: dict[str, Any] = {**vars(module), "session": session, "photo_ids": range(100_000)}
            exec(f"with q.workflow{producer}", names)
        process = worker(
            "--drain", "--queues", "images,default", app="album_recipe:q", env={"PYTHONPATH": str(tmp_path)}
        )
        assert process.wait(240) == 0, process.log
        assert names["album"].state() == "succeeded", process.log
        with psycopg.connect(database_url) as connection:
            detail = queries.get_workflow(connection, "jobq", names["album"].id)
            assert detail is not None
            [many, end] = detail.nodes
            row = connection.execute("SELECT result FROM jobq.job_history WHERE id = %s", (end.job_id,)).fetchone()
        assert (many.items, many.items_ended, many.items_failed) == (100_000, 100_000, 0)
        assert row == (100_000,)
    finally:
        module.q.close()
        del sys.modules["album_recipe"]


def test_a_graph_every_night(database_url: str) -> None:
    q = JobQ(database_url)
    names: dict[str, Any] = {"__name__": "recipe", "q": q, "datetime": datetime}
    exec(recipe("Run a graph every night"), names)

    # In the transaction of the job.
    def nightly_export(night: datetime) -> None:
        with q.workflow("nightly export", key=f"{night:%Y-%m-%d}") as wf:
            names["extract"].node("invoices", "today")
        wf.enqueue(current_job().connection)

    q.schedule("0 3 * * *", timezone="Europe/Berlin", tick_argument="night")(q.task(transactional=True)(nightly_export))
    with JobqTester(q, database_url) as tester:
        night = names["q"].schedules["nightly_load"].when.next(datetime.now(UTC))
        tester.advance(until=night)
        assert len(tester.enqueued(names["nightly_load"])) == 1
        assert tester.drain().failed == 0
        for name in ("nightly load", "nightly export"):
            tester.assert_workflow(name, key=f"{night:%Y-%m-%d}", state="succeeded")
        names["nightly_load"].submit(night)
        assert tester.drain().failed == 0
        assert len(queries.workflows(tester.connection, "jobq", name="nightly load")) == 1
        tester.advance(days=1)
        assert tester.drain().failed == 0
        runs = queries.workflows(tester.connection, "jobq", name="nightly load")
        assert [run.state for run in runs] == ["succeeded"] * 2
        assert len({run.key for run in runs}) == 2
    q.close()
