"""The maintenance loop: it regularly runs due maintenance tasks, over a temporary connection."""

from __future__ import annotations

import asyncio
import random
import time

import psycopg

from jobq._worker.database import Database
from jobq._worker.database_errors import ErrorKind, classify
from jobq._worker.health.stalls import RateLimitedLog, Stall
from jobq._worker.lease import Lease
from jobq._worker.loops import Topic
from jobq._worker.maintenance.runner import Maintenance
from jobq._worker.timeouts import MAINTENANCE

# Seconds between checks for due tasks, and the same while there are jobs that expire.
INTERVAL = 60.0
OFTEN = 15.0
# Seconds until the next try after an error, at random between these.
_RETRY = (2.0, 5.0)
# Classes of errors which say that the database or the schema does not fit this worker.
_MISFIT = frozenset({"42", "3F", "3D", "28"})


class MaintenanceLoop:
    """The maintenance loop of one worker."""

    name = "maintenance"

    def __init__(self, database: Database, maintenance: Maintenance, lease: Lease) -> None:
        self._database = database
        self._maintenance = maintenance
        self._lease = lease
        self._repeats = RateLimitedLog()
        self._error: tuple[str, float] | None = None
        """Why maintenance tasks cannot run at present, and since when."""

    async def first(self) -> None:
        """Run due tasks before any claim.

        Raises psycopg.Error if the database or schema does not fit.
        """
        try:
            async with await self._database.connect("maintenance", MAINTENANCE) as connection:
                await self._maintenance.register(connection)
                # The runners wait for this.
                await self._maintenance.run_due(connection, self._lease.worker, share=1.0)
        except psycopg.Error as error:
            if classify(error) is ErrorKind.CONNECTION or (error.sqlstate or "")[:2] in _MISFIT:
                raise
            # A row or a lock blocks it: it is done later.
            self._failed(error)

    async def run(self) -> None:
        """Run due tasks until cancelled."""
        while True:
            # Just after a full minute, when the rollup is due, and not in all workers at once.
            interval = OFTEN if self._maintenance.often else INTERVAL
            wait = interval - time.time() % interval + random.uniform(3, 10)
            # After an error it is tried again soon: the database may be back.
            await asyncio.sleep(wait if self._error is None else min(wait, random.uniform(*_RETRY)))
            try:
                async with await self._database.connect("maintenance", MAINTENANCE) as connection:
                    await self._maintenance.run_due(connection, self._lease.worker)
            except (psycopg.Error, OSError, TimeoutError) as error:
                self._failed(error)
            else:
                self._error = None

    def _failed(self, error: BaseException) -> None:
        text = self._repeats.warn("no maintenance", error)
        self._error = (text, self._error[1] if self._error is not None else time.monotonic())

    def wake(self, topic: Topic | None = None) -> None:
        """Do nothing: no notification concerns maintenance."""

    def stall(self) -> Stall | None:
        """Return since when and why no task can run; None after a try that succeeded."""
        return None if self._error is None else Stall(*self._error)

    async def close(self) -> None:
        """Do nothing: the connection ends after each run."""
