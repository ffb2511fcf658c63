"""The kinds of connection that a caller may bring, told apart here and nowhere else.

A statement runs in the caller's transaction as it stands: no commit, no savepoint, and never the caller's row factory,
cursor class or server-side cursors.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import psycopg
from psycopg import errors as postgres
from psycopg.pq import ConnStatus, TransactionStatus
from psycopg.rows import tuple_row

from jobq.errors import ConnectionNotUsable, SchemaError, UnsupportedConnection

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

Rows: TypeAlias = list[tuple[Any, ...]]

_ACCEPTED = "give a Connection of psycopg, or of SQLAlchemy with psycopg, a Session or scoped_session"
_ACCEPTED_ASYNC = (
    "give an AsyncConnection of psycopg, or of SQLAlchemy with psycopg, an AsyncSession or async_scoped_session"
)
_ROLL_BACK = "its transaction has failed: roll it back, then enqueue again"
# stream_results would wrap the statement in DECLARE … CURSOR.
_PLAIN = {"stream_results": False}


class Query(Protocol):
    """A statement with its schema filled in (`jobq.sql.Statement`)."""

    @property
    def text(self) -> str: ...

    @property
    def query(self) -> bytes: ...


class Executor(Protocol):
    """Runs statements on one connection of the caller's."""

    def execute(self, statement: Query, parameters: Mapping[str, Any]) -> Rows:
        """Run `statement` and return its rows as tuples."""

    def together(self) -> Any:
        """Return a context manager that makes several statements one transaction, if the connection is autocommit."""


class AsyncExecutor(Protocol):
    """Runs statements on one asynchronous connection of the caller's."""

    async def execute(self, statement: Query, parameters: Mapping[str, Any]) -> Rows: ...

    def together(self) -> Any: ...


def sync_executor(connection: object) -> Executor:
    """Return what runs statements on `connection`.

    Raises UnsupportedConnection for an object of another kind, ConnectionNotUsable when it is closed or its transaction
    has failed.
    """
    if isinstance(connection, psycopg.Connection):
        _check(connection)
        return _Psycopg(connection)
    if _is_a(connection, "sqlalchemy.orm", "Session", "scoped_session"):
        with _translated():
            connection = connection.connection()  # type: ignore[attr-defined]  # a session, by its class
    if _is_a(connection, "sqlalchemy", "Connection"):
        return _SQLAlchemy(connection)
    if _is_async(connection):
        raise UnsupportedConnection(
            f"{_kind(connection)} is asynchronous: await the method of the same name that ends in _async"
        )
    raise UnsupportedConnection(f"{_kind(connection)} is no connection that jobq knows: {_hint(connection, _ACCEPTED)}")


async def async_executor(connection: object) -> AsyncExecutor:
    """Return what runs statements on the asynchronous `connection`. Raises as `sync_executor` does."""
    if isinstance(connection, psycopg.AsyncConnection):
        _check(connection)
        return _AsyncPsycopg(connection)
    if _is_a(connection, "sqlalchemy.ext.asyncio", "AsyncSession", "async_scoped_session"):
        with _translated():
            connection = await connection.connection()  # type: ignore[attr-defined]  # a session, by its class
    if _is_a(connection, "sqlalchemy.ext.asyncio", "AsyncConnection"):
        return _AsyncSQLAlchemy(connection)
    if _is_sync(connection):
        raise UnsupportedConnection(
            f"{_kind(connection)} is synchronous: call the method of the same name without _async"
        )
    raise UnsupportedConnection(
        f"{_kind(connection)} is no connection that jobq knows: {_hint(connection, _ACCEPTED_ASYNC)}"
    )


def driver_of(connection: object) -> tuple[psycopg.Connection[Any], sqlalchemy.Connection | None]:
    """Return the psycopg connection below `connection`, and the SQLAlchemy connection on it, if it is one. Raises as
    `sync_executor` does.
    """
    sync_executor(connection)
    if isinstance(connection, psycopg.Connection):
        return connection, None
    if _is_a(connection, "sqlalchemy.orm", "Session", "scoped_session"):
        connection = connection.connection()  # type: ignore[attr-defined]  # a session, by its class
    driver = connection.connection.driver_connection  # type: ignore[attr-defined]  # SQLAlchemy's, by its class
    if not isinstance(driver, psycopg.Connection):
        raise UnsupportedConnection(
            f"{_kind(connection)} stands on an asynchronous driver: give a synchronous connection"
        )
    return driver, connection  # type: ignore[return-value]


class _Psycopg:
    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def execute(self, statement: Query, parameters: Mapping[str, Any]) -> Rows:
        try:
            # Not closed: that would only drop a result which goes with the cursor.
            return (
                psycopg.Cursor(self._connection, row_factory=tuple_row).execute(statement.query, parameters).fetchall()
            )
        except Exception as error:
            _name(error)
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
            await cursor.execute(statement.query, parameters)
            return await cursor.fetchall()
        except Exception as error:
            _name(error)
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
            result = self._connection.exec_driver_sql(statement.text, dict(parameters), execution_options=_PLAIN)
            return [tuple(row) for row in result]
        except Exception as error:
            _name(error)
            raise

    @contextmanager
    def together(self) -> Iterator[None]:
        driver = self._connection.connection.driver_connection
        with ExitStack() as stack:
            # An asynchronous driver below a synchronous facade (AsyncSession.run_sync) has no transaction() to call here.
            if isinstance(driver, psycopg.Connection) and _commits_each(driver):
                stack.enter_context(driver.transaction())
            yield


class _AsyncSQLAlchemy:
    def __init__(self, connection: Any) -> None:
        self._connection = connection
        _check_alchemy(connection, connection.dialect)

    async def execute(self, statement: Query, parameters: Mapping[str, Any]) -> Rows:
        try:
            result = await self._connection.exec_driver_sql(statement.text, dict(parameters), execution_options=_PLAIN)
            return [tuple(row) for row in result]
        except Exception as error:
            _name(error)
            raise

    @asynccontextmanager
    async def together(self) -> AsyncIterator[None]:
        driver = (await self._connection.get_raw_connection()).driver_connection
        async with AsyncExitStack() as stack:
            if _commits_each(driver):
                await stack.enter_async_context(driver.transaction())
            yield


def _check(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
    # Where `connection.closed` and `connection.info` look; this is asked before each job.
    pgconn = connection.pgconn
    if pgconn.status == ConnStatus.BAD:
        raise ConnectionNotUsable("the connection is closed: open one, then enqueue")
    if pgconn.transaction_status == TransactionStatus.INERROR:
        raise ConnectionNotUsable(_ROLL_BACK)


def _check_alchemy(connection: Any, dialect: Any) -> None:
    if (dialect.name, dialect.driver) != ("postgresql", "psycopg"):
        raise UnsupportedConnection(
            f"{_kind(connection)} uses {dialect.name}+{dialect.driver}: jobq needs create_engine('postgresql+psycopg://…')"
        )
    if connection.closed:
        raise ConnectionNotUsable("the connection is closed: open one, then enqueue")


def _commits_each(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> bool:
    return connection.autocommit and connection.info.transaction_status is TransactionStatus.IDLE


@contextmanager
def _translated() -> Iterator[None]:
    """Give the errors of a block the names of ours."""
    try:
        yield
    except Exception as error:
        _name(error)
        raise


def _name(error: Exception) -> None:
    """Raise the errors that have a mend of ours by the name of ours; return for the others, to be raised as they are."""
    if isinstance(error, psycopg.Error):
        _translate(error, error)
    elif _is_a(error, "sqlalchemy.exc", "PendingRollbackError"):
        raise ConnectionNotUsable(_ROLL_BACK) from error
    elif _is_a(error, "sqlalchemy.exc", "ResourceClosedError"):
        raise ConnectionNotUsable(f"the connection is closed: {error}") from error
    elif _is_a(error, "sqlalchemy.exc", "DBAPIError"):
        _translate(error.orig, error)  # type: ignore[attr-defined]  # a DBAPIError, by its class


def _translate(error: object, cause: Exception) -> None:
    match error:
        case postgres.InFailedSqlTransaction():
            raise ConnectionNotUsable(_ROLL_BACK) from cause
        case psycopg.errors.PipelineAborted():
            raise ConnectionNotUsable(
                "an earlier command of this pipeline has failed: sync it, and roll back"
            ) from cause
        case (
            postgres.InvalidSchemaName()
            | postgres.UndefinedTable()
            | postgres.UndefinedFunction()
            | postgres.UndefinedColumn()
        ):
            raise SchemaError(
                f"jobq's tables are missing or of another version: run `jobq migrate` ({error})"
            ) from cause


def _is_a(value: object, module: str, *classes: str) -> bool:
    """Tell whether `value` is of one of `classes`, without importing what nobody else has imported."""
    loaded = sys.modules.get(module)
    return loaded is not None and isinstance(value, tuple(getattr(loaded, name) for name in classes))


def _is_async(value: object) -> bool:
    return isinstance(value, psycopg.AsyncConnection) or _is_a(
        value, "sqlalchemy.ext.asyncio", "AsyncConnection", "AsyncSession", "async_scoped_session", "AsyncEngine"
    )


def _is_sync(value: object) -> bool:
    return (
        isinstance(value, psycopg.Connection)
        or _is_a(value, "sqlalchemy", "Connection", "Engine")
        or _is_a(value, "sqlalchemy.orm", "Session", "scoped_session")
    )


def _hint(value: object, accepted: str) -> str:
    if _is_a(value, "sqlalchemy", "Engine") or _is_a(value, "sqlalchemy.ext.asyncio", "AsyncEngine"):
        return "open a connection from the engine: `with engine.begin() as connection`"
    return accepted


def _kind(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"
