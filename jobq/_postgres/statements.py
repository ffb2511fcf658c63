"""Run a statement of `jobq._postgres.sql` by name, on a psycopg connection.

Errors about rights and missing tables become jobq's errors (`refusals_named`). A statement that
must run on any kind of connection goes through the executors of `jobq._postgres.adapters`. The
worker's statements go through `jobq._worker.database`, which adds deadlines.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, overload

from psycopg import Connection
from psycopg.rows import DictRow, RowFactory, dict_row

from jobq._postgres.server_errors import refusals_named
from jobq._postgres.sql import statement

R = TypeVar("R")


@overload
def fetch(conn: Connection[Any], schema: str, name: str, params: Mapping[str, Any]) -> list[DictRow]: ...


@overload
def fetch(
    conn: Connection[Any], schema: str, name: str, params: Mapping[str, Any], row_factory: RowFactory[R]
) -> list[R]: ...


def fetch(
    conn: Connection[Any], schema: str, name: str, params: Mapping[str, Any], row_factory: RowFactory[Any] = dict_row
) -> list[Any]:
    """Return the rows of ``sql/<name>.sql``, as dictionaries or from `row_factory`.

    The row factory of `conn` is ignored. Raises psycopg.Error, including PermissionDenied and
    SchemaError.
    """
    with refusals_named(), conn.cursor(row_factory=row_factory) as cursor:
        return cursor.execute(statement(name, schema).query, params).fetchall()


def execute(conn: Connection[Any], schema: str, name: str, params: Mapping[str, Any]) -> None:
    """Run ``sql/<name>.sql``, which returns nothing. Raises as `fetch`."""
    with refusals_named():
        conn.execute(statement(name, schema).query, params)
