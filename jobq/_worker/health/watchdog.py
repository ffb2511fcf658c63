"""Whether the worker is beyond its own repair, so that a restart is right: the one verdict that systemd's watchdog and
Kubernetes' liveness probe act on.

A restart repairs a loop of ours that hangs. It does not repair a database that is away, and if it were tried, every worker
would be restarted at the same moment, for nothing, and come back to the same outage. So:

- A loop that comes round is sound, whether the database answers it or refuses it: it goes on trying, and that is all that
  a new process could do.
- A loop that has not come round for STUCK_AFTER is doubted. It may wait for a server that neither answers nor closes the
  connection. So the database is asked over a new connection: when that answers, the loop is stuck and the verdict falls;
  when it does not, the database is away, and nothing is held against us.
- The event loop itself needs no clause: while it stands still nothing feeds the watchdog or answers a probe.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time

import psycopg

from jobq.config import Settings
from jobq.worker.database import connect
from jobq.worker.vitals import Pulse, Vitals

logger = logging.getLogger("jobq.worker")

# Longer than a statement may take (statement_timeout is 30 s) and a lost connection needs to be noticed.
STUCK_AFTER = 60.0
# What the database gets for its answer to a doubt.
PROBE_WITHIN = 10.0
# Between two probes: a doubt may last as long as an outage.
PROBE_EVERY = 5.0


class Watch:
    """Keeps `vitals.stuck`."""

    def __init__(self, settings: Settings, vitals: Vitals) -> None:
        self._settings = settings
        self._vitals = vitals
        self._probe: asyncio.Task[bool] | None = None
        self._probed_at = 0.0

    def look(self) -> None:
        """Look at the loops; called about once a second. Never waits: a probe goes on beside it."""
        doubted = self._doubted()
        if not doubted:
            self._vitals.stuck = None
            return
        if self._probe is not None and self._probe.done():
            answers, self._probe = self._probe.result(), None
            if not answers:
                self._vitals.stuck = None
            elif self._vitals.stuck is None:
                names = " and ".join(f"{pulse.name} for {time.monotonic() - pulse.turned:.0f} s" for pulse in doubted)
                self._vitals.stuck = f"a loop of the worker hangs though the database answers: {names}"
                logger.critical("the worker is stuck; it asks to be restarted", extra={"reason": self._vitals.stuck})
        if self._probe is None and time.monotonic() - self._probed_at > PROBE_EVERY:
            self._probed_at = time.monotonic()
            self._probe = asyncio.create_task(self._database_answers(), name="probe")

    def _doubted(self) -> list[Pulse]:
        if self._vitals.phase == "starting":
            # Nothing turns yet; how long a start may take is the service manager's to say.
            return []
        now = time.monotonic()
        patience = STUCK_AFTER + self._settings.connect_timeout
        return [pulse for pulse in (self._vitals.claims, self._vitals.heartbeats) if now - pulse.turned > patience]

    async def _database_answers(self) -> bool:
        try:
            async with asyncio.timeout(PROBE_WITHIN):
                connection = await connect(self._settings, "probe")
                try:
                    await connection.execute("SELECT 1")
                finally:
                    # Not a leave-taking, which would wait for the server.
                    connection.pgconn.finish()
        except (psycopg.Error, OSError, TimeoutError):
            return False
        return True

    async def close(self) -> None:
        """End the probe that is under way."""
        if self._probe is not None:
            self._probe.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._probe
