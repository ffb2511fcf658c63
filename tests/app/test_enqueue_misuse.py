"""Connections and calls that cannot be: each a named error with what to do, and nothing inserted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
import sqlalchemy
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from jobq import (
    ConnectionNotUsable,
    InvalidArguments,
    JobQ,
    SchemaError,
    UnknownTask,
    UnsupportedConnection,
)
from tests.support.servers.connections import ASYNC, SYNC, alchemy, opened, opened_async, run


@pytest.fixture
def q(database_url: str) -> Iterator[JobQ]:
    app = JobQ(database_url)

    @app.task
    def send(order: int, note: str = "") -> str:
        return note

    yield app
    app.close()


@pytest.mark.parametrize("kind", SYNC)
def test_a_failed_transaction_must_be_rolled_back(q: JobQ, database_url: str, kind: str) -> None:
    send = q.tasks["send"]
    with opened(kind, database_url) as connection:
        with pytest.raises(Exception, match="division by zero"):
            run(connection, "SELECT 1/0")
        for call in (send.enqueue, send.options(key="k").enqueue):
            with pytest.raises(ConnectionNotUsable, match="roll it back"):
                call(connection, 1)
        connection.rollback()
        assert send.enqueue(connection, 1).created


@pytest.mark.parametrize("kind", ASYNC)
async def test_a_failed_async_transaction_must_be_rolled_back(q: JobQ, database_url: str, kind: str) -> None:
    send = q.tasks["send"]
    async with opened_async(kind, database_url) as connection:
        with pytest.raises(Exception, match="division by zero"):
            await connection.execute("SELECT 1/0" if kind == "psycopg" else text("SELECT 1/0"))
        with pytest.raises(ConnectionNotUsable, match="roll it back"):
            await send.enqueue_async(connection, 1)
        await connection.rollback()
        assert (await send.enqueue_async(connection, 1)).created


def test_a_session_whose_flush_failed_must_be_rolled_back(q: JobQ, database_url: str) -> None:
    class Base(sqlalchemy.orm.DeclarativeBase): ...

    class Thing(Base):
        __tablename__ = "thing"
        id: sqlalchemy.orm.Mapped[int] = sqlalchemy.orm.mapped_column(primary_key=True)

    engine = create_engine(alchemy(database_url), poolclass=NullPool)
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(Thing(id=1))
        session.commit()
        session.expunge_all()
        session.add(Thing(id=1))
        with pytest.raises(sqlalchemy.exc.IntegrityError):
            session.flush()
        with pytest.raises(ConnectionNotUsable, match="roll it back"):
            q.tasks["send"].enqueue(session, 1)
    engine.dispose()


def test_a_closed_connection(q: JobQ, database_url: str) -> None:
    send = q.tasks["send"]
    for kind in ("psycopg", "core"):
        with opened(kind, database_url) as connection:
            connection.close()
            with pytest.raises(ConnectionNotUsable, match="closed"):
                send.enqueue(connection, 1)


async def test_the_wrong_kind_of_connection(q: JobQ, database_url: str) -> None:
    send: Any = q.tasks["send"]
    for kind in ASYNC:
        async with opened_async(kind, database_url) as later:
            with pytest.raises(UnsupportedConnection, match="ends in _async"):
                send.enqueue(later, 1)
            with pytest.raises(UnsupportedConnection, match="ends in _async"):
                q.enqueue_many(later, [send.job(1)])
    for kind in SYNC:
        with opened(kind, database_url) as now, pytest.raises(UnsupportedConnection, match="without _async"):
            await send.enqueue_async(now, 1)
    engine = create_engine(alchemy(database_url), poolclass=NullPool)
    with pytest.raises(UnsupportedConnection, match=r"open a connection.*engine.begin\(\)"):
        send.enqueue(engine, 1)
    for nothing in ("postgresql://localhost", object(), 5, psycopg):
        with pytest.raises(UnsupportedConnection, match="is no connection that jobq knows: expected a"):
            send.enqueue(nothing, 1)
        with pytest.raises(TypeError, match="is no connection that jobq knows: expected an Async"):
            await send.enqueue_async(nothing, 1)


def test_another_driver_is_refused(q: JobQ, database_url: str) -> None:
    url = sqlalchemy.make_url(database_url).set(drivername="postgresql+pg8000")
    engine = create_engine(url, poolclass=NullPool)
    with (
        engine.connect() as connection,
        pytest.raises(UnsupportedConnection, match=r"uses postgresql\+pg8000.*psycopg:"),
    ):
        q.tasks["send"].enqueue(connection, 1)
    sqlite = create_engine("sqlite://")
    with Session(sqlite) as session, pytest.raises(UnsupportedConnection, match="uses sqlite"):
        q.tasks["send"].enqueue(session, 1)
    sqlite.dispose()


def test_nothing_is_inserted_by_a_wrong_call(q: JobQ, conn: psycopg.Connection[Any]) -> None:
    send: Any = q.tasks["send"]
    for call in (
        lambda: send.enqueue(conn),
        lambda: send.enqueue(conn, "1"),
        lambda: send.enqueue(conn, 1, note="a\0"),
        lambda: q.enqueue_many(conn, (send.job(n) for n in (1, 2, "3"))),
    ):
        with pytest.raises(InvalidArguments):
            call()
    assert conn.execute("SELECT count(*) FROM jobq.job").fetchone() == (0,)


def test_a_job_of_another_application(q: JobQ, conn: psycopg.Connection[Any]) -> None:
    other = JobQ()

    @other.task
    def foreign() -> None: ...

    with pytest.raises(UnknownTask, match="no task 'foreign'; known are: send"):
        q.enqueue_many(conn, [q.tasks["send"].job(1), foreign.job()])


def test_no_schema(q: JobQ, empty_database_url: str) -> None:
    send = q.tasks["send"]
    for call in (send.enqueue, send.options(key="k").enqueue):
        for kind in ("psycopg", "core"):
            with (
                opened(kind, empty_database_url) as connection,
                pytest.raises(SchemaError, match="run `jobq migrate`"),
            ):
                call(connection, 1)


class Request:
    """An object whose connection has not been made yet, as those of frameworks that connect at the first query."""

    connection: Any = None


@pytest.mark.parametrize("missing", [Request.connection, 0, "", object(), Request])
def test_what_is_no_connection_is_refused(q: JobQ, conn: psycopg.Connection[Any], missing: Any) -> None:
    """And nothing is inserted by another way: only `submit` uses a connection of jobq's own."""
    send = q.tasks["send"]
    for call in (
        lambda: send.enqueue(missing, 7),
        lambda: send.options(key="k").enqueue(missing, 7),
        lambda: q.enqueue_many(missing, [send.job(7)]),
        lambda: q.enqueue_many(missing, []),
    ):
        with pytest.raises(UnsupportedConnection, match="expected a Connection of psycopg"):
            call()
    assert conn.execute("SELECT count(*) FROM jobq.job").fetchone() == (0,)
    assert send.submit(7).created


@pytest.mark.parametrize("missing", [Request.connection, 0, "", object()])
async def test_what_is_no_asynchronous_connection_is_refused(
    q: JobQ, conn: psycopg.Connection[Any], missing: Any
) -> None:
    send = q.tasks["send"]
    for call in (
        lambda: send.enqueue_async(missing, 7),
        lambda: send.options(key="k").enqueue_async(missing, 7),
        lambda: q.enqueue_many_async(missing, [send.job(7)]),
        lambda: q.enqueue_many_async(missing, []),
    ):
        with pytest.raises(UnsupportedConnection, match="expected an AsyncConnection of psycopg"):
            await call()
    assert conn.execute("SELECT count(*) FROM jobq.job").fetchone() == (0,)


@pytest.mark.parametrize("missing", [None, 0, "", object(), False])
def test_what_is_no_connection_is_refused_for_a_queue(q: JobQ, missing: Any) -> None:
    for call in (
        lambda: q.queue("mail").set(limit=3, connection=missing),
        lambda: q.queue("mail").settings(connection=missing),
        lambda: q.queue("mail").pause(connection=missing),
        lambda: q.queue("mail").group("g").set(limit=1, connection=missing),
    ):
        with pytest.raises(UnsupportedConnection):
            call()
