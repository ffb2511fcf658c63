"""Dead letters in groups: the same task and the same error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from psycopg import Connection
from psycopg.rows import dict_row, tuple_row

from jobq._core.fingerprint import fingerprint, normalise
from jobq._core.validation import check_choice, check_int
from jobq._postgres.statements import fetch
from jobq.errors import InvalidOption
from jobq.queries.jobs import with_json
from jobq.queries.values import JobRow
from jobq.queries.values.stats import FailureDetail, FailureGroup, Failures

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
    """A cache of the errors of dead letters, so the next read fetches and compares only new ones.

    It belongs to one database. Several threads may share it. It keeps about 500 bytes for each
    dead letter of the last read.
    """

    def __init__(self) -> None:
        self._texts: dict[tuple[int, int], _Text] = {}

    def learn(self, conn: Connection[Any], schema: str, rows: Sequence[tuple[int, int]]) -> list[_Text | None]:
        """Return the error of each (id, microseconds) in `rows`, newest first; None if it is gone.

        Unknown errors are read first.
        """
        texts = self._texts
        unknown = [row[1] for row in rows if row not in texts]
        if unknown:
            params = {"since": min(unknown), "until": max(unknown), "limit": len(rows)}
            found = fetch(conn, schema, "failure_texts", params, tuple_row)
            texts = texts | {
                (id, micros): _Text(task, queue, fingerprint(task, error), error or "")
                for id, micros, task, queue, error in found
                if (id, micros) not in texts
            }
        if unknown or len(texts) > len(rows):
            texts = {row: texts[row] for row in rows if row in texts}
            # Another thread may replace the dictionary: both versions are correct.
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
    """Return the newest `reach` dead letters in groups.

    "Newest" is by the time at which they failed.

    Args:
        conn: a psycopg connection.
        schema: the schema of jobq's tables.
        reach: how many dead letters to read, 1 to 100,000.
        known: a cache kept between calls; only new dead letters are then read in full.
        text: only groups whose task, error or queue contains this text, in any case.
        sort: the order of the groups, one of FAILURE_SORTS (default: largest first).
        descending: whether the largest value comes first (default: True).
        offset: number of groups to skip.
        limit: most groups; None: all.

    Raises:
        InvalidOption: `reach` or `sort` has another value.
    """
    check_int("reach", reach, 1, 100_000)
    check_choice("sort", sort, FAILURE_SORTS)
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
    """Return one group among the newest `reach` dead letters, with its newest `limit` jobs.

    None: there is no such group. Raises InvalidOption if `fingerprint` is no fingerprint.
    """
    if len(fingerprint) != _DIGITS or not set(fingerprint) <= set("0123456789abcdef"):
        raise InvalidOption(f"fingerprint={fingerprint!r}: expected the 12 hexadecimal digits of a group of failures")
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
    # Each entry has the time of the failure; newest first.
    rows: list[tuple[int, int]] = field(default_factory=list)
    queues: set[str] = field(default_factory=set)

    @property
    def last(self) -> tuple[int, int]:
        """The time of the last failure, and its job."""
        id, micros = self.rows[0]
        return micros, id

    def has(self, text: str) -> bool:
        """Return whether any text shown in a list contains `text`, which is casefolded."""
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
    # Tuples: 10,000 dictionaries would take longer than the statement.
    rows = fetch(conn, schema, "failures", {"reach": reach}, tuple_row)
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
    # Just before the next full hour, in microseconds: a failure at a full hour belongs to the
    # hour that begins then.
    whole = now.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
    return (whole - _EPOCH) // timedelta(microseconds=1) - 1


def _moment(micros: int) -> datetime:
    return _EPOCH + timedelta(microseconds=micros)
