"""Retention of steps and signals, and what operators' deletes and retries do with them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from jobq import operations
from jobq._worker.database import Database, fetch
from jobq._worker.inline import drain
from jobq._worker.maintenance import step_retention
from jobq._worker.maintenance.partitions import Incomplete
from jobq._worker.maintenance.tasks import MaintenanceTasks
from jobq._worker.options import WorkerOptions
from jobq._worker.timeouts import MAINTENANCE
from jobq._worker.workflows.inline import run_steps
from jobq.settings import Settings
from tests.apps import durable as apps
from tests.apps import durable_retries as retries
from tests.support.checks import some

Conn = psycopg.Connection[Any]
q = apps.q


@pytest.fixture(autouse=True)
def configured(database_url: str) -> Iterator[None]:
    q.configure(database_url=database_url)
    yield
    q.close()


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "trace")


class Kept:
    """The maintenance tasks of one worker, which remember their positions."""

    def __init__(self, url: str) -> None:
        self._settings = Settings(database_url=url)
        self.tasks = MaintenanceTasks(WorkerOptions(app="-", settings=self._settings))

    def run(self) -> str:
        async def once() -> str:
            connection = await Database(self._settings).connect("maintenance", MAINTENANCE)
            async with connection:
                return await self.tasks.remove_steps(connection)

        return asyncio.run(once())


def steps(db: Conn) -> list[tuple[int, int]]:
    """The jobs that have steps, with their number."""
    return db.execute("SELECT job_id, count(*) FROM jobq.job_step GROUP BY job_id ORDER BY job_id").fetchall()


def signals(db: Conn) -> list[tuple[Any, ...]]:
    return db.execute("SELECT coalesce(job_id, workflow_id), name FROM jobq.job_signal ORDER BY id").fetchall()


def age(db: Conn, days: int = 1000) -> None:
    db.execute("UPDATE jobq.job_step SET started_at = started_at - %s * interval '1 day'", (days,))
    db.execute("UPDATE jobq.job_signal SET sent_at = sent_at - %s * interval '1 day'", (days,))


def lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()


def state(db: Conn, job: int) -> Any:
    row = db.execute("SELECT state FROM jobq.job_history WHERE id = %s", (job,)).fetchone()
    return row and row[0]


# --- Retention -----------------------------------------------------------------------------------------------------------


def test_steps_and_signals_stay_as_long_as_their_job(db: Conn, database_url: str, path: str) -> None:
    done = apps.line.enqueue(db, path)
    failed = apps.stubborn.options(max_attempts=1).enqueue(db, path, 9, 1)
    waits = apps.approve.enqueue(db, path)
    drain(q, db)
    q.send_signal(db, waits, "other")
    gone = apps.line.enqueue(db, path + "2")
    asked = apps.approve.enqueue(db, path + "2")
    q.send_signal(db, asked, "approval", apps.Approval("ada"))
    drain(q, db)
    both = [(done.id, 3), (failed.id, 1), (waits.id, 2)]
    assert steps(db) == [*both, (gone.id, 3), (asked.id, 2)]
    assert Kept(database_url).run() == "0 steps and 0 signals of deleted jobs deleted"
    db.execute("DELETE FROM jobq.job_history WHERE id = ANY (%s)", ([gone.id, asked.id],))
    # They are younger than any job that retention has removed, so they are not read.
    assert Kept(database_url).run() == "0 steps and 0 signals of deleted jobs deleted"
    age(db)
    assert Kept(database_url).run() == "5 steps and 1 signals of deleted jobs deleted"
    assert steps(db) == both
    assert signals(db) == [(waits.id, "other")]


def test_a_signal_to_a_node_that_has_not_begun_is_kept(db: Conn, database_url: str) -> None:
    with q.workflow("later") as wf:
        first = apps.double.node(1)
        apps.approve_async.node(1).after(first)
    run = wf.enqueue(db)
    [(node,)] = db.execute("SELECT max(id) FROM jobq.workflow_node").fetchall()
    q.send_signal(db, node, "approval", apps.Approval("ada"))
    q.send_signal(db, run, "approval", apps.Approval("bob"))
    age(db)
    assert Kept(database_url).run() == "0 steps and 0 signals of deleted jobs deleted"
    assert signals(db) == [(node, "approval"), (run.id, "approval")]
    for table in ("workflow", "workflow_node", "job"):
        db.execute(f"DELETE FROM jobq.{table}".encode())
    assert Kept(database_url).run() == "0 steps and 2 signals of deleted jobs deleted"


def test_a_pass_goes_on_where_it_was(db: Conn, database_url: str, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Old steps of live jobs are read once in a pass, and not at each run."""
    monkeypatch.setattr(step_retention, "READ_ROWS", 4)
    monkeypatch.setattr(step_retention, "OLD_ROWS", 2)
    waits = [apps.approve.enqueue(db, path).id for _ in range(5)]
    gone = [apps.line.enqueue(db, path).id for _ in range(3)]
    drain(q, db)
    db.execute("DELETE FROM jobq.job_history WHERE id = ANY (%s)", (gone,))
    age(db)
    kept = Kept(database_url)
    assert kept.run().startswith("9 steps")
    assert [job for job, _ in steps(db)] == waits
    read: list[int] = []

    async def counting(connection: Any, schema: str, name: str, **values: Any) -> Any:
        rows = await fetch(connection, schema, name, **values)
        if name == "steps_old":
            read.append(rows[0][1])
        return rows

    monkeypatch.setattr(step_retention, "fetch", counting)
    kept.run()
    assert sum(some(read)) == 0
    read.clear()
    # A day later.
    kept.tasks._old_steps._again = 0.0
    kept.run()
    assert sum(read) == 10


def test_rows_that_the_database_refuses_do_not_keep_the_others(db: Conn, database_url: str, path: str) -> None:
    jobs = [apps.line.enqueue(db, path).id for _ in range(3)]
    drain(q, db)
    db.execute("DELETE FROM jobq.job_history")
    age(db)
    db.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'kept by law'; END $$"
    )
    db.execute(
        f"CREATE TRIGGER refuse BEFORE DELETE ON jobq.job_step FOR EACH ROW WHEN (old.job_id = {jobs[1]})"
        " EXECUTE FUNCTION refuse()".encode()
    )
    with pytest.raises(Incomplete, match=rf"6 steps .* refused: steps of job {jobs[1]}: kept by law"):
        Kept(database_url).run()
    assert steps(db) == [(jobs[1], 3)]


def test_a_wakeup_of_a_job_that_is_gone_is_taken(db: Conn) -> None:
    db.execute("INSERT INTO jobq.job_wakeup (job_id, workflow_id) VALUES (4711, NULL), (NULL, 4711)")
    assert run_steps(db, "jobq")
    assert db.execute("SELECT count(*) FROM jobq.job_wakeup").fetchone() == (0,)


# --- Operators -----------------------------------------------------------------------------------------------------------


def test_a_deleted_job_takes_its_steps_and_signals_along(db: Conn, path: str) -> None:
    live, other = apps.approve.enqueue(db, path), apps.approve.enqueue(db, path)
    done = apps.line.enqueue(db, path)
    drain(q, db)
    for each in (live, other):
        q.send_signal(db, each, "other")
    assert operations.delete(db, "jobq", [live.id, done.id], actor="test").done == [live.id, done.id]
    assert steps(db) == [(other.id, 2)]
    assert signals(db) == [(other.id, "other")]


def test_a_retry_goes_on_where_the_job_was(db: Conn, path: str) -> None:
    """The step whose failure has ended the job runs again, with all its attempts; those before it do not."""
    job = retries.after_one.options(max_attempts=1).enqueue(db, path, 2)
    drain(q, db)
    while state(db, job.id) is None:
        db.execute("UPDATE jobq.job_step SET wake_at = now() WHERE wake_at > now()")
        db.execute("UPDATE jobq.job SET run_at = now() WHERE state = 'ready'")
        drain(q, db)
    assert state(db, job.id) == "failed"
    assert lines(path) == ["first", "try", "try"]
    Path(path + ".good").touch()
    operations.retry(db, "jobq", [job.id], actor="test")
    drain(q, db)
    assert state(db, job.id) == "succeeded"
    assert lines(path) == ["first", "try", "try", "try"]


@pytest.mark.parametrize("task", [retries.in_branches, retries.in_branches_async], ids=["sync", "async"])
def test_a_retry_runs_all_branches_again_that_have_failed(db: Conn, path: str, task: Any) -> None:
    job = task.enqueue(db, path)
    drain(q, db)
    assert state(db, job.id) == "failed"
    assert lines(path) == ["branch 0", "branch 1", "branch 2"]
    Path(path + ".good").touch()
    operations.retry(db, "jobq", [job.id], actor="test")
    drain(q, db)
    assert state(db, job.id) == "succeeded"
    assert lines(path)[3:] == ["branch 0", "branch 2"]


def test_what_the_task_has_caught_is_not_run_again(db: Conn, path: str) -> None:
    """It went on by it: what it has done since must stay true."""
    job = retries.compensating.enqueue(db, path)
    drain(q, db)
    assert state(db, job.id) == "failed"
    operations.retry(db, "jobq", [job.id], actor="test")
    Path(path + ".good").touch()
    drain(q, db)
    assert state(db, job.id) == "failed"
    assert lines(path) == ["declined", "refunded"]


def test_a_branch_without_attempts_of_its_own_runs_again_with_the_job(db: Conn, path: str) -> None:
    """Its failure was stored with the next branch, and nothing has caught it."""
    job = retries.branch_fails_once.enqueue(db, path)
    drain(q, db)
    db.execute("UPDATE jobq.job SET run_at = now()")
    drain(q, db)
    assert state(db, job.id) == "succeeded"
    assert lines(path) == ["fails once", "other", "fails once"]


def test_a_retry_starts_a_failed_child_again(db: Conn, path: str) -> None:
    job = retries.parent_of_gated.options(max_attempts=1).enqueue(db, path)
    while state(db, job.id) is None:
        drain(q, db)
        run_steps(db, "jobq")
    assert state(db, job.id) == "failed"
    Path(path + ".good").touch()
    operations.retry(db, "jobq", [job.id], actor="test")
    while state(db, job.id) is None:
        drain(q, db)
        run_steps(db, "jobq")
    assert state(db, job.id) == "succeeded"
    assert lines(path) == ["child", "child"]
    assert db.execute("SELECT state FROM jobq.workflow ORDER BY id").fetchall() == [("failed",), ("succeeded",)]


def test_a_retry_waits_for_a_child_that_was_retried(db: Conn, path: str) -> None:
    job = retries.parent_of_gated.options(max_attempts=1).enqueue(db, path)
    while state(db, job.id) is None:
        drain(q, db)
        run_steps(db, "jobq")
    [(run,)] = db.execute("SELECT id FROM jobq.workflow").fetchall()
    operations.retry_workflow(db, "jobq", run, actor="test")
    operations.retry(db, "jobq", [job.id], actor="test")
    Path(path + ".good").touch()
    while state(db, job.id) is None:
        drain(q, db)
        run_steps(db, "jobq")
    assert state(db, job.id) == "succeeded"
    assert db.execute("SELECT id, state FROM jobq.workflow").fetchall() == [(run, "succeeded")]
