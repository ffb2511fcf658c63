"""Dead letters in groups: the same task, the same fault."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from psycopg import Connection
from psycopg.rows import dict_row, tuple_row

from jobq.errors import InvalidOption
from jobq.failures import fingerprint, normalise
from jobq.queries.rows import fetch, with_json
from jobq.queries.values import JobRow
from jobq.queries.values_stats import FailureDetail, FailureGroup, Failures
from jobq.sql import statement

FAILURE_SORTS = ("jobs", "first", "last", "task", "error")
_REACH = 10_000
_HOURS = 24
_JOBS = 50
_DIGITS = 12
_HOUR = 3_600_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class _Text:
    task: str
    queue: str
    fingerprint: str
    sample: str


class KnownFailures:
    """What the errors of dead letters were made of by an earlier read, so that the next one reads and compares new ones only.

    For one database; several threads may share it. It keeps some 500 bytes for each dead letter of the last read.
    """

    def __init__(self) -> None:
        self._texts: dict[tuple[int, int], _Text] = {}

    def learn(self, conn: Connection[Any], schema: str, rows: Sequence[tuple[int, int]]) -> list[_Text | None]:
        """Return what is known of each (id, microseconds) of `rows`, newest first, after reading what is not; None for one that
        is gone meanwhile.
        """
        texts = self._texts
        unknown = [row[1] for row in rows if row not in texts]
        if unknown:
            params = {"since": min(unknown), "until": max(unknown), "limit": len(rows)}
            with conn.cursor(row_factory=tuple_row) as cursor:
                found = cursor.execute(statement("failure_texts", schema).query, params).fetchall()
            texts = texts | {
                (id, micros): _Text(task, queue, fingerprint(task, error), error or "")
                for id, micros, task, queue, error in found
                if (id, micros) not in texts
            }
        if unknown or len(texts) > len(rows):
            texts = {row: texts[row] for row in rows if row in texts}
            # Another thread's may take its place: both are true.
            self._texts = texts
        return [texts.get(row) for row in rows]


def failures(
    conn: Connection[Any],
    schema: str,
    *,
    reach: int = _REACH,
    known: KnownFailures | None = None,
    text: str = "",
    sort: str = "jobs",
    descending: bool = True,
    offset: int = 0,
    limit: int | None = None,
) -> Failures:
    """Return the newest `reach` (1 to 100,000) dead letters by group: of the groups whose task, error or a queue has `text` in
    it (in whatever case) at most `limit`, after `offset` of them, the largest first or by `sort`, one of FAILURE_SORTS.

    "Newest" is by when they failed. With `known`, kept from one call to the next, only what is new is read in full. Raises
    InvalidOption for another reach or sort.
    """
    if not 1 <= reach <= 100_000:
        raise InvalidOption(f"reach={reach!r}: give a number between 1 and 100000")
    if sort not in FAILURE_SORTS:
        raise InvalidOption(f"sort={sort!r}: give one of {', '.join(FAILURE_SORTS)}")
    groups, searched, read_at = _group(conn, schema, reach, known)
    found = list(groups.values())
    if wanted := text.casefold():
        found = [group for group in found if group.has(wanted)]
    found.sort(key=lambda group: group.last, reverse=True)
    found.sort(key=_SORTS[sort], reverse=descending)
    hour = _next_hour(read_at)
    end = None if limit is None else offset + limit
    return Failures(
        groups=[group.value(hour) for group in found[offset:end]],
        number=len(found),
        total=len(groups),
        searched=searched,
        complete=searched < reach,
        read_at=read_at,
    )


def failure(
    conn: Connection[Any],
    schema: str,
    fingerprint: str,
    *,
    reach: int = _REACH,
    limit: int = _JOBS,
    known: KnownFailures | None = None,
) -> FailureDetail | None:
    """Return one group among the newest `reach` dead letters, with its newest `limit` jobs; None when there is none.

    Raises InvalidOption for what is no fingerprint.
    """
    if len(fingerprint) != _DIGITS or not set(fingerprint) <= set("0123456789abcdef"):
        raise InvalidOption(f"fingerprint={fingerprint!r}: give the 12 hexadecimal digits of a group of failures")
    found, searched, read_at = _group(conn, schema, reach, known)
    group = found.get(fingerprint)
    if group is None:
        return None
    rows = fetch(conn, schema, "failure_jobs", {"ids": [id for id, _ in group.rows[:limit]]})
    return FailureDetail(
        group=group.value(_next_hour(read_at)),
        jobs=[JobRow(**with_json(row)) for row in rows],
        searched=searched,
        complete=searched < reach,
        read_at=read_at,
    )


@dataclass(slots=True)
class _Group:
    newest: _Text
    # Each with when it failed, newest first.
    rows: list[tuple[int, int]] = field(default_factory=list)
    queues: set[str] = field(default_factory=set)

    @property
    def last(self) -> tuple[int, int]:
        """When it failed last, and the job."""
        id, micros = self.rows[0]
        return micros, id

    def has(self, text: str) -> bool:
        """Whether it has `text`, which is in casefold, anywhere that a list shows."""
        shown = (self.newest.task, self.newest.sample, *self.queues)
        return any(text in one.casefold() for one in shown)

    def value(self, hour: int) -> FailureGroup:
        trend = [0] * _HOURS
        for _, micros in self.rows:
            ago = (hour - micros) // _HOUR
            if 0 <= ago < _HOURS:
                trend[_HOURS - 1 - ago] += 1
        return FailureGroup(
            fingerprint=self.newest.fingerprint,
            task=self.newest.task,
            error=normalise(self.newest.sample),
            sample=self.newest.sample,
            count=len(self.rows),
            first_at=_moment(self.rows[-1][1]),
            last_at=_moment(self.rows[0][1]),
            last_id=self.rows[0][0],
            queues=sorted(self.queues),
            trend=trend,
        )


_SORTS: dict[str, Any] = {
    "jobs": lambda group: len(group.rows),
    "first": lambda group: group.rows[-1][1],
    "last": lambda group: group.last,
    "task": lambda group: group.newest.task,
    "error": lambda group: group.newest.sample.casefold(),
}


def _group(
    conn: Connection[Any], schema: str, reach: int, known: KnownFailures | None
) -> tuple[dict[str, _Group], int, datetime]:
    with conn.cursor(row_factory=dict_row) as cursor:
        now: datetime = cursor.execute("SELECT statement_timestamp() AS now").fetchall()[0]["now"]
    # Tuples: ten thousand dictionaries would take longer than the statement.
    with conn.cursor(row_factory=tuple_row) as cursor_of_rows:
        rows: list[Any] = cursor_of_rows.execute(statement("failures", schema).query, {"reach": reach}).fetchall()
    groups: dict[str, _Group] = {}
    for row, text in zip(rows, (known or KnownFailures()).learn(conn, schema, rows), strict=True):
        if text is None:
            continue
        group = groups.get(text.fingerprint)
        if group is None:
            group = groups[text.fingerprint] = _Group(text)
        group.rows.append(row)
        group.queues.add(text.queue)
    return groups, len(rows), now


def _next_hour(now: datetime) -> int:
    # Just before the next whole hour, in microseconds: what failed at a whole hour belongs to the hour that begins then.
    whole = now.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
    return (whole - _EPOCH) // timedelta(microseconds=1) - 1


def _moment(micros: int) -> datetime:
    return _EPOCH + timedelta(microseconds=micros)
