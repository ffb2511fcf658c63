"""Retention of workflows' runs, and the check of those that run: on rows that drained workflows have left."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import psycopg
import pytest

from jobq import operations
from jobq._postgres.sql import statement
from jobq._worker.database import Database
from jobq._worker.inline import Drained, drain
from jobq._worker.maintenance import workflow_runs
from jobq._worker.maintenance.partitions import Incomplete
from jobq._worker.maintenance.tasks import MaintenanceTasks
from jobq._worker.options import WorkerOptions
from jobq._worker.timeouts import MAINTENANCE
from jobq.settings import Settings
from tests.apps import workflows as apps
from tests.support.checks import some

Conn = psycopg.Connection[Any]
q = apps.q

TABLES = ("workflow", "workflow_node", "workflow_join", "workflow_arrival", "workflow_turn", "workflow_result")


@pytest.fixture(autouse=True)
def configured(database_url: str) -> Iterator[None]:
    q.configure(database_url=database_url)
    yield
    q.close()


def maintain(url: str, *works: Callable[[MaintenanceTasks, Any], Awaitable[str]]) -> str:
    """Do the work of maintenance tasks one after the other, as one worker has it; return the last report."""

    async def all_of_them() -> str:
        settings = Settings(database_url=url)
        tasks = MaintenanceTasks(WorkerOptions(app="-", settings=settings))
        report = ""
        connection = await Database(settings).connect("maintenance", MAINTENANCE)
        async with connection:
            for work in works:
                report = await work(tasks, connection)
        return report

    return asyncio.run(all_of_them())


def remove(url: str) -> str:
    return maintain(url, MaintenanceTasks.remove_runs)


def check(url: str) -> str:
    return maintain(url, MaintenanceTasks.check_runs)


def counts(db: Conn) -> dict[str, int]:
    found: dict[str, int] = {}
    for table in TABLES:
        [(number,)] = db.execute(f"SELECT count(*) FROM jobq.{table}".encode()).fetchall()
        found[table] = number
    return {table: number for table, number in found.items() if number}


def pair(db: Conn, value: int = 1, **options: Any) -> int:
    """Insert a run of two nodes, of which the first one fails if `value` is even."""
    with q.workflow("pair", **options) as wf:
        apps.add.node(apps.odd.node(value).result, 10)
    return wf.enqueue(db).id


def state(db: Conn, run: int) -> Any:
    row = db.execute("SELECT state FROM jobq.workflow WHERE id = %s", (run,)).fetchone()
    return row and row[0]


def age(db: Conn, days: float) -> None:
    db.execute("UPDATE jobq.workflow SET finished_at = finished_at - %s * interval '1 day'", (days,))
    db.execute("UPDATE jobq.workflow SET created_at = created_at - %s * interval '1 day'", (days,))


# --- Retention ----------------------------------------------------------------------------------------------------------


def test_what_ended_long_ago_is_removed_and_nothing_else(db: Conn, database_url: str) -> None:
    """Succeeded runs are kept for a shorter time than others, and those that have not ended for ever."""
    options = WorkerOptions(app="-", settings=Settings(database_url=database_url))
    succeeded, failed = pair(db), pair(db, 2, on_failure="continue")
    drain(q, db)
    held, waiting = pair(db, 2), pair(db)
    drain(q, db, max_jobs=1)
    age(db, options.keep_succeeded_days + 1)
    fresh = pair(db)
    drain(q, db)
    assert [state(db, run) for run in (succeeded, failed, held, fresh)] == [
        "succeeded",
        "failed",
        "running",
        "succeeded",
    ]
    assert remove(database_url) == "7 rows of ended workflows deleted"
    assert [state(db, run) for run in (succeeded, failed, held, fresh)] == [None, "failed", "running", "succeeded"]
    age(db, options.keep_failed_days)
    remove(database_url)
    assert db.execute("SELECT id FROM jobq.workflow ORDER BY id").fetchall() == [(held,)]
    assert waiting > held
    # What waits for an operator is still complete.
    assert counts(db) == {"workflow": 1, "workflow_node": 2, "workflow_join": 2, "workflow_result": 1}


def test_a_large_run_is_removed_in_batches_that_count_nothing(
    db: Conn, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with q.workflow("large") as wf:
        apps.total.node(apps.number.map(range(100)).results)
    run = wf.enqueue(db).id
    drain(q, db)
    assert state(db, run) == "succeeded"
    monkeypatch.setattr(workflow_runs, "OLD_ROWS", 40)
    age(db, 1000)
    left: list[dict[str, int]] = []

    async def batches(tasks: MaintenanceTasks, connection: Any) -> str:
        while (await tasks._runs.batch(connection))[0]:
            left.append(counts(db))
        return ""

    maintain(database_url, batches)
    assert [each.get("workflow_result", 0) for each in left[:3]] == [62, 22, 0]
    assert all(each.keys() <= {"workflow_node", "workflow_result", "workflow_turn"} for each in some(left))
    assert counts(db) == {}


def test_what_another_transaction_has_locked_is_removed_later(db: Conn, database_url: str) -> None:
    pair(db)
    drain(q, db)
    age(db, 1000)
    with psycopg.connect(database_url) as other:
        other.execute("SELECT FROM jobq.workflow_result LIMIT 1 FOR UPDATE")
        remove(database_url)
        assert counts(db) == {"workflow_node": 1, "workflow_result": 1, "workflow_turn": 1}
    remove(database_url)
    assert counts(db) == {}


def test_a_job_of_a_removed_run_is_put_back_and_ends(db: Conn, database_url: str) -> None:
    pair(db, 2, on_failure="continue")
    drain(q, db)
    [(dead,)] = db.execute("SELECT id FROM jobq.job_history WHERE state = 'failed'").fetchall()
    age(db, 1000)
    remove(database_url)
    assert operations.retry(db, "jobq", [dead], actor="test").done == [dead]
    assert drain(q, db).failed == 1
    assert counts(db).keys() <= {"workflow_result"}


def test_a_run_that_the_database_refuses_to_delete_keeps_no_other(db: Conn, database_url: str) -> None:
    runs = [pair(db) for _ in range(3)]
    drain(q, db)
    age(db, 1000)
    db.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$ BEGIN IF old.id = {runs[1]} THEN RAISE 'not this one'; END IF; RETURN old; END $$".encode()
    )
    db.execute("CREATE TRIGGER refuse BEFORE DELETE ON jobq.workflow FOR EACH ROW EXECUTE FUNCTION refuse()")
    with pytest.raises(Incomplete, match=f"refused: workflow {runs[1]}: not this one"):
        remove(database_url)
    assert db.execute("SELECT id FROM jobq.workflow").fetchall() == [(runs[1],)]
    assert counts(db) == {"workflow": 1, "workflow_node": 2, "workflow_join": 2, "workflow_result": 2}


def test_a_running_run_is_not_removed_by_its_number(db: Conn) -> None:
    run = pair(db)
    before = counts(db)
    assert db.execute(statement("workflow_prune", "jobq").query, {"ids": [run], "most": 100}).fetchall() == [(0,)]
    assert counts(db) == before


# --- The check ----------------------------------------------------------------------------------------------------------


def test_runs_that_go_on_are_not_found_at_any_step(
    db: Conn, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Held, with maps that have not started, are empty, run, or wait for the rest of their jobs to be inserted."""
    monkeypatch.setattr(workflow_runs, "CHECKED_RUNS", 2)
    pair(db, 2)
    with q.workflow("maps") as wf:
        none = apps.number.map(apps.numbers.node(0).result)
        few = apps.number.map(apps.numbers.node(2).result).after(none)
        apps.total.node(few.results)
    maps = wf.enqueue(db).id
    with q.workflow("large") as wf:
        apps.number.map(apps.numbers.node(1200).result)
    large = wf.enqueue(db).id
    assert check(database_url) == "3 running workflows checked"
    while drain(q, db, max_jobs=1) != Drained(0, 0, 0):
        assert check(database_url) in ("2 running workflows checked", "3 running workflows checked")
    assert db.execute("SELECT kind FROM jobq.workflow_turn").fetchall() == [("expand",)]
    assert (state(db, maps), state(db, large)) == ("succeeded", "running")
    db.execute("SELECT jobq.workflow_step()")
    assert check(database_url) == "2 running workflows checked"


def test_a_join_that_was_not_released_is_found_and_released(db: Conn, database_url: str) -> None:
    run = pair(db)
    db.execute("ALTER TABLE jobq.workflow_result DISABLE TRIGGER workflow_results_added")
    drain(q, db)
    db.execute("ALTER TABLE jobq.workflow_result ENABLE TRIGGER workflow_results_added")
    db.execute("UPDATE jobq.workflow_join SET remaining = 0 WHERE kind = 'nodes'")
    with pytest.raises(
        Incomplete, match=rf"run {run}: nodes waited although all their parents had ended; they go on now"
    ):
        check(database_url)
    assert check(database_url) == "1 running workflows checked"
    drain(q, db)
    assert state(db, run) == "succeeded"


def test_an_end_that_was_not_counted_is_found(db: Conn, database_url: str) -> None:
    run = pair(db)
    db.execute("ALTER TABLE jobq.workflow_result DISABLE TRIGGER workflow_results_added")
    drain(q, db)
    with pytest.raises(Incomplete, match=rf"run {run}: it has no job left, and it has not ended$"):
        check(database_url)


def test_a_node_whose_job_is_gone_is_found(db: Conn, database_url: str) -> None:
    run, other = pair(db), pair(db)
    db.execute(
        "DELETE FROM jobq.job WHERE node_id IN (SELECT id FROM jobq.workflow_node WHERE workflow_id = %s)", (run,)
    )
    with pytest.raises(
        Incomplete, match=rf"run {run}: node 'odd' \(id [0-9]+\) has started, and has neither a job nor a result"
    ):
        check(database_url)
    drain(q, db)
    assert (state(db, run), state(db, other)) == ("running", "succeeded")
