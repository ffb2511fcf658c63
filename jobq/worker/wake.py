"""Listening for notifications: a hint that saves the wait for the next poll, never the only way to learn of a job."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import psycopg
from psycopg import sql

from jobq.config import Settings
from jobq.worker.database import connect

logger = logging.getLogger("jobq.worker")

# A connection that carries nothing for this long is asked whether it still lives: TCP may not tell for hours.
PING_AFTER = 10.0


class Listener:
    """Calls `on_payload` for every notification, and again with an empty one whenever some may have been missed."""

    def __init__(self, settings: Settings, on_payload: Callable[[str], None]) -> None:
        self._settings = settings
        self._on_payload = on_payload
        self.connected = False
        self.losses = 0
        """Connections that were lost, or could not be made."""

    async def run(self) -> None:
        """Listen until cancelled, connecting anew as often as needed."""
        delay = 0.1
        while True:
            try:
                await self._listen()
                delay = 0.1
            except (psycopg.Error, OSError, TimeoutError) as error:
                if self.connected:
                    delay = 0.1
                self.losses += 1
                logger.warning("the listening connection is lost; polling goes on", extra={"error": str(error).strip()})
            self.connected = False
            await asyncio.sleep(delay)
            delay = min(delay * 2, 2.0)

    async def _listen(self) -> None:
        connection = await connect(self._settings, "listen")
        async with connection:
            await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(self._settings.schema)))
            self.connected = True
            # Whatever was sent before the LISTEN was not for us.
            self._on_payload("")
            while True:
                async for notification in connection.notifies(timeout=PING_AFTER):
                    self._on_payload(notification.payload)
                async with asyncio.timeout(PING_AFTER):
                    await connection.execute("SELECT 1")
