"""Running a statement of `jobq.sql`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from psycopg import Connection
from psycopg.rows import dict_row

from jobq.refusals import refusals_named
from jobq.sql import statement


def rows(conn: Connection[Any], schema: str, name: str, params: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of ``sql/<name>.sql`` as dictionaries, whatever row factory `conn` has."""
    with refusals_named(), conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(statement(name, schema).query, params).fetchall()


def execute(conn: Connection[Any], schema: str, name: str, params: Mapping[str, Any]) -> None:
    """Run ``sql/<name>.sql``, which returns nothing."""
    with refusals_named():
        conn.execute(statement(name, schema).query, params)
