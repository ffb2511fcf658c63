"""The maintenance task for the page's charts.

It counts the jobs of each minute from the end of history.

History grows at its end and has no index on `finished_at`, which every acknowledgement would have
to maintain. Each run therefore remembers the number of pages of every partition (`rollup_mark`):
jobs that finish later are behind them. Each run counts the last minutes again and replaces their
earlier counts, because a job becomes visible when its transaction commits, a while after
`finished_at`.

Counted: a row of history that exists when its minute is counted for the last time, SETTLE later. A
job that is redriven after that stays counted, and counts again when it ends again. For a job with
retries, the wait and the run of the last attempt count.

Not counted: a row whose transaction commits more than SETTLE after its `finished_at`; a job that
ended more than STEP before the first run ever, or more than CATCH_UP before the first run after an
outage of all workers; and, in a partition of more than SLACK_PAGES pages from which rows were
deleted (by redrives) and vacuumed, a row that fills the freed space. Above PAGES pages a run, the
counts are estimates from a sample of the pages.

If the database refuses the row of a queue or task, the row is found by halving, set aside, not
counted, and named in the task's error.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

import psycopg
from psycopg import AsyncConnection, sql

from jobq._worker.database import fetch
from jobq._worker.database_errors import ErrorKind, classify
from jobq._worker.faults.set_aside import Incomplete, SetAside, attempted
from jobq._worker.maintenance.rollup_statements import (
    NAMES,
    Name,
    Part,
    Some,
    counting,
    folding,
    naming,
    plan,
    time_literal,
)

Result = TypeVar("Result")

MINUTE = timedelta(minutes=1)
# Minutes are counted again for this long after they have ended.
SETTLE = timedelta(minutes=3)
# The longest time without a run that is made up for: as long as minutes are kept.
CATCH_UP = timedelta(hours=26)
# The longest part of it in one run, also in the first run ever. With a run each minute, a day is
# made up for in a quarter of an hour.
STEP = timedelta(hours=2)
# Entries counted in each lane. The planner estimates deeper queues, at most this many of them.
DEPTH_BOUND = 500
ESTIMATES = 50
# The server ends each statement of the task after this: it must not hold back dead rows for long.
STATEMENT_MS = 10_000


@dataclass(frozen=True, slots=True)
class _Writer:
    """Writes rows of many names, without the refused ones."""

    connection: AsyncConnection[Any]
    aside: SetAside[Name]

    async def write(
        self, write: Callable[[Some], Awaitable[Result]], names: Callable[[], Awaitable[list[Name]]]
    ) -> list[Result]:
        """Call `write` for all names.

        If that is refused, call it for parts of them; `names` lists them.
        """
        left_out = self.aside.keys()

        async def others() -> list[Name]:
            return [name for name in await names() if name not in left_out]

        async def part(of: list[Name]) -> Result:
            return await write(Some(among=of))

        return await self.aside.change_whole(self.connection, lambda: write(Some(aside=left_out)), others, part)


async def rollup(connection: AsyncConnection[Any], schema: str, aside: SetAside[Name] | None = None) -> str:
    """Count the minutes that ended since the last run, and the last minutes again. Return a report.

    Called in a transaction. After all other rows are written, raises Incomplete with the rows set
    `aside`.
    """
    writer = _Writer(connection, aside if aside is not None else SetAside[Name]())
    ((last, until),) = await fetch(connection, schema, "rollup_begin")
    if last is None:
        since = until - STEP
    else:
        since = max(min(last, until) - SETTLE, until - CATCH_UP)
        until = min(until, since + STEP)
    rows = await fetch(connection, schema, "rollup_parts", schema=schema, since=since, until=until)
    parts = [
        Part(name=name, state=state, day=day, pages=pages, before=before) for name, state, day, pages, before, _ in rows
    ]
    stretches = plan(parts, since, until)

    async def count(some: Some) -> int:
        [(number,)] = await _read(connection, counting(schema, stretches, since, until, some))
        return int(number)

    async def names() -> list[Name]:
        return [(of, name) for of, name in await _read(connection, naming(schema, stretches, since, until))]

    counts = await writer.write(count, names)
    await _depths(writer, schema, until - MINUTE)
    for spans in ((600, 60), (3600, 600)):
        for of in ("queue", "task"):
            await _folded(writer, schema, of, spans, (since, until - MINUTE))
    await _marks(writer, schema, rows, until)

    async def prune() -> None:
        await fetch(connection, schema, "rollup_prune")

    kept = ""
    try:
        await attempted(connection, prune)
    except psycopg.Error as error:
        if classify(error, connection) is ErrorKind.CONNECTION:
            raise
        kept = f"no old row deleted: {str(error).strip()}"
    minutes = round((until - since) / MINUTE)
    about = "about " if any(stretch.weight > 1 for stretch in stretches) else ""
    report = f"{about}{max(counts, default=0)} jobs in {minutes} minutes" + (", from a sample" if about else "")
    if kept:
        refused = writer.aside.refused("row")
        raise Incomplete(f"{report}; {kept}" + (f"; refused: {refused}" if refused else ""))
    return writer.aside.report(report, "row")


async def _read(connection: AsyncConnection[Any], query: sql.Composed) -> list[tuple[Any, ...]]:
    await _limit(connection)
    cursor = await connection.execute(query, prepare=False)
    return await cursor.fetchall() if cursor.description is not None else []


async def _marks(writer: _Writer, schema: str, rows: list[tuple[Any, ...]], counted: datetime) -> None:
    async def mark(some: Some) -> None:
        among, aside = some.of("part")
        kept = [row for row in rows if (among is None or row[0] in among) and row[0] not in aside]
        await fetch(
            writer.connection, schema, "rollup_marks",
            counted=counted, parts=[row[0] for row in kept], ats=[row[5] for row in kept], pages=[row[3] for row in kept],
        )  # fmt: skip

    async def names() -> list[Name]:
        return [("part", row[0]) for row in rows]

    await writer.write(mark, names)


async def _folded(
    writer: _Writer, schema: str, of: str, spans: tuple[int, int], times: tuple[datetime, datetime]
) -> None:
    async def fold(some: Some) -> None:
        await _read(writer.connection, folding(schema, of, spans, times, some))

    async def names() -> list[Name]:
        query = sql.SQL("SELECT DISTINCT {} FROM {} WHERE span = {} AND at >= {} - interval '1 hour'").format(
            sql.Identifier(of), sql.Identifier(schema, f"rollup_{of}"), sql.Literal(spans[1]), time_literal(times[0])
        )
        return [(of, name) for (name,) in await _read(writer.connection, query)]

    await writer.write(fold, names)


async def _limit(connection: AsyncConnection[Any]) -> None:
    # For the transaction. Behind a pooler, each `fetch` sets its connection's own limits again.
    await connection.execute("SELECT set_config('statement_timeout', %s, true)", (f"{STATEMENT_MS}ms",))


async def _depths(writer: _Writer, schema: str, at: datetime) -> None:
    connection = writer.connection
    found = await fetch(connection, schema, "rollup_depth", bound=DEPTH_BOUND)
    deep = sorted((row for row in found if row[2]), key=lambda row: -row[1])[:ESTIMATES]
    ready = {queue: int(number) for queue, number, _, _ in found}
    for queue, number, _, _ in deep:
        ready[queue] = max(int(number), await _estimate(connection, schema, queue))
    oldest: dict[str, float | None] = {queue: max(seconds, 0.0) for queue, _, _, seconds in found}
    most = sorted(ready, key=lambda queue: -ready[queue])[:NAMES]
    ages = [age for age in oldest.values() if age is not None]
    depths = {
        "": (min(sum(ready.values()), 2**31 - 1), max(ages, default=None)),
        **{queue: (min(ready[queue], 2**31 - 1), oldest[queue]) for queue in most},
    }

    async def write(some: Some) -> None:
        among, aside = some.of("queue")
        queues = [queue for queue in (depths if among is None else among) if queue in depths and queue not in aside]
        await fetch(
            connection, schema, "rollup_depths", at=at, queues=queues, ready=[depths[queue][0] for queue in queues],
            oldest=[depths[queue][1] for queue in queues], aside=aside, among=among,
        )  # fmt: skip

    async def names() -> list[Name]:
        query = sql.SQL("SELECT queue FROM {} WHERE span = 60 AND at = {}").format(
            sql.Identifier(schema, "rollup_queue"), time_literal(at)
        )
        return [("queue", queue) for queue in {*depths, *(queue for (queue,) in await _read(connection, query))}]

    await writer.write(write, names)


async def _estimate(connection: AsyncConnection[Any], schema: str, queue: str) -> int:
    """Return the planner's estimate of due jobs in `queue`, from the last ANALYZE."""
    query = sql.SQL(
        "EXPLAIN (FORMAT JSON) SELECT FROM {} WHERE state IN ('ready', 'waiting') AND queue = {} AND run_at <= now()"
    ).format(sql.Identifier(schema, "job"), sql.Literal(queue))
    ((plan,),) = await (await connection.execute(query, prepare=False)).fetchall()
    return int(plan[0]["Plan"]["Plan Rows"])
