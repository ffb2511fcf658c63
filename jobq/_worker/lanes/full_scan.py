"""The full scan: reads all lanes from their beginnings, to find jobs without a notification.

It works in slices, one statement each, so that it never blocks the server or the event loop for
long. If there are many lanes, or so many dead entries that a scan takes long, it runs on its own
connection beside the claims.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable

import psycopg

from jobq._worker.database import Connection, Database, fetch
from jobq._worker.health.stalls import RateLimitedLog
from jobq._worker.lanes.aging import PRIORITIES
from jobq._worker.lanes.cursor import Cursor, Position
from jobq._worker.lanes.lanes import Lanes
from jobq._worker.timeouts import MAINTENANCE

# Most seconds between two scans.
EVERY = 5.0
# Seconds. A scan that takes longer does not run on the connection that claims.
COSTLY = 0.05
# The pause between two scans is at least this multiple of a scan's duration. It is shorter after
# notifications of more queues than could be kept.
SHARE = 50
SHARE_TOLD = 10
# Least seconds between two scans: after a notification without a job to claim, and after one of
# many queues.
_HASTENED = 1.0
_TOLD = 0.1
# The same after a scan that failed.
FAILED_RETRY = 0.5
# Number of lanes in one statement.
SLICE = 500


class FullScan:
    """Reads which lanes exist, for one claim loop."""

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
        """Create the scan. `on_found` is called, beside the claims, when there are due jobs."""
        self._database = database
        self._schema = schema
        self._cursor = cursor
        self._lanes = lanes
        self._on_found = on_found
        self._clock = clock
        self._repeats = RateLimitedLog()
        self._task: asyncio.Task[None] | None = None
        self._due_at = 0.0
        self._read_at = float("-inf")
        self._again: float | None = None
        """Seconds from the end of the current scan, which may have begun too early, to the next.

        None: no other scan is needed.
        """
        self.took = 0.0
        """Duration of a scan, in seconds."""
        self._last_took = math.inf
        self.slices = 0
        """Number of all statements so far."""

    @property
    def due_at(self) -> float:
        """When to scan again. Infinity: a scan is under way."""
        return float("inf") if self._running else self._due_at

    @property
    def _running(self) -> bool:
        return self._task is not None and not self._task.done()

    @property
    def costly(self) -> bool:
        """Whether a scan takes so long that no claim should wait for it."""
        return self.took > COSTLY

    def hasten(self, after: float = _HASTENED, share: float = SHARE) -> None:
        """Scan soon, though not all the time: there may be jobs that no notification announced."""
        if self._running:
            self._again = min(after, self._again if self._again is not None else after)
            return
        if self._last_took == math.inf:
            # The last scan has failed: FAILED_RETRY.
            return
        self._due_at = min(self._due_at, self._read_at + max(after, share * self.took))

    def told_of_many(self) -> None:
        """Scan soon: there were notifications of more queues than could be kept."""
        self.hasten(_TOLD, SHARE_TOLD)

    async def read(self, connection: Connection) -> None:
        """Read the lanes, on another connection if that takes long. Call it when `due_at` has come.

        Raises psycopg.Error.
        """
        if self._running:
            return
        reading = _Reading(self._schema, self._cursor, self._lanes, self._clock())
        try:
            done = not self.costly and await self._slice(connection, reading)
        except psycopg.Error:
            # If this scan took long, the next one runs on its own connection.
            self.took = max(self.took, self._clock() - reading.begun)
            self._failed()
            raise
        if done:
            self._finish(reading)
        else:
            self._task = asyncio.create_task(self._elsewhere(reading), name="full scan")

    async def _slice(self, connection: Connection, reading: _Reading) -> bool:
        self.slices += 1
        found = reading.due
        done = await reading.slice(connection)
        if reading.due > found:
            self._on_found()
        return done

    async def _elsewhere(self, reading: _Reading) -> None:
        try:
            async with await self._database.connect("claims full scan", MAINTENANCE) as connection:
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
        # The smaller of two durations: one scan may have waited for a lock, which is no reason to
        # scan less often.
        self.took, self._last_took = min(took, self._last_took), took
        self._read_at = self._clock()
        self._due_at = self._read_at + min(max(EVERY, SHARE * self.took), 600.0)
        self._task = None
        if self._again is not None:
            after, self._again = self._again, None
            self.hasten(after)

    def stop(self) -> None:
        """Discard the scan that is under way, and scan again as soon as possible."""
        if self._task is not None:
            self._task.cancel()
        self._task, self._again, self._due_at = None, None, 0.0

    async def close(self) -> None:
        """Stop scanning."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


class _Reading:
    """One full scan of all lanes, from its first slice to its last."""

    def __init__(self, schema: str, cursor: Cursor, lanes: Lanes, begun: float) -> None:
        self._schema = schema
        self._cursor = cursor
        self._lanes = lanes
        self.begun = begun
        self.due = 0
        """Number of lanes that had a due job."""
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
        """Finish the scan: lanes that were not found can be forgotten."""
        self._lanes.live.cool()
        if self._cursor.epoch == self._epoch:
            self._cursor.keep(self._lanes.live.__contains__, self._floor, self._words)
