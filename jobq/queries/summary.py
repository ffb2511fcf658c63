"""The whole at a glance: queues, counts, and the last hour."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString

from psycopg import Connection, sql
from psycopg.rows import dict_row, tuple_row

from jobq.filters import HISTORY_STATES, JobFilter
from jobq.queries.groups import take_settings
from jobq.queries.rest import schema_revision, workers
from jobq.queries.rows import fetch
from jobq.queries.search import search_jobs
from jobq.queries.tail import Tail, read_tail
from jobq.queries.values import COUNT_LIMIT, Minute, Overview, QueueInfo, Stats, Throughput

# Entries of the claim index that all queues together count, for each of ready and scheduled: some 10 ms.
_BUDGET = 20_000

# Where the planner's number stands for a count that was given up.
_LIVE: dict[str, LiteralString] = {
    "ready": "state = 'ready' AND run_at <= now()",
    "scheduled": "state = 'ready' AND run_at > now()",
    "running": "state = 'running'",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CountedQueues:
    """The queues, and `totals`: jobs by state (ready, scheduled) in all of them together, counted up to COUNT_LIMIT + 1."""

    queues: list[QueueInfo]
    totals: dict[str, int]


def queues(conn: Connection[Any], schema: str) -> list[QueueInfo]:
    """Return every queue that has live jobs, recent dead letters, a worker serving it by name, or a row, by
    name.

    At most 5,000 queues; counts stop at COUNT_LIMIT + 1, or sooner where there are many queues (`QueueInfo.counted_to`).
    """
    return counted_queues(conn, schema).queues


def queue_names(conn: Connection[Any], schema: str) -> list[str]:
    """Return names of queues to choose from, without counting: those with ready jobs, a row, or a worker by name."""
    return [row["name"] for row in fetch(conn, schema, "queue_names", {})]


def overview(
    conn: Connection[Any], schema: str, *, lists: bool = True, counted: CountedQueues | None = None
) -> Overview:
    """Return the state of the whole. Several statements: take them in one REPEATABLE READ transaction for one
    snapshot. Without `lists`, `throughput` and `failures` are not read: :func:`series` and :func:`failures` say more.
    `counted`: the queues, where they have been counted already.
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
    """Return what finished in each of the last 60 minutes: as the rollup chore counted it, and the minutes that it has not
    counted yet from the end of history, up to some 50,000 jobs of one state.

    Where no worker keeps rollups, all is read from there: in a busier hour only its newest part, and `since` says from when.
    """
    rows = fetch(conn, schema, "rolled_hour", {})
    if not rows:
        tail = read_tail(conn, schema, now=sql.SQL("now()"), since=sql.SQL("now() - interval '1 hour'"))
        return Throughput(minutes=_minutes(tail), since=tail.since)
    # Whole minutes of the clock, as they were counted.
    until = rows[0]["until"]
    tail = read_tail(conn, schema, now=sql.Literal(rows[0]["now_until"]), since=sql.Literal(until))
    rolled = {row["minutes_ago"]: row for row in rows}
    minutes = [
        Minute(minutes_ago=ago, **{state: rolled[ago][state] for state in HISTORY_STATES}) if ago in rolled else minute
        for ago, minute in ((minute.minutes_ago, minute) for minute in _minutes(tail))
    ]
    return Throughput(minutes=minutes, since=None)


def _minutes(seen: Tail) -> list[Minute]:
    return [
        Minute(minutes_ago=ago, **{state: seen.counts[ago, state] for state in HISTORY_STATES})
        for ago in reversed(range(60))
    ]


def _due(every: list[QueueInfo], totals: dict[str, int]) -> int:
    return totals["ready"] + sum(queue.due - queue.ready for queue in every)


def counted_queues(conn: Connection[Any], schema: str) -> CountedQueues:
    """Return the queues, and how many jobs are ready and scheduled in all of them together."""
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
