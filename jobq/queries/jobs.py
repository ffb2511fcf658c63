"""One job, live or finished, and the JSON columns of the rows of jobs."""

from __future__ import annotations

import json
from typing import Any

from psycopg import Connection

from jobq._core.validation import LONGEST
from jobq._postgres.statements import fetch
from jobq.errors import JobNotFound
from jobq.filters import MAX_ID
from jobq.queries.values import Attempt, JobDetail, JobNode

_JSON_COLUMNS = ("args", "headers", "progress", "result")


def get_job(conn: Connection[Any], schema: str, id: int) -> JobDetail:
    """Return a live or finished job with its attempts.

    Raises JobNotFound, also for a job that retention has removed.
    """
    rows = fetch(conn, schema, "job_detail", {"id": id}) if 0 <= id <= MAX_ID else []
    if not rows:
        raise JobNotFound(f"job {id}: there is none with this id, neither live nor in the history still kept")
    attempts = fetch(conn, schema, "job_attempts", {"id": id})
    row = rows[0]
    workflow = _node(row)
    return JobDetail(**with_json(row), attempts=[Attempt(**row) for row in reversed(attempts)], workflow=workflow)


def _node(row: dict[str, Any]) -> JobNode | None:
    """Remove the columns of the node from `row`, and return them."""
    del row["node_id"], row["item"]
    names = ("workflow_id", "workflow_name", "node_name", "node_number", "node_item", "parent_job_id")
    run, name, node, number, item, parent = (row.pop(column) for column in names)
    if run is None:
        return None
    return JobNode(id=run, name=name, node=node, number=number, item=item, parent_job_id=parent)


def with_json(row: dict[str, Any]) -> dict[str, Any]:
    """Return `row` with its JSON columns parsed, and without a timeout that no clock can count."""
    if (timeout := row.get("timeout")) is not None and not timeout <= LONGEST:
        # Infinity, NaN, 1e300: a row written without the constraints, or before they existed.
        row["timeout"] = None
    for column in _JSON_COLUMNS:
        if row.get(column) is not None:
            row[column] = parsed(row[column])
    return row


def parsed(text: str | None) -> Any:
    """Return the value of the JSON `text`, or a text that says why it cannot be shown."""
    if text is None:
        return None
    if text == "{}":  # the most common value
        return {}
    # Hostile JSON may be nested deeper than Python's parser allows; PostgreSQL accepts it.
    try:
        return json.loads(text)
    except (RecursionError, ValueError):
        return f"(JSON of {len(text)} characters that cannot be shown: nested too deeply or a number too long)"
