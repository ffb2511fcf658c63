"""The only module that connects: it opens jobq's own connections, and sets their session settings.

jobq relies on these settings, whatever the default of the role or database is.

psycopg reads timestamps only in DateStyle ISO, and reads text as bytes if the client encoding is
SQL_ASCII. The server reports most of these settings in the handshake. If they fit, nothing is
asked. If they do not, one statement sets them and the unreported ones. A pooler that tracks a
client's settings (PgBouncer) applies the reported ones to each session that it lends. It does not
know the others, so they are not set without need. Callers' connections are not changed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
from psycopg import sql
from psycopg.abc import Buffer
from psycopg.types.datetime import TimestamptzLoader

if TYPE_CHECKING:
    from sqlalchemy import Engine, Pool
    from sqlalchemy.ext.asyncio import AsyncEngine

C = TypeVar("C", bound="psycopg.Connection[Any]")
A = TypeVar("A", bound="psycopg.AsyncConnection[Any]")

_FIRST, _LAST = datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC)

ENCODING = {"client_encoding": "UTF8"}
"""An option for each connection, sent in the handshake."""

# As the server reports them: the beginning of each acceptable value, and the value to set
# otherwise.
_REPORTED = {
    "DateStyle": ("ISO", "ISO, YMD"),
    "IntervalStyle": ("postgres", "postgres"),
    "standard_conforming_strings": ("on", "on"),
    "client_encoding": ("UTF8", "UTF8"),
}
KEEPALIVES = {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3, "tcp_user_timeout": 10_000}
"""For long-lived connections.

They detect within about ten seconds that the server's host is gone.
"""

UNREPORTED = {
    # Arrays are sent as text in which NULL stands for a missing value.
    "array_nulls": "on",
    # With another value, seconds lose digits.
    "extra_float_digits": "1",
    "bytea_output": "hex",
}
"""Settings that the server does not report: set with the others, and always by workers."""


def fitting() -> dict[str, str]:
    """Return all of these settings, for callers that set them while connecting."""
    return {**{name: value for name, (_, value) in _REPORTED.items() if name != "client_encoding"}, **UNREPORTED}


def adjustment(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> sql.Composed | None:
    """Return the statement that adjusts the settings of `connection`; None if they fit."""
    wrong = [name for name, (fits, _) in _REPORTED.items() if not _reported(connection, name).startswith(fits)]
    if not wrong:
        return None
    wanted = {**{name: _REPORTED[name][1] for name in wrong}, **UNREPORTED}
    return sql.SQL("; ").join(
        sql.SQL("SET {} TO {}").format(sql.Identifier(name.lower()), sql.Literal(value))
        for name, value in wanted.items()
    )


def adjust(connection: psycopg.Connection[Any]) -> None:
    """Adjust the settings of a new `connection`. Raises psycopg.Error."""
    if (statement := adjustment(connection)) is not None:
        connection.execute(statement)
        if not connection.autocommit:
            # Use the base class: a task's connection refuses a commit by the task.
            psycopg.Connection.commit(connection)


async def adjust_async(connection: psycopg.AsyncConnection[Any]) -> None:
    """Adjust the settings of a new `connection`. Raises psycopg.Error."""
    if (statement := adjustment(connection)) is not None:
        await connection.execute(statement)
        if not connection.autocommit:
            await psycopg.AsyncConnection.commit(connection)


def read_every_time(connection: psycopg.Connection[Any]) -> None:
    """Make `connection` read times that Python cannot represent as the first or last possible time.

    An example is infinity. This is for the page and the command line, which show stored values, and
    must not fail for a value that was written without the constraints. The reader is Python code:
    workers and producers, which read no times, do not use it.
    """
    connection.adapters.register_loader("timestamptz", _EveryTime)


class _EveryTime(TimestamptzLoader):
    def load(self, data: Buffer) -> datetime:
        try:
            return super().load(data)
        except psycopg.DataError:
            text = bytes(data)
            return _FIRST if text.startswith(b"-") or text.endswith(b"BC") else _LAST


def whole_seconds(within: float) -> int:
    """Return `within` for libpq's ``connect_timeout``: whole seconds from 2 to 3600 (1 means 2)."""
    return round(max(2.0, min(within, 3600.0)))


def session_options(purpose: str | None, *, within: float | None = None) -> dict[str, Any]:
    """Return the options of each connection: its name, its encoding and its timeout.

    A pool that connects by itself gets these options, and must call `adjust` for each new
    connection.

    Args:
        purpose: the name in ``pg_stat_activity`` is ``jobq <purpose>``; None: as in the URL.
        within: seconds within which each host must answer; None (default): as in the URL, or
            libpq's default.
    """
    found: dict[str, Any] = {**ENCODING}
    if purpose is not None:
        found["application_name"] = f"jobq {purpose}".strip()
    if within is not None:
        found["connect_timeout"] = whole_seconds(within)
    return found


def connect(
    conninfo: str, purpose: str | None, *, within: float | None = None, **options: Any
) -> psycopg.Connection[Any]:
    """Return an adjusted connection with `session_options` and psycopg `options`.

    Raises psycopg.OperationalError.
    """
    return connect_as(psycopg.Connection[Any], conninfo, purpose, within=within, **options)


def connect_as(kind: type[C], conninfo: str, purpose: str | None, *, within: float | None = None, **options: Any) -> C:
    """Return an adjusted connection of this `kind`. Raises psycopg.OperationalError."""
    connection = kind.connect(conninfo, **{**options, **session_options(purpose, within=within)})
    try:
        adjust(connection)
    except BaseException:
        connection.close()
        raise
    return connection


async def connect_async_as(
    kind: type[A], conninfo: str, purpose: str | None, *, within: float | None = None, **options: Any
) -> A:
    """Like `connect_as`, on an event loop."""
    connection = await shake_hands(kind, conninfo, purpose, within=within, **options)
    try:
        await adjust_async(connection)
    except BaseException:
        await connection.close()
        raise
    return connection


async def shake_hands(
    kind: type[A], conninfo: str, purpose: str | None, *, within: float | None = None, **options: Any
) -> A:
    """Like `connect_async_as`, but without adjusting.

    The caller prepares, then calls `adjust_async`.
    """
    return await kind.connect(conninfo, **{**options, **session_options(purpose, within=within)})


def engine(creator: Callable[[], psycopg.Connection[Any]], pool: type[Pool]) -> Engine:
    """Return an SQLAlchemy engine on connections from `creator`.

    Only libpq accepts every URL form.
    """
    from sqlalchemy import create_engine

    return create_engine("postgresql+psycopg://", creator=creator, poolclass=pool)


def async_engine(creator: Callable[[], Awaitable[psycopg.AsyncConnection[Any]]], pool: type[Pool]) -> AsyncEngine:
    """Like `engine`, on an event loop."""
    from sqlalchemy.ext.asyncio import create_async_engine

    return create_async_engine("postgresql+psycopg://", async_creator=creator, poolclass=pool)


def _reported(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any], name: str) -> str:
    return (connection.pgconn.parameter_status(name.encode()) or b"").decode("ascii", "replace")
