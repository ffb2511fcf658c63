"""What jobq's own connections set for themselves, since they rely on it, whatever is the default of the role or the database.

psycopg reads timestamps in DateStyle ISO only, and text as bytes when the client encoding is SQL_ASCII. The server reports
most of these settings with the handshake, so nothing is asked where those fit, and where they do not, one statement sets them
and the unreported ones. A pooler that keeps a client's settings (PgBouncer) gives the reported ones to each session that it
lends; of the others it knows nothing, so they are not set without need. Callers' connections are left as they are.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, TypeVar

import psycopg
from psycopg import sql
from psycopg.abc import Buffer
from psycopg.types.datetime import TimestamptzLoader

C = TypeVar("C", bound="psycopg.Connection[Any]")
A = TypeVar("A", bound="psycopg.AsyncConnection[Any]")

_FIRST, _LAST = datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC)

ENCODING = {"client_encoding": "UTF8"}
"""To be given to each connection: a part of the handshake."""

# As the server reports them: the beginning of each value that fits, and what to set otherwise.
_REPORTED = {
    "DateStyle": ("ISO", "ISO, YMD"),
    "IntervalStyle": ("postgres", "postgres"),
    "standard_conforming_strings": ("on", "on"),
    "client_encoding": ("UTF8", "UTF8"),
}
UNREPORTED = {
    # Arrays are sent as text in which NULL stands for no value.
    "array_nulls": "on",
    # Else seconds lose their digits.
    "extra_float_digits": "1",
    "bytea_output": "hex",
}
"""What the server does not report: set with the others, and by the worker's connections always."""


def fitting() -> dict[str, str]:
    """Return all of these settings, for callers that set them when connecting."""
    return {**{name: value for name, (_, value) in _REPORTED.items() if name != "client_encoding"}, **UNREPORTED}


def adjustment(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> sql.Composed | None:
    """Return the statement that makes `connection` fit, or None when it does."""
    wrong = [name for name, (fits, _) in _REPORTED.items() if not _reported(connection, name).startswith(fits)]
    if not wrong:
        return None
    wanted = {**{name: _REPORTED[name][1] for name in wrong}, **UNREPORTED}
    return sql.SQL("; ").join(
        sql.SQL("SET {} TO {}").format(sql.Identifier(name.lower()), sql.Literal(value))
        for name, value in wanted.items()
    )


def adjust(connection: psycopg.Connection[Any]) -> None:
    """Make `connection`, which is new, fit. Raises psycopg.Error."""
    if (statement := adjustment(connection)) is not None:
        connection.execute(statement)
        if not connection.autocommit:
            # Of the base class: a task's connection refuses to be committed by the task.
            psycopg.Connection.commit(connection)


async def adjust_async(connection: psycopg.AsyncConnection[Any]) -> None:
    """Make `connection`, which is new, fit. Raises psycopg.Error."""
    if (statement := adjustment(connection)) is not None:
        await connection.execute(statement)
        if not connection.autocommit:
            await psycopg.AsyncConnection.commit(connection)


def read_every_time(connection: psycopg.Connection[Any]) -> None:
    """Make `connection` read times that Python lacks, such as infinity, as the first or the last one that people write.

    For the page and the command line, which show what is stored, and must not fail for one value that was written past the
    constraints. A reader in Python: workers and producers, which read no times, go without.
    """
    connection.adapters.register_loader("timestamptz", _EveryTime)


class _EveryTime(TimestamptzLoader):
    def load(self, data: Buffer) -> datetime:
        try:
            return super().load(data)
        except psycopg.DataError:
            text = bytes(data)
            return _FIRST if text.startswith(b"-") or text.endswith(b"BC") else _LAST


def connect(conninfo: str, **options: Any) -> psycopg.Connection[Any]:
    """Return a connection that fits. Raises psycopg.OperationalError."""
    return connect_as(psycopg.Connection[Any], conninfo, **options)


def connect_as(kind: type[C], conninfo: str = "", **options: Any) -> C:
    """Return a connection of this `kind` that fits. Raises psycopg.OperationalError."""
    connection = kind.connect(conninfo, **{**options, **ENCODING})
    try:
        adjust(connection)
    except BaseException:
        connection.close()
        raise
    return connection


async def connect_async_as(kind: type[A], conninfo: str = "", **options: Any) -> A:
    """As `connect_as`, on an event loop."""
    connection = await kind.connect(conninfo, **{**options, **ENCODING})
    try:
        await adjust_async(connection)
    except BaseException:
        await connection.close()
        raise
    return connection


def _reported(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any], name: str) -> str:
    return (connection.pgconn.parameter_status(name.encode()) or b"").decode("ascii", "replace")
