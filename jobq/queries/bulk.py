"""Bulk operations: the list, a single one, and the outcome of each of its jobs."""

from __future__ import annotations

from typing import Any

from psycopg import Connection

from jobq.bulk import Operation, OperationBatch
from jobq.errors import InvalidOption, OperationNotFound
from jobq.filters import MAX_ID
from jobq.queries.rows import fetch

_MAX_LIMIT = 1000


def operations(conn: Connection[Any], schema: str, *, limit: int = 50, before_id: int | None = None) -> list[Operation]:
    """Return bulk operations, drafts included, newest first; `before_id` (the last one's id) continues.

    Raises InvalidOption for a limit out of 1 to 1,000.
    """
    params = {"limit": _limited(limit), "before": MAX_ID if before_id is None else before_id}
    return [Operation(**row) for row in fetch(conn, schema, "operations", params)]


def operation(conn: Connection[Any], schema: str, id: int) -> Operation:
    """Return one bulk operation. Raises OperationNotFound."""
    found = fetch(conn, schema, "operation_get", {"id": id}) if 0 <= id <= MAX_ID else []
    if not found:
        raise OperationNotFound(f"operation {id}: there is none with this id")
    return Operation(**found[0])


def operation_batches(
    conn: Connection[Any], schema: str, id: int, *, limit: int = 20, after: int = 0
) -> list[OperationBatch]:
    """Return the outcome of each job, a batch of up to 500 jobs each, oldest first; `after` (the last one's `n`) continues.

    Raises InvalidOption for a limit out of 1 to 1,000.
    """
    params = {"id": id, "limit": _limited(limit), "after": after}
    return [
        OperationBatch(**row | {"refused": {int(job): why for job, why in row["refused"].items()}})
        for row in fetch(conn, schema, "operation_batches", params)
    ]


def _limited(limit: int) -> int:
    if not 1 <= limit <= _MAX_LIMIT:
        raise InvalidOption(f"limit={limit!r}: give a number between 1 and {_MAX_LIMIT}")
    return limit
