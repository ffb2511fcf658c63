"""The lease fence: runners are killed before the worker's lease can have run out.

The loop checks the runners several times a second. It is independent of the heartbeats, whose
queries may hang.
"""

from __future__ import annotations

import asyncio
import logging
import time

from jobq._worker.claiming.capacity import ClaimGate
from jobq._worker.health.stalls import Stall
from jobq._worker.lease import Lease
from jobq._worker.loops import Topic
from jobq._worker.runners.pool import RunnerPool

logger = logging.getLogger("jobq.worker")

SUPERVISE_INTERVAL = 0.1
NO_HEARTBEAT = "no heartbeat"


class FenceLoop:
    """The loop that supervises one worker's runners and enforces its lease."""

    name = "runners"

    def __init__(
        self, pool: RunnerPool, lease: Lease, gate: ClaimGate, *, heartbeat_interval: float, stop: asyncio.Event
    ) -> None:
        """Create the loop. `stop` is set when the worker stops and needs no runners."""
        self._pool = pool
        self._lease = lease
        self._gate = gate
        self._heartbeat_interval = heartbeat_interval
        self._stop = stop

    async def run(self) -> None:
        """Check the runners until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(SUPERVISE_INTERVAL)

    def look(self) -> None:
        """Check the runners once, and kill their jobs if the lease is about to run out."""
        lease, gate = self._lease, self._gate
        self._pool.supervise(lease.last_beat + lease.fence_after)
        silent = time.monotonic() - lease.last_beat
        if silent > lease.fence_after and not gate.suspended:
            logger.error("no heartbeat for too long: killing the running jobs", extra={"silent": round(silent, 1)})
            gate.suspend(NO_HEARTBEAT)
            self._pool.kill_all("no heartbeat for too long")
        elif gate.suspended == NO_HEARTBEAT and silent < self._heartbeat_interval:
            gate.resume()

    def wake(self, topic: Topic | None = None) -> None:
        """Do nothing: the next check comes soon anyway."""

    def stall(self) -> Stall | None:
        """Return why no runner accepts jobs; None if one does or if the worker stops."""
        cause = self._pool.unready
        return Stall(cause) if cause is not None and not self._stop.is_set() else None

    async def close(self) -> None:
        """Do nothing: the dispatcher closes the pool after the last outcome is written."""
