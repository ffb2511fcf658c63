"""The worker's sign of life, and the watch over those of the others.

The lease belongs to the worker: one row, rewritten at every heartbeat, and a session advisory lock held by the connection
that writes it. The times that matter are intervals on one's own monotonic clock; nobody compares clocks.

Two executions of a job must not overlap. So a worker whose heartbeats fail kills its runners before anyone can have
watched its row stand still for long enough (`fence_after`), and whoever rescues must have watched for all that time
himself, with queries that worked: after a database outage everyone starts watching anew, and everyone is alive again
before the first watch can end.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
import time
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

from psycopg import AsyncConnection

from jobq.worker.database import fetch
from jobq.worker.options import WorkerOptions

logger = logging.getLogger("jobq.worker")

# Workers that must die holding a job before it is failed: a machine's end is rarely the job's fault, but a job that takes
# its whole worker down must end some day.
MAX_LOSSES = 10


class LeaseLost(Exception):
    """Another worker took this one for dead: its jobs are no longer its own."""


@dataclass(slots=True)
class _Watch:
    beats: int
    since: float
    looks: int = 0


class Lease:
    """One worker's identity in the database, and its heartbeat."""

    def __init__(self, options: WorkerOptions, version: str) -> None:
        self._options = options
        self._version = version
        self._schema = options.settings.schema
        self._watched: dict[UUID, _Watch] = {}
        self._last_look = 0.0
        self.worker: UUID = uuid4()
        self._lock_key = secrets.randbits(62)
        self.last_beat = time.monotonic()
        """When the last heartbeat that succeeded was begun."""
        self.refused = False
        """Whether the server, when last asked, said that it is not there for anyone."""
        self.locked = False
        """Whether the advisory lock is held by a connection that is not known to be lost."""

    @property
    def fence_after(self) -> float:
        """Seconds after `last_beat` at which the runners must be dead.

        While our lock is held, or the server refuses everyone so that nobody can watch, the whole lease counts; once our
        connection is lost, the lock may be free: the suspicion counts. The margin pays for killing and for one late look
        at the clock.
        """
        limit = self._options.lease if self.locked or self.refused else self._options.suspicion
        return limit - 0.5

    @property
    def fresh(self) -> bool:
        """Whether jobs may be claimed and started: the last heartbeat is not so old that someone may have taken over."""
        return time.monotonic() - self.last_beat < self.fence_after

    async def register(self, connection: AsyncConnection[Any], slots: int, tasks: list[str]) -> None:
        """Begin a life under a new id: lock first, so that the row is never without it."""
        self.worker, self._lock_key = uuid4(), secrets.randbits(62)
        begun = time.monotonic()
        await self.lock(connection)
        await fetch(
            connection,
            self._schema,
            "worker_register",
            id=self.worker,
            lock_key=self._lock_key,
            pid=os.getpid(),
            slots=slots,
            host=socket.gethostname(),
            version=self._version,
            app=self._options.app,
            queues=list(self._options.queues) if self._options.queues is not None else None,
            tasks=tasks,
        )
        self.last_beat = begun

    async def lock(self, connection: AsyncConnection[Any]) -> None:
        """Take this worker's advisory lock on a new connection. The old connection's lock may take a while to go."""
        cursor = await connection.execute("SELECT pg_try_advisory_lock(%s)", (self._lock_key,))
        row = await cursor.fetchone()
        self.locked = bool(row and row[0])
        if not self.locked:
            logger.info("the advisory lock is still held by the lost connection")

    async def beat(self, connection: AsyncConnection[Any], *, running: int, state: str, tasks: list[str]) -> None:
        """Write a heartbeat. Raises LeaseLost when the row is gone."""
        begun = time.monotonic()
        if not self.locked:
            await self.lock(connection)
        rows = await fetch(
            connection, self._schema, "worker_beat", id=self.worker, running=running, state=state, tasks=tasks
        )
        if not rows:
            raise LeaseLost
        self.last_beat = begun
        self.refused = False

    async def leave(self, connection: AsyncConnection[Any]) -> None:
        """Take the row back, if no job is held in its name any more."""
        await fetch(connection, self._schema, "worker_leave", id=self.worker)

    async def look(self, connection: AsyncConnection[Any]) -> None:
        """Look at the other workers and rescue from those that have stood still for too long.

        Called about once a second; a gap between looks means that our own queries did not work, and starts all watches
        anew.
        """
        rows = await fetch(connection, self._schema, "worker_peers")
        now = time.monotonic()
        if now - self._last_look > max(3.0, self._options.heartbeat_interval * 1.5):
            self._watched.clear()
        self._last_look = now
        seen: dict[UUID, _Watch] = {}
        for worker, beats, lock_held in rows:
            if worker == self.worker:
                continue
            watch = self._watched.get(worker)
            if watch is None or watch.beats != beats:
                watch = _Watch(beats, now)
            seen[worker] = watch
            patience = self._options.lease if lock_held else self._options.suspicion
            if now - watch.since >= patience:
                await self._rescue(connection, worker, beats, now - watch.since)
        self._watched = seen

    async def _rescue(self, connection: AsyncConnection[Any], dead: UUID, beats: int, silent: float) -> None:
        rows = await fetch(
            connection,
            self._schema,
            "rescue",
            dead=dead,
            beats=beats,
            max_losses=MAX_LOSSES,
            channel=self._schema,
        )
        gone, requeued, failed, _ = rows[0]
        if gone:
            logger.warning(
                "took a dead worker's jobs back",
                extra={"dead": str(dead), "silent": round(silent, 1), "requeued": requeued, "failed": failed},
            )


async def wait_or(event: asyncio.Event, seconds: float) -> bool:
    """Wait for `event` for at most `seconds`; tell whether it came."""
    if seconds <= 0:
        return event.is_set()
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
