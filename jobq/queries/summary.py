"""The overview: queues, counts, and the last hour."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString

from psycopg import Connection, sql
from psycopg.rows import dict_row, tuple_row

from jobq._postgres.statements import fetch
from jobq.filters import JobFilter
from jobq.job import FINISHED_STATES
from jobq.queries.fleet import schema_revision, workers
from jobq.queries.groups import take_settings
from jobq.queries.recent_history import Tail, read_tail
from jobq.queries.search import search_jobs
from jobq.queries.values import COUNT_LIMIT, Minute, Overview, QueueInfo, Stats, Throughput

# Index entries counted over all queues, for each of ready and scheduled: about 10 ms.
_BUDGET = 20_000

# Sources of the planner's estimate for a count that was stopped.
_LIVE: dict[str, LiteralString] = {
    "ready": "state = 'ready' AND run_at <= now()",
    "scheduled": "state = 'ready' AND run_at > now()",
    "running": "state = 'running'",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CountedQueues:
    """The queues, and `totals`.

    `totals` has the jobs by state (ready, scheduled) in all queues, up to COUNT_LIMIT + 1.
    """

    queues: list[QueueInfo]
    totals: dict[str, int]


def queues(conn: Connection[Any], schema: str) -> list[QueueInfo]:
    """Return the queues by name, at most 5,000.

    A queue is listed if it has live jobs, recent dead letters, a worker that serves it by name, or
    a row. Counts stop at COUNT_LIMIT + 1, or sooner if there are many queues
    (`QueueInfo.counted_to`).
    """
    return counted_queues(conn, schema).queues


def queue_names(conn: Connection[Any], schema: str) -> list[str]:
    """Return queue names to choose from, without counting.

    These are queues with ready jobs, with a row, or with a worker that serves them by name.
    """
    return [row["name"] for row in fetch(conn, schema, "queue_names", {})]


def overview(
    conn: Connection[Any], schema: str, *, lists: bool = True, counted: CountedQueues | None = None
) -> Overview:
    """Return the overview. It runs several statements: for one snapshot, use REPEATABLE READ.

    Without `lists`, `throughput` and `failures` are not read; :func:`series` and :func:`failures`
    give more detail. `counted`: the queues, if they have been counted already.
    """
    counted = counted_queues(conn, schema) if counted is None else counted
    every, totals = counted.queues, counted.totals
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
        due=_due(every, totals),
    )


def stats(conn: Connection[Any], schema: str) -> Stats:
    """Return the numbers of :func:`overview`."""
    counted = counted_queues(conn, schema)
    every, totals = counted.queues, counted.totals
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
        due=_due(every, totals),
    )


def throughput(conn: Connection[Any], schema: str) -> Throughput:
    """Return the jobs that finished in each of the last 60 minutes.

    The rollup has counted most minutes. Minutes that it has not counted yet are read from the end
    of the history, up to about 50,000 jobs of one state. If no worker keeps rollups, all minutes
    are read from there: in a busier hour only the newest part, and `since` says from when.
    """
    rows = fetch(conn, schema, "throughput_last_hour", {})
    if not rows:
        tail = read_tail(conn, schema, now=sql.SQL("now()"), since=sql.SQL("now() - interval '1 hour'"))
        return Throughput(minutes=_minutes(tail), since=tail.since)
    # Full minutes of the clock, as in the rollup.
    until = rows[0]["until"]
    tail = read_tail(conn, schema, now=sql.Literal(rows[0]["now_until"]), since=sql.Literal(until))
    rolled = {row["minutes_ago"]: row for row in rows}
    minutes = [
        Minute(minutes_ago=ago, **{state: rolled[ago][state] for state in FINISHED_STATES}) if ago in rolled else minute
        for ago, minute in ((minute.minutes_ago, minute) for minute in _minutes(tail))
    ]
    return Throughput(minutes=minutes, since=None)


def _minutes(seen: Tail) -> list[Minute]:
    return [
        Minute(minutes_ago=ago, **{state: seen.counts[ago, state] for state in FINISHED_STATES})
        for ago in reversed(range(60))
    ]


def _due(every: list[QueueInfo], totals: dict[str, int]) -> int:
    return totals["ready"] + sum(queue.due - queue.ready for queue in every)


def counted_queues(conn: Connection[Any], schema: str) -> CountedQueues:
    """Return the queues, and the number of ready and scheduled jobs over all queues."""
    totals = {"ready": 0, "scheduled": 0}
    every = []
    for row in fetch(conn, schema, "queues", {"bound": COUNT_LIMIT + 1, "budget": _BUDGET}):
        totals = {state: row.pop(f"{state}_total") for state in totals}
        settings = take_settings(row)
        every.append(QueueInfo(**row, settings=settings))
    return CountedQueues(queues=every, totals=totals)


def _counts(
    conn: Connection[Any], schema: str, every: list[QueueInfo], totals: dict[str, int]
) -> tuple[dict[str, int], bool]:
    bound = COUNT_LIMIT + 1
    # Successes are only appended, and removed by whole days: if the planner knows of many, there
    # are many. Any number of jobs in the other states may just have been run again.
    known = {row["state"]: row["number"] for row in fetch(conn, schema, "finished_estimates", {"schema": schema})}
    many = known.get("succeeded", 0) > 2 * bound
    row = fetch(conn, schema, "overview_counts", {"bound": bound, "succeeded": not many})[0]
    if many:
        row["succeeded"] = bound
    counts = totals | {"running": min(sum(queue.running for queue in every), bound)}
    names = ("parked", "waiting", *FINISHED_STATES)
    return counts | {name: row[name] for name in names}, row["seen"] < bound


def _estimates(conn: Connection[Any], schema: str, counts: dict[str, int]) -> dict[str, int]:
    """Return the planner's estimates for states with more jobs than were counted."""
    many = {state for state, number in counts.items() if number > COUNT_LIMIT}
    found: dict[str, int] = {}
    if many & set(FINISHED_STATES):
        rows = fetch(conn, schema, "finished_estimates", {"schema": schema})
        found = {row["state"]: row["number"] for row in rows if row["state"] in many}
    for state in many & set(_LIVE):
        query = sql.SQL("EXPLAIN (FORMAT JSON) SELECT FROM {} WHERE {}").format(
            sql.Identifier(schema, "job"), sql.SQL(_LIVE[state])
        )
        with conn.cursor(row_factory=tuple_row) as cursor:
            ((plan,),) = cursor.execute(query).fetchall()
        found[state] = int(plan[0]["Plan"]["Plan Rows"])
    # There are more jobs than were counted.
    return {state: max(number, COUNT_LIMIT + 1) for state, number in found.items()}


def _now(conn: Connection[Any]) -> datetime:
    with conn.cursor(row_factory=dict_row) as cursor:
        now: datetime = cursor.execute("SELECT clock_timestamp() AS now").fetchall()[0]["now"]
    return now
