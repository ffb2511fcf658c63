"""Reads of the small tables: workers, maintenance tasks, audit, and the schema's revision."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from psycopg import Connection, sql
from psycopg.errors import InsufficientPrivilege, UndefinedFunction

from jobq._postgres.sql import REVISION
from jobq._postgres.statements import fetch
from jobq.filters import MAX_ID
from jobq.queries.values import AuditEntry, MaintenanceTaskInfo, WorkerInfo


def workers(conn: Connection[Any], schema: str, *, tasks: bool = True) -> list[WorkerInfo]:
    """Return every dispatcher that has a heartbeat row, by host and process id; at most 1,000.

    If `tasks` is False, the workers' task lists are empty, which saves time if there are hundreds
    of workers with hundreds of tasks each.
    """
    return [WorkerInfo(**row) for row in fetch(conn, schema, "workers", {"tasks": tasks})]


def maintenance_tasks(conn: Connection[Any], schema: str) -> list[MaintenanceTaskInfo]:
    """Return the maintenance tasks by name."""
    return [MaintenanceTaskInfo(**row) for row in fetch(conn, schema, "maintenance_tasks", {})]


def audit_log(
    conn: Connection[Any],
    schema: str,
    *,
    limit: int = 50,
    before_id: int | None = None,
    actor: str | None = None,
    action: str | None = None,
) -> list[AuditEntry]:
    """Return operators' actions, newest first.

    `before_id`, the id of the last one, continues the list. `actor` and `action` select entries.
    """
    params = {"limit": limit, "before": MAX_ID if before_id is None else before_id, "actor": actor, "action": action}
    return [AuditEntry(**row) for row in fetch(conn, schema, "audit_log", params)]


def schema_revision(conn: Connection[Any], schema: str) -> str | None:
    """Return the database's revision, for comparison with `jobq.migrate.head()`.

    None: it is not recorded.

    Raises psycopg.errors.UndefinedTable if there is no jobq schema.
    """
    query = sql.SQL("SELECT version_num FROM {}.schema_version").format(sql.Identifier(schema))
    with conn.cursor() as cursor:
        rows: list[Any] = cursor.execute(query).fetchall()
    if not rows:
        return None
    row = rows[0]
    return str(row["version_num"] if isinstance(row, dict) else row[0])


def versions_of(some: Iterable[WorkerInfo]) -> list[str]:
    """Return the versions of jobq that the workers run which are not silent, sorted."""
    return sorted({worker.version for worker in some if worker.health != "silent"})


def supports_this_version(conn: Connection[Any], schema: str, revision: str) -> bool:
    """Return whether this jobq works with a schema that is at the newer `revision`.

    The schema says so (its function `oldest_program`). If it says nothing, the result is False.
    """
    oldest = oldest_program(conn, schema, revision)
    return oldest is not None and oldest <= REVISION


def oldest_program(conn: Connection[Any], schema: str, revision: str) -> str | None:
    """Return the oldest program revision that works with the schema at `revision`.

    The result is None if it is unknown.
    """
    query = sql.SQL("SELECT {}.oldest_program(%s) AS oldest").format(sql.Identifier(schema))
    try:
        with conn.transaction(), conn.cursor() as cursor:
            rows: list[Any] = cursor.execute(query, (revision,)).fetchall()
    except (UndefinedFunction, InsufficientPrivilege):
        return None
    row = rows[0]
    found = row["oldest"] if isinstance(row, dict) else row[0]
    return None if found is None else str(found)
