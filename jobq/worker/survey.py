"""Reading lanes from their very beginnings beside the claims, where so many dead entries lie that a claim would be held up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import psycopg

from jobq.worker.cursor import Cursor, Position
from jobq.worker.database import CHORES, Database, fetch
from jobq.worker.stalls import Repeats


class Survey:
    """Looks for jobs below the cursor, over a connection that lasts as long as one look."""

    def __init__(self, database: Database, schema: str, cursor: Cursor, on_found: Callable[[], None]) -> None:
        self._database = database
        self._schema = schema
        self._cursor = cursor
        self._on_found = on_found
        self._repeats = Repeats()
        self._task: asyncio.Task[None] | None = None

    def begin(self, lanes: tuple[list[str], list[int]]) -> None:
        """Look through `lanes`, unless that is being done already."""
        if self._task is None or self._task.done():
            self._cursor.reading()
            self._task = asyncio.create_task(self._look(*lanes), name="survey")

    async def _look(self, queues: list[str], priorities: list[int]) -> None:
        begun = time.monotonic()
        heads: list[Position | None] = [None] * len(queues)
        try:
            async with await self._database.connect("survey", CHORES) as connection:
                rows = await fetch(connection, self._schema, "lane_heads", queues=queues, priorities=priorities)
        except (psycopg.Error, OSError, TimeoutError) as error:
            self._repeats.warn("the queues cannot be read from their beginnings", error)
            # However soon it failed, a claim had better not do it.
            self._cursor.read_fully(max(time.monotonic() - begun, self._cursor.full_took))
        else:
            for place, run_at, job_id in rows:
                heads[place] = (run_at, job_id)
            if self._cursor.sink(queues, priorities, heads):
                self._on_found()
            self._cursor.read_fully(time.monotonic() - begun)

    async def close(self) -> None:
        """Stop looking."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
