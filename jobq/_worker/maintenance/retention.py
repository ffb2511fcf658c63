"""Retention in the default partitions: rows for days without a partition.

Each table is handled by itself, a batch at a time, without rows that the database refuses to
delete.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import psycopg
from psycopg import AsyncConnection, sql

from jobq._worker.database_errors import ErrorKind, classify
from jobq._worker.faults.set_aside import SetAside
from jobq._worker.maintenance.partitions import PARENTS

# Rows deleted at a time.
REST_BATCH = 5_000


class DefaultPartitionRetention:
    """The default partitions, and their rows that are set aside."""

    def __init__(self, schema: str) -> None:
        name = sql.Identifier(schema)
        self._due = sql.SQL("SELECT {}.rest_due(%s, %s, %s, %s::bigint[])").format(name)
        self._prune = sql.SQL("SELECT {}.prune_rest(%s, %s, NULL, %s::bigint[])").format(name)
        self._aside = {parent: SetAside[int]() for parent in PARENTS}

    async def prune(
        self, connection: AsyncConnection[Any], keep: Mapping[str, timedelta], until: float
    ) -> tuple[int, bool, list[str]]:
        """Delete rows older than `keep` of their table, a batch at a time.

        Returns the number of rows, whether there are more, and the refusals as text, at the latest
        when time.monotonic() is `until`. Raises psycopg.Error if the connection is lost.
        """
        pruned, more, problems = 0, False, []
        for parent, kept in keep.items():
            number = 0
            try:
                while number := await self._batch(connection, parent, kept):
                    pruned += number
                    if time.monotonic() >= until:
                        more = True
                        break
            except psycopg.Error as error:
                if classify(error, connection) is ErrorKind.CONNECTION:
                    raise
                problems.append(f"{parent}_rest: {str(error).strip().partition(chr(10))[0]}")
            if refused := self._aside[parent].refused("job"):
                problems.append(f"{parent}_rest: {refused}")
        return pruned, more, problems

    async def _batch(self, connection: AsyncConnection[Any], parent: str, kept: timedelta) -> int:
        async def prune(jobs: list[int]) -> int:
            [(pruned,)] = await (await connection.execute(self._prune, (parent, kept, jobs))).fetchall()
            return int(pruned)

        aside = self._aside[parent]
        async with connection.transaction():
            params = (parent, kept, REST_BATCH, aside.keys())
            [(jobs,)] = await (await connection.execute(self._due, params)).fetchall()
            return sum(await aside.change(connection, jobs, prune))
