"""Retention of the steps of durable jobs, and of the signals to them."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from datetime import timedelta
from typing import Any, ClassVar

from psycopg import AsyncConnection

from jobq._worker.database import fetch
from jobq._worker.faults.set_aside import SetAside

# Number of steps or signals that are read at a time, and of steps that are removed at a time.
READ_ROWS = 1_000
OLD_ROWS = 5_000
# Seconds after which all old rows are read again, from the oldest one on. Meanwhile only those are
# read that have become old. Partitions of history are dropped by the day, so a row may be kept for
# a day longer than its job.
PASS_SECONDS = 86_400.0


class _Pass(ABC):
    """Walks through the old rows of one table, in the order of their age, and remembers its position.

    A job may live for years, and its first steps stay at the old end of the index. They are read
    once in a pass.
    """

    name: ClassVar[str]

    def __init__(self, schema: str, keep: timedelta) -> None:
        self._schema = schema
        self._keep = keep
        self._after: tuple[str, int] = ("-infinity", 0)
        self._again = 0.0
        """When the next pass begins, in time.monotonic() seconds."""
        self.aside = SetAside[int]()
        """What the database refuses to delete: jobs, or signals."""

    async def batch(self, connection: AsyncConnection[Any]) -> tuple[int, int]:
        """Read the next rows, remove those without a job, and commit.

        Returns 1 if there may be more to do, and the number of removed rows.
        """
        if time.monotonic() >= self._again:
            self._after, self._again = ("-infinity", 0), time.monotonic() + PASS_SECONDS
        async with connection.transaction():
            # With the statistics of an empty table, the planner would read and sort all old rows
            # for each batch.
            await connection.execute("SET LOCAL enable_sort = off")
            [(ids, read, *last)] = await self._read(connection)
            removed = sum(await self.aside.change(connection, ids, lambda part: self._remove(connection, part)))
        if removed >= OLD_ROWS:
            # A job with many steps: the rest of it comes next.
            return 1, removed
        if read:
            self._after = (last[0], last[1])
        return int(read == READ_ROWS), removed

    @abstractmethod
    async def _read(self, connection: AsyncConnection[Any]) -> list[tuple[Any, ...]]:
        """Return the ids to remove, the number of rows read, and the place of the last one."""

    @abstractmethod
    async def _remove(self, connection: AsyncConnection[Any], ids: list[int]) -> int:
        """Remove rows; return their number."""


class StepRetention(_Pass):
    """Removes the steps of jobs that are neither live nor in history.

    The steps of a failed job stay as long as its row in history: a retry goes on where it was.
    """

    name = "steps of job"

    async def _read(self, connection: AsyncConnection[Any]) -> list[tuple[Any, ...]]:
        after, job = self._after
        return await fetch(
            connection, self._schema, "steps_old",
            after=after, after_job=job, keep=self._keep, most=READ_ROWS, aside=self.aside.keys(),
        )  # fmt: skip

    async def _remove(self, connection: AsyncConnection[Any], ids: list[int]) -> int:
        [(removed,)] = await fetch(connection, self._schema, "steps_prune", ids=ids, most=OLD_ROWS)
        return int(removed)


class SignalRetention(_Pass):
    """Removes the signals to jobs, and to workflows' runs, that are gone."""

    name = "signal"

    async def _read(self, connection: AsyncConnection[Any]) -> list[tuple[Any, ...]]:
        after, signal = self._after
        return await fetch(
            connection, self._schema, "signals_old",
            after=after, after_id=signal, keep=self._keep, most=READ_ROWS, aside=self.aside.keys(),
        )  # fmt: skip

    async def _remove(self, connection: AsyncConnection[Any], ids: list[int]) -> int:
        [(removed,)] = await fetch(connection, self._schema, "signals_prune", ids=ids)
        return int(removed)
