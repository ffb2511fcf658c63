"""The data of the charts, as the rollup has counted it. The cost does not grow with the load."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime, timedelta
from typing import Any

from psycopg import Connection, sql
from psycopg.rows import dict_row

from jobq._core import histograms
from jobq._postgres.statements import fetch
from jobq.errors import InvalidOption
from jobq.job import FINISHED_STATES
from jobq.queries.recent_history import read_tail
from jobq.queries.values.stats import Percentiles, Series

# Seconds of a span by the number of hours: 60, 144 and 168 points.
_SPANS = {1: 60, 24: 600, 168: 3600}
_SPARK_POINTS = 30
# Pages read of minutes that are not counted yet: about 10,000 small rows of a state. Busier
# minutes wait for the rollup.
_TAIL_PAGES = 300


def series(
    conn: Connection[Any], schema: str, *, hours: int = 1, queue: str | None = None, task: str | None = None
) -> Series:
    """Return what finished in the last `hours`, how long it waited and ran, and the queue's depth.

    The newest span is not complete. Minutes that the rollup has not counted yet are read from the
    end of the history: the number of jobs, but not their durations (and not by task).

    Args:
        conn: a psycopg connection.
        schema: the schema of jobq's tables.
        hours: 1, 24 or 168.
        queue: only this queue.
        task: only this task.

    Raises:
        InvalidOption: `hours` has another value, or both a queue and a task are given.
    """
    if hours not in _SPANS:
        raise InvalidOption(f"hours={hours!r}: expected one of {', '.join(str(known) for known in _SPANS)}")
    if queue is not None and task is not None:
        raise InvalidOption(
            f"queue={queue!r} and task={task!r}: expected only one of them, because there are no counts by both"
        )
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
        **{name: [row[name] if row else None for row in found] for name in (*FINISHED_STATES, "ready", "oldest_ready")},
        wait_p50=[each.p50 for each in waits],
        wait_p95=[each.p95 for each in waits],
        wait_p99=[each.p99 for each in waits],
        run_p50=[each.p50 for each in runs],
        run_p95=[each.p95 for each in runs],
        run_p99=[each.p99 for each in runs],
    )


def sparklines(conn: Connection[Any], schema: str) -> dict[str, list[int]]:
    """Return the number of jobs that finished in each two minutes of the last hour, by queue.

    Each list has 30 numbers, oldest first. A queue without finished jobs is left out; ``''`` is
    all queues together.
    """
    minute = _now(conn).replace(second=0, microsecond=0)
    lines: defaultdict[str, list[int]] = defaultdict(lambda: [0] * _SPARK_POINTS)
    for row in fetch(conn, schema, "sparklines", {"since": minute - timedelta(hours=1)}):
        if row["number"] and 0 <= row["point"] < _SPARK_POINTS:
            lines[row["queue"]][row["point"]] = int(row["number"])
    return dict(lines)


def latency(conn: Connection[Any], schema: str, queue: str) -> tuple[Percentiles, Percentiles, int, int]:
    """Return `queue`'s waits, runs, finished jobs and failed jobs in the last hour."""
    since = _now(conn) - timedelta(hours=1)
    rows = fetch(conn, schema, "series", {"span": 60, "since": since, "queue": queue, "task": None})
    return (
        _percentiles(histograms.total(row["waits"] for row in rows)),
        _percentiles(histograms.total(row["runs"] for row in rows)),
        sum(row[state] for row in rows for state in FINISHED_STATES),
        sum(row["failed"] for row in rows),
    )


def _uncounted(
    conn: Connection[Any], schema: str, queue: str | None, since: int, last: int
) -> dict[int, dict[str, Any]]:
    """Return the minutes from `since` to `last` (seconds since 1970) from the end of history."""
    begin, end = (datetime.fromtimestamp(at).astimezone() for at in (since, last + 60))
    tail = read_tail(
        conn, schema, now=sql.Literal(end), since=sql.Literal(begin), queue=queue, pages=_TAIL_PAGES
    )  # A minute that was read only in part is left out.
    first = since if tail.since is None else int(tail.since.timestamp() // 60 + 1) * 60
    nothing: dict[str, Any] = {"ready": None, "oldest_ready": None, "waits": [], "runs": []}
    return {
        at: {state: tail.counts[(last - at) // 60, state] for state in FINISHED_STATES} | nothing
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
