"""The dispatcher's own connections: what is set on them, and how their loss is told from other errors."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import AsyncConnection

from jobq.config import Settings
from jobq.sql import statement

# The statements are written for one plan each. A planner misled by old statistics must not leave it for a scan of the whole
# table, nor spend longer on planning than on running. Read committed whatever the database's default: SKIP LOCKED needs it.
_OPTIONS = (
    "-c enable_seqscan=off -c enable_hashjoin=off -c enable_mergejoin=off -c jit=off "
    "-c plan_cache_mode=force_generic_plan -c default_transaction_isolation=read\\ committed "
    "-c statement_timeout=30s -c lock_timeout=0 -c idle_in_transaction_session_timeout=0 -c client_min_messages=warning"
)


async def connect(settings: Settings, purpose: str) -> AsyncConnection[tuple[Any, ...]]:
    """Return an autocommit connection for the worker's `purpose`. Raises psycopg.OperationalError."""
    url = settings.require_database_url()
    given = psycopg.conninfo.conninfo_to_dict(url).get("options")
    connection = await AsyncConnection.connect(
        url,
        autocommit=True,
        prepare_threshold=0,
        options=f"{given} {_OPTIONS}" if given else _OPTIONS,
        application_name=f"jobq worker {purpose}",
        connect_timeout=int(max(2, min(settings.connect_timeout, 3600))),
        keepalives_idle=5,
        keepalives_interval=2,
        keepalives_count=3,
        tcp_user_timeout=10_000,
    )
    return connection


async def fetch(
    connection: AsyncConnection[tuple[Any, ...]], schema: str, name: str, /, **parameters: Any
) -> list[tuple[Any, ...]]:
    """Execute the statement `name` and return its rows."""
    cursor = await connection.execute(statement(name, schema).query, parameters)
    return await cursor.fetchall() if cursor.description is not None else []


def is_connection_loss(error: BaseException, connection: AsyncConnection[Any] | None) -> bool:
    """Tell whether `error` is about the connection or the server's state, so that trying again later is right."""
    if connection is not None and (connection.closed or connection.broken):
        return True
    if isinstance(error, psycopg.OperationalError):
        # Class 57 (operator intervention, shutdown), 08 (connection), 53 (resources), or no state: libpq's own.
        return error.sqlstate is None or error.sqlstate[:2] in ("57", "08", "53", "55", "40")
    return isinstance(error, (psycopg.errors.ReadOnlySqlTransaction, psycopg.InterfaceError, OSError, TimeoutError))


def is_refusal(error: BaseException) -> bool:
    """Tell whether the server itself said that it is not there: then it is there for nobody, rescuers included."""
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
        )
    )
