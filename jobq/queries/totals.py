"""The whole at a glance: queues, counts, and the last hour."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import Any

from psycopg import Connection, sql
from psycopg.rows import dict_row

from jobq.filters import JobFilter
from jobq.queries.rest import schema_revision, workers
from jobq.queries.rows import fetch
from jobq.queries.search import search_jobs
from jobq.queries.values import COUNT_LIMIT, Minute, Overview, QueueInfo, Stats, Throughput

# Pages read from the end of one partition: some 50,000 small rows.
_TAIL_PAGES = 1500

# History is only ever appended to, so the last pages of a day's partition are what finished last: the hour
# needs no index on finished_at, which every acknowledgement would pay for.
_TAIL = sql.SQL(
    "SELECT {state} AS state, floor(extract(epoch FROM now() - finished_at) / 60)::integer AS minutes_ago,"
    " count(*) AS number, min(finished_at) AS oldest"
    " FROM {part} WHERE ctid >= {start}::tid AND finished_at > now() - interval '1 hour' GROUP BY 2"
)


def queues(conn: Connection[Any], schema: str) -> list[QueueInfo]:
    """Return every queue that has live jobs, recent dead letters, a worker serving it by name, or a row, by
    name.

    At most 1,000 queues; counts stop at COUNT_LIMIT + 1.
    """
    return [QueueInfo(**row) for row in fetch(conn, schema, "queues", {"bound": COUNT_LIMIT + 1})]


def queue_names(conn: Connection[Any], schema: str) -> list[str]:
    """Return names of queues to choose from, without counting: those with ready jobs, a row, or a worker by name."""
    return [row["name"] for row in fetch(conn, schema, "queue_names", {})]


def overview(conn: Connection[Any], schema: str) -> Overview:
    """Return the state of the whole. Several statements: take them in one REPEATABLE READ transaction for one
    snapshot.
    """
    every = queues(conn, schema)
    counts, aside_complete = _counts(conn, schema, every)
    ages = [queue.oldest_ready_seconds for queue in every if queue.oldest_ready_seconds is not None]
    return Overview(
        counts=counts,
        aside_complete=aside_complete,
        queues=every,
        oldest_ready_seconds=max(ages, default=None),
        workers=workers(conn, schema),
        throughput=throughput(conn, schema),
        failures=search_jobs(conn, schema, JobFilter(states=("failed",)), limit=10).rows,
        revision=schema_revision(conn, schema),
        read_at=_now(conn),
    )


def stats(conn: Connection[Any], schema: str) -> Stats:
    """Return the numbers of :func:`overview`."""
    every = queues(conn, schema)
    counts, _ = _counts(conn, schema, every)
    ages = [queue.oldest_ready_seconds for queue in every if queue.oldest_ready_seconds is not None]
    alive = [worker for worker in workers(conn, schema) if worker.health != "silent"]
    hour = throughput(conn, schema)
    return Stats(
        counts=counts,
        queues=every,
        oldest_ready_seconds=max(ages, default=None),
        workers_alive=len(alive),
        slots=sum(worker.slots for worker in alive),
        finished_last_hour=hour.total,
        failed_last_hour=sum(minute.failed for minute in hour.minutes),
        finished_since=hour.since,
    )


def throughput(conn: Connection[Any], schema: str) -> Throughput:
    """Return what finished in each of the last 60 minutes, read from the end of history.

    In a busier hour than some 50,000 jobs of one state, only its newest part is read and `since` says from
    when.
    """
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
            )
        )
    rows: list[dict[str, Any]] = []
    if parts:
        with conn.cursor(row_factory=dict_row) as cursor:
            rows = cursor.execute(sql.SQL(" UNION ALL ").join(parts)).fetchall()
    counted: Counter[tuple[int, str]] = Counter()
    oldest: dict[str, datetime] = {}
    for row in rows:
        counted[row["minutes_ago"], row["state"]] += row["number"]
        oldest[row["state"]] = min(row["oldest"], oldest.get(row["state"], row["oldest"]))
    # A tail that was cut and does not reach an hour back tells nothing of the time before it.
    reached = {row["state"] for row in rows if row["minutes_ago"] >= 59}
    since = max((oldest[state] for state in cut if state in oldest and state not in reached), default=None)
    minutes = [
        Minute(
            minutes_ago=ago,
            succeeded=counted[ago, "succeeded"],
            failed=counted[ago, "failed"],
            cancelled=counted[ago, "cancelled"],
            expired=counted[ago, "expired"],
        )
        for ago in reversed(range(60))
    ]
    return Throughput(minutes=minutes, since=since)


def _counts(conn: Connection[Any], schema: str, every: list[QueueInfo]) -> tuple[dict[str, int], bool]:
    bound = COUNT_LIMIT + 1
    row = fetch(conn, schema, "overview_counts", {"bound": bound})[0]
    counts = {
        "ready": min(sum(queue.ready for queue in every), bound),
        "scheduled": min(sum(queue.scheduled for queue in every), bound),
        "running": min(sum(queue.running for queue in every), bound),
    }
    names = ("parked", "waiting", "succeeded", "failed", "cancelled", "expired")
    return counts | {name: row[name] for name in names}, row["seen"] < bound


def _now(conn: Connection[Any]) -> datetime:
    with conn.cursor(row_factory=dict_row) as cursor:
        now: datetime = cursor.execute("SELECT clock_timestamp() AS now").fetchall()[0]["now"]
    return now
