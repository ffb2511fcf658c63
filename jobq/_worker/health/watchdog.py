"""Decides whether the worker is stuck, so that a restart is right.

systemd's watchdog and Kubernetes' liveness probe act on this single decision. A restart repairs a
loop that hangs. It does not repair a database that is unreachable: every worker would be restarted
at the same moment, without effect, and would meet the same outage. So:

- A loop that completes rounds is sound, whether the database answers it or refuses it. It keeps
  trying, and a new process could do no more.
- A loop that has not completed a round for STUCK_AFTER is in doubt. It may wait for a server that
  neither answers nor closes the connection. So the database is probed over a new connection. If the
  probe is answered, the loop is stuck. If not, the database is unreachable, and the worker is not
  to blame.
- The event loop itself needs no rule: while it stands still, nothing feeds the watchdog or answers
  a probe.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time

import psycopg

from jobq._worker.database import connect
from jobq._worker.health.state import LoopHealth, WorkerHealth
from jobq.settings import Settings

logger = logging.getLogger("jobq.worker")

# Longer than a statement may take (statement_timeout is 30 s) and longer than it takes to notice a
# lost connection.
STUCK_AFTER = 60.0
# Seconds for the database to answer a probe.
PROBE_WITHIN = 10.0
# Seconds between two probes. A doubt may last as long as an outage.
PROBE_EVERY = 5.0


class Watchdog:
    """Maintains `vitals.stuck`."""

    def __init__(self, settings: Settings, vitals: WorkerHealth) -> None:
        self._settings = settings
        self._vitals = vitals
        self._probe: asyncio.Task[bool] | None = None
        self._probed_at = 0.0

    def look(self) -> None:
        """Check the loops; called about once a second.

        This never waits: a probe runs in the background.
        """
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

    def _doubted(self) -> list[LoopHealth]:
        if self._vitals.phase == "starting":
            # No loop runs yet. The service manager decides how long a start may take.
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
                    # Do not say goodbye to the server, which would wait for it.
                    connection.pgconn.finish()
        except (psycopg.Error, OSError, TimeoutError):
            return False
        return True

    async def close(self) -> None:
        """Cancel the probe under way."""
        if self._probe is not None:
            self._probe.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._probe
