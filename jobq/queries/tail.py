"""The last minutes, read from the end of history: what the rollup chore has not counted yet.

History is only ever appended to, so the last pages of a day's partition are what finished last: this needs no index on
finished_at, which every acknowledgement would pay for.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import Connection, sql
from psycopg.rows import dict_row

from jobq.queries.rows import fetch

# Pages read from the end of one partition: some 50,000 small rows.
_TAIL_PAGES = 1500

_TAIL = sql.SQL(
    "SELECT {state} AS state, greatest(floor(extract(epoch FROM {now} - finished_at) / 60), 0)::integer AS minutes_ago,"
    " count(*) AS number, min(finished_at) AS oldest"
    " FROM {part} WHERE ctid >= {start}::tid AND finished_at >= {since} AND {queue} GROUP BY 2"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tail:
    """How many jobs finished, by minutes ago and state. `since` is set when what was read does not reach an hour back."""

    counts: Counter[tuple[int, str]]
    since: datetime | None


def read_tail(
    conn: Connection[Any], schema: str, *, now: sql.Composable, since: sql.Composable, queue: str | None = None
) -> Tail:
    """Return what finished since `since` (of `queue`, or of all), by the minutes before `now`; both are SQL."""
    parts: list[sql.Composable] = []
    cut: set[str] = set()
    for tail in fetch(conn, schema, "history_tails", {"schema": schema}):
        if not tail["pages"]:
            continue
        start = max(tail["pages"] - _TAIL_PAGES, 0)
        if start:
            cut.add(tail["state"])
        parts.append(
            _TAIL.format(
                state=sql.Literal(tail["state"]),
                part=sql.Identifier(schema, tail["name"]),
                start=sql.Literal(f"({start},0)"),
                now=now,
                since=since,
                queue=sql.SQL("true") if queue is None else sql.SQL("queue = {}").format(sql.Literal(queue)),
            )
        )
    rows: list[dict[str, Any]] = []
    if parts:
        with conn.cursor(row_factory=dict_row) as cursor:
            rows = cursor.execute(sql.SQL(" UNION ALL ").join(parts)).fetchall()
    counts: Counter[tuple[int, str]] = Counter()
    oldest: dict[str, datetime] = {}
    for row in rows:
        counts[row["minutes_ago"], row["state"]] += row["number"]
        oldest[row["state"]] = min(row["oldest"], oldest.get(row["state"], row["oldest"]))
    # A tail that was cut and does not reach an hour back tells nothing of the time before it.
    reached = {row["state"] for row in rows if row["minutes_ago"] >= 59}
    return Tail(
        counts=counts,
        since=max((oldest[state] for state in cut if state in oldest and state not in reached), default=None),
    )
