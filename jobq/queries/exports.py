"""Jobs as lines of JSON (NDJSON), with all that is known of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from psycopg import Connection
from psycopg.pq import TransactionStatus

from jobq.errors import InvalidOption
from jobq.filters import JobFilter
from jobq.queries.rows import fetch, with_json
from jobq.queries.search import Search

# Of payloads, as stored, that one statement brings: rows may have megabytes each.
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
    """Yield the jobs that fit, newest first, each as a JSON object and a newline; at most `limit` (default: all).

    Times are ISO 8601 in UTC. `redact` is given arguments, headers and result, and returns what to write instead (default:
    they are written as stored, to the last digit; with it, numbers are what Python makes of them). No transaction is open
    while a line is in the caller's hands, however slow: a job that changes meanwhile is written as it is when its turn
    comes, and none twice.

    Raises InvalidOption when `conn` has a transaction open, or for a limit below 1.
    """
    if limit is not None and limit < 1:
        raise InvalidOption(f"limit={limit!r}: give a number of at least 1, or None for all")
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
        # Each look is a transaction of its own, and none is open at a yield.
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
    """Yield the ids in portions that are not too large, or single."""
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
        # JSON by the server, on one line as all jsonb is: numbers keep their digits.
        return str(value)
    match value:
        case datetime():
            value = value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case UUID():
            value = str(value)
    return json.dumps(value, ensure_ascii=False)
