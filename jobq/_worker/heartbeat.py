"""The heartbeat keeps the lease: one connection writes it, watches other workers, and re-registers.

Only a lost connection is replaced, because the advisory lock is lost with it. If a statement fails
(a lock, a timeout, a refusal), the connection stays, the whole lease counts, and the statement is
tried again: no database error ends the loop.

Running jobs must be dead after the fence. `FenceLoop` enforces that, because a query may hang here.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

import psycopg

from jobq._worker.claiming.loop import ClaimLoop
from jobq._worker.database import Connection, Database, close
from jobq._worker.database_errors import ErrorKind, classify, is_refusal
from jobq._worker.health.memory import resident
from jobq._worker.health.stalls import RateLimitedLog, Stall
from jobq._worker.health.state import LoopHealth
from jobq._worker.lease import Lease, LeaseLost, wait_or
from jobq._worker.loops import MISSED, Topic
from jobq._worker.options import WorkerOptions
from jobq._worker.runners.pool import RunnerPool
from jobq._worker.timeouts import lease_timeouts
from jobq._worker.wakeup.poller import LeadPoller

logger = logging.getLogger("jobq.worker")

# Seconds from a failed heartbeat to the next try.
AGAIN_AFTER = 0.25
# Seconds for which a worker tries to register while the table is locked.
REGISTER_WITHIN = 60.0
# Seconds between checks of a worker that may be dead.
LOOK_INTERVAL = 0.25


class HeartbeatLoop:
    """The heartbeat of one worker.

    The claim loop and the lead poller get what a heartbeat reads. `pulse` records how heartbeats
    go.
    """

    name = "heartbeats"

    def __init__(
        self,
        options: WorkerOptions,
        *,
        database: Database,
        lease: Lease,
        pool: RunnerPool,
        claim_loop: ClaimLoop,
        poller: LeadPoller,
        pulse: LoopHealth,
        on_asked: Callable[[str | None], None],
    ) -> None:
        """`on_asked` gets the requested state at each heartbeat.

        It is ``quiet``, ``stop``, or None, which means: work.
        """
        self._options = options
        self._database = database
        self._lease = lease
        self._pool = pool
        self._claim_loop = claim_loop
        self._poller = poller
        self._pulse = pulse
        self._on_asked = on_asked
        self._connection: Connection | None = None
        self._anew = False
        """Whether the lease was lost, so the worker must register under a new id."""
        self._at_once = asyncio.Event()
        self._repeats = RateLimitedLog()
        lease.rescuer.on_lowered = self._lowered
        self.state = "running"
        """The state of this worker that heartbeats write."""

    async def connected(self) -> Connection:
        """Return the connection; create it if there is none. Raises psycopg.OperationalError."""
        if self._connection is None or self._connection.closed:
            self._connection = await self._database.connect(
                "heartbeats", lease_timeouts(self._options.heartbeat_interval)
            )
        return self._connection

    def wake(self, topic: Topic | None = None) -> None:
        """Send the next heartbeat at once, because there is something to read.

        The rows that the heartbeat reads say which worker is meant, and what it must do.
        """
        if topic is None or topic == MISSED or topic.kind in ("cancel", "workers"):
            self._at_once.set()

    async def scout(self, started: asyncio.Event) -> None:
        """Watch other workers until this worker has started, so a dead worker's jobs run sooner."""
        try:
            while not started.is_set():
                await self._lease.look(await self.connected())
                await wait_or(started, LOOK_INTERVAL if self._lease.has_suspects else 1.0)
        except (psycopg.Error, OSError, TimeoutError):
            await self._drop()

    async def register(self) -> None:
        """Register under a new id; wait for locks for a while. Raises psycopg.Error."""
        slots, until = self._options.concurrency * self._options.processes, time.monotonic() + REGISTER_WITHIN
        pool = self._pool
        while True:
            try:
                return await self._lease.register(
                    await self.connected(), slots, pool.application.tasks, pool.application.signatures
                )
            except psycopg.Error as error:
                if classify(error, self._connection) is not ErrorKind.TRANSIENT or time.monotonic() > until:
                    raise
                self._repeats.warn("the worker cannot register yet", error)
                await asyncio.sleep(AGAIN_AFTER)

    async def run(self) -> None:
        """Send heartbeats until cancelled; reconnect as often as needed."""
        next_beat = 0.0
        while True:
            try:
                self._pulse.turn()
                new = self._connection is None or self._connection.closed
                connection = await self.connected()
                if self._anew:
                    await self.register()
                    self._anew = False
                    self._claim_loop.gate.resume()
                elif new:
                    await self._lease.lock(connection)
                if new or time.monotonic() >= next_beat:
                    next_beat = time.monotonic() + self._options.heartbeat_interval
                    await self._beat(connection)
                else:
                    await self._lease.look(connection)
                await wait_or(self._at_once, self._until_next_look(next_beat))
                if self._at_once.is_set():
                    # Wait briefly for more requests of this kind.
                    await asyncio.sleep(0.02)
                    self._at_once.clear()
                    next_beat = 0.0
            except LeaseLost:
                logger.error("the lease is lost: another worker took this one for dead")
                await self._give_up_everything()
            except (psycopg.Error, OSError, TimeoutError) as error:
                self._pulse.failed(error)
                self._lease.error = self._repeats.warn("no heartbeat", error)
                if self._connection is None or classify(error, self._connection) is ErrorKind.CONNECTION:
                    self._lease.refused = is_refusal(error)
                    self._lease.locked = False
                    await self._drop()
                next_beat = 0.0
                await asyncio.sleep(AGAIN_AFTER)

    def _until_next_look(self, next_beat: float) -> float:
        """Return the seconds to wait until a suspected worker's jobs may be rescued."""
        now = time.monotonic()
        if not self._lease.has_suspects:
            return next_beat - now
        soon = min(LOOK_INTERVAL, self._options.heartbeat_interval / 2)
        # A little later, because the check itself takes time.
        return soon if self._lease.next_due is None else min(soon, self._lease.next_due - now + 0.005)

    async def _beat(self, connection: Connection) -> None:
        said = self.state
        asked = await self._lease.beat(
            connection,
            running=self._pool.held,
            state=said,
            tasks=self._pool.application.tasks,
            signatures=self._pool.application.signatures,
            rss=resident() + self._pool.rss or None,
        )
        self._pulse.well()
        self._on_asked(asked)
        if self.state != said:
            # The operator who asked is waiting for the result.
            self._at_once.set()
        heard = await self._lease.hear(connection)
        if heard.cancelled:
            self._pool.cancel(heard.cancelled)
        if heard.queues is not None:
            self._claim_loop.sync.heard(*heard.queues)
        if heard.wake is not None:
            mode, watched = heard.wake
            self._poller.heard(mode, watched=watched)
        if heard.peers is not None:
            await self._lease.watch(connection, heard.peers)

    def _lowered(self, queue: str, run_at: int) -> None:
        """A rescue put jobs back at their old places. This need not wait for its notification."""
        self._poller.lowered(queue, run_at)
        self._claim_loop.finder.lowered(queue, run_at)

    async def _give_up_everything(self) -> None:
        """End everything that runs under the lost identity.

        A new identity is taken over a new connection.
        """
        self._claim_loop.gate.suspend("the lease is lost")
        self._pool.kill_all("the lease is lost")
        while self._pool.held:
            self._pool.changed.clear()
            await wait_or(self._pool.changed, 0.5)
        await self._claim_loop.forget()
        await self._drop()
        self._anew = True

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        await close(connection)

    def stall(self) -> Stall | None:
        """Return since when and why heartbeats are missing; None if they are not."""
        due = self._lease.last_beat + self._options.heartbeat_interval
        if time.monotonic() < due + 0.5:
            return None
        where = self._database.connecting.get("heartbeats")
        connection = self._connection
        now = f"waiting for a connection to {where}" if where else connection and connection.waiting_for
        return Stall("; ".join(part for part in (self._lease.error, now) if part) or "none was sent", due)

    async def leave(self) -> None:
        """Delete the worker's row, if the database answers within a few seconds."""
        try:
            async with asyncio.timeout(5):
                await self._lease.leave(await self.connected())
        except (psycopg.Error, OSError, TimeoutError) as error:
            logger.warning("the worker's row stays behind", extra={"error": str(error).strip()})
        await self._drop()

    async def close(self) -> None:
        """Close the connection."""
        await self._drop()
