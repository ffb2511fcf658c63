"""The whole at a glance: queues, counts, and the last hour."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import Any, LiteralString

from psycopg import Connection, sql
from psycopg.rows import dict_row, tuple_row

from jobq.filters import HISTORY_STATES, JobFilter
from jobq.queries.rest import schema_revision, workers
from jobq.queries.rows import fetch
from jobq.queries.search import search_jobs
from jobq.queries.values import COUNT_LIMIT, Minute, Overview, QueueInfo, Stats, Throughput

# Pages read from the end of one partition: some 50,000 small rows.
_TAIL_PAGES = 1500

# Entries of the claim index that all queues together count, for each of ready and scheduled: some 20 ms.
_BUDGET = 50_000

# Where the planner's number stands for a count that was given up.
_LIVE: dict[str, LiteralString] = {
    "ready": "state = 'ready' AND run_at <= now()",
    "scheduled": "state = 'ready' AND run_at > now()",
    "running": "state = 'running'",
}

# History is only ever appended to, so the last pages of a day's partition are what finished last: the hour
# needs no index on finished_at, which every acknowledgement would pay for.
_TAIL = sql.SQL(
    "SELECT {state} AS state, greatest(floor(extract(epoch FROM {now} - finished_at) / 60), 0)::integer AS minutes_ago,"
    " count(*) AS number, min(finished_at) AS oldest"
    " FROM {part} WHERE ctid >= {start}::tid AND finished_at >= {since} GROUP BY 2"
)


def queues(conn: Connection[Any], schema: str) -> list[QueueInfo]:
    """Return every queue that has live jobs, recent dead letters, a worker serving it by name, or a row, by
    name.

    At most 1,000 queues; counts stop at COUNT_LIMIT + 1, or sooner where there are many queues (`QueueInfo.counted_to`).
    """
    return _queues(conn, schema)[0]


def queue_names(conn: Connection[Any], schema: str) -> list[str]:
    """Return names of queues to choose from, without counting: those with ready jobs, a row, or a worker by name."""
    return [row["name"] for row in fetch(conn, schema, "queue_names", {})]


def overview(conn: Connection[Any], schema: str, *, lists: bool = True) -> Overview:
    """Return the state of the whole. Several statements: take them in one REPEATABLE READ transaction for one
    snapshot. Without `lists`, `throughput` and `failures` are not read: :func:`series` and :func:`failures` say more.
    """
    every, totals = _queues(conn, schema)
    counts, aside_complete = _counts(conn, schema, every, totals)
    ages = [queue.oldest_ready_seconds for queue in every if queue.oldest_ready_seconds is not None]
    return Overview(
        counts=counts,
        aside_complete=aside_complete,
        queues=every,
        oldest_ready_seconds=max(ages, default=None),
        workers=workers(conn, schema),
        throughput=throughput(conn, schema) if lists else None,
        failures=search_jobs(conn, schema, JobFilter(states=("failed",)), limit=10).rows if lists else [],
        revision=schema_revision(conn, schema),
        read_at=_now(conn),
        estimates=_estimates(conn, schema, counts),
    )


def stats(conn: Connection[Any], schema: str) -> Stats:
    """Return the numbers of :func:`overview`."""
    every, totals = _queues(conn, schema)
    counts, _ = _counts(conn, schema, every, totals)
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
        estimates=_estimates(conn, schema, counts),
    )


def throughput(conn: Connection[Any], schema: str) -> Throughput:
    """Return what finished in each of the last 60 minutes: as the rollup chore counted it, and the minutes that it has not
    counted yet from the end of history, up to some 50,000 jobs of one state.

    Where no worker keeps rollups, all is read from there: in a busier hour only its newest part, and `since` says from when.
    """
    rows = fetch(conn, schema, "rolled_hour", {})
    if not rows:
        now = sql.SQL("now()")
        return _read_tail(conn, schema, now=now, since=sql.SQL("now() - interval '1 hour'"))
    # Whole minutes of the clock, as they were counted.
    until = rows[0]["until"]
    tail = _read_tail(conn, schema, now=sql.Literal(rows[0]["now_until"]), since=sql.Literal(until))
    rolled = {row["minutes_ago"]: row for row in rows}
    minutes = [
        Minute(minutes_ago=ago, **{state: rolled[ago][state] for state in HISTORY_STATES}) if ago in rolled else minute
        for ago, minute in ((minute.minutes_ago, minute) for minute in tail.minutes)
    ]
    return Throughput(minutes=minutes, since=None)


def _read_tail(conn: Connection[Any], schema: str, *, now: sql.Composable, since: sql.Composable) -> Throughput:
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
    seen_since = max((oldest[state] for state in cut if state in oldest and state not in reached), default=None)
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
    return Throughput(minutes=minutes, since=seen_since)


def _queues(conn: Connection[Any], schema: str) -> tuple[list[QueueInfo], dict[str, int]]:
    """Return the queues, and how many jobs are ready and scheduled in all of them together."""
    totals = {"ready": 0, "scheduled": 0}
    every = []
    for row in fetch(conn, schema, "queues", {"bound": COUNT_LIMIT + 1, "budget": _BUDGET}):
        totals = {state: row.pop(f"{state}_total") for state in totals}
        every.append(QueueInfo(**row))
    return every, totals


def _counts(
    conn: Connection[Any], schema: str, every: list[QueueInfo], totals: dict[str, int]
) -> tuple[dict[str, int], bool]:
    bound = COUNT_LIMIT + 1
    # Successes are only ever appended, and go by whole days: where the planner knows of many, there are many. Of the other
    # states any number may just have been run again.
    known = {row["state"]: row["number"] for row in fetch(conn, schema, "finished_estimates", {"schema": schema})}
    many = known.get("succeeded", 0) > 2 * bound
    row = fetch(conn, schema, "overview_counts", {"bound": bound, "succeeded": not many})[0]
    if many:
        row["succeeded"] = bound
    counts = totals | {"running": min(sum(queue.running for queue in every), bound)}
    names = ("parked", "waiting", "succeeded", "failed", "cancelled", "expired")
    return counts | {name: row[name] for name in names}, row["seen"] < bound


def _estimates(conn: Connection[Any], schema: str, counts: dict[str, int]) -> dict[str, int]:
    """Return the planner's numbers for the states of which there are more than is counted."""
    many = {state for state, number in counts.items() if number > COUNT_LIMIT}
    found: dict[str, int] = {}
    if many & set(HISTORY_STATES):
        rows = fetch(conn, schema, "finished_estimates", {"schema": schema})
        found = {row["state"]: row["number"] for row in rows if row["state"] in many}
    for state in many & set(_LIVE):
        query = sql.SQL("EXPLAIN (FORMAT JSON) SELECT FROM {} WHERE {}").format(
            sql.Identifier(schema, "job"), sql.SQL(_LIVE[state])
        )
        with conn.cursor(row_factory=tuple_row) as cursor:
            ((plan,),) = cursor.execute(query).fetchall()
        found[state] = int(plan[0]["Plan"]["Plan Rows"])
    # More than was counted there are.
    return {state: max(number, COUNT_LIMIT + 1) for state, number in found.items()}


def _now(conn: Connection[Any]) -> datetime:
    with conn.cursor(row_factory=dict_row) as cursor:
        now: datetime = cursor.execute("SELECT clock_timestamp() AS now").fetchall()[0]["now"]
    return now
