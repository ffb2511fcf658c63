"""The last minutes, read from the end of the history: minutes that the rollup has not counted yet.

History is only appended to, so the last pages of a day's partition hold the jobs that finished
last. No index on finished_at is needed, which every acknowledgement would have to maintain.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import Connection, sql
from psycopg.rows import dict_row

from jobq._postgres.statements import fetch

# Pages read from the end of one partition: about 50,000 small rows.
_TAIL_PAGES = 1500

_TAIL = sql.SQL(
    # Older jobs (-1) and jobs of other queues (NULL) are not counted; they show how far these pages
    # reach back.
    "SELECT {name} AS part, {state} AS state, CASE WHEN finished_at < {since} THEN -1 WHEN {queue} THEN"
    " greatest(floor(extract(epoch FROM {now} - finished_at) / 60), 0)::integer END AS minutes_ago,"
    " count(*) AS number, min(finished_at) AS oldest"
    " FROM {part} WHERE ctid >= {start}::tid GROUP BY 3"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tail:
    """How many jobs finished, by minutes ago and state.

    `since` is set if the rows read do not reach as far back as requested.
    """

    counts: Counter[tuple[int, str]]
    since: datetime | None


def read_tail(
    conn: Connection[Any],
    schema: str,
    *,
    now: sql.Composable,
    since: sql.Composable,
    queue: str | None = None,
    pages: int | None = None,
) -> Tail:
    """Return the jobs that finished since `since`, by the minutes before `now`.

    Args:
        conn: a psycopg connection.
        schema: the schema of jobq's tables.
        now: the current time, as SQL.
        since: the earliest time, as SQL.
        queue: only this queue; None: all queues.
        pages: pages read of each partition (default: 1,500, about 50,000 small rows).
    """
    most = _TAIL_PAGES if pages is None else pages
    parts: list[sql.Composable] = []
    cut: set[str] = set()
    for tail in fetch(conn, schema, "history_tails", {"schema": schema}):
        if not tail["pages"]:
            continue
        start = max(tail["pages"] - most, 0)
        if start:
            cut.add(tail["name"])
        parts.append(
            _TAIL.format(
                name=sql.Literal(tail["name"]),
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
    reached: set[str] = set()
    for row in rows:
        if row["minutes_ago"] == -1:
            reached.add(row["part"])
        elif row["minutes_ago"] is not None:
            counts[row["minutes_ago"], row["state"]] += row["number"]
        oldest[row["part"]] = min(row["oldest"], oldest.get(row["part"], row["oldest"]))
    # A truncated tail without older rows says nothing about the time before it.
    return Tail(
        counts=counts,
        since=max((oldest[part] for part in cut if part in oldest and part not in reached), default=None),
    )
