"""Schedules: declarations of the application are stored, and each due tick becomes a job.

There is no leader. Every worker polls, and the worker that locks a schedule's row first inserts its
ticks. The connection is kept only while the next tick is near. No part of the worker waits for this
loop.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections.abc import Awaitable
from typing import TypeVar
from uuid import UUID

import psycopg

from jobq._worker.database import Connection, Database, close, fetch
from jobq._worker.database_errors import ErrorKind, classify
from jobq._worker.faults.set_aside import Incomplete
from jobq._worker.health.stalls import RateLimitedLog, Stall
from jobq._worker.lease import Lease, wait_or
from jobq._worker.loops import MISSED, Topic
from jobq._worker.options import WorkerOptions
from jobq._worker.sources.schedule_declarations import ScheduleDeclarations
from jobq._worker.sources.schedule_tick import TICK, Ticked, tick
from jobq._worker.timeouts import Timeouts

logger = logging.getLogger("jobq.worker")

T = TypeVar("T")

# Most seconds between polls for changes without a notification: rows written by hand, or new rules
# of a zone.
LOOK_INTERVAL = 30.0
# The connection is kept while the next tick is nearer than this many seconds.
STAY = 60.0
# Seconds until a schedule that cannot tick is tried again. If it only lacked a lock or resources,
# the first retry is sooner.
AGAIN = 60.0
AGAIN_SOON = 2.0
# Seconds until a due schedule that another session has locked is tried again, doubled up to 1 s.
_LOCKED = 0.02
PROBLEM = "tick"
TERMS = Timeouts(statement=5.0, lock=2.0, patience=23.0)


class Scheduler:
    """The loop of one worker.

    It uses the id of the lease. After a lost lease the id is new, and the loop registers it again.
    """

    name = "schedules"

    def __init__(self, options: WorkerOptions, database: Database, lease: Lease) -> None:
        self._schema = options.settings.schema
        self._database = database
        self._lease = lease
        self._declared_as: UUID | None = None
        self._look_at = 0.0
        """When to compare code and rows again, in time.monotonic() seconds."""
        self._bad: dict[str, float] = {}
        """Invalid schedules, and until when each is skipped."""
        self._tries: dict[str, int] = {}
        """Number of failures in a row of each."""
        self.declarations = ScheduleDeclarations(self._schema, options.app)
        self._begin_at = 0.0
        self.problems = lease.problems
        """Where this loop reports problems."""
        self._connection: Connection | None = None
        self._poked = asyncio.Event()
        self._repeats = RateLimitedLog()
        self._error: tuple[str, float] | None = None

    def wake(self, topic: Topic | None = None) -> None:
        """React to a new or changed schedule, or to missed notifications."""
        if topic is not None and topic != MISSED and topic.kind != "schedules":
            return
        self._bad.clear()
        self._begin_at = 0.0
        self._look_at = 0.0
        self._poked.set()

    def stall(self) -> Stall | None:
        """Return since when and why schedules do not tick; None if they do."""
        return None if self._error is None else Stall(*self._error)

    async def run(self) -> None:
        """Insert jobs of due ticks until cancelled; reconnect as often as needed."""
        try:
            while True:
                try:
                    self._poked.clear()
                    pause = await self._turn(await self._connected())
                    self._error = None
                except (psycopg.Error, OSError, TimeoutError) as error:
                    # Any error: a schedule must not end a worker.
                    said = self._repeats.warn("no schedule ticks", error)
                    self._error = (said, self._error[1] if self._error else time.monotonic())
                    if classify(error, self._connection) is ErrorKind.CONNECTION:
                        await self._drop()
                    pause = random.uniform(0.5, 1.5)
                if pause > STAY:
                    await self._drop()
                await wait_or(self._poked, min(pause, LOOK_INTERVAL))
        finally:
            await self._drop()

    async def _turn(self, connection: Connection) -> float:
        """Do everything that is due; return the seconds until the next tick, or infinity."""
        if self._declared_as != (worker := self._lease.worker) and time.monotonic() >= self._begin_at:
            self._begin_at = time.monotonic() + AGAIN_SOON
            if await self._attempt("declare schedules", self.declarations.begin(connection, worker)):
                self._declared_as = worker
        if time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + LOOK_INTERVAL
            await self._attempt("withdraw schedules", self.declarations.withdraw(connection))
            if self._declared_as == self._lease.worker:
                await self._attempt("compare schedules with the code", self.declarations.compare(connection))
        locked = _LOCKED
        while True:
            while (done := await self._tick(connection)) is not None:
                if done.error is None:
                    if self._tries.pop(done.name, None) is not None:
                        self.problems.clear(PROBLEM, schedule=done.name)
                else:
                    self._leave_alone(done)
            skip = self._skipped()
            rows = await fetch(connection, self._schema, "schedule_next", skip=skip)
            pause: float = rows[0][0] if rows else math.inf
            if pause > 0:
                again = min(self._bad.values(), default=math.inf) - time.monotonic()
                return min(pause, max(again, _LOCKED))
            # It is due but locked: another worker handles it.
            await asyncio.sleep(locked)
            locked = min(locked * 2, 1.0)

    async def _tick(self, connection: Connection) -> Ticked | None:
        """Run the schedule that has been due for longest.

        Schedules that failed last time come last.
        """
        skip = self._skipped()
        failed = self._tries.keys() - self._bad.keys()
        seconds = TICK
        if failed:
            others = sorted({*skip, *failed})
            if (done := await tick(connection, self._schema, skip=others)) is not None:
                return done
            rows = await fetch(connection, self._schema, "schedule_next", skip=others)
            seconds = max(rows[0][0] if rows else math.inf, TICK)
        return await tick(connection, self._schema, skip=skip, seconds=seconds)

    def _leave_alone(self, failed: Ticked) -> None:
        tries = self._tries[failed.name] = self._tries.get(failed.name, 0) + 1
        pause = min(AGAIN_SOON * 2.0 ** min(tries - 1, 10), AGAIN) if failed.transient else AGAIN
        self._bad[failed.name] = time.monotonic() + pause
        self.problems.note(PROBLEM, failed.error or "unknown", schedule=failed.name)

    async def _attempt(self, what: str, work: Awaitable[T]) -> T | None:
        """Do work that ticking does not depend on.

        Raises psycopg.Error if the connection is lost.
        """
        try:
            done = await work
        except (psycopg.Error, Incomplete) as error:
            if classify(error, self._connection) is ErrorKind.CONNECTION:
                raise
            self._repeats.warn(f"cannot {what}", error)
            self.problems.note(what, error)
            return None
        self.problems.clear(what)
        return done

    def _skipped(self) -> list[str]:
        now = time.monotonic()
        self._bad = {name: until for name, until in self._bad.items() if until > now}
        return sorted(self._bad)

    async def _connected(self) -> Connection:
        if self._connection is None or self._connection.closed:
            self._connection = await self._database.connect("schedules", TERMS)
        return self._connection

    async def close(self) -> None:
        """Close the connection."""
        await self._drop()

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        await close(connection)
