"""Letting time pass in a test: the server's clock stays, what waits comes nearer, and schedules tick."""

from __future__ import annotations

import socket
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from psycopg import sql
from psycopg.rows import tuple_row

from jobq.errors import InvalidOption
from jobq.schedules import due
from jobq.sql import statement
from jobq.ticks import NeverAgain, when

if TYPE_CHECKING:
    import psycopg

    from jobq.app import JobQ

# Ticks of one schedule that one call makes up for at most.
_MOST_TICKS = 10_000

_SHIFT = (
    "WITH nearer AS (UPDATE {0}.job SET run_at = run_at - %(by)s, expires_at = expires_at - %(by)s "
    "WHERE state <> 'running' AND (run_at > clock_timestamp() OR expires_at IS NOT NULL) RETURNING queue, group_key, state) "
    "INSERT INTO {0}.job_turn (queue, group_key) "
    "SELECT queue, group_key FROM nearer WHERE state = 'waiting' AND group_key IS NOT NULL",
    "UPDATE {0}.job_key SET until = until - %(by)s WHERE until IS NOT NULL",
    "UPDATE {0}.gate SET paid_until = paid_until - %(by)s WHERE paid_until IS NOT NULL",
)
_TICKING = (
    "SELECT name, cron, every, timezone, next_at FROM {0}.schedule "
    "WHERE paused_at IS NULL AND withdrawn_at IS NULL AND next_at <= %(now)s ORDER BY next_at, name"
)


class Clock:
    """How far a test has gone ahead of the server's clock. Schedules begin when it is made."""

    def __init__(self, app: JobQ, connection: psycopg.Connection[Any]) -> None:
        self._app = app
        self._connection = connection
        self._ahead = timedelta()
        self._declare()

    def advance(
        self,
        by: timedelta | None,
        *,
        days: float,
        hours: float,
        minutes: float,
        seconds: float,
        until: datetime | None,
    ) -> int:
        """Let time pass, as `JobqTester.advance` says; return how many jobs schedules have inserted."""
        step = (by or timedelta()) + timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
        now = self._now()
        if until is not None:
            if step:
                raise InvalidOption("advance: until and a time to pass are both given: give one of them")
            if until.tzinfo is None:
                raise InvalidOption(f"advance: until={until!r} has no time zone: give an aware datetime")
            step = until - now
        if step <= timedelta():
            raise InvalidOption(f"advance: {step} lies not ahead: give a time above 0, such as hours=3")
        self._declare()
        for query in _SHIFT:
            self._run(query, by=step)
        self._ahead += step
        return sum(self._tick(*row, now=now + step) for row in self._run(_TICKING, now=now + step))

    def _tick(
        self, name: str, cron: str | None, every: timedelta | None, zone: str, since: datetime, *, now: datetime
    ) -> int:
        rule = when(cron, every, zone)
        try:
            found = due(rule, since, now, missed="all", max_missed=_MOST_TICKS)
        except NeverAgain:
            return 0
        parameters = {
            "name": name,
            "ticks": [at.astimezone(UTC).isoformat() for at in found.ticks],
            "next_at": found.next_at,
        }
        with self._connection.cursor(row_factory=tuple_row) as cursor:
            row = cursor.execute(statement("schedule_fire", self._schema).query, parameters).fetchone()
        return 0 if row is None else int(row[0])

    def _declare(self) -> None:
        """Write the application's schedules down, as its worker does when it starts."""
        now = self._now()
        for _, schedule in sorted(self._app.schedules.items()):
            parameters = {
                **schedule.columns(),
                "next_at": schedule.when.next(now),
                "app": "jobq.testing",
                "made_by": socket.gethostname(),
            }
            self._connection.execute(statement("schedule_declare", self._schema).query, parameters)

    def _now(self) -> datetime:
        [(now,)] = self._run("SELECT clock_timestamp()")
        found: datetime = now
        return found + self._ahead

    def _run(self, query: str, **parameters: Any) -> list[tuple[Any, ...]]:
        composed = sql.SQL(query).format(sql.Identifier(self._schema))
        with self._connection.cursor(row_factory=tuple_row) as cursor:
            cursor.execute(composed, parameters)
            return cursor.fetchall() if cursor.description is not None else []

    @property
    def _schema(self) -> str:
        return self._app.settings.schema
