"""`on_finished` is called once for each job that ends, with the state it ends in, whatever ends it, and in the same commit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.rows import tuple_row

from jobq import Cancel, Fail, JobQ, Snooze, operations
from jobq._postgres import sql
from jobq._postgres.sql import includes, statement
from jobq._worker.database import Database
from jobq._worker.inline import drain
from jobq._worker.ipc.messages import Disposition, Failure
from jobq._worker.lanes.cursor import everything
from jobq._worker.maintenance.tasks import MaintenanceTasks
from jobq._worker.options import WorkerOptions
from jobq._worker.statements.parameters import advance_parameters, settle_parameters
from jobq._worker.statements.results import claimed
from jobq._worker.timeouts import MAINTENANCE
from jobq.filters import JobFilter
from jobq.settings import Settings
from tests.support.rows import add_job, add_worker

Conn = psycopg.Connection[Any]

PROBE = """
, on_finished AS (
    INSERT INTO {schema}.probe (id, state, queue, task) SELECT id, state, queue, task FROM finished
)
"""

q = JobQ()


@q.task
def succeed() -> str:
    return "done"


@q.task(transactional=True)
def succeed_in_transaction() -> str:
    return "done"


@q.task(max_attempts=1)
def give_up() -> None:
    raise RuntimeError("for good")


@q.task
def fail() -> None:
    raise Fail("no use")


@q.task
def cancel() -> None:
    raise Cancel("not wanted")


@q.task
def snooze() -> None:
    raise Snooze(3600)


@q.task(max_attempts=2)
def try_again() -> None:
    raise RuntimeError("again")


@pytest.fixture(autouse=True)
def probe(db: Conn, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fill the extension with an insert into a table."""
    read = includes.fragment
    monkeypatch.setattr(includes, "fragment", lambda name: PROBE if name == "on_finished" else read(name))
    forget_statements()
    db.execute("CREATE TABLE jobq.probe (id bigint, state text, queue text, task text)")
    yield
    monkeypatch.undo()
    forget_statements()


def forget_statements() -> None:
    sql.statement.cache_clear()
    sql._body.cache_clear()


def told(db: Conn) -> list[tuple[int, str]]:
    """What the extension was called with; in the commit that wrote history, where there is a row of it."""
    rows = db.execute(
        "SELECT probe.id, probe.state, history.state, probe.xmin::text = history.xmin::text FROM jobq.probe AS probe "
        "LEFT JOIN jobq.job_history AS history USING (id) ORDER BY probe.id"
    ).fetchall()
    for id, state, kept, together in rows:
        assert (kept, together) == ((None, None) if state == "deleted" else (state, True)), id
    return [(id, state) for id, state, *_ in rows]


def claim(db: Conn, worker: UUID, queue: str = "default") -> list[tuple[int, int, int]]:
    """Claim one job as a worker does, and return its (id, claims, started)."""
    scan = everything(([queue], [5]))
    with db.cursor(row_factory=tuple_row) as cursor:
        cursor.execute(statement("ack_and_claim", "jobq").query, advance_parameters(worker, [], scan, 1))
        first, *rows = cursor.fetchall()
    found, _ = claimed(first, rows, scan).jobs()
    return [(job.id, job.claims, job.started) for job in found]


@pytest.mark.parametrize(
    ("task", "state"),
    [
        (succeed, "succeeded"),
        (succeed_in_transaction, "succeeded"),
        (give_up, "failed"),
        (fail, "failed"),
        (cancel, "cancelled"),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_an_execution_that_ends_a_job(db: Conn, task: Any, state: str) -> None:
    job = task.options(queue="some").enqueue(db).id
    drain(q, db)
    assert told(db) == [(job, state)]
    assert db.execute("SELECT queue, task FROM jobq.probe").fetchall() == [("some", task.name)]


def test_an_execution_that_does_not_end_it(db: Conn) -> None:
    snoozed, retried = snooze.enqueue(db).id, try_again.enqueue(db).id
    drain(q, db)
    assert told(db) == []
    operations.run_now(db, "jobq", [snoozed, retried], actor="ann")
    drain(q, db)
    assert told(db) == [(retried, "failed")]


def test_a_transaction_that_is_rolled_back(database_url: str, db: Conn) -> None:
    job = succeed.enqueue(db).id
    with psycopg.connect(database_url) as connection, connection.transaction(force_rollback=True):
        operations.cancel(connection, "jobq", [job], actor="ann")
    assert told(db) == []
    drain(q, db)
    assert told(db) == [(job, "succeeded")]


@pytest.mark.parametrize("options", [{}, {"delay": 3600.0}, {"group": "g"}], ids=["ready", "scheduled", "waiting"])
def test_a_cancellation_of_a_job_that_waits(db: Conn, options: dict[str, Any]) -> None:
    db.execute("INSERT INTO jobq.queue (name, group_mode) VALUES ('default', 'ordered')")
    job = succeed.options(**options).enqueue(db).id
    operations.cancel(db, "jobq", [job], actor="ann")
    operations.cancel(db, "jobq", [job], actor="ann")
    assert told(db) == [(job, "cancelled")]


def test_a_cancellation_of_a_job_that_runs(db: Conn) -> None:
    worker = add_worker(db)
    job = succeed.enqueue(db).id
    [name] = claim(db, worker)
    operations.cancel(db, "jobq", [job], actor="ann")
    assert told(db) == []
    setback = Failure(*name, Disposition.RELEASE)
    for _ in range(2):
        db.execute(statement("record_failures", "jobq").query, settle_parameters(worker, [setback]))
    assert told(db) == [(job, "cancelled")]


def test_a_bulk_cancellation(db: Conn) -> None:
    ids = sorted(succeed.enqueue(db).id for _ in range(5))
    kept = fail.enqueue(db).id
    draft = operations.draft(
        db, "jobq", action="cancel", filter=JobFilter.parse(f"task:{succeed.name}"), options={}, actor="ann"
    )
    operations.start(db, "jobq", draft.id, reason="not wanted", typed=draft.typed, rate=None, actor="ann")
    operations.run_operation(db, "jobq", draft.id)
    assert told(db) == [(id, "cancelled") for id in ids]
    assert kept not in ids


def test_a_deletion(db: Conn) -> None:
    live, ended = succeed.enqueue(db).id, fail.enqueue(db).id
    operations.cancel(db, "jobq", [ended], actor="ann")
    operations.delete(db, "jobq", [live, ended], actor="ann")
    assert db.execute("SELECT id, state FROM jobq.probe ORDER BY id").fetchall() == [
        (live, "deleted"),
        (ended, "cancelled"),
    ]


async def in_maintenance_task(database_url: str, work: Callable[[MaintenanceTasks, Any], Awaitable[str]]) -> str:
    """Do the work of a maintenance task, as the worker has it."""
    settings = Settings(database_url=database_url)
    maintenance = MaintenanceTasks(WorkerOptions(app="-", settings=settings))
    connection = await Database(settings).connect("maintenance", MAINTENANCE)
    async with connection:
        return await work(maintenance, connection)


async def test_expiry(db: Conn, database_url: str) -> None:
    job = succeed.options(expires_in=3600).enqueue(db).id
    db.execute("UPDATE jobq.job SET expires_at = now() - interval '1 s'")
    await in_maintenance_task(database_url, MaintenanceTasks.expire_jobs)
    assert told(db) == [(job, "expired")]


def test_expiry_that_a_claim_meets(db: Conn) -> None:
    job = succeed.options(expires_in=3600).enqueue(db).id
    db.execute("UPDATE jobq.job SET expires_at = now() - interval '1 s'")
    drain(q, db)
    assert told(db) == [(job, "expired")]


async def test_a_parked_job_that_is_given_up(db: Conn, database_url: str) -> None:
    job = add_job(db, task="unknown", state="parked")
    db.execute(
        "UPDATE jobq.job SET claims = 1, parked_claims = 1, parked_at = now() - interval '1 day', parked_reason = 'unfit', "
        "parked_signature = 's'"
    )
    await in_maintenance_task(database_url, MaintenanceTasks.fail_parked)
    assert told(db) == [(job, "failed")]


@pytest.mark.parametrize("cancelled", [False, True])
def test_a_rescue_that_gives_up(db: Conn, cancelled: bool) -> None:
    worker = add_worker(db)
    ended, back = (add_job(db, state="running", worker_id=worker, claims=1, attempt=1) for _ in range(2))
    db.execute("UPDATE jobq.job SET worker_deaths = 2, started_at = now() WHERE id = %s", (ended,))
    if cancelled:
        operations.cancel(db, "jobq", [ended], actor="ann")
    parameters = {"dead": worker, "beats": 0, "only": None, "max_losses": 3, "channel": "jobq"}
    db.execute(statement("rescue", "jobq").query, parameters)
    assert told(db) == [(ended, "cancelled" if cancelled else "failed")]
    assert db.execute("SELECT id FROM jobq.job").fetchall() == [(back,)]


async def test_an_orphan_whose_cancellation_was_asked_for(db: Conn, database_url: str) -> None:
    job = add_job(db, state="running", worker_id=UUID(int=1), claims=1, attempt=1)
    db.execute("UPDATE jobq.job SET started_at = now() - interval '1 h'")
    operations.cancel(db, "jobq", [job], actor="ann")
    await in_maintenance_task(database_url, MaintenanceTasks.release_orphans)
    assert told(db) == [(job, "cancelled")]


def test_what_a_retry_brings_back_ends_once_more(db: Conn) -> None:
    job = fail.enqueue(db).id
    drain(q, db)
    operations.retry(db, "jobq", [job], actor="ann")
    drain(q, db)
    assert db.execute("SELECT id, state FROM jobq.probe").fetchall() == [(job, "failed")] * 2
