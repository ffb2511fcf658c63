"""The end of a worker: running jobs end in time, or are ended.

Then the last outcomes are written.
"""

from __future__ import annotations

import asyncio
import logging
import time

from jobq._worker.claiming.loop import ClaimLoop
from jobq._worker.heartbeat import HeartbeatLoop
from jobq._worker.lease import wait_or
from jobq._worker.loops import Loops
from jobq._worker.runners.crash_policy import STOPPING
from jobq._worker.runners.pool import RunnerPool
from jobq._worker.wakeup.poller import LeadPoller

logger = logging.getLogger("jobq.worker")

# Seconds that running jobs get, once asked to stop, before their runners are killed.
CANCEL_GRACE = 2.0
# Seconds for which a stopping worker tries to write the last outcomes.
LAST_WRITES = 10.0


class Shutdown:
    """The shutdown of one worker. `hurry`, set by a second signal, ends every wait."""

    def __init__(
        self,
        *,
        patience: float,
        pool: RunnerPool,
        loops: Loops,
        claim_loop: ClaimLoop,
        heartbeat: HeartbeatLoop,
        poller: LeadPoller,
        hurry: asyncio.Event,
    ) -> None:
        """`patience`: seconds that running jobs get to end by themselves."""
        self._patience = patience
        self._pool = pool
        self._loops = loops
        self._claim_loop = claim_loop
        self._heartbeat = heartbeat
        self._poller = poller
        self._hurry = hurry

    async def finish(self) -> None:
        """Let running jobs end, then end them.

        Heartbeats continue until the last job is released.
        """
        pool, outcomes = self._pool, self._claim_loop.outcomes
        self._heartbeat.state = "draining"
        deadline = time.monotonic() + self._patience
        self._claim_loop.leave()
        pool.drain()
        await self._poller.leave()
        while pool.held and time.monotonic() < deadline and not self._hurry.is_set():
            await self._flush(deadline)
            await wait_or(self._hurry, 0.02)
            if self._loops.others_end(ClaimLoop.name):
                return
        if pool.held:
            logger.warning("stopping jobs that have not ended in time", extra={"jobs": pool.held})
            pool.cancel_all()
            deadline = time.monotonic() + (0.2 if self._hurry.is_set() else CANCEL_GRACE)
            while pool.held and time.monotonic() < deadline:
                await self._flush(deadline)
                await asyncio.sleep(0.02)
            pool.kill_all(STOPPING)
            while pool.held:
                pool.changed.clear()
                await wait_or(pool.changed, 0.5)
        deadline = time.monotonic() + LAST_WRITES
        while not self._claim_loop.finished and time.monotonic() < deadline:
            await self._flush(deadline)
        if len(outcomes):
            logger.error("outcomes could not be recorded: those jobs run again", extra={"jobs": len(outcomes)})

    async def _flush(self, deadline: float) -> None:
        """Record a batch of outcomes, until `deadline` or a second signal."""
        flush = asyncio.ensure_future(self._claim_loop.flush())
        hurry = asyncio.ensure_future(self._hurry.wait())
        waits = {flush} if self._hurry.is_set() else {flush, hurry}
        await asyncio.wait(waits, timeout=max(0.1, deadline - time.monotonic()), return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        if not flush.done() and self._hurry.is_set():
            await asyncio.wait({flush}, timeout=2.0)
        flush.cancel()
        await asyncio.gather(flush, return_exceptions=True)
        if not flush.cancelled() and (error := flush.exception()) is not None:
            raise error

    async def leave(self) -> None:
        """Delete the worker's row, and close the connections that wrote for it."""
        await self._heartbeat.leave()
        await self._claim_loop.close()
        logger.info("stopped", extra={"finished": self._claim_loop.outcomes.finished})

    async def close_pool(self) -> None:
        """End the runners, with limited time for their applications; at once if `hurry` is set."""
        closing = asyncio.ensure_future(self._pool.close(at_once=self._hurry.is_set()))
        hurry = asyncio.ensure_future(self._hurry.wait())
        await asyncio.wait({closing, hurry}, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        if not closing.done():
            self._pool.end_all()
        await closing
