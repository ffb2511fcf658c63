"""`/readyz` is about one worker: in most outages this worker is fine, and says so. In others it is not, and says why."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from jobq import operations
from jobq.diagnostics import inventory
from tests.support.outages import OUTAGES, Outage
from tests.support.servers import postgres
from tests.support.waiting import wait_until
from tests.support.web import Conn
from tests.support.workers import WorkerProcess
from tests.worker.health.test_probes import Probe

pytestmark = pytest.mark.process

# In these there is no worker, or another server than this one; the last two are below.
_ELSEWHERE = (
    "no worker",
    "the only worker died with running jobs",
    "a read-only database",
    "all workers are quiet",
    "an import that fails",
)
_RUNS_ON = [
    outage
    for outage in OUTAGES
    if outage.name not in _ELSEWHERE
    # A worker is not kept running over a schema that is taken from under it: see the last tests.
    and not ("schema older" in outage.name or "column" in outage.name)
]


@pytest.fixture(scope="module")
def ready(
    server: postgres.Server, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Conn, Probe]]:
    """A worker of another queue, on a database in which outage follows outage."""
    directory = tmp_path_factory.mktemp("ready")
    probe = Probe(directory)
    with postgres.database(server, template) as url, psycopg.connect(url, autocommit=True) as db:
        running = WorkerProcess(url, directory / "log", *probe.option, "--queues", "elsewhere", "--processes", "1")
        try:
            probe.wait_ready()
            yield db, probe
        finally:
            running.close()


def beats(db: Conn) -> int:
    row = db.execute("SELECT coalesce(max(beats), 0) FROM jobq.worker WHERE queues = '{elsewhere}'").fetchone()
    return 0 if row is None else int(row[0])


@pytest.mark.parametrize("outage", _RUNS_ON, ids=lambda outage: outage.name.replace(" ", "-"))
def test_this_worker_is_fine(outage: Outage, ready: tuple[Conn, Probe]) -> None:
    """It heartbeats, it could claim: a restart, or another worker in its place, would change nothing."""
    db, probe = ready
    with db.transaction():
        db.execute("TRUNCATE jobq.job, jobq.queue, jobq.maintenance_task, jobq.schedule, jobq.rate_state")
        db.execute("DELETE FROM jobq.worker WHERE queues IS DISTINCT FROM '{elsewhere}'")
        definition = inventory.expected()["indexes"]["job_claim_idx"]["definition"].replace("{schema}", "jobq")
        db.execute(definition.replace("CREATE INDEX", "CREATE INDEX IF NOT EXISTS").encode())
    outage.make(db)
    before = beats(db)
    wait_until(lambda: beats(db) >= before + 2, what="two heartbeats")
    status, body = probe.get("/readyz")
    assert (status, json.loads(body)["status"]) == (200, "ready"), body


def test_no_worker_answers_nothing(tmp_path: Path) -> None:
    assert Probe(tmp_path).status("/readyz") is None


def test_a_column_that_the_worker_needs_is_gone(db: Conn, tmp_path: Path, worker: Callable[..., WorkerProcess]) -> None:
    probe = Probe(tmp_path)
    worker(*probe.option)
    probe.wait_ready()
    db.execute("ALTER TABLE jobq.worker DROP COLUMN problems")
    wait_until(lambda: "heartbeats" in probe.failing(), what="unreadiness")
    assert "problems" in json.loads(probe.get("/readyz")[1])["checks"]["heartbeats"]["detail"]


def test_an_index_that_claims_need_is_no_matter_of_readiness(
    db: Conn, tmp_path: Path, worker: Callable[..., WorkerProcess]
) -> None:
    """Claims are slow, not refused: doctor and the page are red."""
    probe = Probe(tmp_path)
    worker(*probe.option)
    probe.wait_ready()
    db.execute("DROP INDEX jobq.job_claim_idx")
    assert probe.failing() == set()


def test_quiet_is_ready_and_says_so(db: Conn, tmp_path: Path, worker: Callable[..., WorkerProcess]) -> None:
    probe = Probe(tmp_path)
    worker(*probe.option)
    probe.wait_ready()
    ((id,),) = db.execute("SELECT id FROM jobq.worker").fetchall()
    operations.ask_worker(db, "jobq", id, "quiet", actor="ann")

    def detail() -> str:
        status, body = probe.get("/readyz")
        assert status == 200
        return str(json.loads(body)["checks"]["claiming"]["detail"])

    wait_until(lambda: "an operator has asked this worker to be quiet" in detail(), what="quiet")


def test_an_import_that_fails_later(db: Conn, tmp_path: Path, worker: Callable[..., WorkerProcess]) -> None:
    """The code under a running worker is replaced by one that cannot be imported, and its runner ends."""
    probe = Probe(tmp_path)
    broken = tmp_path / "broken_app.py"
    broken.write_text(
        "from jobq import JobQ\nq = JobQ()\n@q.task\ndef leave() -> None:\n    import os\n    os._exit(3)\n"
    )
    worker(*probe.option, "--processes", "1", app="broken_app:q", env={"PYTHONPATH": str(tmp_path)})
    probe.wait_ready()
    broken.write_text("import nothing_of_this_name\n")
    db.execute("INSERT INTO jobq.job (task, max_attempts) VALUES ('leave', 1)")
    wait_until(lambda: "runners" in probe.failing(), what="unreadiness")

    def problems() -> str:
        return str(db.execute("SELECT problems FROM jobq.worker").fetchone())

    wait_until(lambda: "nothing_of_this_name" in problems(), what="the problem in its row")
    assert "start a runner" in problems()
    (problem,) = json.loads(probe.get("/readyz")[1])["problems"]
    assert problem["what"] == "start a runner"
    assert probe.metrics()["jobq_problems",] == 1
