"""Execution options that a caller of SQLAlchemy has set for statements of its own never reach jobq's."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import interfaces
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from jobq import JobQ, Task
from jobq._postgres.adapters import PLAIN_OPTIONS
from tests.support.checks import some
from tests.support.servers.connections import alchemy

Conn = psycopg.Connection[Any]

# Every option that SQLAlchemy has for statements, with a value other than its default.
OPTIONS: dict[str, Any] = {
    "compiled_cache": None,
    "logging_token": "mine",
    "isolation_level": "SERIALIZABLE",
    "no_parameters": True,
    "stream_results": True,
    "max_row_buffer": 1,
    "yield_per": 1,
    "insertmanyvalues_page_size": 1,
    "schema_translate_map": {None: "elsewhere", "jobq": "elsewhere"},
    "preserve_rowcount": True,
    "driver_column_names": True,
}
# Of the connection or of compiled statements: they do nothing to ours, or belong to the caller's transaction and log.
LEFT = {"compiled_cache", "logging_token", "isolation_level", "insertmanyvalues_page_size", "schema_translate_map"}


@pytest.fixture
def note(database_url: str) -> Task[[int], None]:
    app = JobQ(database_url)

    @app.task
    def note(n: int = 0) -> None: ...

    return note


def found(connection: Conn) -> int:
    [(number,)] = connection.execute("SELECT count(*) FROM jobq.job").fetchall()
    connection.rollback()
    return int(number)


def enqueue_all(note: Any, connection: Any) -> None:
    note.enqueue(connection, 1)
    note.options(key="k").enqueue(connection, 2)
    note.app.enqueue_many(connection, [note.job(3), note.job(4)])
    note.app.enqueue_many(connection, [note.options(key="m").job(5), note.job(6)])
    note.app.queue("q").set(limit=3, connection=connection)
    assert note.app.queue("q").settings(connection=connection).limit == 3


def test_no_option_is_unknown() -> None:
    """A new SQLAlchemy may have more: each is either set back for jobq's statements, or left for a reason."""
    assert set(interfaces._CoreKnownExecutionOptions.__annotations__) == set(OPTIONS)
    assert set(PLAIN_OPTIONS) == set(OPTIONS) - LEFT


@pytest.mark.parametrize("name", OPTIONS)
def test_connections(note: Any, database_url: str, conn: Conn, name: str) -> None:
    engine = create_engine(alchemy(database_url), poolclass=NullPool)
    with engine.connect().execution_options(**{name: OPTIONS[name]}) as connection:
        enqueue_all(note, connection)
        connection.commit()
        # The caller's own statements have it as before.
        assert connection.get_execution_options()[name] == OPTIONS[name]
    with create_engine(
        alchemy(database_url), poolclass=NullPool, execution_options={name: OPTIONS[name]}
    ).connect() as c:
        note.enqueue(c, 7)
        c.commit()
    with Session(engine) as session:
        session.connection(execution_options={name: OPTIONS[name]})
        note.enqueue(session, 8)
        session.commit()
    assert found(conn) == 8


async def test_asynchronous_connections(note: Any, database_url: str, conn: Conn) -> None:
    engine = create_async_engine(alchemy(database_url), poolclass=NullPool)
    number = 0
    for name in some(sorted(OPTIONS.keys() - {"stream_results", "yield_per"})):
        async with engine.connect() as connection:
            await connection.execution_options(**{name: OPTIONS[name]})
            await note.enqueue_async(connection, 1)
            await note.app.enqueue_many_async(connection, [note.job(2), note.job(3)])
            await connection.commit()
        number += 3
        assert found(conn) == number
    # SQLAlchemy refuses these for its own execute().
    for name in ("stream_results", "yield_per"):
        streaming = create_async_engine(
            alchemy(database_url), poolclass=NullPool, execution_options={name: OPTIONS[name]}
        )
        async with streaming.connect() as connection:
            await note.enqueue_async(connection, 1)
            await connection.commit()
        number += 1
        assert found(conn) == number
        await streaming.dispose()
    await engine.dispose()


# --- A bulk is one transaction -----------------------------------------------------------------------------------------


def refuse_the_last(connection: Conn) -> None:
    """Let the table refuse one job, which comes in the second statement of the bulk."""
    connection.execute("ALTER TABLE jobq.job ADD CONSTRAINT refused CHECK (queue <> 'refused')")
    connection.commit()


def test_an_autocommit_engine(note: Any, database_url: str, conn: Conn) -> None:
    refuse_the_last(conn)
    jobs = [*(note.job(n) for n in range(5001)), note.options(queue="refused").job(0)]
    engine = create_engine(alchemy(database_url), poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with Session(engine) as session, pytest.raises(Exception, match="refused"):
        note.app.enqueue_many(session, jobs)
    assert found(conn) == 0
    with Session(engine) as session:
        note.app.enqueue_many(session, jobs[:-1])
    assert found(conn) == 5001


@pytest.mark.parametrize("kind", [AsyncSession, AsyncConnection])
async def test_an_autocommit_engine_below_run_sync(note: Any, database_url: str, conn: Conn, kind: Any) -> None:
    refuse_the_last(conn)
    jobs = [*(note.job(n) for n in range(5001)), note.options(queue="refused").job(0)]
    engine = create_async_engine(alchemy(database_url), poolclass=NullPool, isolation_level="AUTOCOMMIT")
    async with kind(engine) as outer:
        with pytest.raises(Exception, match="refused"):
            await outer.run_sync(lambda sync: note.app.enqueue_many(sync, jobs))
        assert found(conn) == 0
        await outer.run_sync(lambda sync: note.app.enqueue_many(sync, jobs[:-1]))
        assert found(conn) == 5001
        await outer.run_sync(lambda sync: note.app.queue("q").set(limit=3, connection=sync))
        # It is usable as before.
        assert (await outer.execute(text("SELECT count(*) FROM jobq.job"))).scalar() == 5001
    await engine.dispose()
