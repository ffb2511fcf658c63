"""The chore behind the page's charts: what finished in each minute, counted from the end of history.

History grows at its end and has no index on `finished_at`, which every acknowledgement would pay for. So each run remembers how
many pages every partition had (`rollup_mark`): what finished since stands behind them. Each run counts the last minutes
once more and replaces what it said of them, since a job shows when its transaction commits, a while after `finished_at`.

What is counted: a row of history that is there when its minute is counted for the last time, some SETTLE later. A job redriven
after that stays counted, and counts again when it ends again. Of a job with retries, the last attempt's wait and run.

What is not: a row whose transaction commits more than SETTLE after its `finished_at`; what ended more than STEP before the
first run ever, or more than CATCH_UP before the first run after an outage of all workers; and in a partition of more than
SLACK_PAGES pages from which rows were deleted (by redrives) and vacuumed, a row that fills the space they left. Above PAGES
pages a run, the counts are estimates from a sample of them.

Nor is the row of a queue or a task that the database refuses: it is found by halving, set aside, and named in the chore's
error.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import psycopg
from psycopg import AsyncConnection, sql

from jobq.histograms import BOUNDS, BUCKETS
from jobq.sql import composed
from jobq.worker.database import fetch
from jobq.worker.errors import ErrorKind, classify
from jobq.worker.partitions import Incomplete
from jobq.worker.setaside import SetAside, attempted

Result = TypeVar("Result")

MINUTE = timedelta(minutes=1)
# Minutes are counted again for this long after they have ended.
SETTLE = timedelta(minutes=3)
# Of the time without a run so much is made up for: as long as minutes are kept.
CATCH_UP = timedelta(hours=26)
# At most so much of it in one run: a run each minute makes up for a day in a quarter of an hour. The first run ever, too.
STEP = timedelta(hours=2)
# The server adds up to 512 pages to a table at once, and fills them when it comes to it.
SLACK_PAGES = 600
# Most pages read in one run: some 700,000 small rows. Of more, a sample of so many is read, in up to so many stretches
# of each partition. Measured: 0.55 s of the server's time for a million rows read, so at most some 0.4 s a minute; a million
# that finish in a minute are read in three runs when all are read.
PAGES = 16_000
STRETCHES = 200
# Queues and tasks of one minute that get a row of their own.
NAMES = 1_000
# Entries counted of each lane; deeper queues are estimated by the planner, at most so many of them.
DEPTH_BOUND = 500
ESTIMATES = 50
# The server ends each statement of the chore after this: it must not hold dead rows for long.
STATEMENT_MS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """Pages `first` to before `end` (None: to the end) of one state's rows of one day; a row of them stands for `weight`."""

    state: str
    since: datetime
    until: datetime
    first: int
    end: int | None
    weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One partition for one day of the time to be counted: `pages` now, and `before` the time began."""

    name: str
    state: str
    day: datetime
    pages: int
    before: int

    @property
    def first(self) -> int:
        """The first page to read."""
        return max(min(self.before, self.pages) - SLACK_PAGES, 0)


Name = tuple[str, str]
"""What a row is about: ``queue``, ``task`` or ``part``, and its name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Some:
    """Which names are written: those `among`, or all (None), but those `aside`."""

    among: list[Name] | None = None
    aside: list[Name] = field(default_factory=list)

    def of(self, kind: str) -> tuple[list[str] | None, list[str]]:
        """Return both of one kind."""
        aside = [name for of, name in self.aside if of == kind]
        return None if self.among is None else [name for of, name in self.among if of == kind], aside

    def where(self, kind: str, column: sql.Composable) -> sql.Composable:
        """Return the condition that `column` has one of these names."""
        among, aside = self.of(kind)
        if among is not None:
            return sql.SQL("{} = ANY ({}::text[])").format(column, sql.Literal(among))
        return sql.SQL("{} <> ALL ({}::text[])").format(column, sql.Literal(aside)) if aside else sql.SQL("true")


ALL = Some()
_QUEUE = sql.SQL("coalesce(queue, '')")
_TASK = sql.SQL("task")


@dataclass(frozen=True, slots=True)
class _Writer:
    """Writes rows of many names, without those that are refused."""

    connection: AsyncConnection[Any]
    aside: SetAside[Name]

    async def write(
        self, write: Callable[[Some], Awaitable[Result]], names: Callable[[], Awaitable[list[Name]]]
    ) -> list[Result]:
        """Call `write` for all names; or, when that is refused, for parts of them, of which `names` tells."""
        left_out = self.aside.keys()

        async def others() -> list[Name]:
            return [name for name in await names() if name not in left_out]

        async def part(of: list[Name]) -> Result:
            return await write(Some(among=of))

        return await self.aside.change_whole(self.connection, lambda: write(Some(aside=left_out)), others, part)


async def rollup(connection: AsyncConnection[Any], schema: str, aside: SetAside[Name] | None = None) -> str:
    """Count the minutes that have ended since the last time, and the last ones before once more. Returns a report.

    Called in a transaction. Raises Incomplete, when all others are written, with the rows that are left `aside`.
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
        return [(of, name) for of, name in await _read(connection, _names(schema, stretches, since, until))]

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
        await _read(writer.connection, _fold(schema, of, spans, times, some))

    async def names() -> list[Name]:
        query = sql.SQL("SELECT DISTINCT {} FROM {} WHERE span = {} AND at >= {} - interval '1 hour'").format(
            sql.Identifier(of), sql.Identifier(schema, f"rollup_{of}"), sql.Literal(spans[1]), _time(times[0])
        )
        return [(of, name) for (name,) in await _read(writer.connection, query)]

    await writer.write(fold, names)


async def _limit(connection: AsyncConnection[Any]) -> None:
    # For the transaction. Behind a pooler each `fetch` sets its connection's own limits again.
    await connection.execute("SELECT set_config('statement_timeout', %s, true)", (f"{STATEMENT_MS}ms",))


def plan(parts: list[Part], since: datetime, until: datetime) -> list[Stretch]:
    """Return which pages to read: all that may hold the time, or an even sample of PAGES of them."""
    sizes = [part.pages - part.first for part in parts]
    small = [size <= 2 * SLACK_PAGES for size in sizes]
    whole = sum(sizes) <= PAGES
    large_pages = sum(size for size, is_small in zip(sizes, small, strict=True) if not is_small)
    stretches: list[Stretch] = []
    for part, size, is_small in zip(parts, sizes, small, strict=True):
        day = part.day.astimezone(UTC)
        lower, upper = max(day, since), min(day + timedelta(days=1), until)
        if not size or lower >= upper:
            continue
        if whole or is_small:
            stretches.append(
                Stretch(state=part.state, since=lower, until=upper, first=part.first, end=None, weight=1.0)
            )
            continue
        wanted = max(PAGES * size // large_pages, 1)
        number = min(STRETCHES, wanted)
        length = wanted // number
        for n in range(number):
            first = part.first + (2 * n + 1) * size // (2 * number) - length // 2
            stretches.append(
                Stretch(
                    state=part.state, since=lower, until=upper, first=first, end=first + length,
                    weight=size / (number * length),
                )
            )  # fmt: skip
    return stretches


def counting(schema: str, stretches: list[Stretch], since: datetime, until: datetime, some: Some = ALL) -> sql.Composed:
    """Return the statement that counts the rows of `stretches` and writes the minutes from `since` to before `until`."""
    counts = sql.SQL("coalesce(sum(n) FILTER (WHERE {} = {}), 0)::integer")
    columns = {
        f"{name}s": sql.SQL(", ").join(counts.format(sql.Identifier(name), sql.Literal(n)) for n in range(BUCKETS))
        for name in ("wait", "run")
    }
    bounds = ",".join(repr(bound) for bound in BOUNDS)
    return composed(
        "rollup_write",
        schema,
        rows=_rows(schema, stretches),
        bounds=sql.SQL("{}::double precision[]").format(sql.Literal(f"{{{bounds}}}")),
        names=sql.Literal(NAMES),
        some_queues=some.where("queue", _QUEUE),
        some_tasks=some.where("task", _TASK),
        **_tables(schema, since, until),
        **columns,
    )


def _names(schema: str, stretches: list[Stretch], since: datetime, until: datetime) -> sql.Composed:
    return composed("rollup_names", schema, rows=_rows(schema, stretches), **_tables(schema, since, until))


def _tables(schema: str, since: datetime, until: datetime) -> dict[str, sql.Composable]:
    return {
        "queue_table": sql.Identifier(schema, "rollup_queue"),
        "task_table": sql.Identifier(schema, "rollup_task"),
        "since": _time(since),
        "until": _time(until),
    }


def _rows(schema: str, stretches: list[Stretch]) -> sql.Composed:
    rows: list[sql.Composable] = [
        sql.SQL(
            "SELECT state, {}::double precision AS weight, queue, task, run_at, started_at, finished_at FROM {}"
            " WHERE state = {} AND finished_at >= {} AND finished_at < {} AND ctid >= {}::tid"
        ).format(
            sql.Literal(stretch.weight),
            sql.Identifier(schema, "job_history"),
            sql.Literal(stretch.state),
            _time(stretch.since),
            _time(stretch.until),
            sql.Literal(f"({stretch.first},0)"),
        )
        + (
            sql.SQL("")
            if stretch.end is None
            else sql.SQL(" AND ctid < {}::tid").format(sql.Literal(f"({stretch.end},0)"))
        )
        for stretch in stretches
    ]
    nothing = sql.SQL(
        "SELECT ''::text AS state, 1::double precision AS weight, ''::text AS queue, ''::text AS task,"
        " now() AS run_at, now() AS started_at, now() AS finished_at WHERE false"
    )
    return sql.SQL(" UNION ALL ").join(rows or [nothing])


def _fold(
    schema: str, of: str, spans: tuple[int, int], times: tuple[datetime, datetime], some: Some = ALL
) -> sql.Composed:
    span, shorter = spans
    newest = ", (array_agg({0} ORDER BY at DESC) FILTER (WHERE ready IS NOT NULL))[1]"
    depth = ("ready", "oldest_ready_seconds") if of == "queue" else ()
    add = sql.SQL("coalesce(sum({}[{}]), 0)::integer")
    return composed(
        "rollup_fold",
        schema,
        table=sql.Identifier(schema, f"rollup_{of}"),
        of=sql.Identifier(of),
        span=sql.Literal(span),
        shorter=sql.Literal(shorter),
        width=sql.SQL("{}::interval").format(sql.Literal(f"{span} seconds")),
        since=_time(times[0]),
        until=_time(times[1]),
        some=some.where(of, sql.Identifier(of)),
        depth=sql.SQL("".join(f", {name}" for name in depth)),
        depth_values=sql.SQL("").join(sql.SQL(newest).format(sql.Identifier(name)) for name in depth),
        depth_update=sql.SQL("".join(f", {name} = excluded.{name}" for name in depth)),
        **{
            name: sql.SQL(", ").join(add.format(sql.Identifier(name), sql.Literal(n + 1)) for n in range(BUCKETS))
            for name in ("waits", "runs")
        },
    )


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
            sql.Identifier(schema, "rollup_queue"), _time(at)
        )
        return [("queue", queue) for queue in {*depths, *(queue for (queue,) in await _read(connection, query))}]

    await writer.write(write, names)


async def _estimate(connection: AsyncConnection[Any], schema: str, queue: str) -> int:
    """Return how many jobs of `queue` the planner takes to be due: by the statistics of the last ANALYZE."""
    query = sql.SQL(
        "EXPLAIN (FORMAT JSON) SELECT FROM {} WHERE state IN ('ready', 'waiting') AND queue = {} AND run_at <= now()"
    ).format(sql.Identifier(schema, "job"), sql.Literal(queue))
    ((plan,),) = await (await connection.execute(query, prepare=False)).fetchall()
    return int(plan[0]["Plan"]["Plan Rows"])


def _time(at: datetime) -> sql.Composed:
    return sql.SQL("{}::timestamptz").format(sql.Literal(at.isoformat()))
