"""Jobs that match a filter, live and finished in one list, newest first.

Pages go by id, or by finish time if all jobs have finished (`finished.py`). Where an index leads to
the jobs, it is used: a list by state alone, running jobs, a short queue, jobs of a queue that wait
for their group, given ids. Every other filter reads one window of jobs after the other, newest
first, and stops at its reach: no search takes longer because the tables are larger.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from psycopg import Connection, sql
from psycopg.rows import dict_row

from jobq._postgres.sql import composed
from jobq._postgres.statements import fetch
from jobq.errors import InvalidOption
from jobq.filters import MAX_ID, JobFilter
from jobq.job import LIVE_STATES
from jobq.queries.cursor import Cursor
from jobq.queries.finished import FinishedSearch, order_of
from jobq.queries.jobs import with_json
from jobq.queries.page_limit import check_limit
from jobq.queries.values import JobPage, JobRow

REACH = 100_000
# Jobs read by one statement: few at first, because their arguments may be large; more while
# reading takes less than this.
_FIRST_WINDOW = 500
_LAST_WINDOW = 25_000
_QUICK = 0.1
# After this many seconds a search ends with the window, whatever its reach: a partial answer soon.
_PATIENCE = 0.35
# If there are at most this many running jobs, or jobs of a queue, all of them are read.
_FEW = 5_000
# Rows of one statement if all are wanted.
PAGE = 1000

# Each side has its own limit, so both are read in the order of ids and merged only as far as
# needed.
_SIDE = sql.SQL("(SELECT id FROM {} WHERE {} AND id < %(before)s::bigint ORDER BY id DESC LIMIT %(size)s)")
_AMONG = sql.SQL("AND id = ANY (%(among)s::bigint[])")


@dataclass(frozen=True, slots=True)
class Window:
    """Ids from `floor` to before `before`, with `number` jobs to look at (0: not counted)."""

    floor: int
    before: int
    number: int


def list_jobs(
    conn: Connection[Any],
    schema: str,
    jobs: JobFilter | None = None,
    *,
    limit: int = 50,
    before_id: int | None = None,
    order: str | None = None,
) -> list[JobRow]:
    """Return up to `limit` (at most 1,000) matching jobs, newest first, searching without a bound.

    `before_id` selects jobs with a lower id, in a list by id only. `order` is as for
    :func:`search_jobs`. Raises InvalidOption for a limit out of range, or an impossible order.
    """
    rows: list[JobRow] = []
    cursor = None if before_id is None else Cursor(before_id)
    while True:
        page = search_jobs(conn, schema, jobs, limit=limit - len(rows), before=cursor, order=order)
        rows += page.rows
        cursor = page.before
        if cursor is None or len(rows) >= limit:
            return rows


def search_jobs(
    conn: Connection[Any],
    schema: str,
    jobs: JobFilter | None = None,
    *,
    limit: int = 50,
    before_id: int | None = None,
    before: Cursor | None = None,
    order: str | None = None,
    reach: int = REACH,
) -> JobPage:
    """Like :func:`list_jobs`, but with a bounded search: return where to continue.

    The search takes about half a second at most.

    Args:
        conn: a psycopg connection.
        schema: the schema of jobq's tables.
        jobs: the filter; None: all jobs.
        limit: most rows.
        before_id: like `before`, for a list by id.
        before: the `before` of the previous page; it continues that list in its order.
        order: ``id`` (enqueued last comes first) or ``finished`` (finished last comes first;
            finished jobs only). Default: ``finished`` if only finished jobs match and the
            succeeded ones among them are few enough to sort, else ``id``.
        reach: most jobs to look at. A larger reach finds older jobs and takes longer. Finished
            jobs of other states are not looked at and do not count.

    Raises:
        InvalidOption: a limit or a reach is out of range, or the order is impossible.
    """
    jobs = jobs or JobFilter()
    if before is None and before_id is not None:
        before = Cursor(before_id)
    check_limit(limit)
    if reach < 1:
        raise InvalidOption(f"reach={reach!r}: expected a number of at least 1")
    if order_of(conn, schema, jobs, order, before) == "finished":
        return _by_finish(conn, schema, jobs, limit=limit, before=before, reach=reach)
    before_id = None if before is None else before.id
    search = Search(conn, schema, jobs)
    rows: list[JobRow] = []
    searched, floor = 0, None
    for window in search.windows(before_id, reach=reach, patience=_PATIENCE):
        # One more row than requested shows whether anything is left.
        rows += search.rows(window, limit - len(rows) + 1)
        if len(rows) > limit:
            last = rows[limit - 1].id
            return JobPage(rows=rows[:limit], before_id=last, complete=True, searched=searched, floor_id=last)
        searched, floor = searched + window.number, window.floor or None
    complete = floor is None or len(rows) >= limit
    return JobPage(rows=rows, before_id=floor, complete=complete, searched=searched, floor_id=floor)


def _by_finish(
    conn: Connection[Any], schema: str, jobs: JobFilter, *, limit: int, before: Cursor | None, reach: int
) -> JobPage:
    search = FinishedSearch(conn, schema, jobs)
    rows: list[JobRow] = []
    searched, floor = 0, None
    for span in search.spans(before, reach=reach, patience=_PATIENCE):
        rows += search.rows(span, limit - len(rows) + 1)
        if len(rows) > limit:
            last = rows[limit - 1]
            return JobPage(
                rows=rows[:limit], before_id=last.id, before_at=last.finished_at, complete=True, searched=searched,
                floor_id=last.id, order="finished",
            )  # fmt: skip
        searched, floor = searched + span.number, span.floor
    complete = floor is None or len(rows) >= limit
    id, at = (None, None) if floor is None else (floor.id, floor.at)
    return JobPage(
        rows=rows, before_id=id, before_at=at, complete=complete, searched=searched, floor_id=id, order="finished"
    )


class Search:
    """A search with one filter on one connection; it reads no more than requested.

    Each statement may be a separate transaction.
    """

    def __init__(self, conn: Connection[Any], schema: str, jobs: JobFilter) -> None:
        self._conn = conn
        self._schema = schema
        self._jobs = jobs
        self._sides = [live for live in (True, False) if jobs.reads(live)]
        self._among: list[int] | None = None
        live, live_params = jobs.conditions(True)
        finished, finished_params = jobs.conditions(False)
        self._parts = {"live": live, "finished": finished}
        self._params = live_params | finished_params

    def windows(
        self, before_id: int | None = None, *, reach: int | None = None, patience: float | None = None
    ) -> Iterator[Window]:
        """Yield the ranges to search, newest first.

        The search covers at most `reach` jobs and takes about `patience` seconds. If nothing is
        left below the last window, its floor is 0.
        """
        before = MAX_ID if before_id is None else before_id
        if not self._sides:
            return
        self._among = self._few()
        if self._among is not None or self._by_state:
            yield Window(0, before, len(self._among or ()))
            return
        began = last = time.monotonic()
        size, left = _FIRST_WINDOW, reach
        while before > 0:
            size = size if left is None else min(size, left)
            window = self._next(before, size)
            yield window
            before = window.floor
            now = time.monotonic()
            left = None if left is None else left - window.number
            if left == 0 or (patience is not None and now - began > patience):
                return
            size = min(size * 4, _LAST_WINDOW) if now - last < _QUICK else max(size // 2, _FIRST_WINDOW)
            last = now

    def rows(self, window: Window, limit: int) -> list[JobRow]:
        """Return the first `limit` matching jobs in `window`."""
        among = None
        if self._jobs.failure is not None:
            among = list(islice(self._ids(window), limit))
        found = self._fetch("search_page", window, limit, among)
        return [JobRow(**with_json(row)) for row in found]

    def page(self, window: Window) -> tuple[list[dict[str, Any]], Window | None]:
        """Return `id` and `size` of matching jobs in `window`, and the rest of the window.

        `size` is the size of the stored payloads in bytes.
        """
        found = self._fetch("search_ids", window, PAGE, None)
        rest = Window(window.floor, found[-1]["id"], 0) if len(found) == PAGE else None
        return [row for row in found if self._jobs.accepts(row)], rest

    def _ids(self, window: Window | None) -> Iterator[int]:
        while window is not None:
            found, window = self.page(window)
            yield from (row["id"] for row in found)

    def _fetch(self, name: str, window: Window, limit: int, among: list[int] | None) -> list[dict[str, Any]]:
        params = self._params | {"floor": window.floor, "before": window.before, "limit": limit}
        among = self._among if among is None else among
        clause = sql.SQL("") if among is None else _AMONG
        return self._run(name, params | {"among": among}, among=clause, **self._parts)

    @property
    def _by_state(self) -> bool:
        # Each state of the history has its own table; live jobs share one table.
        live = set(self._jobs.wanted_states) & set(LIVE_STATES)
        return self._jobs == JobFilter(states=self._jobs.states) and live in (set(), set(LIVE_STATES))

    def _few(self) -> list[int] | None:
        """Return the ids that an index leads to, if they are few and include every match."""
        states = set(self._jobs.wanted_states)
        if self._jobs.ids:
            return list(self._jobs.ids)
        if states == {"running"}:
            found = fetch(self._conn, self._schema, "search_running", {"worker": self._jobs.worker, "limit": _FEW + 1})
        elif states == {"waiting"} and isinstance(self._jobs.queue, str):
            group = self._jobs.group if isinstance(self._jobs.group, str) else None
            name = "search_waiting" if group is None else "search_group"
            params = {"queue": self._jobs.queue, "group": group, "limit": _FEW + 1}
            found = fetch(self._conn, self._schema, name, params)
        elif states <= {"ready", "scheduled"} and isinstance(self._jobs.queue, str):
            found = fetch(self._conn, self._schema, "search_lane", {"queue": self._jobs.queue, "limit": _FEW + 1})
        else:
            return None
        return [row["id"] for row in found] if len(found) <= _FEW else None

    def _next(self, before: int, size: int) -> Window:
        partitions, params = self._jobs.partitions()
        sides = {
            True: _SIDE.format(sql.Identifier(self._schema, "job"), sql.SQL("true")),
            False: _SIDE.format(sql.Identifier(self._schema, "job_history"), partitions),
        }
        either = sql.SQL(" UNION ALL ").join(sides[live] for live in self._sides)
        found = self._run("search_window", params | {"before": before, "size": size}, sides=either)[0]
        return Window(found["floor"] if found["number"] == size else 0, before, found["number"])

    def _run(self, name: str, params: dict[str, Any], **parts: sql.Composable) -> list[dict[str, Any]]:
        with self._conn.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(composed(name, self._schema, **parts), params).fetchall()
