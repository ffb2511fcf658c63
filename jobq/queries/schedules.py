"""Schedules for display: when they tick, in words and times, and what is wrong with them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from psycopg import Connection

from jobq._postgres.statements import fetch
from jobq.cron import When, following, when
from jobq.errors import InvalidOption
from jobq.queries.jobs import with_json

# A tick that is late by this many seconds has been missed.
LATE = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleInfo:
    """One schedule. `status`: ticking, paused, withdrawn, undeclared, late or broken.

    `words` describes its times. `next_ticks` are computed from now on; `next_at` is the first tick
    that no worker has looked at, which may be in the past.
    """

    name: str
    task: str
    args: Any
    queue: str
    priority: int
    max_attempts: int
    timeout: float | None
    headers: Any
    group_key: str | None
    key: str | None
    expires_in: float | None
    cron: str | None
    every: timedelta | None
    timezone: str
    missed: str
    max_missed: int
    tick_argument: str | None
    source: str
    app: str | None
    made_by: str | None
    created_at: datetime
    changed_at: datetime
    next_at: datetime | None
    last_tick: datetime | None
    last_job_id: int | None
    paused_at: datetime | None
    paused_by: str | None
    pause_reason: str | None
    withdrawn_at: datetime | None
    last_error: str | None
    declared: bool
    status: str
    description: str
    next_ticks: list[datetime]
    overdue_seconds: float = 0.0
    """How long its next tick has been due; 0 if it is paused or withdrawn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TickInfo:
    """One tick, and its job. If it was `skipped`, the job that held the key (-1: not known)."""

    tick: datetime
    job_id: int
    inserted_at: datetime
    skipped: bool = False


def schedules(
    conn: Connection[Any], schema: str, *, after: str | None = None, limit: int = 200, preview: int = 3
) -> list[ScheduleInfo]:
    """Return at most `limit` schedules with names after `after`, with `preview` next ticks."""
    return _infos(conn, schema, {"after": after, "name": None, "limit": limit}, preview)


def next_ticks(info: ScheduleInfo, after: datetime, number: int) -> list[datetime]:
    """Return at most `number` next ticks of a schedule after `after`.

    There are none if its expression is invalid.
    """
    rule, _ = _understood(info.cron, info.every, info.timezone)
    return [] if rule is None else following(rule, after, number)


def schedule(conn: Connection[Any], schema: str, name: str, *, preview: int = 10) -> ScheduleInfo | None:
    """Return one schedule, or None."""
    found = _infos(conn, schema, {"after": None, "name": name, "limit": 1}, preview)
    return found[0] if found else None


def schedule_ticks(conn: Connection[Any], schema: str, name: str, *, limit: int = 20) -> list[TickInfo]:
    """Return the latest ticks of a schedule, newest first."""
    return [TickInfo(**row) for row in fetch(conn, schema, "schedule_last_ticks", {"name": name, "limit": limit})]


def _infos(conn: Connection[Any], schema: str, params: dict[str, Any], preview: int) -> list[ScheduleInfo]:
    found = []
    for row in fetch(conn, schema, "schedules", params):
        now = row.pop("now")
        rule, fault = _understood(row["cron"], row["every"], row["timezone"])
        found.append(
            ScheduleInfo(
                **{**with_json(row), "last_error": row["last_error"] or fault},
                status=_status(row, now, fault),
                description="not understood" if rule is None else rule.describe(),
                next_ticks=[] if rule is None or not preview else following(rule, now, preview),
                overdue_seconds=_overdue(row, now),
            )
        )
    return found


@lru_cache(maxsize=8192)
def _understood(cron: str | None, every: timedelta | None, timezone: str) -> tuple[When | None, str | None]:
    try:
        return when(cron, every, timezone), None
    except InvalidOption as error:
        return None, str(error)


def _overdue(row: dict[str, Any], now: datetime) -> float:
    if row["next_at"] is None or row["paused_at"] is not None or row["withdrawn_at"] is not None:
        return 0.0
    next_at: datetime = row["next_at"]
    return max((now - next_at).total_seconds(), 0.0)


def _status(row: dict[str, Any], now: datetime, fault: str | None) -> str:
    if row["paused_at"] is not None:
        return "paused"
    if row["withdrawn_at"] is not None:
        return "withdrawn"
    if fault is not None or row["last_error"] is not None:
        return "broken"
    if row["source"] == "code" and not row["declared"]:
        return "undeclared"
    if row["next_at"] is not None and (now - row["next_at"]).total_seconds() > LATE:
        return "late"
    return "ticking"
