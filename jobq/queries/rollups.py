"""Charts' numbers, from what the rollup chore has counted (`jobq.worker.rollup`). They cost the same whatever the load."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime, timedelta
from typing import Any

from psycopg import Connection, sql
from psycopg.rows import dict_row

from jobq import histograms
from jobq.errors import InvalidOption
from jobq.queries.rows import fetch
from jobq.queries.tail import read_tail
from jobq.queries.values_stats import Percentiles, Series

# How long a span is, by how many hours are asked for: 60, 144 and 168 points.
_SPANS = {1: 60, 24: 600, 168: 3600}
_SPARK_POINTS = 30
# So much is read of the minutes that are not counted yet: some 10,000 small rows of a state. Busier ones wait for the chore.
_TAIL_PAGES = 300
_STATES = ("succeeded", "failed", "cancelled", "expired")


def series(
    conn: Connection[Any], schema: str, *, hours: int = 1, queue: str | None = None, task: str | None = None
) -> Series:
    """Return what finished in the last `hours` (1, 24 or 168), how long it waited and ran, and the queue's depth.

    Of one queue, of one task, or of all. The newest span is not over yet. The minutes that the chore has not counted so
    far are read from the end of history: how many finished, and not how long they took (not by task). Raises
    InvalidOption for other hours, and for both a queue and a task.
    """
    if hours not in _SPANS:
        raise InvalidOption(f"hours={hours!r}: give one of {', '.join(str(known) for known in _SPANS)}")
    if queue is not None and task is not None:
        raise InvalidOption(f"queue={queue!r} and task={task!r}: give one of them; there are no counts by both")
    span = _SPANS[hours]
    now = _now(conn).timestamp()
    last = int(now // span) * span
    times = range(last - (hours * 3600 // span - 1) * span, last + 1, span)
    params = {"span": span, "since": datetime.fromtimestamp(times[0]).astimezone(), "queue": queue or "", "task": task}
    rows = {row["at"]: row for row in fetch(conn, schema, "series", params)}
    if span == 60 and task is None:
        rows |= _uncounted(conn, schema, queue, max(rows, default=times[0] - 60) + 60, last)
    found = [rows.get(at) for at in times]
    waits, runs = ([_percentiles(row[name]) if row else _NONE for row in found] for name in ("waits", "runs"))
    return Series(
        span=span,
        at=list(times),
        **{name: [row[name] if row else None for row in found] for name in (*_STATES, "ready", "oldest_ready")},
        wait_p50=[each.p50 for each in waits],
        wait_p95=[each.p95 for each in waits],
        wait_p99=[each.p99 for each in waits],
        run_p50=[each.p50 for each in runs],
        run_p95=[each.p95 for each in runs],
        run_p99=[each.p99 for each in runs],
    )


def sparklines(conn: Connection[Any], schema: str) -> dict[str, list[int]]:
    """Return how many jobs of each queue finished in each two minutes of the last hour: 30 numbers, oldest first.

    Queues of which none finished are not there; ``''`` is all queues together.
    """
    minute = _now(conn).replace(second=0, microsecond=0)
    lines: defaultdict[str, list[int]] = defaultdict(lambda: [0] * _SPARK_POINTS)
    for row in fetch(conn, schema, "sparklines", {"since": minute - timedelta(hours=1)}):
        if row["number"] and 0 <= row["point"] < _SPARK_POINTS:
            lines[row["queue"]][row["point"]] = int(row["number"])
    return dict(lines)


def latency(conn: Connection[Any], schema: str, queue: str) -> tuple[Percentiles, Percentiles, int, int]:
    """Return the last hour's waits, runs, number of finished and number of failed jobs of `queue`."""
    since = _now(conn) - timedelta(hours=1)
    rows = fetch(conn, schema, "series", {"span": 60, "since": since, "queue": queue, "task": None})
    return (
        _percentiles(histograms.total(row["waits"] for row in rows)),
        _percentiles(histograms.total(row["runs"] for row in rows)),
        sum(row[state] for row in rows for state in _STATES),
        sum(row["failed"] for row in rows),
    )


def _uncounted(
    conn: Connection[Any], schema: str, queue: str | None, since: int, last: int
) -> dict[int, dict[str, Any]]:
    """Return the minutes from `since` to `last`, both in seconds since 1970, as the end of history has them."""
    begin, end = (datetime.fromtimestamp(at).astimezone() for at in (since, last + 60))
    tail = read_tail(conn, schema, now=sql.Literal(end), since=sql.Literal(begin), queue=queue, pages=_TAIL_PAGES)
    # Of a minute of which a part was not read, nothing is said.
    first = since if tail.since is None else int(tail.since.timestamp() // 60 + 1) * 60
    nothing: dict[str, Any] = {"ready": None, "oldest_ready": None, "waits": [], "runs": []}
    return {
        at: {state: tail.counts[(last - at) // 60, state] for state in _STATES} | nothing
        for at in range(max(first, last - 3600), last + 1, 60)
    }


_NONE = Percentiles(p50=None, p95=None, p99=None)


def _percentiles(counts: list[int]) -> Percentiles:
    p50, p95, p99 = (histograms.percentile(counts, share) for share in (0.5, 0.95, 0.99))
    return Percentiles(p50=p50, p95=p95, p99=p99)


def _now(conn: Connection[Any]) -> datetime:
    with conn.cursor(row_factory=dict_row) as cursor:
        now: datetime = cursor.execute("SELECT statement_timestamp() AS now").fetchall()[0]["now"]
    return now
