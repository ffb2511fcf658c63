"""The jobs of a bulk operation: read in windows of ids, as the filter stood when it was created."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import Connection, sql
from psycopg.rows import dict_row

from jobq._postgres.statements import fetch
from jobq.filters import MAX_ID, JobFilter

# Ids looked at by one statement, because a filter has no index of its own.
WINDOW = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSelection:
    """A selection of jobs at one moment: filtered by state and age at `at`, with ids up to `up_to`.

    Jobs that match later are not included: jobs that have finished or been put back since, and
    (if only running jobs are selected) jobs that have started since.
    """

    jobs: JobFilter
    at: datetime
    up_to: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The next jobs of a selection, and the id up to which all jobs have been looked at."""

    ids: list[int]
    after: int


def newest_id(conn: Connection[Any], schema: str) -> int:
    """Return the highest id of a job, live or finished; -1 if there is none."""
    found: int | None = fetch(conn, schema, "max_id_below", {"before": MAX_ID})[0]["id"]
    return -1 if found is None else found


def next_jobs(
    conn: Connection[Any], schema: str, wanted: JobSelection, *, after: int, limit: int, seconds: float = 0.5
) -> Found:
    """Return the next jobs above `after`, oldest first, at most `limit`.

    There may be fewer if the search takes longer than `seconds`. If no jobs are left, `Found.after`
    is `wanted.up_to`.
    """
    until = time.monotonic() + seconds
    while True:
        found = _window(conn, schema, wanted, after, limit)
        if found.ids or found.after >= wanted.up_to or time.monotonic() > until:
            return found
        after = found.after


def all_jobs(conn: Connection[Any], schema: str, wanted: JobSelection, *, limit: int) -> Iterator[Found]:
    """Yield the results of :func:`next_jobs` until no jobs are left."""
    after = -1
    while after < wanted.up_to:
        found = next_jobs(conn, schema, wanted, after=after, limit=limit)
        after = found.after
        yield found


def count(conn: Connection[Any], schema: str, wanted: JobSelection, *, bound: int, seconds: float) -> tuple[int, bool]:
    """Return the number of jobs, and whether it is complete.

    Counting stops at `bound`, or after about `seconds`.
    """
    until = time.monotonic() + seconds
    total = 0
    for found in all_jobs(conn, schema, wanted, limit=WINDOW):
        total += len(found.ids)
        if found.after >= wanted.up_to and total <= bound:
            return total, True
        if total > bound or time.monotonic() > until:
            return min(total, bound), False
    return total, True


def _window(conn: Connection[Any], schema: str, wanted: JobSelection, after: int, limit: int) -> Found:
    jobs = wanted.jobs
    last = wanted.up_to
    if jobs.ids:
        after, last = max(after, jobs.ids[0] - 1), min(last, jobs.ids[-1])
    # Skip gaps in the ids instead of reading them window by window.
    above = fetch(conn, schema, "next_id_above", {"after": after})[0]["id"] if after < last else None
    if above is None or above > last:
        return Found(ids=[], after=wanted.up_to)
    end = min(above - 1 + WINDOW, last)
    found: dict[int, dict[str, Any]] = {}
    cut = end
    # Live jobs first: a job that finishes between the two reads is seen by both, and a job that is
    # put back came later.
    for live in (True, False):
        page = _read(conn, schema, wanted, live=live, after=above - 1, last=end, limit=limit)
        if len(page) == limit:
            cut = min(cut, page[-1]["id"])
        found |= {row["id"]: row for row in page}
    ids = sorted(id for id in found if id <= cut)
    if len(ids) > limit:
        ids, cut = ids[:limit], ids[limit - 1]
    ids = [id for id in ids if jobs.accepts(found[id])]
    return Found(ids=ids, after=wanted.up_to if cut >= last else cut)


def _read(
    conn: Connection[Any], schema: str, wanted: JobSelection, *, live: bool, after: int, last: int, limit: int
) -> list[dict[str, Any]]:
    """Read a window. Plan: job_pkey, or job_history_id_idx of the partitions, `after` to `last`."""
    fits, params = wanted.jobs.conditions(live, at=wanted.at)
    if fits == sql.SQL("false"):
        return []
    if live:
        began = wanted.jobs.wanted_states == ("running",)
        since = sql.SQL("(started_at IS NULL OR started_at <= %(at)s)" if began else "true")
    else:
        since = sql.SQL("finished_at <= %(at)s")
    query = sql.SQL(
        "SELECT id{more} FROM {table} WHERE id > %(after)s AND id <= %(last)s AND {fits} AND {since}"
        " ORDER BY id LIMIT %(limit)s"
    ).format(
        # The columns that JobFilter.accepts needs.
        more=sql.SQL(", task, left(error, 500) AS error" if wanted.jobs.failure is not None else ""),
        table=sql.Identifier(schema, "job" if live else "job_history"),
        fits=fits,
        since=since,
    )
    bounds = {"at": wanted.at, "after": after, "last": last, "limit": limit}
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query, params | bounds).fetchall()
