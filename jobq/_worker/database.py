"""The dispatcher's own connections: what is set on them, and how long they may take.

Every wait for the server has a deadline here, in `Connection.wait`, through which psycopg does all its waiting. A
connection that is overdue is not asked to cancel (psycopg would open a second one for that, which hangs as the first did):
its socket is shut down, which ends the wait at once, and what it was doing is repeated on a new one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import psycopg
from psycopg import AsyncConnection, AsyncRawCursor, IsolationLevel, sql
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_attempts_async, conninfo_to_dict
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from jobq import sessions
from jobq.config import Settings
from jobq.sql import statement
from jobq.worker.errors import Unreachable

logger = logging.getLogger("jobq.worker")

RV = TypeVar("RV")

# The statements are written for one plan each. A planner misled by old statistics must not leave it for a scan of the whole
# table, nor spend longer on planning than on running. Read committed whatever the database's default: SKIP LOCKED needs it.
_PLANNER = {
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "jit": "off",
    "plan_cache_mode": "force_generic_plan",
}
_SESSION = {
    "default_transaction_isolation": "read committed",
    "idle_in_transaction_session_timeout": "0",
    "client_min_messages": "warning",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What one kind of connection may take, in seconds; 0: no limit of the server's."""

    statement: float = 10.0
    """The server ends a statement after this."""
    lock: float = 0.0
    """The server ends a statement that waits for one lock for longer than this."""
    patience: float = 13.0
    """We end the connection after this: longer than `statement`, so that a server that still answers can say why."""

    def settings(self) -> dict[str, str]:
        """Return the planner's settings and these limits."""
        return {
            **_PLANNER,
            **sessions.UNREPORTED,
            "statement_timeout": f"{round(self.statement * 1000)}ms",
            "lock_timeout": f"{round(self.lock * 1000)}ms",
        }


# A running job whose row is locked is set aside (`Ended.set_aside`): it must not keep all others back for long.
HOT = Terms(lock=1.0)
CHORES = Terms(statement=120.0, lock=5.0, patience=125.0)


def lease_terms(heartbeat_interval: float) -> Terms:
    """Return the terms of the connection that heartbeats and rescues.

    Nothing on it may keep a heartbeat back for long: a few locks in the way of what is read with each, one after the other, or
    a dead worker's row that is locked.
    """
    return Terms(
        statement=heartbeat_interval * 1.8, lock=min(0.5, heartbeat_interval / 4), patience=heartbeat_interval * 2
    )


class Overdue(psycopg.OperationalError):
    """The server did not answer within the connection's patience."""


class Connection(AsyncConnection[tuple[Any, ...]]):
    """A connection whose every wait for the server ends."""

    terms = HOT
    patience = HOT.patience
    pooled = False
    """Whether a pooler stands between that may hand every transaction to another session."""
    server_pid = 0
    """The server's process at the start; behind a pooler it may be another for each transaction."""
    doing = "a statement"
    since: float | None = None
    """When the wait that is under way began, in time.monotonic() seconds."""
    database: Database | None = None
    _overdue = False
    _cancelled = False

    def found_pooler(self) -> None:
        """Take every connection from now on for one through a pooler."""
        if self.database is not None:
            self.database.pooled = True

    @property
    def waiting_for(self) -> str | None:
        """What the server is doing for us, and for how long, in words; None when it is doing nothing."""
        if self.since is None:
            return None
        return f"{self.doing} has been running for {time.monotonic() - self.since:.0f} s"

    async def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:  # noqa: ASYNC109
        """Wait for the server. Raises Overdue after `patience` seconds."""
        if timeout is not None:  # a wait that is meant to end without an answer: for notifications
            return await super().wait(gen, interval=interval, timeout=timeout)
        patience = self.patience
        timer = asyncio.get_running_loop().call_later(patience, self.cut)
        self.since = time.monotonic()
        # A cancellation is that of one wait: what is waited for later on this connection fails as on any lost one.
        self._cancelled = False
        try:
            return await super().wait(gen, interval=interval)
        except asyncio.CancelledError:
            if self._cancelled:
                # The answer may have been there already: then nothing has failed, and the connection would look alive.
                self.pgconn.finish()
            raise
        except psycopg.Error:
            if self._cancelled:
                # Until version 3.3 psycopg lets the end of the connection stand for the cancellation.
                raise asyncio.CancelledError from None
            if self._overdue:
                raise Overdue(f"no answer to {self.doing} within {patience:g} s") from None
            raise
        finally:
            self.since = None
            timer.cancel()

    async def cancel_safe(self, *, timeout: float = 30.0) -> None:  # noqa: ASYNC109
        """Called when a wait is cancelled. psycopg would ask the server to cancel, and wait for it."""
        self._cancelled = True
        self.cut()

    def cut(self) -> None:
        """End the wait that is under way, and the connection with it."""
        self._overdue = True
        with (
            contextlib.suppress(OSError, psycopg.Error),
            socket.socket(fileno=os.dup(self.pgconn.socket)) as duplicate,
        ):
            duplicate.shutdown(socket.SHUT_RDWR)


class Database:
    """Where a worker's connections lead. Remembers which address was silent last time, and what a pooler refused."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._silent: set[tuple[object, object]] = set()
        self._options_refused = False
        self.pooled = settings.pooler == "transaction"
        """Whether every connection is to be taken for one through a pooler in transaction mode."""
        self.connecting: dict[str, str] = {}
        """For each purpose that is being connected now, the address that is being tried."""

    async def connect(
        self, purpose: str, terms: Terms = HOT, *, patience: float | None = None, direct: bool = False
    ) -> Connection:
        """Return an autocommit connection to a server that can be written to.

        Tries every address of every host within `connect_timeout`, those that did not answer last time last. `direct`: by
        `direct_url`. Raises psycopg.OperationalError.
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
        self, url: str, within: float, purpose: str, terms: Terms, patience: float, *, pooled: bool
    ) -> Connection:
        self.connecting[purpose] = "the name service"
        attempts = await conninfo_attempts_async(conninfo_to_dict(url))
        attempts.sort(key=lambda attempt: _address(attempt) in self._silent)
        # libpq counts whole seconds, of which 1 means 2.
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
        self, params: dict[str, Any], purpose: str, terms: Terms, patience: float, *, pooled: bool
    ) -> Connection:
        said = params.pop("options", None)
        mine = {**terms.settings(), **_SESSION, **sessions.fitting()}
        ours = " ".join(f"-c {name}={value.replace(' ', chr(92) + ' ')}" for name, value in mine.items())
        options = said if pooled or self._options_refused else f"{said} {ours}" if said else ours
        try:
            connection = await Connection.connect(
                "",
                autocommit=True,
                prepare_threshold=None if pooled else 0,
                **{
                    **params,
                    **sessions.ENCODING,
                    "options": options,
                    "application_name": f"jobq worker {purpose}",
                    "keepalives_idle": 5,
                    "keepalives_interval": 2,
                    "keepalives_count": 3,
                    "tcp_user_timeout": 10_000,
                },
            )
        except psycopg.OperationalError as error:
            # What PgBouncer says to `options`; no server does.
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

    async def _greet(self, connection: Connection, terms: Terms, patience: float, *, pooled: bool) -> None:
        """Learn what is at the other end. Raises psycopg.OperationalError for a standby."""
        connection.terms, connection.patience = terms, patience
        connection.doing = "the first statement"
        connection.prepare_threshold = None
        # Nothing to do, but behind a pooler, which takes no options.
        await sessions.adjust_async(connection)
        cursor = await connection.execute("SELECT pg_backend_pid(), pg_is_in_recovery()")
        pid, standby = await cursor.fetchone() or (0, False)
        if standby:
            raise psycopg.OperationalError(f"the server at {_place(connection)} is a standby, which is read-only")
        connection.server_pid = pid
        connection.database = self
        # A pooler hands out cancel keys of its own, so the process of the handshake is not the server's.
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
    """Return one connection of `Database(settings)`, for who needs no more."""
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

    None: after as many as the connection's terms say.
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
async def limited(connection: AsyncConnection[Any], seconds: float) -> AsyncIterator[None]:
    """A transaction, or a part of one, of which the server ends each statement after `seconds`, its commit included.

    The limit lasts until the end of the outermost transaction.
    """
    terms = connection.terms if isinstance(connection, Connection) else None
    limit = Terms(statement=seconds).settings()["statement_timeout"]
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
    """Execute two statements in one round trip and one transaction, and return the rows of each. Not through a pooler."""
    queries = [(statement(name, schema), parameters) for name, parameters in (first, second)]
    connection.doing = f"statements {first[0]} and {second[0]}"
    cursors = [AsyncRawCursor(connection, row_factory=tuple_row) for _ in queries]
    # Without a sync between them, they are one implicit transaction.
    async with connection.pipeline():
        for cursor, (query, parameters) in zip(cursors, queries, strict=True):
            await cursor.execute(query.raw, query.values(parameters))
    return await cursors[0].fetchall(), await cursors[1].fetchall()


async def _fetch_with(connection: Connection, query: bytes, values: list[Any], terms: Terms) -> list[tuple[Any, ...]]:
    """Execute `query` with these settings for its transaction, in one round trip. Behind a pooler none may stay for longer."""
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


def _local_settings(terms: Terms) -> sql.Composed:
    return sql.SQL("SELECT {}").format(
        sql.SQL(", ").join(
            sql.SQL("set_config({}, {}, true)").format(sql.Literal(name), sql.Literal(value))
            for name, value in terms.settings().items()
        )
    )


def is_refusal(error: BaseException) -> bool:
    """Tell whether the server itself said that it is not there: then it is there for no client, rescuers included."""
    if isinstance(error, Unreachable):
        return error.refused
    text = str(error).lower()
    return any(
        sign in text
        for sign in (
            "refused",
            "starting up",
            "shutting down",
            "recovery mode",
            "no such file",
            "not yet accepting",
            "read-only",
        )
    )


async def close(connection: AsyncConnection[Any] | None) -> None:
    """Close a connection, in whatever state. Never waits for the server: libpq's socket does not block."""
    if connection is not None:
        with contextlib.suppress(psycopg.Error, OSError):
            await connection.close()
