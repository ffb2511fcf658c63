"""Export of jobs as lines of JSON (NDJSON), with all their data."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from psycopg import Connection
from psycopg.pq import TransactionStatus

from jobq._postgres.statements import fetch
from jobq.errors import InvalidOption
from jobq.filters import JobFilter
from jobq.queries.jobs import with_json
from jobq.queries.search import Search

# Most bytes of stored payloads that one statement reads: a row may have megabytes.
_BYTES = 4 * 1024 * 1024
_JSON = ("args", "headers", "result")

Redact = Callable[[Any], Any]


def export(
    conn: Connection[Any],
    schema: str,
    jobs: JobFilter | None = None,
    *,
    limit: int | None = None,
    before_id: int | None = None,
    redact: Redact | None = None,
) -> Iterator[str]:
    """Yield the matching jobs, newest first, each as a JSON object and a newline.

    Times are ISO 8601 in UTC. No transaction is open while the caller handles a line, however
    slow it is. A job that changes meanwhile is written in its state at that time, and no job is
    written twice.

    Args:
        conn: a psycopg connection without an open transaction.
        schema: the schema of jobq's tables.
        jobs: the filter; None: all jobs.
        limit: most jobs (default: all).
        before_id: only jobs with a lower id.
        redact: gets arguments, headers and result, and returns what to write instead. Without
            it, they are written as stored, with all digits. With it, numbers pass through
            Python's number types.

    Raises:
        InvalidOption: `conn` has an open transaction, or `limit` is below 1.
    """
    if limit is not None and limit < 1:
        raise InvalidOption(f"limit={limit!r}: expected a number of at least 1, or None for all")
    if conn.info.transaction_status != TransactionStatus.IDLE:
        raise InvalidOption(
            "export: the connection has a transaction open, which would hold back vacuum: end it before"
        )
    return _lines(
        conn, schema, Search(conn, schema, jobs or JobFilter()), before_id=before_id, limit=limit, redact=redact
    )


def _lines(
    conn: Connection[Any],
    schema: str,
    search: Search,
    *,
    before_id: int | None,
    limit: int | None,
    redact: Redact | None,
) -> Iterator[str]:
    left = limit
    looks = search.windows(before_id)
    while True:
        # Each read is a separate transaction, and none is open at a yield.
        with conn.transaction():
            window = next(looks, None)
        if window is None:
            return
        while window is not None:
            with conn.transaction():
                found, window = search.page(window)
            found = found if left is None else found[:left]
            for ids in _portions(found):
                with conn.transaction():
                    rows = fetch(conn, schema, "export_rows", {"ids": ids})
                for row in rows:
                    yield _line(row, redact)
            left = None if left is None else left - len(found)
            if left == 0:
                return


def _portions(found: list[dict[str, Any]]) -> Iterator[list[int]]:
    """Yield the ids in portions of limited size. A large job is a portion by itself."""
    portion: list[int] = []
    size = 0
    for row in found:
        if portion and size + row["size"] > _BYTES:
            yield portion
            portion, size = [], 0
        portion.append(row["id"])
        size += row["size"]
    if portion:
        yield portion


def _line(row: dict[str, Any], redact: Redact | None) -> str:
    if redact is not None:
        row = with_json(row)
        row |= {name: redact(row[name]) for name in _JSON if row[name] is not None}
    members = (f"{json.dumps(name)}: {_member(name, value, redact is None)}" for name, value in row.items())
    return "{" + ", ".join(members) + "}\n"


def _member(name: str, value: Any, as_stored: bool) -> str:
    if name in _JSON and as_stored and value is not None:
        # JSON written by the server, on one line like all jsonb: numbers keep their digits.
        return str(value)
    match value:
        case datetime():
            value = value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case UUID():
            value = str(value)
    return json.dumps(value, ensure_ascii=False)
