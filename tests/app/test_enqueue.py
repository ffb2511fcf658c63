"""Enqueueing on every kind of connection: the job is there if and when the caller's transaction commits."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg import RawCursor
from psycopg.rows import dict_row, scalar_row
from sqlalchemy import create_engine, event
from sqlalchemy.pool import NullPool

from jobq import (
    ConnectionNotUsable,
    JobQ,
    JobRef,
)
from tests.support.servers.connections import ASYNC, SYNC, alchemy, opened, opened_async, run

LEVELS = ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"]


@pytest.fixture
def q(database_url: str) -> Iterator[JobQ]:
    app = JobQ(database_url)

    @app.task
    def send(order: int, note: str = "") -> str:
        return note

    yield app
    app.close()


def stored(url: str) -> list[dict[str, Any]]:
    """Return the committed jobs."""
    with psycopg.connect(url, row_factory=dict_row) as connection:
        return connection.execute("SELECT * FROM jobq.job ORDER BY id").fetchall()


@pytest.mark.parametrize("kind", SYNC)
def test_a_job_is_as_durable_as_the_transaction(q: JobQ, database_url: str, kind: str) -> None:
    send = q.tasks["send"]
    for level in LEVELS:
        before = len(stored(database_url))
        with opened(kind, database_url, level) as connection:
            run(connection, f'CREATE TABLE "{level}" (id int)')
            lost = send.enqueue(connection, 1)
            assert lost.created
            q.enqueue_many(connection, [send.job(2), send.options(key=level).job(3)])
            connection.rollback()
            assert len(stored(database_url)) == before

            run(connection, f'CREATE TABLE "{level}" (id int)')
            kept = send.enqueue(connection, 4)
            more = q.enqueue_many(connection, [send.job(5), send.options(key=level).job(6)])
            assert len(stored(database_url)) == before
            connection.commit()
        rows = [(row["id"], row["args"]["order"]) for row in stored(database_url)]
        assert rows[before:] == [(kept.id, 4), (more[0].id, 5), (more[1].id, 6)]
        assert [ref.created for ref in more] == [True, True]
        with psycopg.connect(database_url) as other:
            other.execute(f'SELECT FROM "{level}"')


@pytest.mark.parametrize("kind", ASYNC)
async def test_a_job_is_as_durable_as_the_async_transaction(q: JobQ, database_url: str, kind: str) -> None:
    send = q.tasks["send"]
    for level in LEVELS:
        before = len(stored(database_url))
        async with opened_async(kind, database_url, level) as connection:
            await send.enqueue_async(connection, 1)
            await q.enqueue_many_async(connection, [send.job(2), send.options(key=level).job(3)])
            await connection.rollback()
            kept = await send.enqueue_async(connection, 4)
            more = await q.enqueue_many_async(connection, [send.job(5), send.options(key=level).job(6)])
            assert len(stored(database_url)) == before
            await connection.commit()
        rows = [(row["id"], row["args"]["order"]) for row in stored(database_url)]
        assert rows[before:] == [(kept.id, 4), (more[0].id, 5), (more[1].id, 6)]


@pytest.mark.parametrize("kind", SYNC)
def test_autocommit_commits_each_call(q: JobQ, database_url: str, kind: str) -> None:
    send = q.tasks["send"]
    with opened(kind, database_url, "AUTOCOMMIT") as connection:
        send.enqueue(connection, 1)
        assert len(stored(database_url)) == 1
        send.options(key="k").enqueue(connection, 1)
        assert len(stored(database_url)) == 2


@pytest.mark.parametrize("kind", SYNC)
def test_a_bulk_of_several_statements_is_one_transaction_on_autocommit(q: JobQ, database_url: str, kind: str) -> None:
    send = q.tasks["send"]
    with psycopg.connect(database_url, autocommit=True) as admin:
        admin.execute("""
            ALTER TABLE jobq.job ADD CONSTRAINT refuse CHECK (args->>'order' <> '15000')
        """)
    with opened(kind, database_url, "AUTOCOMMIT") as connection:
        with pytest.raises(Exception, match="refuse"):
            q.enqueue_many(connection, [send.job(n) for n in range(15_001)])
        assert stored(database_url) == []
        assert len(q.enqueue_many(connection, [send.job(n) for n in range(15_000)])) == 15_000
        assert len(stored(database_url)) == 15_000


@pytest.mark.parametrize("kind", ASYNC)
async def test_a_bulk_of_several_statements_is_one_transaction_on_async_autocommit(
    q: JobQ, database_url: str, kind: str
) -> None:
    send = q.tasks["send"]
    async with opened_async(kind, database_url, "AUTOCOMMIT") as connection:
        refs = await q.enqueue_many_async(connection, [send.job(n) for n in range(15_000)])
    assert [ref.id for ref in refs] == [row["id"] for row in stored(database_url)]


def test_every_option_reaches_its_column(q: JobQ, conn: psycopg.Connection[Any]) -> None:
    at = datetime.now(UTC) + timedelta(hours=2)
    send = q.tasks["send"]
    options: dict[str, Any] = {"queue": "a", "priority": 8, "max_attempts": 3, "timeout": 4.5, "headers": {"h": [1]}}
    for key in (None, "k"):
        ref = send.options(**options, key=key, run_at=at).enqueue(conn, 1, note="ü")
        conn.row_factory = dict_row
        row = conn.execute("SELECT * FROM jobq.job WHERE id = %s", [ref.id]).fetchone()
        assert row is not None
        assert {name: row[name] for name in ("queue", "priority", "max_attempts", "timeout", "headers")} == options
        assert (row["task"], row["args"], row["key"]) == ("send", {"order": 1, "note": "ü"}, key)
        assert (row["run_at"], row["state"], row["attempt"], row["claims"]) == (at, "ready", 0, 0)


@pytest.mark.parametrize("key", [None, "k"])
def test_when_a_job_starts(q: JobQ, conn: psycopg.Connection[Any], key: str | None) -> None:
    send = q.tasks["send"]

    def starts(**options: Any) -> float:
        """Return how many seconds after the transaction's start the job may run."""
        ref = send.options(key=key and f"{key}{options}", **options).enqueue(conn, 1)
        row = conn.execute("SELECT extract(epoch FROM run_at - now())::float FROM jobq.job WHERE id = %s", [ref.id])
        return float(row.fetchone()[0])  # type: ignore[index]

    # The moment of the insert: claims look for new jobs from there on.
    assert 0 < starts() < 30
    # Counted from the insert, not from the transaction's start.
    assert 60 < starts(delay=60) < 90
    assert starts(delay=timedelta(days=1)) >= 86400
    # A past time means now, and never sorts before what workers have already read.
    assert 0 < starts(run_at=datetime(2020, 1, 1, tzinfo=UTC)) < 30
    assert starts(run_at=datetime.now(UTC) + timedelta(hours=1)) > 3500


def test_one_statement_and_nothing_else(q: JobQ, conn: psycopg.Connection[Any], database_url: str) -> None:
    """The shape of an unkeyed and of a keyed enqueue: one statement; no BEGIN of ours, no savepoint, no commit."""
    send = q.tasks["send"]
    engine = create_engine(alchemy(database_url), poolclass=NullPool)
    said: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *args: said.append(args[2]))
    for name in ("begin", "commit", "rollback", "savepoint"):
        event.listen(engine, name, lambda *args, name=name: said.append(name))
    with engine.connect() as connection:
        send.enqueue(connection, 1)
        assert [what.split()[0] for what in said] == ["begin", "INSERT"]
        send.options(key="k").enqueue(connection, 1)
        assert [what.split()[0] for what in said] == ["begin", "INSERT", "SELECT"]
        assert connection.in_transaction()
    engine.dispose()

    # Of the plain INSERT, the rows all carry the transaction's own id: a savepoint would have given them another.
    for ref in (send.enqueue(conn, 1), send.options(key="k2").enqueue(conn, 2)):
        row = conn.execute(
            "SELECT job.xmin::text = (pg_current_xact_id()::xid)::text FROM jobq.job WHERE id = %s", [ref.id]
        ).fetchone()
        assert row == (True,)
    assert conn.info.transaction_status is psycopg.pq.TransactionStatus.INTRANS


def test_the_callers_ways_with_rows_do_not_matter(q: JobQ, database_url: str) -> None:
    send = q.tasks["send"]
    with psycopg.connect(database_url, row_factory=scalar_row, cursor_factory=RawCursor) as odd:
        assert send.enqueue(odd, 1).id
        assert send.options(key="k").enqueue(odd, 1).created
        assert odd.execute("SELECT 1").fetchone() == 1
    engine = create_engine(alchemy(database_url), poolclass=NullPool, execution_options={"stream_results": True})
    with engine.begin() as streaming:
        assert send.enqueue(streaming, 1).id
    engine.dispose()


def test_a_pipeline_works(q: JobQ, conn: psycopg.Connection[Any]) -> None:
    send = q.tasks["send"]
    with conn.pipeline():
        first = send.enqueue(conn, 1)
        keyed = send.options(key="k").enqueue(conn, 2)
        again = send.options(key="k").enqueue(conn, 3)
    assert first.id < keyed.id == again.id
    conn.commit()

    def after_a_failure() -> None:
        with conn.pipeline():
            conn.execute("SELECT 1/0")
            send.enqueue(conn, 1)

    # Which of the two reports it is a matter of when the server's answer arrives.
    with pytest.raises((ConnectionNotUsable, psycopg.errors.DivisionByZero)):
        after_a_failure()
    with pytest.raises(ConnectionNotUsable, match="roll it back"):
        send.enqueue(conn, 1)
    conn.rollback()
    assert send.enqueue(conn, 1).created


def test_inside_savepoints(q: JobQ, conn: psycopg.Connection[Any]) -> None:
    send = q.tasks["send"]
    with conn.transaction():
        send.enqueue(conn, 1)
        with conn.transaction(force_rollback=True):
            send.options(key="k").enqueue(conn, 2)
        assert send.options(key="k").enqueue(conn, 3).created
    assert conn.execute("SELECT count(*) FROM jobq.job").fetchone() == (2,)


async def test_a_sync_session_below_an_async_one(q: JobQ, database_url: str) -> None:
    send = q.tasks["send"]
    async with opened_async("session", database_url) as session:
        ref: JobRef[Any] = await session.run_sync(lambda inner: send.enqueue(inner, 1))
        assert len(await session.run_sync(lambda inner: q.enqueue_many(inner, [send.job(n) for n in range(10_001)])))
        await session.commit()
    assert stored(database_url)[0]["id"] == ref.id


@pytest.mark.slow
def test_bulk(q: JobQ, conn: psycopg.Connection[Any]) -> None:
    send = q.tasks["send"]
    assert q.enqueue_many(conn, []) == []
    refs = q.enqueue_many(conn, (send.job(n) for n in range(100_000)))
    assert len(refs) == 100_000
    rows = conn.execute("SELECT id, args->'order' FROM jobq.job").fetchall()
    assert dict(rows) == {ref.id: n for n, ref in enumerate(refs)}


def test_bulk_of_large_arguments(q: JobQ, conn: psycopg.Connection[Any]) -> None:
    """More bytes than one statement should have."""
    send = q.tasks["send"]
    note = "x" * 1_000_000
    refs = q.enqueue_many(conn, [send.job(n, note) for n in range(70)])
    rows = conn.execute("SELECT id, (args->>'order')::int FROM jobq.job").fetchall()
    assert dict(rows) == {ref.id: n for n, ref in enumerate(refs)}


def test_bulk_keeps_the_order_with_and_without_keys(q: JobQ, conn: psycopg.Connection[Any]) -> None:
    send = q.tasks["send"]
    jobs = [send.options(key=f"k{n * 7919 % 1000}" if n % 2 else None).job(n) for n in range(1000)]
    refs = q.enqueue_many(conn, jobs)
    rows = conn.execute("SELECT id, args->'order' FROM jobq.job").fetchall()
    assert dict(rows) == {ref.id: n for n, ref in enumerate(refs)}
    assert [ref.key for ref in refs] == [job.options.key for job in jobs]
    assert repr(refs[1]) == f"JobRef(id={refs[1].id}, created=True, key='k919')"


def test_each_job_of_a_bulk_has_its_own_options(q: JobQ, conn: psycopg.Connection[Any]) -> None:
    """Columns that are the same in all jobs go to the server once; those that are not must stay with their jobs."""
    send = q.tasks["send"]
    odd = ["a", 'q"uo\\te', "ü{,}", "NULL", "null", " "]
    at = datetime.now(UTC) + timedelta(hours=1)
    jobs = [
        send.options(
            queue=odd[n % 6],
            priority=n % 10,
            delay=n * 60 if n % 3 == 0 else None,
            run_at=at + timedelta(minutes=n) if n % 3 == 1 else None,
            max_attempts=n + 1,
            timeout=n + 0.5 if n % 2 else None,
            headers={"n": [n, odd[n % 6]]} if n % 4 else None,
        ).job(n, note=odd[n % 6])
        for n in range(60)
    ]
    refs = q.enqueue_many(conn, jobs)
    rows = conn.execute(
        "SELECT id, queue, priority, max_attempts, timeout, headers, args, run_at, extract(epoch FROM run_at - now())::float "
        "FROM jobq.job ORDER BY id"
    ).fetchall()
    assert [ref.id for ref in refs] == [row[0] for row in rows]
    for n, (_, queue, priority, max_attempts, timeout, headers, args, run_at, wait) in enumerate(rows):
        assert (queue, priority, max_attempts) == (odd[n % 6], n % 10, n + 1)
        assert timeout == (n + 0.5 if n % 2 else None)
        assert headers == ({"n": [n, odd[n % 6]]} if n % 4 else {})
        assert args == {"order": n, "note": odd[n % 6]}
        if n % 3 == 1:
            assert run_at == at + timedelta(minutes=n)
        else:
            assert 0 <= wait - (n * 60 if n % 3 == 0 else 0) < 30


def test_keyed_bulks_take_any_text(q: JobQ, conn: psycopg.Connection[Any]) -> None:
    send = q.tasks["send"]
    odd = ["a", 'q"uo\\te', "ü{,}", "NULL", "null", " ", "\\", '"']
    refs = q.enqueue_many(
        conn, [send.options(key=text, queue=text, headers={"h": text}).job(n, text) for n, text in enumerate(odd)]
    )
    rows = conn.execute("SELECT id, key, queue, headers->>'h', args->>'note' FROM jobq.job ORDER BY id").fetchall()
    assert rows == [(ref.id, text, text, text, text) for ref, text in zip(refs, odd, strict=True)]


@pytest.mark.parametrize("submit", [False, True])
async def test_submit_commits_by_itself(q: JobQ, database_url: str, submit: bool) -> None:
    send = q.tasks["send"]
    call: Callable[..., JobRef[Any]] = send.options(key="k").submit if submit else send.submit
    call_async: Callable[..., Awaitable[JobRef[Any]]] = send.submit_async
    one, two = call(1), await call_async(2)
    assert [row["id"] for row in stored(database_url)] == [one.id, two.id]
    await q.aclose()
    # Closing is not for ever.
    assert call(1).id
    q.close()
