"""Running a statement and making values of its rows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from psycopg import Connection
from psycopg.rows import dict_row

from jobq.bounds import LONGEST
from jobq.refusals import refusals_named
from jobq.sql import statement

_JSON_COLUMNS = ("args", "headers", "progress", "result")


def fetch(conn: Connection[Any], schema: str, name: str, params: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of ``sql/<name>.sql`` as dictionaries, whatever row factory `conn` has."""
    with refusals_named(), conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(statement(name, schema).query, params).fetchall()


def with_json(row: dict[str, Any]) -> dict[str, Any]:
    """Return `row` with its JSON columns, read as text, made into values; and no timeout where no clock counts so far."""
    if (timeout := row.get("timeout")) is not None and not timeout <= LONGEST:
        # Infinity, NaN, 1e300: of a row that was written past the constraints, or before there were any.
        row["timeout"] = None
    for column in _JSON_COLUMNS:
        if row.get(column) is not None:
            row[column] = _value(row[column])
    return row


def _value(text: str) -> Any:
    if text == "{}":  # most often
        return {}
    # Hostile JSON may nest deeper than Python's parser goes; Postgres accepts it.
    try:
        return json.loads(text)
    except (RecursionError, ValueError):
        return f"(JSON of {len(text)} characters that cannot be shown: nested too deeply or a number too long)"
