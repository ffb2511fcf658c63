"""Keeping the lease: one connection that heartbeats, looks after the other workers, and registers again when the lease is lost.

Only a lost connection is replaced, for the advisory lock goes with it. When a statement fails (a lock, a timeout, a refusal)
the connection stays, the whole lease counts, and the statement is tried again: no error of the database ends the loop.

The fence, after which running jobs must be dead, is watched elsewhere (`Dispatcher`): a query here may hang.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

import psycopg

from jobq.worker.advance import Advance
from jobq.worker.database import Connection, Database, close, is_refusal, lease_terms
from jobq.worker.errors import ErrorKind, classify
from jobq.worker.lease import Lease, LeaseLost, wait_or
from jobq.worker.memory import resident
from jobq.worker.options import WorkerOptions
from jobq.worker.pool import RunnerPool
from jobq.worker.sentinel import Sentinel
from jobq.worker.stalls import Repeats, Trouble
from jobq.worker.vitals import Pulse

logger = logging.getLogger("jobq.worker")

# Seconds from a heartbeat that failed to the next try.
AGAIN_AFTER = 0.25
# Seconds that a worker which cannot register, because the table is locked, goes on trying.
REGISTER_WITHIN = 60.0
# How often another worker is looked at that may be dead.
LOOK_INTERVAL = 0.25


class Keeper:
    """One worker's. What is heard at a heartbeat goes to `advance` and `sentinel`; `pulse` feels how the heartbeats go."""

    def __init__(
        self,
        options: WorkerOptions,
        *,
        database: Database,
        lease: Lease,
        pool: RunnerPool,
        advance: Advance,
        sentinel: Sentinel,
        pulse: Pulse,
        on_asked: Callable[[str | None], None],
    ) -> None:
        """`on_asked` is told at each heartbeat what an operator wants of this worker: ``quiet``, ``stop``, or None: to work."""
        self._options = options
        self._database = database
        self._lease = lease
        self._pool = pool
        self._advance = advance
        self._sentinel = sentinel
        self._pulse = pulse
        self._on_asked = on_asked
        self._connection: Connection | None = None
        self._anew = False
        """Whether the lease was lost, so that a life under a new id has to be begun."""
        self._at_once = asyncio.Event()
        self._repeats = Repeats()
        lease.rescuer.on_lowered = self._lowered
        self.state = "running"
        """What the heartbeats say of this worker."""

    async def connected(self) -> Connection:
        """Return the connection, made if there is none. Raises psycopg.OperationalError."""
        if self._connection is None or self._connection.closed:
            self._connection = await self._database.connect("lease", lease_terms(self._options.heartbeat_interval))
        return self._connection

    def beat_at_once(self) -> None:
        """Do not wait for the next heartbeat: there is something to hear at it."""
        self._at_once.set()

    async def scout(self, started: asyncio.Event) -> None:
        """Look after the other workers until the own one has started: a dead one's jobs run the sooner."""
        try:
            while not started.is_set():
                await self._lease.look(await self.connected())
                await wait_or(started, LOOK_INTERVAL if self._lease.suspicious else 1.0)
        except (psycopg.Error, OSError, TimeoutError):
            await self._drop()

    async def register(self) -> None:
        """Begin a life under a new id; wait for locks for a while. Raises psycopg.Error."""
        slots, until = self._options.concurrency * self._options.processes, time.monotonic() + REGISTER_WITHIN
        pool = self._pool
        while True:
            try:
                return await self._lease.register(await self.connected(), slots, pool.tasks, pool.signatures)
            except psycopg.Error as error:
                if classify(error, self._connection) is not ErrorKind.TRANSIENT or time.monotonic() > until:
                    raise
                self._repeats.warn("the worker cannot register yet", error)
                await asyncio.sleep(AGAIN_AFTER)

    async def run(self) -> None:
        """Heartbeat until cancelled, connecting again as often as needed."""
        next_beat = 0.0
        while True:
            try:
                self._pulse.turn()
                new = self._connection is None or self._connection.closed
                connection = await self.connected()
                if self._anew:
                    await self.register()
                    self._anew = False
                    self._advance.release_hold()
                elif new:
                    await self._lease.lock(connection)
                if new or time.monotonic() >= next_beat:
                    next_beat = time.monotonic() + self._options.heartbeat_interval
                    await self._beat(connection)
                else:
                    await self._lease.look(connection)
                await wait_or(self._at_once, self._until_next_look(next_beat))
                if self._at_once.is_set():
                    # A moment for more of the kind.
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
        """Return the seconds to wait: a suspected worker's jobs are to be taken back as soon as that is allowed."""
        now = time.monotonic()
        if not self._lease.suspicious:
            return next_beat - now
        soon = min(LOOK_INTERVAL, self._options.heartbeat_interval / 2)
        # A moment later than that, for the look's own time.
        return soon if self._lease.next_due is None else min(soon, self._lease.next_due - now + 0.005)

    async def _beat(self, connection: Connection) -> None:
        said = self.state
        asked = await self._lease.beat(
            connection,
            running=self._pool.held,
            state=said,
            tasks=self._pool.tasks,
            signatures=self._pool.signatures,
            rss=resident() + self._pool.rss or None,
        )
        self._pulse.well()
        self._on_asked(asked)
        if self.state != said:
            # The operator who asked waits to see it done.
            self._at_once.set()
        heard = await self._lease.hear(connection)
        if heard.cancelled:
            self._pool.cancel(heard.cancelled)
        if heard.queues is not None:
            self._advance.heard(*heard.queues)
        if heard.wake is not None:
            mode, watched = heard.wake
            self._sentinel.heard(mode, watched=watched)
        if heard.peers is not None:
            await self._lease.watch(connection, heard.peers)

    def _lowered(self, queue: str, run_at: int) -> None:
        """A rescue put jobs back at their old places: no need to wait for its notification."""
        self._sentinel.lowered(queue, run_at)
        self._advance.lowered(queue, run_at)

    async def _give_up_everything(self) -> None:
        """End whatever runs under the identity that is lost; another is taken over a new connection."""
        self._advance.hold("the lease is lost")
        self._pool.kill_all("the lease is lost")
        while self._pool.held:
            self._pool.changed.clear()
            await wait_or(self._pool.changed, 0.5)
        await self._advance.forget()
        await self._drop()
        self._anew = True

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        await close(connection)

    def trouble(self) -> Trouble | None:
        """Return since when and why there is no heartbeat, if one is missing."""
        due = self._lease.last_beat + self._options.heartbeat_interval
        if time.monotonic() < due + 0.5:
            return None
        where = self._database.connecting.get("lease")
        connection = self._connection
        now = f"waiting for a connection to {where}" if where else connection and connection.waiting_for
        return Trouble("; ".join(part for part in (self._lease.error, now) if part) or "none was sent", due)

    async def leave(self) -> None:
        """Take the worker's row back, if the database can be asked for it within a few seconds."""
        try:
            async with asyncio.timeout(5):
                await self._lease.leave(await self.connected())
        except (psycopg.Error, OSError, TimeoutError) as error:
            logger.warning("the worker's row stays behind", extra={"error": str(error).strip()})
        await self._drop()

    async def close(self) -> None:
        """Close the connection."""
        await self._drop()
