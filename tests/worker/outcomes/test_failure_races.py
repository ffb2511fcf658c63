"""Statements that put jobs back while an operator asks for their cancellation: each job fits exactly one branch.

A cancellation that commits between a statement's snapshot and its locks is seen by the locked row alone.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.rows import tuple_row

from jobq._postgres.sql import statement
from jobq._worker.database import connect
from jobq._worker.ipc.messages import Disposition, Failure
from jobq._worker.lanes.cursor import everything
from jobq._worker.lease import Lease
from jobq._worker.options import WorkerOptions
from jobq._worker.outcomes import reconcile
from jobq._worker.outcomes.reconcile import Reconciler
from jobq._worker.runners.pool import RunnerPool
from jobq._worker.statements.parameters import advance_parameters, settle_parameters
from jobq._worker.statements.results import claimed
from jobq.operations import jobs as operations
from jobq.settings import Settings
from tests.apps import plain as apps
from tests.support.jobs import Jobs
from tests.support.waiting import wait_until

PAUSE = 7700
WORKER = UUID("00000000-0000-0000-0000-00000000000a")


def add_worker(jobs: Jobs, worker: UUID = WORKER) -> None:
    jobs.connection.execute(
        "INSERT INTO jobq.worker (id, lock_key, pid, slots, host, version) VALUES (%s, 1, 1, 1, 'h', 'v')", (worker,)
    )


def claim(jobs: Jobs, want: int = 1, queue: str = "default") -> list[tuple[int, int, int]]:
    """Claim as a worker does, and return (id, claims, started) of what came."""
    scan = everything(([queue], [5]))
    with jobs.connection.cursor(row_factory=tuple_row) as cursor:
        cursor.execute(statement("ack_and_claim", "jobq").query, advance_parameters(WORKER, [], scan, want))
        first, *rows = cursor.fetchall()
    found, _ = claimed(first, rows, scan).jobs()
    return sorted((job.id, job.claims, job.started) for job in found)


class Paused:
    """A statement that has its snapshot and has not locked its rows yet."""

    def __init__(self, url: str, name: str, before: str, parameters: dict[str, Any]) -> None:
        text = statement(name, "jobq").query.decode()
        assert text.count(before) == 1, before
        pause = f"(SELECT pg_advisory_xact_lock({PAUSE})) IS NOT NULL AND "
        self._text = text.replace(before, before + pause)
        self._url, self._parameters = url, parameters
        self.rows: list[tuple[Any, ...]] = []

    @contextmanager
    def between(self) -> Iterator[None]:
        """Do something between the statement's snapshot and its locks."""
        with psycopg.connect(self._url, autocommit=True) as holder:
            holder.execute("SELECT pg_advisory_lock(%s)", (PAUSE,))
            thread = threading.Thread(target=self._run)
            thread.start()
            waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = %s AND NOT granted"
            wait_until(lambda: holder.execute(waits, (PAUSE,)).fetchone() == (1,), what="the pause")
            yield
            holder.execute("SELECT pg_advisory_unlock(%s)", (PAUSE,))
            thread.join()

    def _run(self) -> None:
        with psycopg.connect(self._url, autocommit=True) as connection:
            self.rows = connection.execute(self._text.encode(), self._parameters).fetchall()


def cancel(url: str, job: int) -> None:
    with psycopg.connect(url, autocommit=True) as operator:
        assert operations.cancel(operator, "jobq", [job], actor="anna")


@pytest.mark.parametrize("ending", [Disposition.RETRY, Disposition.SNOOZE, Disposition.RELEASE, Disposition.CRASH])
def test_a_cancellation_that_crosses_with_a_setback_ends_the_job(
    database_url: str, jobs: Jobs, ending: Disposition
) -> None:
    add_worker(jobs)
    job = apps.noop.enqueue(jobs.connection).id
    [(_, claims, started)] = claim(jobs)
    setback = Failure(job, claims, started, ending, recorded="error", error_type="E", message="e")
    paused = Paused(
        database_url, "record_failures", 'FROM "jobq".job AS job WHERE ', settle_parameters(WORKER, [setback])
    )
    with paused.between():
        cancel(database_url, job)
    assert [row[:2] for row in paused.rows] == [(1, True)]
    assert jobs.live(job) is None
    assert (jobs.finished(job) or {})["state"] == "cancelled"


def test_so_does_one_in_an_ordered_group_whose_next_job_then_runs(database_url: str, jobs: Jobs) -> None:
    add_worker(jobs)
    jobs.connection.execute("INSERT INTO jobq.queue (name, group_mode) VALUES ('line', 'ordered')")
    first, second = (apps.noop.options(queue="line", group="g").enqueue(jobs.connection).id for _ in range(2))
    limited = "SELECT id, claims, started FROM jobq.claim_limited(%s, 'line', 5) WHERE id IS NOT NULL"
    [row] = jobs.all(limited, WORKER)
    assert row["id"] == first
    setback = Failure(
        first, row["claims"], row["started"], Disposition.RETRY, recorded="error", error_type="E", message="e"
    )
    paused = Paused(
        database_url, "record_failures", 'FROM "jobq".job AS job WHERE ', settle_parameters(WORKER, [setback])
    )
    with paused.between():
        cancel(database_url, first)
    assert (jobs.finished(first) or {})["state"] == "cancelled"
    assert [row["id"] for row in jobs.all(limited, WORKER)] == [second]


@pytest.mark.parametrize("what", ["cancel", "loss"])
def test_a_rescue_decides_by_what_it_locked(database_url: str, jobs: Jobs, what: str) -> None:
    add_worker(jobs)
    job = apps.noop.enqueue(jobs.connection).id
    claim(jobs)
    parameters = {"dead": WORKER, "beats": 0, "only": None, "max_losses": 3, "channel": "jobq"}
    paused = Paused(database_url, "rescue", "WHERE job.worker_id = %(dead)s AND ", parameters)
    with paused.between():
        if what == "cancel":
            cancel(database_url, job)
        else:
            jobs.connection.execute("UPDATE jobq.job SET worker_deaths = 2")
    assert paused.rows[0][:3] == (1, 0, 1)
    assert jobs.live(job) is None
    assert (jobs.finished(job) or {})["state"] == ("cancelled" if what == "cancel" else "failed")
    assert jobs.one("SELECT count(*) FROM jobq.worker") == 0


@pytest.mark.parametrize("crossing", [True, False])
def test_an_orphan_whose_cancellation_was_asked_for_ends_as_cancelled(
    database_url: str, jobs: Jobs, crossing: bool
) -> None:
    add_worker(jobs)
    cancelled, other = (apps.noop.enqueue(jobs.connection).id for _ in range(2))
    claim(jobs, 2)
    jobs.connection.execute("DELETE FROM jobq.worker")
    jobs.connection.execute("UPDATE jobq.job SET started_at = now() - interval '1 h'")
    if not crossing:
        cancel(database_url, cancelled)
    paused = Paused(
        database_url, "release_orphans", "WHERE lost.state = 'running' AND ", {"only": None, "channel": "jobq"}
    )
    with paused.between():
        if crossing:
            cancel(database_url, cancelled)
    assert paused.rows[0][:2] == (1, 1)
    assert (jobs.finished(cancelled) or {})["state"] == "cancelled"
    assert (jobs.live(other) or {})["state"] == "ready"


def test_each_setback_is_accepted_busy_or_refused(database_url: str, jobs: Jobs) -> None:
    add_worker(jobs)
    for _ in range(3):
        apps.noop.enqueue(jobs.connection)
    names = claim(jobs, 3)
    setbacks = [
        Failure(*names[0], Disposition.RETRY),
        Failure(*names[1], Disposition.FAIL),
        Failure(*names[2], Disposition.RETRY),
    ]
    late = Failure(names[0][0], names[0][1], names[0][2] - 1, Disposition.FAIL)
    with psycopg.connect(database_url) as holder:
        holder.execute("SELECT FROM jobq.job WHERE id = %s FOR UPDATE", (names[1][0],))
        jobs.connection.execute("UPDATE jobq.job SET worker_id = %s WHERE id = %s", (uuid4(), names[2][0]))
        with jobs.connection.cursor(row_factory=tuple_row) as cursor:
            parameters = settle_parameters(WORKER, [late, *setbacks])
            rows = cursor.execute(statement("record_failures", "jobq").query, parameters).fetchall()
    # By place: the late execution's is refused and the present one's accepted, though they name one job; the second is busy;
    # the third is another's.
    assert sorted(row[:2] for row in rows) == [(2, True), (3, False)]


async def test_an_idle_worker_gives_back_what_it_does_not_have(
    database_url: str, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = WorkerOptions(app="-", settings=Settings(database_url=database_url))
    lease = Lease(options, "test")
    lease.worker = WORKER
    pool = RunnerPool(
        options,
        on_success=lambda _: None,
        on_setback=lambda _: None,
        on_recorded=lambda _: None,
        on_progress=lambda _: None,
        on_ready=lambda: None,
    )
    books = Reconciler("jobq", lease, pool)
    async with await connect(options.settings, "test") as connection:
        assert await books.strays(connection, set) == []
        apps.noop.enqueue(jobs.connection)
        [name] = claim(jobs)
        stray = [Failure(*name, Disposition.RELEASE)]
        # Nothing runs here, no connection was lost, and the last look is not long ago.
        assert await books.strays(connection, set) == []
        # After an outcome that was refused: at once, and once.
        books.suspect()
        assert await books.strays(connection, set) == stray
        assert await books.strays(connection, set) == []
        # When the interval has passed.
        monkeypatch.setattr(reconcile, "IDLE_LOOK", 0.0)
        books.suspect()
        assert await books.strays(connection, set) == stray
        assert await books.strays(connection, set) == stray
