"""Dead letters in groups: the same task, the same fault."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from psycopg import Connection
from psycopg.rows import dict_row, tuple_row

from jobq.errors import InvalidOption
from jobq.failures import fingerprint, normalise
from jobq.queries.rows import fetch, with_json
from jobq.queries.values import JobRow
from jobq.queries.values_stats import FailureDetail, FailureGroup, Failures
from jobq.sql import statement

_REACH = 10_000
_HOURS = 24
_JOBS = 50
_DIGITS = 12


def failures(conn: Connection[Any], schema: str, *, reach: int = _REACH) -> Failures:
    """Return the newest `reach` (1 to 100,000) dead letters by group, the largest group first.

    "Newest" is by id: by when they were enqueued. Raises InvalidOption for another reach.
    """
    if not 1 <= reach <= 100_000:
        raise InvalidOption(f"reach={reach!r}: give a number between 1 and 100000")
    found, searched, read_at = _group(conn, schema, reach)
    groups = [group.value() for group in found.values()]
    groups.sort(key=lambda group: (-group.count, -group.last_id))
    return Failures(groups=groups, searched=searched, complete=searched < reach, read_at=read_at)


def failure(
    conn: Connection[Any], schema: str, fingerprint: str, *, reach: int = _REACH, limit: int = _JOBS
) -> FailureDetail | None:
    """Return one group among the newest `reach` dead letters, with its newest `limit` jobs; None when there is none.

    Raises InvalidOption for what is no fingerprint.
    """
    if len(fingerprint) != _DIGITS or not set(fingerprint) <= set("0123456789abcdef"):
        raise InvalidOption(f"fingerprint={fingerprint!r}: give the 12 hexadecimal digits of a group of failures")
    found, searched, read_at = _group(conn, schema, reach)
    group = found.get(fingerprint)
    if group is None:
        return None
    rows = fetch(conn, schema, "failure_jobs", {"ids": group.ids[:limit]})
    return FailureDetail(
        group=group.value(),
        jobs=[JobRow(**with_json(row)) for row in rows],
        searched=searched,
        complete=searched < reach,
        read_at=read_at,
    )


@dataclass(slots=True)
class _Group:
    fingerprint: str
    task: str
    sample: str
    first_at: datetime
    last_at: datetime
    last_id: int
    ids: list[int] = field(default_factory=list)
    queues: set[str] = field(default_factory=set)
    trend: list[int] = field(default_factory=lambda: [0] * _HOURS)

    def value(self) -> FailureGroup:
        return FailureGroup(
            fingerprint=self.fingerprint,
            task=self.task,
            error=normalise(self.sample),
            sample=self.sample,
            count=len(self.ids),
            first_at=self.first_at,
            last_at=self.last_at,
            last_id=self.last_id,
            queues=sorted(self.queues),
            trend=self.trend,
        )


def _group(conn: Connection[Any], schema: str, reach: int) -> tuple[dict[str, _Group], int, datetime]:
    with conn.cursor(row_factory=dict_row) as cursor:
        now: datetime = cursor.execute("SELECT statement_timestamp() AS now").fetchall()[0]["now"]
    # Tuples: ten thousand dictionaries would take longer than the statement.
    with conn.cursor(row_factory=tuple_row) as cursor_of_rows:
        rows = cursor_of_rows.execute(statement("failures", schema).query, {"reach": reach}).fetchall()
    hour = now.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
    groups: dict[str, _Group] = {}
    for id, task, queue, error, finished_at in rows:
        name = fingerprint(task, error)
        group = groups.get(name)
        if group is None:
            group = groups[name] = _Group(
                fingerprint=name, task=task, sample=error or "", first_at=finished_at, last_at=finished_at, last_id=id
            )
        group.ids.append(id)
        group.queues.add(queue)
        if finished_at < group.first_at:
            group.first_at = finished_at
        elif finished_at > group.last_at:
            group.last_at = finished_at
        ago = int((hour - finished_at).total_seconds() // 3600)
        if 0 <= ago < _HOURS:
            group.trend[_HOURS - 1 - ago] += 1
    return groups, len(rows), now
