"""The worker's lease, and the watch over other workers' leases.

The lease belongs to the worker: one row, which every heartbeat rewrites, and a session advisory
lock, held by the connection that writes the row. Through a pooler no session can hold a lock; then
only the whole lease counts. All deadlines are intervals on the worker's own monotonic clock. The
server's clock only tells how old another worker's heartbeat is, and only while it runs as fast as
ours (`Lease.watch`).

Two executions of a job must not overlap. If a worker's heartbeats fail, it therefore kills its
runners before any other worker can have watched its row stand still for long enough
(`fence_after`). A rescuer must have watched for all that time itself, with successful queries.
After an outage of the database, every worker starts its watch again, and every worker is alive
again before the first watch can end.

An error of a statement (a lock, a timeout, a refusal) is not a lost connection: the connection and
its advisory lock stay, so the whole lease counts. The heartbeat writes the worker's row, even if
other data cannot be read with it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
import socket
import time
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import psycopg

from jobq._worker.database import Connection, fetch
from jobq._worker.database_errors import ErrorKind, classify
from jobq._worker.faults.problems import Problems
from jobq._worker.health.stalls import RateLimitedLog
from jobq._worker.options import WorkerOptions
from jobq._worker.peers import CLOCK_TOLERANCE, HeartbeatReply, Peers
from jobq._worker.rescue import Rescuer

logger = logging.getLogger("jobq.worker")

# Rescues may take this share of a heartbeat's interval at each check of other workers.
_RESCUE_PART = 0.25
# Seconds for which replies are read one by one, after a lock blocked reading them all at once.
_APART_FOR = 10.0
# If a statement of ours takes longer, it may have kept other workers from their heartbeats, too.
_SLOW = 1.0


class LeaseLost(Exception):
    """Another worker considered this one dead: its jobs no longer belong to it."""


@dataclass(slots=True)
class _Watch:
    beats: int
    since: float


class Lease:
    """One worker's identity in the database, and its heartbeat."""

    def __init__(self, options: WorkerOptions, version: str, problems: Problems | None = None) -> None:
        """`problems` are written with each heartbeat; failed rescues are recorded there, too."""
        self._options = options
        self._version = version
        self._schema = options.settings.schema
        self._watched: dict[UUID, _Watch] = {}
        self._repeats = RateLimitedLog()
        self.problems = problems or Problems()
        self.rescuer = Rescuer(self._schema, self.problems, self._repeats)
        self._last: Peers | None = None
        """The result of the last check."""
        self._disturbed = True
        """Whether a statement failed or was slow since the last check.

        Other workers may then have been unable to send heartbeats.
        """
        self._apart_until = 0.0
        self.worker: UUID = uuid4()
        self._lock_key = secrets.randbits(62)
        self.last_beat = time.monotonic()
        """When the last successful heartbeat began."""
        self.refused = False
        """Whether the server last said that it accepts no client."""
        self.locked = False
        """Whether the advisory lock is held by a connection that is not known to be lost."""
        self.lockless = False
        """Whether our row says that we hold no lock.

        No worker then suspects us because it is free.
        """
        self.has_suspects = False
        """Whether a worker's lock is free, so another check soon is useful."""
        self.next_due: float | None = None
        """When the first suspected worker may be rescued from, in time.monotonic() seconds."""
        self.error: str | None = None
        """Why the last heartbeat failed; None if it succeeded."""

    @property
    def peers(self) -> int:
        """Number of other workers at the last check."""
        return len(self._watched)

    @property
    def fence_after(self) -> float:
        """Seconds after `last_beat` at which the runners must be dead.

        The whole lease counts while our lock is held, if we never took one, or if the server
        refuses every client so that no worker can watch. If our connection is lost, the lock may be
        free: then the suspicion time counts. The margin covers killing, and one late check of the
            clock.
        """
        limit = self._options.lease if self.locked or self.lockless or self.refused else self._options.suspicion
        return limit - 0.5

    @property
    def _longest_gap(self) -> float:
        return max(3.0, self._options.heartbeat_interval * 1.5, self._options.suspicion * 2)

    @property
    def fresh(self) -> bool:
        """Whether jobs may be claimed and started.

        If so, no other worker can have taken over since the heartbeat.
        """
        return time.monotonic() - self.last_beat < self.fence_after

    async def register(
        self, connection: Connection, slots: int, tasks: list[str], signatures: list[str] | None = None
    ) -> None:
        """Register under a new id. The lock is taken first, so the row is never without it."""
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
            lease=self._options.lease,
            suspicion=self._options.suspicion,
            signatures=signatures or [],
        )
        self.last_beat = begun

    async def lock(self, connection: Connection) -> None:
        """Take this worker's advisory lock on a new connection.

        The lock of the old connection may take a while to disappear. Through a pooler the lock
        would stay with the session that took it, and other clients would inherit it: none is taken.
        """
        if connection.pooled:
            self.locked = False
            return
        [(self.locked,)] = await fetch(connection, self._schema, "worker_lock", lock_key=self._lock_key)
        if not self.locked:
            logger.info("the advisory lock is still held by the lost connection")

    async def beat(
        self,
        connection: Connection,
        *,
        running: int,
        state: str,
        tasks: list[str],
        signatures: list[str] | None = None,
        rss: int | None = None,
    ) -> str | None:
        """Write a heartbeat. Return the requested state: ``quiet``, ``stop``, or None: work.

        Raises LeaseLost if our row is gone, and psycopg.Error. An error of the statement is not a
        lost
        connection: the advisory lock stays, and the whole lease counts.
        """
        begun = time.monotonic()
        # Stays true until the statements have succeeded.
        disturbed, self._disturbed = self._disturbed, True
        if not self.locked:
            await self.lock(connection)
        # Once the row may say that we hold a lock, a free lock counts against us. The other
        # direction takes effect only once it is written.
        self.lockless = self.lockless and not self.locked
        rows = await fetch(
            connection,
            self._schema,
            "worker_heartbeat",
            id=self.worker,
            running=running,
            state=state,
            tasks=tasks,
            signatures=signatures or [],
            rss=rss,
            locked=self.locked,
            pooled=connection.pooled,
            problems=json.dumps(self.problems.rows(), ensure_ascii=False),
        )
        if not rows:
            raise LeaseLost
        pid, asked = rows[0]
        if not connection.pooled and pid != connection.server_pid:
            connection.found_pooler()
            raise psycopg.OperationalError("the server's process has changed: a pooler stands between")
        self.lockless = connection.pooled
        self._disturbed = disturbed or time.monotonic() - begun > _SLOW
        self.last_beat = begun
        self.refused = False
        self.error = None
        return asked if asked is None else str(asked)

    async def hear(self, connection: Connection) -> HeartbeatReply:
        """Read the replies after a heartbeat: all at once, or one by one while a lock blocks some.

        Raises psycopg.Error only if the connection is lost.
        """
        asked = time.monotonic()
        if asked >= self._apart_until:
            if (rows := await self._hear(connection, "heartbeat_reply", id=self.worker)) is not None:
                cancelled, paused, changed, mode, watched, *peers = rows[0]
                return HeartbeatReply(
                    cancelled=cancelled,
                    queues=(paused, changed),
                    wake=(mode, watched),
                    peers=Peers(list(zip(*peers, strict=True)), asked, time.monotonic()),
                )
            self._apart_until = time.monotonic() + _APART_FOR
        cancels = await self._hear(connection, "heartbeat_cancels", id=self.worker)
        queues = await self._hear(connection, "heartbeat_queues")
        wake = await self._hear(connection, "heartbeat_notify_mode")
        return HeartbeatReply(
            cancelled=None if cancels is None else [job for (job,) in cancels],
            queues=None if queues is None else (queues[0][0], queues[0][1]),
            wake=None if wake is None else (wake[0][0], wake[0][1]),
            peers=await self._peers(connection),
        )

    async def _peers(self, connection: Connection) -> Peers | None:
        asked = time.monotonic()
        rows = await self._hear(connection, "worker_peers")
        return None if rows is None else Peers(rows, asked, time.monotonic())

    async def _hear(self, connection: Connection, name: str, **parameters: Any) -> list[tuple[Any, ...]] | None:
        begun = time.monotonic()
        disturbed, self._disturbed = self._disturbed, True
        try:
            rows = await fetch(connection, self._schema, name, **parameters)
        except psycopg.Error as error:
            if classify(error, connection) is ErrorKind.CONNECTION:
                raise
            self._repeats.warn("heartbeats go on, but what comes with them cannot be read", error)
            return None
        self._disturbed = disturbed or time.monotonic() - begun > _SLOW
        return rows

    async def leave(self, connection: Connection) -> None:
        """Delete the row, if no job is held in its name any more."""
        await fetch(connection, self._schema, "worker_leave", id=self.worker)

    async def look(self, connection: Connection) -> None:
        """Check the other workers between two heartbeats.

        Raises psycopg.Error only for a lost connection.
        """
        if (peers := await self._peers(connection)) is not None:
            await self.watch(connection, peers)

    async def watch(self, connection: Connection, peers: Peers) -> None:
        """Rescue jobs from workers that have stood still for too long.

        Each worker's own lease and suspicion count, which its row contains, whatever ours are. This is
        called at least at every heartbeat. All watches start again if a statement of ours failed or
        was slow meanwhile, or after a long gap: other workers may have been unable to send
        heartbeats, too. A short gap only makes us late (a busy machine). Raises psycopg.Error only
        if the connection is lost.
        """
        now, last = time.monotonic(), self._last
        if last is None or self._disturbed or now - last.answered > self._longest_gap:
            self._watched.clear()
        self._last, self._disturbed = peers, False
        # Heartbeats are counted, because clocks may be set. But if the server's clock has run like
        # ours since the last check, it tells when a heartbeat came in that time. Otherwise a dead
        # worker's jobs would wait up to one interval longer.
        steady = last is not None and peers.steady_since(last)
        seen: dict[UUID, _Watch] = {}
        dead: list[UUID] = []
        due: list[float] = []
        self.has_suspects = False
        for worker, beats, unsuspected, age, _, lease, suspicion in peers.rows:
            if worker == self.worker:
                continue
            watch = self._watched.get(worker)
            if watch is None:
                watch = _Watch(beats, now)
            elif watch.beats != beats:
                assert last is not None
                since = max(last.answered, peers.answered - age + CLOCK_TOLERANCE) if steady else now
                watch = _Watch(beats, min(now, since))
            seen[worker] = watch
            self.has_suspects = self.has_suspects or not unsuspected
            until = watch.since + (lease if unsuspected else min(lease, suspicion))
            if now >= until:
                dead.append(worker)
            elif not unsuspected:
                due.append(until)
        self.next_due = min(due, default=None)
        self._watched = seen
        self.rescuer.forget_all_but({worker: watch.beats for worker, watch in seen.items()})
        until = now + self._options.heartbeat_interval * _RESCUE_PART
        for worker in self.rescuer.in_turn(dead):
            watch = seen[worker]
            await self.rescuer.rescue(connection, worker, watch.beats, silent=now - watch.since, until=until)
            if time.monotonic() >= until:
                # The others follow at the next check, which is soon: heartbeats come first.
                self.has_suspects = True
                break


async def wait_or(event: asyncio.Event, seconds: float) -> bool:
    """Wait for `event` for at most `seconds`; return whether it was set."""
    if seconds <= 0:
        return event.is_set()
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
