"""Reads of the small tables: workers, chores, audit, the schema's revision."""

from __future__ import annotations

from typing import Any

from psycopg import Connection, sql
from psycopg.errors import InsufficientPrivilege, UndefinedFunction

from jobq.filters import MAX_ID
from jobq.queries.rows import fetch
from jobq.queries.values import AuditEntry, ChoreInfo, WorkerInfo


def workers(conn: Connection[Any], schema: str, *, tasks: bool = True) -> list[WorkerInfo]:
    """Return every dispatcher that has a heartbeat row, by host and process id; at most 1,000.

    Without `tasks` those are empty, which saves time where hundreds of workers have hundreds each.
    """
    return [WorkerInfo(**row) for row in fetch(conn, schema, "workers", {"tasks": tasks})]


def chores(conn: Connection[Any], schema: str) -> list[ChoreInfo]:
    """Return the maintenance chores by name."""
    return [ChoreInfo(**row) for row in fetch(conn, schema, "chores", {})]


def audit_log(
    conn: Connection[Any],
    schema: str,
    *,
    limit: int = 50,
    before_id: int | None = None,
    actor: str | None = None,
    action: str | None = None,
) -> list[AuditEntry]:
    """Return operators' actions, newest first; `before_id` (the last one's id) continues. `actor`, `action`: only these."""
    params = {"limit": limit, "before": MAX_ID if before_id is None else before_id, "actor": actor, "action": action}
    return [AuditEntry(**row) for row in fetch(conn, schema, "audit_log", params)]


def schema_revision(conn: Connection[Any], schema: str) -> str | None:
    """Return the database's revision, to be compared with `jobq.migrate.head()`; None when none is recorded.

    Raises psycopg.errors.UndefinedTable where there is no jobq schema at all.
    """
    query = sql.SQL("SELECT version_num FROM {}.schema_version").format(sql.Identifier(schema))
    with conn.cursor() as cursor:
        rows: list[Any] = cursor.execute(query).fetchall()
    if not rows:
        return None
    row = rows[0]
    return str(row["version_num"] if isinstance(row, dict) else row[0])


def oldest_program(conn: Connection[Any], schema: str, revision: str) -> str | None:
    """Return the oldest revision of which programs work with the schema at `revision`; None when the schema does not say."""
    query = sql.SQL("SELECT {}.oldest_program(%s) AS oldest").format(sql.Identifier(schema))
    try:
        with conn.transaction(), conn.cursor() as cursor:
            rows: list[Any] = cursor.execute(query, (revision,)).fetchall()
    except (UndefinedFunction, InsufficientPrivilege):
        return None
    row = rows[0]
    found = row["oldest"] if isinstance(row, dict) else row[0]
    return None if found is None else str(found)
