"""Simulated time in tests: the server's clock stays, waiting times shrink, and schedules tick."""

from __future__ import annotations

import socket
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from psycopg import sql
from psycopg.rows import tuple_row

from jobq._core.validation import check_aware
from jobq._postgres.statements import execute, fetch
from jobq.cron import NoNextRun, when
from jobq.errors import InvalidOption
from jobq.schedule import due

if TYPE_CHECKING:
    import psycopg

    from jobq.app import JobQ

# Most ticks of one schedule that one call makes up for.
_MOST_TICKS = 10_000

_SHIFT = (
    "WITH nearer AS (UPDATE {0}.job SET run_at = run_at - %(by)s, expires_at = expires_at - %(by)s "
    "WHERE state <> 'running' AND (run_at > clock_timestamp() OR expires_at IS NOT NULL) RETURNING queue, group_key, state) "
    "INSERT INTO {0}.group_ready (queue, group_key) "
    "SELECT queue, group_key FROM nearer WHERE state = 'waiting' AND group_key IS NOT NULL",
    "UPDATE {0}.job_key SET expires_at = expires_at - %(by)s WHERE expires_at IS NOT NULL",
    "UPDATE {0}.workflow SET deadline_at = deadline_at - %(by)s WHERE state = 'running' AND deadline_at IS NOT NULL",
    "UPDATE {0}.job_step SET wake_at = wake_at - %(by)s WHERE state IN ('waiting', 'retrying') AND wake_at IS NOT NULL",
    "UPDATE {0}.rate_state SET paid_until = paid_until - %(by)s WHERE paid_until IS NOT NULL",
)
_TICKING = (
    "SELECT name, cron, every, timezone, next_at FROM {0}.schedule "
    "WHERE paused_at IS NULL AND withdrawn_at IS NULL AND next_at <= %(now)s ORDER BY next_at, name"
)


class Clock:
    """How far a test is ahead of the server's clock. Schedules begin when it is created."""

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
        """Let time pass as `JobqTester.advance` describes.

        Return the number of jobs from schedules.
        """
        step = (by or timedelta()) + timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
        now = self._now()
        if until is not None:
            if step:
                raise InvalidOption("advance: until and a time to pass are both given: pass only one of them")
            step = check_aware("until", until) - now
        if step <= timedelta():
            raise InvalidOption(f"advance: {step} is not in the future: expected a time above 0, such as hours=3")
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
        except NoNextRun:
            return 0
        parameters = {
            "name": name,
            "ticks": [at.astimezone(UTC).isoformat() for at in found.ticks],
            "next_at": found.next_at,
        }
        fired = fetch(self._connection, self._schema, "schedule_insert_jobs", parameters, tuple_row)
        return int(fired[0][0]) if fired else 0

    def _declare(self) -> None:
        """Store the application's schedules, as its worker does at its start."""
        now = self._now()
        for _, schedule in sorted(self._app.schedules.items()):
            parameters = {
                **schedule.columns(),
                "next_at": schedule.when.next(now),
                "app": "jobq.testing",
                "made_by": socket.gethostname(),
            }
            execute(self._connection, self._schema, "schedule_declare", parameters)

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
