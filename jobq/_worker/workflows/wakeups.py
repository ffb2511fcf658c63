"""Wakes durable jobs whose signal has come, or whose child has ended."""

from __future__ import annotations

import time
from functools import partial

import psycopg

from jobq._worker.database import Connection, fetch
from jobq._worker.database_errors import ErrorKind, classify
from jobq._worker.faults.set_aside import SetAside

# Most rows of job_wakeup taken by one statement.
MOST = 500
# Seconds until a row is looked at again whose job another transaction has locked.
HELD_FOR = 0.25


class Wakeups:
    """The rows of job_wakeup, as one worker takes them."""

    def __init__(self, schema: str) -> None:
        self._schema = schema
        self._aside = SetAside[int]()
        """Rows whose job the database refuses to change: the others do not wait for them."""
        self._held: dict[int, float] = {}
        """Rows whose job was locked, and when to look again: the rows behind them do not wait."""

    @property
    def pause(self) -> float | None:
        """Seconds until a job that was locked is looked at again; None if there is none.

        No notification tells of the end of a lock.
        """
        return max(0.0, min(self._held.values()) - time.monotonic()) if self._held else None

    @property
    def refused(self) -> str:
        """Which rows are left out, and why; "" if none are."""
        return self._aside.refused("wakeup")

    async def step(self, connection: Connection) -> bool:
        """Take rows, and make their jobs due; return whether there were any. Raises psycopg.Error."""
        try:
            return await self._wake(connection) > 0
        except psycopg.Error as error:
            if classify(error, connection) is ErrorKind.CONNECTION:
                raise
        wake = partial(self._wake, connection)
        async with connection.transaction():
            return sum(await self._aside.change_whole(connection, wake, partial(self._left, connection), wake)) > 0

    async def _wake(self, connection: Connection, only: list[int] | None = None) -> int:
        [(taken, _, left)] = await fetch(
            connection,
            self._schema,
            "wake_waiting",
            most=MOST,
            left_out=self._left_out(),
            only=only,
            channel=self._schema,
        )
        again = time.monotonic() + HELD_FOR
        self._held |= dict.fromkeys(left, again)
        return int(taken)

    def _left_out(self) -> list[int]:
        now = time.monotonic()
        self._held = {id: again for id, again in self._held.items() if again > now}
        return [*self._aside.keys(), *self._held]

    async def _left(self, connection: Connection) -> list[int]:
        rows = await fetch(connection, self._schema, "wakeups_left", most=MOST, left_out=self._left_out())
        return [row[0] for row in rows]
