"""The statements of the rollup.

This module chooses the pages of history that they read, and the names whose rows they write.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from psycopg import sql

from jobq._core.histograms import BOUNDS, BUCKETS
from jobq._postgres.sql import composed

# The server adds up to 512 pages to a table at once, and fills them later.
SLACK_PAGES = 600
# Most pages read in one run: about 700,000 small rows. Of more pages, a sample of this size is
# read, in up to this many stretches of each partition. Measured: the server needs 0.55 s for a
# million rows, so at most about 0.4 s a minute. A million jobs that finish in a minute are read in
# three runs if all are read.
PAGES = 16_000
STRETCHES = 200
# Number of queues and tasks of one minute that get their own rows.
NAMES = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """Pages `first` to before `end` (None: the last) of one state and day.

    A row stands for `weight`.
    """

    state: str
    since: datetime
    until: datetime
    first: int
    end: int | None
    weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One partition for one day of the counted time: `pages` now, and `before` the time began."""

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
"""The subject of a row: ``queue``, ``task`` or ``part``, and its name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Some:
    """The names to write: those in `among`, or all (None), except those in `aside`."""

    among: list[Name] | None = None
    aside: list[Name] = field(default_factory=list)

    def of(self, kind: str) -> tuple[list[str] | None, list[str]]:
        """Return `among` and `aside` for one kind."""
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


def plan(parts: list[Part], since: datetime, until: datetime) -> list[Stretch]:
    """Return the pages to read.

    These are all that may contain the time, or an even sample of PAGES of them.
    """
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
    """Return the statement that counts `stretches` and writes minutes from `since` to `until`.

    `until` itself is not included.
    """
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


def naming(schema: str, stretches: list[Stretch], since: datetime, until: datetime) -> sql.Composed:
    return composed("rollup_names", schema, rows=_rows(schema, stretches), **_tables(schema, since, until))


def _tables(schema: str, since: datetime, until: datetime) -> dict[str, sql.Composable]:
    return {
        "queue_table": sql.Identifier(schema, "rollup_queue"),
        "task_table": sql.Identifier(schema, "rollup_task"),
        "since": time_literal(since),
        "until": time_literal(until),
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
            time_literal(stretch.since),
            time_literal(stretch.until),
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


def folding(
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
        since=time_literal(times[0]),
        until=time_literal(times[1]),
        some=some.where(of, sql.Identifier(of)),
        depth=sql.SQL("".join(f", {name}" for name in depth)),
        depth_values=sql.SQL("").join(sql.SQL(newest).format(sql.Identifier(name)) for name in depth),
        depth_update=sql.SQL("".join(f", {name} = excluded.{name}" for name in depth)),
        **{
            name: sql.SQL(", ").join(add.format(sql.Identifier(name), sql.Literal(n + 1)) for n in range(BUCKETS))
            for name in ("waits", "runs")
        },
    )


def time_literal(at: datetime) -> sql.Composed:
    """Return `at` as a literal."""
    return sql.SQL("{}::timestamptz").format(sql.Literal(at.isoformat()))
