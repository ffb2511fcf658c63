"""The worker's sign of life, and the watch over those of the others.

The lease belongs to the worker: one row, rewritten at every heartbeat, and a session advisory lock held by the connection
that writes it, unless a pooler stands between, through which nobody can hold one: then only the whole lease counts. The
times that matter are intervals on one's own monotonic clock; nobody compares clocks.

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

import psycopg

from jobq.worker.database import Connection, fetch
from jobq.worker.options import WorkerOptions
from jobq.worker.stalls import Repeats

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What a heartbeat brought back."""

    cancelled: list[int]
    """Which of our jobs an operator wants stopped."""
    paused: list[str]
    """Which queues are paused."""
    changed: str | None
    """When the rules of any queue were last changed; only to be compared."""
    mode: int
    """The mode of waking, one of `brisk.Mode`."""
    watched: bool
    """Whether some worker is the sentinel."""
    asked: str | None
    """What an operator wants of this worker: ``quiet``, ``stop``, or None: that it works."""


class Lease:
    """One worker's identity in the database, and its heartbeat."""

    def __init__(self, options: WorkerOptions, version: str) -> None:
        self._options = options
        self._version = version
        self._schema = options.settings.schema
        self._watched: dict[UUID, _Watch] = {}
        self._repeats = Repeats()
        self._last_look = 0.0
        self.worker: UUID = uuid4()
        self._lock_key = secrets.randbits(62)
        self.last_beat = time.monotonic()
        """When the last heartbeat that succeeded was begun."""
        self.refused = False
        """Whether the server, when last asked, said that it is not there for anyone."""
        self.locked = False
        """Whether the advisory lock is held by a connection that is not known to be lost."""
        self.lockless = False
        """Whether our row says that we hold no lock, so that nobody suspects us for a free one."""
        self.suspicious = False
        """Whether some worker's lock is free, so that it pays to look again soon."""
        self.error: str | None = None
        """Why the last heartbeat failed; None once one has succeeded."""

    @property
    def peers(self) -> int:
        """How many other workers there were at the last look."""
        return len(self._watched)

    @property
    def fence_after(self) -> float:
        """Seconds after `last_beat` at which the runners must be dead.

        While our lock is held, or we never took one, or the server refuses everyone so that nobody can watch, the whole
        lease counts; once our connection is lost, the lock may be free: the suspicion counts. The margin pays for killing
        and for one late look at the clock.
        """
        limit = self._options.lease if self.locked or self.lockless or self.refused else self._options.suspicion
        return limit - 0.5

    @property
    def fresh(self) -> bool:
        """Whether jobs may be claimed and started: the last heartbeat is not so old that someone may have taken over."""
        return time.monotonic() - self.last_beat < self.fence_after

    async def register(self, connection: Connection, slots: int, tasks: list[str]) -> None:
        """Begin a life under a new id: lock first, so that the row is never without it."""
        self.worker, self._lock_key = uuid4(), secrets.randbits(62)
        begun = time.monotonic()
        await self.lock(connection)
        self.lockless = not self.locked
        await fetch(
            connection,
            self._schema,
            "worker_register",
            id=self.worker,
            lock_key=self._lock_key,
            locked=self.locked,
            pid=os.getpid(),
            slots=slots,
            host=socket.gethostname(),
            version=self._version,
            app=self._options.app,
            queues=list(self._options.queues) if self._options.queues is not None else None,
            tasks=tasks,
        )
        self.last_beat = begun

    async def lock(self, connection: Connection) -> None:
        """Take this worker's advisory lock on a new connection. The old connection's lock may take a while to go.

        Through a pooler the lock would stay with whatever session took it, for other clients to inherit: none is taken.
        """
        if connection.pooled:
            self.locked = False
            return
        [(self.locked,)] = await fetch(connection, self._schema, "worker_lock", lock_key=self._lock_key)
        if not self.locked:
            logger.info("the advisory lock is still held by the lost connection")

    async def beat(
        self, connection: Connection, *, running: int, state: str, tasks: list[str], rss: int | None = None
    ) -> Heard:
        """Write a heartbeat, look after the others, and return what else it brought. Raises LeaseLost when our row is gone."""
        begun = time.monotonic()
        if not self.locked:
            await self.lock(connection)
        # Once the row may say that we hold a lock, a free one counts against us; the other way round only when it is said.
        self.lockless = self.lockless and not self.locked
        rows = await fetch(
            connection,
            self._schema,
            "worker_beat",
            id=self.worker,
            running=running,
            state=state,
            tasks=tasks,
            rss=rss,
            locked=self.locked,
            pooled=connection.pooled,
        )
        if not rows:
            raise LeaseLost
        pid, asked, cancelled, paused, changed, mode, watched, *peers = rows[0]
        if not connection.pooled and pid != connection.server_pid:
            connection.found_pooler()
            raise psycopg.OperationalError("the server's process has changed: a pooler stands between")
        self.lockless = connection.pooled
        self.last_beat = begun
        self.refused = False
        self.error = None
        await self._watch(connection, list(zip(*peers, strict=True)))
        return Heard(cancelled=cancelled, paused=paused, changed=changed, mode=mode, watched=watched, asked=asked)

    async def leave(self, connection: Connection) -> None:
        """Take the row back, if no job is held in its name any more."""
        await fetch(connection, self._schema, "worker_leave", id=self.worker)

    async def look(self, connection: Connection) -> None:
        """Look after the other workers, between two heartbeats."""
        await self._watch(connection, await fetch(connection, self._schema, "worker_peers"))

    async def _watch(self, connection: Connection, rows: list[tuple[Any, ...]]) -> None:
        """Rescue from those workers that have stood still for too long.

        Called at every heartbeat at least; a gap means that our own queries did not work, and starts all watches anew.
        """
        now = time.monotonic()
        if now - self._last_look > max(3.0, self._options.heartbeat_interval * 1.5):
            self._watched.clear()
        self._last_look = now
        seen: dict[UUID, _Watch] = {}
        self.suspicious = False
        for worker, beats, unsuspected in rows:
            if worker == self.worker:
                continue
            watch = self._watched.get(worker)
            if watch is None or watch.beats != beats:
                watch = _Watch(beats, now)
            seen[worker] = watch
            self.suspicious = self.suspicious or not unsuspected
            patience = self._options.lease if unsuspected else self._options.suspicion
            if now - watch.since >= patience:
                try:
                    await self._rescue(connection, worker, beats, now - watch.since)
                except psycopg.errors.LockNotAvailable as error:
                    # Somebody's transaction holds its row: that must not cost us our own heartbeats.
                    self._repeats.note("a dead worker is locked", str(worker), dead=str(worker), error=str(error))
        self._watched = seen

    async def _rescue(self, connection: Connection, dead: UUID, beats: int, silent: float) -> None:
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
