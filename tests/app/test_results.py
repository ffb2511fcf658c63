"""References: status, results and failures, read on connections of jobq's own; the pools behind them."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from jobq import DatabaseUnavailable, JobFailed, JobNotFound, JobQ, JobRef, ResultError, ResultTimeout
from tests.support.waiting import wait_until


@dataclass
class Receipt:
    number: int
    on: date


@pytest.fixture
def q(database_url: str) -> Iterator[JobQ]:
    app = JobQ(database_url)

    @app.task
    def bill(order: int) -> Receipt:
        return Receipt(order, date(2026, 1, 2))

    @app.task
    async def untyped(order):  # type: ignore[no-untyped-def]
        return order

    yield app
    app.close()


def finish(url: str, job_id: int, state: str, result: Any = None, error: str | None = None) -> None:
    """Do as a worker does: move the job to history."""
    with psycopg.connect(url) as connection:
        connection.execute(
            """
            WITH gone AS (DELETE FROM jobq.job WHERE id = %(id)s RETURNING *)
            INSERT INTO jobq.job_history (id, claims, attempt, max_attempts, priority, crashes, queue, task, state, run_at,
                                          created_at, started_at, finished_at, args, headers, result, error)
            SELECT id, 1, 1, max_attempts, priority, 0, queue, task, %(state)s, run_at, created_at, now(), now(), args,
                   headers, %(result)s, %(error)s
            FROM gone
            """,
            {"id": job_id, "state": state, "result": Jsonb(result), "error": error},
        )


def test_a_result_is_what_the_annotation_says(q: JobQ, database_url: str) -> None:
    ref: JobRef[Receipt] = q.tasks["bill"].submit(5)
    assert ref.status() == "ready"
    with pytest.raises(ResultTimeout, match=f"job {ref.id} is still ready after 0 s") as raised:
        ref.result(timeout=0)
    assert isinstance(raised.value, TimeoutError)
    finish(database_url, ref.id, "succeeded", {"number": 5, "on": "2026-01-02"})
    assert ref.status() == "succeeded"
    assert ref.result() == Receipt(5, date(2026, 1, 2))
    assert q.tasks["bill"].ref(ref.id).result(timeout=5) == Receipt(5, date(2026, 1, 2))


async def test_a_result_asynchronously(q: JobQ, database_url: str) -> None:
    ref = await q.tasks["untyped"].submit_async([1])
    assert await ref.status_async() == "ready"
    with pytest.raises(ResultTimeout):
        await ref.result_async(timeout=0)
    finish(database_url, ref.id, "succeeded", {"a": [1]})
    assert await ref.result_async() == {"a": [1]}
    await q.aclose()


def test_waiting_holds_no_connection(q: JobQ, database_url: str) -> None:
    """More waiters than the pool has connections, and all get their answer."""
    waiters = 3 * q.settings.pool_size
    refs = [q.tasks["bill"].submit(n) for n in range(waiters)]
    begun = threading.Barrier(waiters + 1)

    def wait(ref: JobRef[Receipt]) -> int:
        begun.wait()
        return ref.result(timeout=60).number

    with ThreadPoolExecutor(waiters) as pool:
        answers = pool.map(wait, refs)
        begun.wait()
        for n, ref in enumerate(refs):
            finish(database_url, ref.id, "succeeded", {"number": n, "on": "2026-01-02"})
        assert list(answers) == list(range(waiters))


async def test_many_wait_asynchronously(q: JobQ, database_url: str) -> None:
    refs = [await q.tasks["untyped"].submit_async(n) for n in range(20)]
    waiting = [asyncio.create_task(ref.result_async(timeout=60)) for ref in refs]
    for n, ref in enumerate(refs):
        await asyncio.to_thread(finish, database_url, ref.id, "succeeded", n)
    assert await asyncio.gather(*waiting) == list(range(20))
    await q.aclose()


@pytest.mark.parametrize("state", ["failed", "cancelled", "expired"])
async def test_a_job_that_did_not_succeed(q: JobQ, database_url: str, state: str) -> None:
    ref = q.tasks["bill"].submit(1)
    finish(database_url, ref.id, state, error="OSError: no paper")
    with pytest.raises(JobFailed, match=f"job {ref.id} {state}: OSError: no paper") as raised:
        ref.result()
    assert (raised.value.job_id, raised.value.state, raised.value.error) == (ref.id, state, "OSError: no paper")
    with pytest.raises(JobFailed):
        await ref.result_async()
    await q.aclose()


def test_a_job_that_is_not_there(q: JobQ, conn: psycopg.Connection[Any]) -> None:
    ref = q.tasks["bill"].enqueue(conn, 1)
    for ask in (ref.status, ref.result):
        with pytest.raises(JobNotFound, match="has not committed or was rolled back"):
            ask()
    conn.rollback()
    with pytest.raises(LookupError):
        ref.status()


def test_a_result_of_an_older_shape(q: JobQ, database_url: str) -> None:
    ref = q.tasks["bill"].submit(1)
    finish(database_url, ref.id, "succeeded", {"total": 5})
    with pytest.raises(ResultError, match=r"bill: stored result\['number'\]|result.* Field required"):
        ref.result()


def test_history_is_read_only_when_no_live_job_has_the_id(q: JobQ, conn: psycopg.Connection[Any]) -> None:
    """The plan: below a one-time filter, the history's many partitions."""
    from jobq._postgres import sql

    ref = q.tasks["bill"].enqueue(conn, 1)
    conn.execute("SET LOCAL enable_seqscan = off")
    query = sql.statement("job_result", "jobq").query
    plan = "\n".join(
        row[0] for row in conn.execute(b"EXPLAIN (ANALYZE, TIMING OFF, COSTS OFF) " + query, {"id": ref.id})
    )
    assert "One-Time Filter" in plan
    history = [line for line in plan.splitlines() if "job_history" in line]
    assert history
    assert all("never executed" in line for line in history)
    assert "Seq Scan" not in plan


# --- The pools -----------------------------------------------------------------------------------------------------------


def test_no_database(tmp_path: Any) -> None:
    q = JobQ("postgresql://postgres:secret@127.0.0.1:1/nothing", connect_timeout=0.2)

    @q.task
    def bill() -> None: ...

    with pytest.raises(
        DatabaseUnavailable, match=r"no connection within 0.2 s to postgresql://postgres:\*\*\*@"
    ) as raised:
        bill.submit()
    assert "secret" not in str(raised.value)
    with pytest.raises(DatabaseUnavailable), q.connection():
        pass
    with pytest.raises(DatabaseUnavailable):
        asyncio.run(bill.submit_async())
    q.close()


def test_a_pool_in_use(database_url: str) -> None:
    q = JobQ(database_url, pool_size=1, connect_timeout=0.2)
    with q.connection(), pytest.raises(DatabaseUnavailable, match="all 1 of jobq's pool are in use"), q.connection():
        pass
    with q.connection() as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    q.close()


def test_lending_a_connection_is_a_transaction(q: JobQ, conn: psycopg.Connection[Any]) -> None:
    bill = q.tasks["bill"]

    def fail() -> None:
        with q.connection() as connection:
            bill.enqueue(connection, 1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with q.connection() as connection:
        kept = bill.enqueue(connection, 2)
    assert conn.execute("SELECT id FROM jobq.job").fetchall() == [(kept.id,)]


def test_a_broken_connection_is_replaced(q: JobQ, conn: psycopg.Connection[Any]) -> None:
    bill = q.tasks["bill"]
    bill.submit(1)
    conn.autocommit = True
    # Gone, not only asked to go: a call that submits in the moment between loses the connection, as one that began before.
    conn.execute("SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE application_name = 'jobq'")
    assert bill.submit(2).id

    def lose() -> None:
        with q.connection() as connection:
            conn.execute("SELECT pg_terminate_backend(%s)", [connection.info.backend_pid])
            bill.enqueue(connection, 3)

    with pytest.raises(DatabaseUnavailable, match=r"the connection to .* was lost"):
        lose()
    assert conn.execute("SELECT count(*) FROM jobq.job").fetchone() == (2,)


def test_one_pool_for_all_threads(q: JobQ, conn: psycopg.Connection[Any]) -> None:
    bill = q.tasks["bill"]
    begun = threading.Barrier(16)

    def submit(n: int) -> int:
        begun.wait()
        return bill.submit(n).id

    with ThreadPoolExecutor(16) as pool:
        assert len(set(pool.map(submit, range(16)))) == 16
    conn.autocommit = True
    count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'jobq' AND datname = current_database()"
    (connections,) = conn.execute(count).fetchone() or (0,)
    assert 1 <= connections <= q.settings.pool_size
    q.close()
    wait_until(lambda: conn.execute(count).fetchone() == (0,), what="the pool's connections to end")


def test_one_event_loop_after_another(q: JobQ) -> None:
    bill = q.tasks["bill"]

    async def twice() -> list[int]:
        return [ref.id for ref in await asyncio.gather(bill.submit_async(1), bill.submit_async(2))]

    ids = asyncio.run(twice()) + asyncio.run(twice())
    assert len(set(ids)) == 4
    gc.collect()


def test_a_forked_child_has_connections_of_its_own(q: JobQ, conn: psycopg.Connection[Any]) -> None:
    bill = q.tasks["bill"]
    bill.submit(1)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            bill.submit(2)
            gc.collect()
            q.close()
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    # The parent's connection has survived the child.
    with q.connection() as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    bill.submit(3)
    assert conn.execute("SELECT count(*) FROM jobq.job").fetchone() == (3,)


def test_nothing_is_said_at_exit(database_url: str) -> None:
    program = """
import asyncio, os
from jobq import JobQ
q = JobQ()
@q.task
def bill(): ...
bill.submit()
async def later():
    await bill.submit_async()
asyncio.run(later())
if (child := os.fork()) == 0:
    bill.submit()
    raise SystemExit(0)
assert os.waitpid(child, 0)[1] == 0
bill.submit()
"""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", program],
        env={**os.environ, "JOBQ_DATABASE_URL": database_url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT count(*) FROM jobq.job").fetchone() == (4,)
