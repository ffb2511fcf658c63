"""Finished jobs ordered by finish time, latest first.

Recent failures are on top, however old the job.

Pages go by (finished_at, id), which is unique and never changes. Jobs that finish meanwhile come
before the first page, so the next pages neither lose nor repeat a row. As in a search by id, a
filter without an index reads one window after the other.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC
from typing import Any

from psycopg import Connection, sql
from psycopg.rows import dict_row

from jobq._core.validation import check_choice
from jobq._postgres.sql import composed
from jobq._postgres.statements import fetch
from jobq.errors import InvalidOption
from jobq.filters import MAX_ID, JobFilter
from jobq.job import FINISHED_STATES
from jobq.queries.cursor import Cursor
from jobq.queries.jobs import with_json
from jobq.queries.values import JobRow

ORDERS = ("id", "finished")
# For succeeded jobs: about 200,000 small ones, read in less than 0.1 s.
_MOST_PAGES = 6_000
_FIRST_WINDOW = 500
_LAST_WINDOW = 25_000
_QUICK = 0.1
_CHUNK = 500


def order_of(
    conn: Connection[Any], schema: str, jobs: JobFilter, order: str | None = None, before: Cursor | None = None
) -> str:
    """Return the order of a list.

    This is the requested order, or the cursor's order. The default is ``finished`` if only finished
    jobs match, they are not selected by ids, and the succeeded jobs among them are few enough to
    sort; otherwise it is ``id``.

    Raises InvalidOption if ``finished`` is impossible, or the cursor has another order.
    """
    if order is not None:
        check_choice("order", order, ORDERS)
    if order is None and before is not None:
        order = "id" if before.at is None else "finished"
    if before is not None and (before.at is not None) != (order == "finished"):
        raise InvalidOption(f"before={str(before)!r}: that goes on with a list in another order than {order}")
    if order == "id":
        return order
    if jobs.reads(live=True):
        if order is None:
            return "id"
        raise InvalidOption(
            "order='finished': jobs that have not finished fit the filter, too; say which states, of "
            + ", ".join(FINISHED_STATES)
        )
    if order is None and jobs.ids:
        return "id"
    # A list that was begun in this order may be finished in it while more jobs succeed.
    if _pages(conn, schema, jobs, before) <= _MOST_PAGES * (1 if before is None else 4):
        return "finished"
    if order is None:
        return "id"
    raise InvalidOption(
        "order='finished': too many jobs have succeeded to sort them by when they finished; leave out state:succeeded, or take "
        "the order id"
    )


def _pages(conn: Connection[Any], schema: str, jobs: JobFilter, before: Cursor | None) -> int:
    if "succeeded" not in jobs.wanted_states:
        return 0
    day = None if before is None or before.at is None else before.at.astimezone(UTC).strftime("%Y%m%d")
    found: int = fetch(conn, schema, "succeeded_pages", {"schema": schema, "day": day})[0]["pages"]
    return found


@dataclass(frozen=True, slots=True)
class Span:
    """Finished jobs from `floor` (None: the oldest) to before `before` (None: the newest).

    There are `number` of them.
    """

    floor: Cursor | None
    before: Cursor | None
    number: int


class FinishedSearch:
    """A search with one filter in the order of finish times, on one connection."""

    def __init__(self, conn: Connection[Any], schema: str, jobs: JobFilter) -> None:
        self._conn = conn
        self._schema = schema
        self._jobs = jobs
        self._finished, self._params = jobs.conditions(live=False)

    def spans(
        self, before: Cursor | None = None, *, reach: int | None = None, patience: float | None = None
    ) -> Iterator[Span]:
        """Yield the ranges to search, newest first.

        The search covers at most `reach` jobs and takes about `patience` seconds. If nothing is
        left below the last span, it has no floor.
        """
        if not self._jobs.reads(live=False):
            return
        if self._jobs in (JobFilter(states=self._jobs.states), JobFilter(states=self._jobs.states, ids=self._jobs.ids)):
            yield Span(None, before, 0)
            return
        began = last = time.monotonic()
        size, left = _FIRST_WINDOW, reach
        while True:
            size = size if left is None else min(size, left)
            span = self._next(before, size)
            yield span
            before = span.floor
            now = time.monotonic()
            left = None if left is None else left - span.number
            if before is None or left == 0 or (patience is not None and now - began > patience):
                return
            size = min(size * 4, _LAST_WINDOW) if now - last < _QUICK else max(size // 2, _FIRST_WINDOW)
            last = now

    def rows(self, span: Span, limit: int) -> list[JobRow]:
        """Return the first `limit` matching jobs in `span`."""
        if self._jobs.failure is None:
            return [JobRow(**with_json(row)) for row in self._page(span, limit)]
        found: list[JobRow] = []
        # Conditions that SQL cannot express are checked here.
        while len(found) < limit:
            chunk = self._page(span, _CHUNK)
            found += [JobRow(**with_json(row)) for row in chunk if self._jobs.accepts(row)]
            if len(chunk) < _CHUNK:
                break
            span = Span(span.floor, Cursor(chunk[-1]["id"], chunk[-1]["finished_at"]), 0)
        return found[:limit]

    def _page(self, span: Span, limit: int) -> list[dict[str, Any]]:
        floor = span.floor or Cursor(0)
        params = self._params | _before(span.before) | {"limit": limit}
        params |= {"floor_at": "-infinity" if floor.at is None else floor.at.isoformat(), "floor_id": floor.id}
        return self._run("finished_page", params, finished=self._finished)

    def _next(self, before: Cursor | None, size: int) -> Span:
        partitions, params = self._jobs.partitions()
        params = params | _before(before) | {"size": size}
        found = self._run("finished_window", params, partitions=partitions)[0]
        floor = Cursor(found["floor_id"], found["floor_at"]) if found["number"] == size else None
        return Span(floor, before, found["number"])

    def _run(self, name: str, params: dict[str, Any], **parts: sql.Composable) -> list[dict[str, Any]]:
        with self._conn.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(composed(name, self._schema, **parts), params).fetchall()


def _before(before: Cursor | None) -> dict[str, Any]:
    at = None if before is None else before.at
    return {
        "before_at": "infinity" if at is None else at.isoformat(),
        "before_id": MAX_ID if before is None else before.id,
    }
