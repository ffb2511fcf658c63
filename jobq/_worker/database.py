"""The dispatcher's own connections: their settings, and the time that they may take.

Every wait for the server has a deadline here, in `Connection.wait`: psycopg does all its waiting
there. An overdue connection is not cancelled through psycopg, which would open a second connection
that hangs like the first. Instead its socket is shut down, which ends the wait at once, and the
work is repeated on a new connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, TypeVar

import psycopg
from psycopg import AsyncConnection, AsyncRawCursor, IsolationLevel, sql
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_attempts_async, conninfo_to_dict
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from jobq._postgres import connecting
from jobq._postgres.sql import statement
from jobq._worker.database_errors import Unreachable, is_refusal
from jobq._worker.timeouts import HOT, Timeouts
from jobq.settings import Settings

logger = logging.getLogger("jobq.worker")

RV = TypeVar("RV")

_SESSION = {
    "default_transaction_isolation": "read committed",
    "idle_in_transaction_session_timeout": "0",
    "client_min_messages": "warning",
}


class ServerTimeout(psycopg.OperationalError):
    """The server did not answer within the connection's patience."""


class Connection(AsyncConnection[tuple[Any, ...]]):
    """A connection on which every wait for the server ends."""

    terms = HOT
    patience = HOT.patience
    pooled = False
    """Whether a pooler is in between that may use another session for every transaction."""
    server_pid = 0
    """The server's process at the start; a pooler may use another one for each transaction."""
    doing = "a statement"
    since: float | None = None
    """When the current wait began, in time.monotonic() seconds."""
    database: Database | None = None
    _overdue = False
    _cancelled = False

    def found_pooler(self) -> None:
        """Treat every connection from now on as one through a pooler."""
        if self.database is not None:
            self.database.pooled = True

    @property
    def waiting_for(self) -> str | None:
        """What the server is doing for us, and for how long, in words; None if it does nothing."""
        if self.since is None:
            return None
        return f"{self.doing} has been running for {time.monotonic() - self.since:.0f} s"

    async def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:  # noqa: ASYNC109
        """Wait for the server. Raises ServerTimeout after `patience` seconds."""
        if timeout is not None:  # a wait for notifications, which may end without an answer
            return await super().wait(gen, interval=interval, timeout=timeout)
        patience = self.patience
        timer = asyncio.get_running_loop().call_later(patience, self.cut)
        self.since = time.monotonic()
        # A cancellation applies to one wait. A later wait on this connection fails as on a lost
        # one.
        self._cancelled = False
        try:
            return await super().wait(gen, interval=interval)
        except asyncio.CancelledError:
            if self._cancelled:
                # The answer may have arrived: then nothing failed, and the connection would look
                # alive.
                self.pgconn.finish()
            raise
        except psycopg.Error:
            if self._cancelled:
                # Until version 3.3, psycopg reports the end of the connection instead of the
                # cancellation.
                raise asyncio.CancelledError from None
            if self._overdue:
                raise ServerTimeout(f"no answer to {self.doing} within {patience:g} s") from None
            raise
        finally:
            self.since = None
            timer.cancel()

    async def cancel_safe(self, *, timeout: float = 30.0) -> None:  # noqa: ASYNC109
        """Called if a wait is cancelled.

        psycopg would ask the server to cancel, and wait for it.
        """
        self._cancelled = True
        self.cut()

    def cut(self) -> None:
        """End the current wait, and the connection with it."""
        self._overdue = True
        with (
            contextlib.suppress(OSError, psycopg.Error),
            socket.socket(fileno=os.dup(self.pgconn.socket)) as duplicate,
        ):
            duplicate.shutdown(socket.SHUT_RDWR)


class Database:
    """Connects a worker to its database.

    It remembers which address did not answer last time, and what a pooler refused.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._silent: set[tuple[object, object]] = set()
        self._options_refused = False
        self.pooled = settings.pooler == "transaction"
        """Whether to treat every connection as one through a pooler in transaction mode."""
        self.connecting: dict[str, str] = {}
        """For each purpose with a connection attempt, the address that is being tried."""

    async def connect(
        self, purpose: str, terms: Timeouts = HOT, *, patience: float | None = None, direct: bool = False
    ) -> Connection:
        """Return an autocommit connection to a server that accepts writes.

        This tries every address of every host within `connect_timeout`; addresses that did not
        answer last time come last. `direct`: use `direct_url`. Raises psycopg.OperationalError.
        """
        settings = self._settings
        url = settings.unpooled_url() if direct else settings.require_database_url()
        within = max(2.0, min(settings.connect_timeout, 3600.0))
        try:
            async with asyncio.timeout(within + 1):
                pooled = self.pooled and not (direct and settings.direct_url)
                return await self._first(url, within, purpose, terms, patience or terms.patience, pooled=pooled)
        except TimeoutError:
            raise Unreachable(f"no connection within {within:g} s", refused=False) from None
        finally:
            self.connecting.pop(purpose, None)

    async def _first(
        self, url: str, within: float, purpose: str, terms: Timeouts, patience: float, *, pooled: bool
    ) -> Connection:
        self.connecting[purpose] = "the name service"
        attempts = await conninfo_attempts_async(conninfo_to_dict(url))
        attempts.sort(key=lambda attempt: _address(attempt) in self._silent)
        # libpq counts whole seconds, and treats 1 as 2.
        each = max(2, int(within / len(attempts)))
        errors: list[psycopg.OperationalError] = []
        for attempt in attempts:
            where = ":".join(str(part) for part in (attempt.get("host"), attempt.get("port")) if part)
            self.connecting[purpose] = where or "the default address"
            try:
                connection = await self._connect(
                    {**attempt, "connect_timeout": each}, purpose, terms, patience, pooled=pooled
                )
            except psycopg.errors.ConnectionTimeout as error:
                self._silent.add(_address(attempt))
                errors.append(error)
            except psycopg.OperationalError as error:
                self._silent.discard(_address(attempt))
                errors.append(error)
            else:
                self._silent.discard(_address(attempt))
                return connection
        if len(errors) == 1:
            raise Unreachable(str(errors[0]).strip(), refused=is_refusal(errors[0]), state=errors[0].sqlstate)
        told = "; ".join(dict.fromkeys(str(error).strip() for error in errors))
        raise Unreachable(
            f"none of {len(errors)} addresses serves: {told}", refused=all(is_refusal(error) for error in errors)
        )

    async def _connect(
        self, params: dict[str, Any], purpose: str, terms: Timeouts, patience: float, *, pooled: bool
    ) -> Connection:
        said = params.pop("options", None)
        mine = {**terms.settings(), **_SESSION, **connecting.fitting()}
        ours = " ".join(f"-c {name}={value.replace(' ', chr(92) + ' ')}" for name, value in mine.items())
        options = said if pooled or self._options_refused else f"{said} {ours}" if said else ours
        try:
            connection = await connecting.shake_hands(
                Connection,
                "",
                f"worker {purpose}",
                autocommit=True,
                prepare_threshold=None if pooled else 0,
                **{**params, "options": options, **connecting.KEEPALIVES},
            )
        except psycopg.OperationalError as error:
            # PgBouncer's answer to `options`; no server gives it.
            if "unsupported startup parameter" not in str(error) or self._options_refused or pooled:
                raise
            if self._settings.pooler == "none":
                raise psycopg.OperationalError(
                    f"{str(error).strip()}: a pooler; leave JOBQ_POOLER out, or let it ignore_startup_parameters = options"
                ) from None
            self._options_refused = True
            return await self._connect({**params, "options": said}, purpose, terms, patience, pooled=pooled)
        try:
            await self._greet(connection, terms, patience, pooled=pooled)
        except BaseException:
            await connection.close()
            raise
        return connection

    async def _greet(self, connection: Connection, terms: Timeouts, patience: float, *, pooled: bool) -> None:
        """Find out what is at the other end. Raises psycopg.OperationalError for a standby."""
        connection.terms, connection.patience = terms, patience
        connection.doing = "the first statement"
        connection.prepare_threshold = None
        # This does nothing unless a pooler, which accepts no options, is in between.
        await connecting.adjust_async(connection)
        cursor = await connection.execute("SELECT pg_backend_pid(), pg_is_in_recovery()")
        pid, standby = await cursor.fetchone() or (0, False)
        if standby:
            raise psycopg.OperationalError(f"the server at {_place(connection)} is a standby, which is read-only")
        connection.server_pid = pid
        connection.database = self
        # A pooler uses its own cancel keys, so the process of the handshake is not the server's.
        found = self._settings.pooler == "auto" and pid != connection.info.backend_pid
        connection.pooled = pooled or found
        if connection.pooled:
            await connection.set_isolation_level(IsolationLevel.READ_COMMITTED)
        else:
            connection.prepare_threshold = 0


def _address(attempt: dict[str, Any]) -> tuple[object, object]:
    return attempt.get("hostaddr") or attempt.get("host"), attempt.get("port")


def _place(connection: Connection) -> str:
    return f"{connection.info.host}:{connection.info.port}"


async def connect(settings: Settings, purpose: str) -> Connection:
    """Return one connection of `Database(settings)`, for callers that need only one."""
    return await Database(settings).connect(purpose)


async def fetch(
    connection: AsyncConnection[tuple[Any, ...]], schema: str, name: str, /, **parameters: Any
) -> list[tuple[Any, ...]]:
    """Execute the statement `name` and return its rows."""
    return await fetch_within(None, connection, schema, name, **parameters)


async def fetch_within(
    within: float | None,
    connection: AsyncConnection[tuple[Any, ...]],
    schema: str,
    name: str,
    /,
    **parameters: Any,
) -> list[tuple[Any, ...]]:
    """Execute the statement `name` and return its rows. The server ends it after `within` seconds.

    None: after the connection's own limit.
    """
    query = statement(name, schema)
    values = query.values(parameters)
    if isinstance(connection, Connection):
        connection.doing = f"statement {name}"
        if connection.pooled or within is not None:
            terms = connection.terms if within is None else replace(connection.terms, statement=within)
            return await _fetch_with(connection, query.raw, values, terms)
    cursor = await AsyncRawCursor(connection, row_factory=tuple_row).execute(query.raw, values)
    return await cursor.fetchall() if cursor.description is not None else []


@contextlib.asynccontextmanager
async def statement_deadline(connection: AsyncConnection[Any], seconds: float) -> AsyncIterator[None]:
    """Limit each statement of a transaction, or of a part, and its commit, to `seconds`.

    The limit lasts until the end of the outermost transaction.
    """
    terms = connection.terms if isinstance(connection, Connection) else None
    limit = Timeouts(statement=seconds).settings()["statement_timeout"]
    try:
        async with connection.transaction():
            if isinstance(connection, Connection) and terms is not None:
                # Behind a pooler they are set for each statement.
                connection.terms = replace(terms, statement=seconds)
            await connection.execute("SELECT set_config('statement_timeout', %s, true)", (limit,))
            yield
    finally:
        if isinstance(connection, Connection) and terms is not None:
            connection.terms = terms


async def fetch_both(
    connection: Connection, schema: str, first: tuple[str, dict[str, Any]], second: tuple[str, dict[str, Any]]
) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """Execute two statements in one round trip and one transaction, and return the rows of each.

    This does not work through a pooler.
    """
    queries = [(statement(name, schema), parameters) for name, parameters in (first, second)]
    connection.doing = f"statements {first[0]} and {second[0]}"
    cursors = [AsyncRawCursor(connection, row_factory=tuple_row) for _ in queries]
    # Without a sync between them, they form one implicit transaction.
    async with connection.pipeline():
        for cursor, (query, parameters) in zip(cursors, queries, strict=True):
            await cursor.execute(query.raw, query.values(parameters))
    return await cursors[0].fetchall(), await cursors[1].fetchall()


async def _fetch_with(
    connection: Connection, query: bytes, values: list[Any], terms: Timeouts
) -> list[tuple[Any, ...]]:
    """Execute `query` with these settings for its transaction, in one round trip.

    Behind a pooler, no setting may outlast the transaction.
    """
    settings = _local_settings(terms)
    cursor = AsyncRawCursor(connection, row_factory=tuple_row)
    if connection.info.transaction_status is not TransactionStatus.IDLE:
        await connection.execute(settings)
        await cursor.execute(query, values)
    else:
        async with connection.pipeline(), connection.transaction():
            await connection.execute(settings)
            await cursor.execute(query, values)
    return await cursor.fetchall() if cursor.description is not None else []


def _local_settings(terms: Timeouts) -> sql.Composed:
    return sql.SQL("SELECT {}").format(
        sql.SQL(", ").join(
            sql.SQL("set_config({}, {}, true)").format(sql.Literal(name), sql.Literal(value))
            for name, value in terms.settings().items()
        )
    )


async def close(connection: AsyncConnection[Any] | None) -> None:
    """Close a connection in any state.

    This never waits for the server: libpq's socket is non-blocking.
    """
    if connection is not None:
        with contextlib.suppress(psycopg.Error, OSError):
            await connection.close()
