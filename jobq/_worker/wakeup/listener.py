"""Listen for notifications.

They are hints that save waiting for a poll; jobs are found without them, too.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

import psycopg
from psycopg import sql

from jobq._worker.database import Database
from jobq._worker.health.stalls import RateLimitedLog, Stall
from jobq._worker.loops import Topic
from jobq._worker.wakeup.state import WakeupState
from jobq.settings import Settings

logger = logging.getLogger("jobq.worker")

# If a connection is idle for this many seconds, it is tested: TCP may not report a loss for hours.
PING_AFTER = 10.0
# Most seconds for the answer to the test.
PONG_WITHIN = 5.0


class Listener:
    """Calls `on_payload` for every notification; with an empty one, some may be missing."""

    name = "notifications"

    def __init__(
        self,
        settings: Settings,
        on_payload: Callable[[str], None],
        *,
        database: Database | None = None,
        wakeups: WakeupState | None = None,
    ) -> None:
        """`wakeups` records whether notifications arrive."""
        self._settings = settings
        self._database = database or Database(settings)
        self._on_payload = on_payload
        self._wakeups = wakeups or WakeupState()
        self._repeats = RateLimitedLog()
        self._away_since = time.monotonic()
        self._error = "it has not connected yet"

    def wake(self, topic: Topic | None = None) -> None:
        """Do nothing: this loop receives the notifications."""

    def stall(self) -> Stall | None:
        """Return since when and why notifications are missed; None if they are not."""
        if self._wakeups.connected or self._wakeups.polling:
            return None
        where = self._database.connecting.get("notifications")
        return Stall(self._error + (f"; waiting for a connection to {where}" if where else ""), self._away_since)

    async def run(self) -> None:
        """Listen until cancelled; reconnect as often as needed. Through a pooler, only wait."""
        delay = 0.1
        while True:
            try:
                await self._listen()
                # There are no notifications through a pooler. The loop must not end: that would
                # count as a fault.
                await asyncio.Event().wait()
            except (psycopg.Error, OSError, TimeoutError) as error:
                if self._wakeups.connected:
                    delay = 0.1
                    self._away_since = time.monotonic()
                self._wakeups.losses += 1
                self._error = self._repeats.warn("the listening connection is lost; polling goes on", error)
            self._wakeups.connected = False
            await asyncio.sleep(delay)
            delay = min(delay * 2, 2.0)

    async def _listen(self) -> None:
        connection = await self._database.connect("notifications", patience=PONG_WITHIN, direct=True)
        async with connection:
            if connection.pooled:
                self._wakeups.polling = True
                logger.warning(
                    "notifications do not pass a pooler in transaction mode: new jobs are found by polling; "
                    "set JOBQ_DIRECT_URL to the server itself"
                )
                return
            connection.doing = "LISTEN"
            await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(self._settings.schema)))
            self._wakeups.connected = True
            # Notifications before the LISTEN were not received.
            self._on_payload("")
            while True:
                async for notification in connection.notifies(timeout=PING_AFTER):
                    self._on_payload(notification.payload)
                await connection.execute("SELECT 1")

    async def close(self) -> None:
        """Do nothing: the connection ends with `run`."""
