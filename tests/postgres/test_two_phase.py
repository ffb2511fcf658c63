"""Two-phase commit: a transaction that enqueues can be prepared, whatever the mode of waking, and its jobs are found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from jobq import JobQ
from tests.apps import plain as apps
from tests.support.jobs import Jobs
from tests.support.servers.connections import alchemy
from tests.support.waiting import wait_until
from tests.support.workers import WorkerProcess

Conn = psycopg.Connection[Any]


@pytest.fixture(params=["notify", "poll"])
def mode(request: pytest.FixtureRequest, database_url: str) -> str:
    """The mode of waking that the workers have set: with few jobs each insert sends a NOTIFY."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("SELECT setval('jobq.notify_mode', %s)", ({"notify": 1, "poll": 2}[request.param],))
    return str(request.param)


@pytest.fixture
def q(database_url: str) -> JobQ:
    app = JobQ(database_url)

    @app.task
    def note(n: int) -> None: ...

    return app


def enqueue_all(q: JobQ, connection: Any) -> None:
    """Enqueue in every way: one, with a key, one that replaces it, many, in a group, and many with keys."""
    note = q.tasks["note"]
    debounced: Any = {"key": "k", "key_holds": "until_started", "on_conflict": "replace"}
    note.enqueue(connection, 1)
    note.options(**debounced, delay=60).enqueue(connection, 2)
    assert note.options(**debounced).enqueue(connection, 3).replaced
    q.enqueue_many(connection, [note.job(4), note.options(queue="grouped", group="g").job(5)])
    q.enqueue_many(connection, [note.options(key="m").job(6), note.job(7)])


def found(connection: Conn) -> list[int]:
    rows = connection.execute("SELECT (args->'n')::integer AS n FROM jobq.job ORDER BY 1").fetchall()
    connection.rollback()
    return [n for (n,) in rows]


ALL = [1, 3, 4, 5, 6, 7]


def test_psycopg(q: JobQ, mode: str, conn: Conn, database_url: str) -> None:
    q.queue("grouped").set(groups="ordered")
    with psycopg.connect(database_url) as connection:
        connection.tpc_begin("one")
        enqueue_all(q, connection)
        q.queue("grouped").set(connection=connection, limit=5)
        connection.tpc_prepare()
        assert found(conn) == []
        connection.tpc_commit()
        assert found(conn) == ALL
        # What was set for that transaction has ended with it.
        assert connection.execute("SELECT current_setting('jobq.notify', true)").fetchone() in [(None,), ("",)]
    assert q.queue("grouped").settings().limit == 5


async def test_asynchronous_psycopg(q: JobQ, mode: str, conn: Conn, database_url: str) -> None:
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        await connection.tpc_begin("two")
        await q.tasks["note"].enqueue_async(connection, 1)
        await q.enqueue_many_async(connection, [q.tasks["note"].job(2), q.tasks["note"].options(key="k").job(3)])
        await connection.tpc_prepare()
        await connection.tpc_commit()
    assert found(conn) == [1, 2, 3]


def test_sessions_of_sqlalchemy(q: JobQ, mode: str, conn: Conn, database_url: str) -> None:
    engine = create_engine(alchemy(database_url), poolclass=NullPool)
    with Session(engine, twophase=True) as session:
        enqueue_all(q, session)
        session.prepare()
        session.commit()
    assert found(conn) == ALL
    with engine.connect() as connection:
        transaction = connection.begin_twophase()
        with connection.begin_nested():
            q.tasks["note"].enqueue(connection, 8)
        transaction.prepare()
        transaction.rollback()
    assert found(conn) == ALL


async def test_asynchronous_sessions(q: JobQ, mode: str, conn: Conn, database_url: str) -> None:
    engine = create_async_engine(alchemy(database_url), poolclass=NullPool)
    async with AsyncSession(engine, twophase=True) as session:
        await q.tasks["note"].enqueue_async(session, 1)
        await session.commit()
    async with AsyncSession(engine, twophase=True) as session:
        await session.run_sync(lambda sync: q.tasks["note"].enqueue(sync, 2))
        await session.commit()
    await engine.dispose()
    assert found(conn) == [1, 2]


def test_by_hand(mode: str, conn: Conn) -> None:
    """As another language does: the setting is for those whose driver is not asked."""
    conn.execute("SET LOCAL jobq.notify = off")
    conn.execute("SELECT jobq.enqueue('note', '{\"n\": 1}')")
    conn.execute("PREPARE TRANSACTION 'three'")
    conn.rollback()
    conn.autocommit = True
    conn.execute("COMMIT PREPARED 'three'")
    assert found(conn) == [1]


def test_a_plain_transaction_still_tells_the_workers(q: JobQ, conn: Conn, database_url: str) -> None:
    conn.autocommit = True
    conn.execute("LISTEN jobq")
    with psycopg.connect(database_url) as connection:
        connection.tpc_begin("four")
        q.tasks["note"].enqueue(connection, 1)
        connection.tpc_prepare()
        connection.tpc_commit()
        q.tasks["note"].options(queue="told").enqueue(connection, 2)
    assert [note.payload for note in conn.notifies(timeout=20, stop_after=1)] == ["insert told"]


def test_an_idle_worker_finds_the_job(jobs: Jobs, worker: Callable[..., WorkerProcess], database_url: str) -> None:
    worker()
    running = "SELECT count(*) FROM jobq.worker WHERE state = 'running'"
    wait_until(lambda: jobs.one(running) == 1, what="the worker")
    with psycopg.connect(database_url) as connection:
        connection.tpc_begin("five")
        ref = apps.record.enqueue(connection, "prepared")
        connection.tpc_prepare()
        connection.tpc_commit()
    assert jobs.wait(ref.id)["state"] == "succeeded"
