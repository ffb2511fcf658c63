"""The worker's sign of life, and the watch over those of the others.

The lease belongs to the worker: one row, rewritten at every heartbeat, and a session advisory lock held by the connection
that writes it, unless a pooler stands between, through which no session can hold one: then only the whole lease counts. The
times that matter are intervals on the worker's own monotonic clock. The server's clock is used only to tell how old another
worker's heartbeat is, and only while it runs as fast as ours (`Lease.watch`).

Two executions of a job must not overlap. So a worker whose heartbeats fail kills its runners before anyone can have
watched its row stand still for long enough (`fence_after`), and a rescuer must itself have watched for all that
time, with queries that worked: after a database outage every worker starts its watch again, and every worker is alive again
before the first watch can end.

An error of a statement (a lock, a timeout, a refusal) is not a lost connection: the connection and its advisory lock stay, so
that the whole lease counts. And the heartbeat writes the worker's row, whatever else cannot be read with it.
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

from jobq.worker.database import Connection, fetch
from jobq.worker.errors import ErrorKind, classify
from jobq.worker.options import WorkerOptions
from jobq.worker.problems import Problems
from jobq.worker.rescue import Rescuer
from jobq.worker.stalls import Repeats

logger = logging.getLogger("jobq.worker")

# Rescues may take this part of a heartbeat's interval at each look at the others.
_RESCUE_PART = 0.25
# Seconds for which what is heard after heartbeats is read one by one, once a lock was in the way of all at once.
_APART_FOR = 10.0
# Seconds that a statement of ours may take before it says that the others may have been kept from their heartbeats, too.
_SLOW = 1.0


class LeaseLost(Exception):
    """Another worker took this one for dead: its jobs are no longer its own."""


# Seconds by which the server's clock and ours may drift apart between two looks. A heartbeat is taken to be that much younger.
CLOCK_TOLERANCE = 0.1


@dataclass(slots=True)
class _Watch:
    beats: int
    since: float


@dataclass(frozen=True, slots=True)
class Peers:
    """Rows of worker_peers.sql; they were read between `asked` and `answered`, in time.monotonic()."""

    rows: list[tuple[Any, ...]]
    asked: float
    answered: float

    @property
    def clock(self) -> float:
        """What the server's clock showed, in seconds."""
        return float(self.rows[-1][4]) if self.rows else 0.0

    def steady_since(self, before: Peers) -> bool:
        """Tell whether the server's clock has run as ours since `before`. The time that an answer took says nothing."""
        passed = self.clock - before.clock
        least, most = self.asked - before.answered, self.answered - before.asked
        return least - CLOCK_TOLERANCE < passed < most + CLOCK_TOLERANCE


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What was heard after a heartbeat; None: it could not be read."""

    cancelled: list[int] | None = None
    """Which of our jobs an operator wants stopped."""
    queues: tuple[list[str], str | None] | None = None
    """Which queues are paused; and when the rules of any queue were last changed, only to be compared."""
    wake: tuple[int, bool] | None = None
    """The mode of waking, one of `brisk.Mode`; and whether some worker is the sentinel."""
    peers: Peers | None = None
    """The workers, for `Lease.watch`."""


class Lease:
    """One worker's identity in the database, and its heartbeat."""

    def __init__(self, options: WorkerOptions, version: str, problems: Problems | None = None) -> None:
        """`problems` are written with each heartbeat; rescues that fail are noted there, too."""
        self._options = options
        self._version = version
        self._schema = options.settings.schema
        self._watched: dict[UUID, _Watch] = {}
        self._repeats = Repeats()
        self.problems = problems or Problems()
        self.rescuer = Rescuer(self._schema, self.problems, self._repeats)
        self._last: Peers | None = None
        """What the last look saw."""
        self._disturbed = True
        """Whether a statement has failed, or was slow, since the last look: the others may not have been able to beat."""
        self._apart_until = 0.0
        self.worker: UUID = uuid4()
        self._lock_key = secrets.randbits(62)
        self.last_beat = time.monotonic()
        """When the last heartbeat that succeeded was begun."""
        self.refused = False
        """Whether the server, when last asked, said that it is not there for anyone."""
        self.locked = False
        """Whether the advisory lock is held by a connection that is not known to be lost."""
        self.lockless = False
        """Whether our row says that we hold no lock, so that no worker suspects us because it is free."""
        self.suspicious = False
        """Whether some worker's lock is free, so that it pays to look again soon."""
        self.next_due: float | None = None
        """When the first of the suspected workers has been silent for long enough, in time.monotonic()."""
        self.error: str | None = None
        """Why the last heartbeat failed; None once one has succeeded."""

    @property
    def peers(self) -> int:
        """How many other workers there were at the last look."""
        return len(self._watched)

    @property
    def fence_after(self) -> float:
        """Seconds after `last_beat` at which the runners must be dead.

        While our lock is held, or we never took one, or the server refuses everyone so that no one can watch, the whole
        lease counts; once our connection is lost, the lock may be free: the suspicion counts. The margin pays for killing
        and for one late look at the clock.
        """
        limit = self._options.lease if self.locked or self.lockless or self.refused else self._options.suspicion
        return limit - 0.5

    @property
    def _longest_gap(self) -> float:
        return max(3.0, self._options.heartbeat_interval * 1.5, self._options.suspicion * 2)

    @property
    def fresh(self) -> bool:
        """Whether jobs may be claimed and started: the last heartbeat is not so old that someone may have taken over."""
        return time.monotonic() - self.last_beat < self.fence_after

    async def register(
        self, connection: Connection, slots: int, tasks: list[str], signatures: list[str] | None = None
    ) -> None:
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
            lease=self._options.lease,
            signatures=signatures or [],
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
        self,
        connection: Connection,
        *,
        running: int,
        state: str,
        tasks: list[str],
        signatures: list[str] | None = None,
        rss: int | None = None,
    ) -> str | None:
        """Write a heartbeat. Return what an operator wants of this worker: ``quiet``, ``stop``, or None: that it works.

        Raises LeaseLost when our row is gone, and psycopg.Error. An error of the statement is not a lost connection: the
        advisory lock stays, and the whole lease counts.
        """
        begun = time.monotonic()
        # Until the statements have succeeded.
        disturbed, self._disturbed = self._disturbed, True
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

    async def hear(self, connection: Connection) -> Heard:
        """Read what is to be heard after a heartbeat: at once, or one by one while a lock is in the way of some of it.

        Raises psycopg.Error only when the connection is lost.
        """
        asked = time.monotonic()
        if asked >= self._apart_until:
            if (rows := await self._hear(connection, "hear", id=self.worker)) is not None:
                cancelled, paused, changed, mode, watched, *peers = rows[0]
                return Heard(
                    cancelled=cancelled,
                    queues=(paused, changed),
                    wake=(mode, watched),
                    peers=Peers(list(zip(*peers, strict=True)), asked, time.monotonic()),
                )
            self._apart_until = time.monotonic() + _APART_FOR
        cancels = await self._hear(connection, "hear_cancels", id=self.worker)
        queues = await self._hear(connection, "hear_queues")
        wake = await self._hear(connection, "hear_wake")
        return Heard(
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
        """Take the row back, if no job is held in its name any more."""
        await fetch(connection, self._schema, "worker_leave", id=self.worker)

    async def look(self, connection: Connection) -> None:
        """Look after the other workers, between two heartbeats. Raises psycopg.Error only when the connection is lost."""
        if (peers := await self._peers(connection)) is not None:
            await self.watch(connection, peers)

    async def watch(self, connection: Connection, peers: Peers) -> None:
        """Rescue from those workers that have stood still for too long.

        Called at every heartbeat at least. All watches start again when a statement of ours has failed or was slow meanwhile,
        or after a long gap: then the others may have been kept from their heartbeats as well. A gap that is short only makes
        us late (a busy machine). Raises psycopg.Error only when the connection is lost.
        """
        now, last = time.monotonic(), self._last
        if last is None or self._disturbed or now - last.answered > self._longest_gap:
            self._watched.clear()
        self._last, self._disturbed = peers, False
        # Heartbeats are counted, since clocks are set. But if the server's clock has run as ours did since the last look, it
        # tells when in that time a heartbeat came. Without that, a dead worker's jobs would wait up to one interval longer.
        steady = last is not None and peers.steady_since(last)
        seen: dict[UUID, _Watch] = {}
        dead: list[UUID] = []
        due: list[float] = []
        self.suspicious = False
        for worker, beats, unsuspected, age, _ in peers.rows:
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
            self.suspicious = self.suspicious or not unsuspected
            until = watch.since + (self._options.lease if unsuspected else self._options.suspicion)
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
                # The others at the next look, which is soon: heartbeats come first.
                self.suspicious = True
                break


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
