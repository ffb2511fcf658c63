"""Reading which lanes there are, each from its very beginning: what finds the jobs of which nothing was heard.

In slices, each a statement of its own, so that neither the server nor the event loop is held up for long. Where there are
many lanes, or so many dead entries that it takes long, it is done on a connection of its own, beside the claims.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable

import psycopg

from jobq.worker.aging import PRIORITIES
from jobq.worker.cursor import Cursor, Position
from jobq.worker.database import CHORES, Connection, Database, fetch
from jobq.worker.lanes import Lanes
from jobq.worker.stalls import Repeats

# Seconds between two readings, at most.
EVERY = 5.0
# Seconds; a reading that takes longer is not done on the connection that claims.
COSTLY = 0.05
# Between two readings lie at least so many times what one takes; where there was word of more than could be kept, less.
SHARE = 50
SHARE_TOLD = 10
# Seconds between two readings, at least: where a worker was told of a job and has found none, and of many queues.
_HASTENED = 1.0
_TOLD = 0.1
# The same after a reading that failed.
FAILED_RETRY = 0.5
# Lanes of one statement.
SLICE = 500


class Survey:
    """Reads which lanes there are, for one claiming loop."""

    def __init__(
        self,
        database: Database,
        schema: str,
        cursor: Cursor,
        lanes: Lanes,
        on_found: Callable[[], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`on_found` is called when there are due jobs, beside the claims."""
        self._database = database
        self._schema = schema
        self._cursor = cursor
        self._lanes = lanes
        self._on_found = on_found
        self._clock = clock
        self._repeats = Repeats()
        self._task: asyncio.Task[None] | None = None
        self._due_at = 0.0
        self._read_at = float("-inf")
        self._again: float | None = None
        """A reading is under way, and may have begun too early: how long after it to begin the next one."""
        self.took = 0.0
        """Seconds that a reading takes."""
        self._last_took = math.inf
        self.slices = 0
        """Statements that were made, ever."""

    @property
    def due_at(self) -> float:
        """When to read again; infinity: that is being done."""
        return float("inf") if self._running else self._due_at

    @property
    def _running(self) -> bool:
        return self._task is not None and not self._task.done()

    @property
    def costly(self) -> bool:
        """Whether a reading takes so long that no claim should wait for it."""
        return self.took > COSTLY

    def hasten(self, after: float = _HASTENED, share: float = SHARE) -> None:
        """There is reason to think that there are jobs of which nothing was heard: read soon, though not all the time."""
        if self._running:
            self._again = min(after, self._again if self._again is not None else after)
            return
        if self._last_took == math.inf:
            # The last one has failed: FAILED_RETRY.
            return
        self._due_at = min(self._due_at, self._read_at + max(after, share * self.took))

    def told_of_many(self) -> None:
        """There was word of more queues than could be kept."""
        self.hasten(_TOLD, SHARE_TOLD)

    async def read(self, connection: Connection) -> None:
        """Read the lanes; if that takes long, elsewhere. Raises psycopg.Error. Call it when `due_at` has come."""
        if self._running:
            return
        reading = _Reading(self._schema, self._cursor, self._lanes, self._clock())
        try:
            done = not self.costly and await self._slice(connection, reading)
        except psycopg.Error:
            # The next one is made elsewhere if this one took long.
            self.took = max(self.took, self._clock() - reading.begun)
            self._failed()
            raise
        if done:
            self._finish(reading)
        else:
            self._task = asyncio.create_task(self._elsewhere(reading), name="survey")

    async def _slice(self, connection: Connection, reading: _Reading) -> bool:
        self.slices += 1
        found = reading.due
        done = await reading.slice(connection)
        if reading.due > found:
            self._on_found()
        return done

    async def _elsewhere(self, reading: _Reading) -> None:
        try:
            async with await self._database.connect("survey", CHORES) as connection:
                while not await self._slice(connection, reading):
                    pass
        except (psycopg.Error, OSError, TimeoutError) as error:
            self._repeats.warn("the queues cannot be read from their beginnings", error)
            self._failed()
        else:
            self._finish(reading)

    def _finish(self, reading: _Reading) -> None:
        reading.finish()
        self._over(self._clock() - reading.begun)

    def _failed(self) -> None:
        self._last_took = math.inf
        self._read_at, self._task, self._again = self._clock(), None, None
        self._due_at = self._read_at + FAILED_RETRY

    def _over(self, took: float) -> None:
        # The less of two: one reading may have waited for a lock, which is no reason to read less often.
        self.took, self._last_took = min(took, self._last_took), took
        self._read_at = self._clock()
        self._due_at = self._read_at + min(max(EVERY, SHARE * self.took), 600.0)
        self._task = None
        if self._again is not None:
            after, self._again = self._again, None
            self.hasten(after)

    def stop(self) -> None:
        """What is under way says nothing any more; read again as soon as possible."""
        if self._task is not None:
            self._task.cancel()
        self._task, self._again, self._due_at = None, None, 0.0

    async def close(self) -> None:
        """Stop reading."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


class _Reading:
    """One reading of all lanes, from its first slice to its last."""

    def __init__(self, schema: str, cursor: Cursor, lanes: Lanes, begun: float) -> None:
        self._schema = schema
        self._cursor = cursor
        self._lanes = lanes
        self.begun = begun
        self.due = 0
        """How many lanes had a due job."""
        self._floor: Position = cursor.floor
        self._epoch = cursor.epoch
        self._words = cursor.words
        self._after = ("", -1)
        self._named = [(queue, priority) for queue in lanes.only or () for priority in PRIORITIES]
        lanes.many = False

    async def slice(self, connection: Connection) -> bool:
        """Read some lanes. Return whether they were the last ones."""
        if self._lanes.only is None:
            queue, priority = self._after
            rows = await fetch(connection, self._schema, "lanes", queue=queue, priority=priority, most=SLICE)
            done = len(rows) < SLICE
            if rows:
                self._after = rows[-1][:2]
        else:
            named, self._named = self._named[:SLICE], self._named[SLICE:]
            queues, priorities = [queue for queue, _ in named], [priority for _, priority in named]
            rows = await fetch(connection, self._schema, "lane_heads", queues=queues, priorities=priorities)
            done = not self._named
        for queue, priority, run_at, job_id, seconds in rows:
            if self._lanes.serves(queue):
                self._cursor.found((queue, priority), (run_at, job_id), self._floor)
                self.due += self._lanes.found(queue, priority, seconds)
        return done

    def finish(self) -> None:
        """All lanes were read: of those that were not found nothing need be known."""
        self._lanes.live.cool()
        if self._cursor.epoch == self._epoch:
            self._cursor.keep(self._lanes.live.__contains__, self._floor, self._words)
