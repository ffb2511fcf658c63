"""Listening for notifications: a hint that saves the wait for the next poll, never the only way to learn of a job."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

import psycopg
from psycopg import sql

from jobq.config import Settings
from jobq.worker.database import Database
from jobq.worker.stalls import Repeats, Trouble

logger = logging.getLogger("jobq.worker")

# A connection that carries nothing for this long is asked whether it still lives: TCP may not tell for hours.
PING_AFTER = 10.0
# How long that may take.
PONG_WITHIN = 5.0


class Listener:
    """Calls `on_payload` for every notification, and again with an empty one whenever some may have been missed."""

    def __init__(self, settings: Settings, on_payload: Callable[[str], None], database: Database | None = None) -> None:
        self._settings = settings
        self._database = database or Database(settings)
        self._on_payload = on_payload
        self._repeats = Repeats()
        self._away_since = time.monotonic()
        self._error = "it has not connected yet"
        self.connected = False
        self.losses = 0
        """Connections that were lost, or could not be made."""
        self.polling = False
        """Whether there is nothing to listen to, because a pooler stands between: that is how it was set up, no fault."""

    def trouble(self) -> Trouble | None:
        """Return since when and why notifications are missed, if they are."""
        if self.connected or self.polling:
            return None
        where = self._database.connecting.get("listen")
        return Trouble(self._error + (f"; waiting for a connection to {where}" if where else ""), self._away_since)

    async def run(self) -> None:
        """Listen until cancelled, connecting again as often as needed; through a pooler, only wait."""
        delay = 0.1
        while True:
            try:
                await self._listen()
                # Through a pooler there is nothing to hear, and the loop must not end: the others would take it for a fault.
                await asyncio.Event().wait()
            except (psycopg.Error, OSError, TimeoutError) as error:
                if self.connected:
                    delay = 0.1
                    self._away_since = time.monotonic()
                self.losses += 1
                self._error = self._repeats.warn("the listening connection is lost; polling goes on", error)
            self.connected = False
            await asyncio.sleep(delay)
            delay = min(delay * 2, 2.0)

    async def _listen(self) -> None:
        connection = await self._database.connect("listen", patience=PONG_WITHIN, direct=True)
        async with connection:
            if connection.pooled:
                self.polling = True
                logger.warning(
                    "notifications do not pass a pooler in transaction mode: new jobs are found by polling; "
                    "set JOBQ_DIRECT_URL to the server itself"
                )
                return
            connection.doing = "LISTEN"
            await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(self._settings.schema)))
            self.connected = True
            # Whatever was sent before the LISTEN was not for us.
            self._on_payload("")
            while True:
                async for notification in connection.notifies(timeout=PING_AFTER):
                    self._on_payload(notification.payload)
                await connection.execute("SELECT 1")
