"""The kinds of connection that a caller may pass. Only this module distinguishes them.

A statement runs in the caller's transaction as it is: no commit, no savepoint, and never the
caller's row factory, cursor class or server-side cursors.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import psycopg
from psycopg.pq import ConnStatus, TransactionStatus
from psycopg.rows import tuple_row

from jobq._postgres.server_errors import ROLL_BACK, is_a, name, translated
from jobq.errors import ConnectionNotUsable, UnsupportedConnection

if TYPE_CHECKING:
    import sqlalchemy
    import sqlalchemy.orm
    from sqlalchemy.ext import asyncio as sqlalchemy_asyncio

    AnyConnection: TypeAlias = (
        psycopg.Connection[Any] | sqlalchemy.Connection | sqlalchemy.orm.Session | sqlalchemy.orm.scoped_session[Any]
    )
    AnyAsyncConnection: TypeAlias = (
        psycopg.AsyncConnection[Any]
        | sqlalchemy_asyncio.AsyncConnection
        | sqlalchemy_asyncio.AsyncSession
        | sqlalchemy_asyncio.async_scoped_session[Any]
    )


class Own(Enum):
    """The type of OWN."""

    OWN = "OWN"

    def __repr__(self) -> str:
        return self.value


OWN = Own.OWN
"""Passed instead of a connection: use one of jobq's own.

It is not None, because a forgotten or lazy connection is None.
"""

Rows: TypeAlias = list[tuple[Any, ...]]

_ACCEPTED = "expected a Connection of psycopg, or of SQLAlchemy with psycopg, a Session or scoped_session"
_ACCEPTED_ASYNC = (
    "expected an AsyncConnection of psycopg, or of SQLAlchemy with psycopg, an AsyncSession or async_scoped_session"
)
# The caller's options for its own statements, reset for ours: yield_per and stream_results would
# wrap them in DECLARE … CURSOR. tests/postgres/test_alchemy_options.py covers all options of
# SQLAlchemy.
PLAIN_OPTIONS: Mapping[str, Any] = {
    "stream_results": False,
    "yield_per": None,
    "max_row_buffer": 1000,
    "no_parameters": False,
    "preserve_rowcount": False,
    "driver_column_names": False,
}


# A transaction that has sent a NOTIFY cannot be prepared (migrations/functions/notify_insert.sql).
_SILENT = "SELECT set_config('jobq.notify', 'off', true)"


class Query(Protocol):
    """A statement with its schema filled in (`jobq._postgres.sql.Statement`)."""

    @property
    def text(self) -> str: ...

    @property
    def query(self) -> bytes: ...


class Executor(Protocol):
    """Runs statements on one connection of the caller."""

    def execute(self, statement: Query, parameters: Mapping[str, Any]) -> Rows:
        """Run `statement` and return its rows as tuples."""

    def together(self) -> Any:
        """Return a context manager: under autocommit, it makes its statements one transaction."""


class AsyncExecutor(Protocol):
    """Runs statements on one asynchronous connection of the caller."""

    async def execute(self, statement: Query, parameters: Mapping[str, Any]) -> Rows: ...

    def together(self) -> Any: ...


def sync_executor(connection: object) -> Executor:
    """Return an executor of statements on `connection`.

    Raises UnsupportedConnection if the object is of another kind, and ConnectionNotUsable if it is
    closed or its transaction has failed.
    """
    if isinstance(connection, psycopg.Connection):
        _check(connection)
        return _Psycopg(connection)
    if is_a(connection, "sqlalchemy.orm", "Session", "scoped_session"):
        with translated():
            connection = connection.connection()  # type: ignore[attr-defined]  # a session, by its class
    if is_a(connection, "sqlalchemy", "Connection"):
        return _SQLAlchemy(connection)
    raise _unsupported(connection)


async def async_executor(connection: object) -> AsyncExecutor:
    """Return an executor of statements on the asynchronous `connection`.

    Raises as `sync_executor`.
    """
    if isinstance(connection, psycopg.AsyncConnection):
        _check(connection)
        return _AsyncPsycopg(connection)
    if is_a(connection, "sqlalchemy.ext.asyncio", "AsyncSession", "async_scoped_session"):
        with translated():
            connection = await connection.connection()  # type: ignore[attr-defined]  # a session, by its class
    if is_a(connection, "sqlalchemy.ext.asyncio", "AsyncConnection"):
        return _AsyncSQLAlchemy(connection)
    raise _unsupported_async(connection)


def check_kind(connection: object) -> None:
    """Raise UnsupportedConnection if `sync_executor` would. This begins no transaction."""
    if not _is_sync(connection) or is_a(connection, "sqlalchemy", "Engine"):
        raise _unsupported(connection)


def check_kind_async(connection: object) -> None:
    """Raise UnsupportedConnection if `async_executor` would. This begins no transaction."""
    if not _is_async(connection) or is_a(connection, "sqlalchemy.ext.asyncio", "AsyncEngine"):
        raise _unsupported_async(connection)


def _unsupported(connection: object) -> UnsupportedConnection:
    if _is_async(connection):
        return UnsupportedConnection(
            f"{_kind(connection)} is asynchronous: await the method of the same name that ends in _async"
        )
    return UnsupportedConnection(
        f"{_kind(connection)} is no connection that jobq knows: {_hint(connection, _ACCEPTED)}"
    )


def _unsupported_async(connection: object) -> UnsupportedConnection:
    if _is_sync(connection):
        return UnsupportedConnection(
            f"{_kind(connection)} is synchronous: call the method of the same name without _async"
        )
    return UnsupportedConnection(
        f"{_kind(connection)} is no connection that jobq knows: {_hint(connection, _ACCEPTED_ASYNC)}"
    )


def driver_of(connection: object) -> tuple[psycopg.Connection[Any], sqlalchemy.Connection | None]:
    """Return the psycopg connection of `connection`, and its SQLAlchemy connection, if it has one.

    Raises as `sync_executor`.
    """
    sync_executor(connection)
    if isinstance(connection, psycopg.Connection):
        return connection, None
    if is_a(connection, "sqlalchemy.orm", "Session", "scoped_session"):
        connection = connection.connection()  # type: ignore[attr-defined]  # a session, by its class
    driver = connection.connection.driver_connection  # type: ignore[attr-defined]  # SQLAlchemy's, by its class
    if not isinstance(driver, psycopg.Connection):
        raise UnsupportedConnection(
            f"{_kind(connection)} uses an asynchronous driver: expected a synchronous connection"
        )
    return driver, connection  # type: ignore[return-value]  # checked by the driver above


class _Psycopg:
    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def execute(self, statement: Query, parameters: Mapping[str, Any]) -> Rows:
        try:
            if self._connection._tpc:
                psycopg.Cursor(self._connection).execute(_SILENT)
            # Not closed: that would only drop the result, which is freed with the cursor.
            return (
                psycopg.Cursor(self._connection, row_factory=tuple_row).execute(statement.query, parameters).fetchall()
            )
        except Exception as error:
            name(error)
            raise

    @contextmanager
    def together(self) -> Iterator[None]:
        with ExitStack() as stack:
            if _commits_each(self._connection):
                stack.enter_context(self._connection.transaction())
            yield


class _AsyncPsycopg:
    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self._connection = connection

    async def execute(self, statement: Query, parameters: Mapping[str, Any]) -> Rows:
        cursor = psycopg.AsyncCursor(self._connection, row_factory=tuple_row)
        try:
            if self._connection._tpc:
                await cursor.execute(_SILENT)
            await cursor.execute(statement.query, parameters)
            return await cursor.fetchall()
        except Exception as error:
            name(error)
            raise

    @asynccontextmanager
    async def together(self) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            if _commits_each(self._connection):
                await stack.enter_async_context(self._connection.transaction())
            yield


class _SQLAlchemy:
    def __init__(self, connection: Any) -> None:
        self._connection = connection
        _check_alchemy(connection, connection.dialect)

    def execute(self, statement: Query, parameters: Mapping[str, Any]) -> Rows:
        try:
            if _is_two_phase(self._connection):
                self._connection.exec_driver_sql(_SILENT, execution_options=PLAIN_OPTIONS)
            result = self._connection.exec_driver_sql(statement.text, dict(parameters), execution_options=PLAIN_OPTIONS)
            return [tuple(row) for row in result]
        except Exception as error:
            name(error)
            raise

    @contextmanager
    def together(self) -> Iterator[None]:
        driver = self._connection.connection.driver_connection
        with ExitStack() as stack:
            if _commits_each(driver):
                if isinstance(driver, psycopg.AsyncConnection):
                    # Called inside AsyncSession.run_sync, in whose greenlet SQLAlchemy can wait.
                    wait = sys.modules["sqlalchemy"].util.await_only
                    stack.enter_context(_awaited(driver.transaction(), wait))
                else:
                    stack.enter_context(driver.transaction())
            yield


class _AsyncSQLAlchemy:
    def __init__(self, connection: Any) -> None:
        self._connection = connection
        _check_alchemy(connection, connection.dialect)

    async def execute(self, statement: Query, parameters: Mapping[str, Any]) -> Rows:
        try:
            if _is_two_phase(self._connection.sync_connection):
                await self._connection.exec_driver_sql(_SILENT, execution_options=PLAIN_OPTIONS)
            result = await self._connection.exec_driver_sql(
                statement.text, dict(parameters), execution_options=PLAIN_OPTIONS
            )
            return [tuple(row) for row in result]
        except Exception as error:
            name(error)
            raise

    @asynccontextmanager
    async def together(self) -> AsyncIterator[None]:
        driver = (await self._connection.get_raw_connection()).driver_connection
        async with AsyncExitStack() as stack:
            if _commits_each(driver):
                await stack.enter_async_context(driver.transaction())
            yield


def _check(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
    # The sources of `connection.closed` and `connection.info`. This check runs before each job.
    pgconn = connection.pgconn
    if pgconn.status == ConnStatus.BAD:
        raise ConnectionNotUsable("the connection is closed: open one, then enqueue")
    if pgconn.transaction_status == TransactionStatus.INERROR:
        raise ConnectionNotUsable(ROLL_BACK)


def _check_alchemy(connection: Any, dialect: Any) -> None:
    if (dialect.name, dialect.driver) != ("postgresql", "psycopg"):
        raise UnsupportedConnection(
            f"{_kind(connection)} uses {dialect.name}+{dialect.driver}: jobq needs create_engine('postgresql+psycopg://…')"
        )
    if connection.closed:
        raise ConnectionNotUsable("the connection is closed: open one, then enqueue")


@contextmanager
def _awaited(transaction: AbstractAsyncContextManager[Any], wait: Callable[[Awaitable[Any]], Any]) -> Iterator[None]:
    wait(transaction.__aenter__())
    try:
        yield
    except BaseException as error:
        if not wait(transaction.__aexit__(type(error), error, error.__traceback__)):
            raise
    else:
        wait(transaction.__aexit__(None, None, None))


def _is_two_phase(connection: Any) -> bool:
    """Return whether the transaction of a SQLAlchemy Connection will be prepared."""
    return is_a(connection.get_transaction(), "sqlalchemy", "TwoPhaseTransaction")


def _commits_each(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> bool:
    return connection.autocommit and connection.info.transaction_status is TransactionStatus.IDLE


def _is_async(value: object) -> bool:
    return isinstance(value, psycopg.AsyncConnection) or is_a(
        value, "sqlalchemy.ext.asyncio", "AsyncConnection", "AsyncSession", "async_scoped_session", "AsyncEngine"
    )


def _is_sync(value: object) -> bool:
    return (
        isinstance(value, psycopg.Connection)
        or is_a(value, "sqlalchemy", "Connection", "Engine")
        or is_a(value, "sqlalchemy.orm", "Session", "scoped_session")
    )


def _hint(value: object, accepted: str) -> str:
    if is_a(value, "sqlalchemy", "Engine") or is_a(value, "sqlalchemy.ext.asyncio", "AsyncEngine"):
        return "open a connection from the engine: `with engine.begin() as connection`"
    return accepted


def _kind(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"
