"""Bulk operations: the list, one operation, and the outcome of each of its jobs."""

from __future__ import annotations

from typing import Any

from psycopg import Connection

from jobq._postgres.statements import fetch
from jobq.errors import OperationNotFound
from jobq.filters import MAX_ID
from jobq.queries.page_limit import check_limit
from jobq.queries.values.bulk import Operation, OperationBatch


def operations(conn: Connection[Any], schema: str, *, limit: int = 50, before_id: int | None = None) -> list[Operation]:
    """Return bulk operations, including drafts, newest first.

    `before_id`, the id of the last one, continues the list. Raises InvalidOption for a limit
    outside 1 to 1,000.
    """
    params = {"limit": check_limit(limit), "before": MAX_ID if before_id is None else before_id}
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
    """Return the outcome of each job in batches of up to 500 jobs, oldest first.

    `after`, the `n` of the last batch, continues the list. Raises InvalidOption for a limit
    outside 1 to 1,000.
    """
    params = {"id": id, "limit": check_limit(limit), "after": after}
    return [
        OperationBatch(**row | {"refused": {int(job): why for job, why in row["refused"].items()}})
        for row in fetch(conn, schema, "operation_batches", params)
    ]
