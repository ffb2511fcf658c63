"""Schedules: what the application declares is written down, and each tick that is due becomes a job. There is no leader:
every worker looks, and the one that locks a schedule's row first inserts its ticks.

The connection comes and goes: it stays while the next tick is near. Nothing of the worker waits for this loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import UUID

import psycopg
from psycopg import AsyncConnection

from jobq.schedules import Due, due
from jobq.ticks import NeverAgain, when
from jobq.worker.database import Connection, Database, Terms, close, fetch, limited
from jobq.worker.errors import ErrorKind, classify
from jobq.worker.frames import ScheduleFacts
from jobq.worker.options import WorkerOptions
from jobq.worker.partitions import Incomplete
from jobq.worker.problems import Problems
from jobq.worker.setaside import Refused, SetAside
from jobq.worker.stalls import Repeats, Trouble

logger = logging.getLogger("jobq.worker")

T = TypeVar("T")

# Looked at least so often, in seconds, for what no notification told of: rows written by hand, a zone's new rules.
LOOK_INTERVAL = 30.0
# The connection stays while the next tick is nearer than that.
STAY = 60.0
# A schedule that cannot tick is looked at again after so many seconds; one that only lacked a lock or resources sooner, first.
AGAIN = 60.0
AGAIN_SOON = 2.0
# Another session has locked what is due: it is looked at again after so many seconds, doubled up to a second.
_LOCKED = 0.02
PROBLEM = "tick"
TERMS = Terms(statement=5.0, lock=2.0, patience=23.0)
# Seconds that each statement of one schedule's turn may take, and its insert for each further tick besides: while one takes
# long, no other ticks. One that has failed may take until another is due, but no longer than the last of these.
TICK = 2.0
TICK_EACH = 0.005
TICK_LONGEST = 20.0
# Seconds that a try to withdraw schedules may take.
WITHDRAW = 1.0


@dataclass(frozen=True, slots=True)
class Ticked:
    """What came of one schedule's turn: how many jobs were inserted, or what is wrong with it."""

    name: str
    jobs: int = 0
    error: str | None = None
    transient: bool = False
    """It lacked a lock, time or resources: worth another try soon."""


async def tick(
    connection: AsyncConnection[tuple[Any, ...]],
    schema: str,
    *,
    skip: list[str] | None = None,
    now: datetime | None = None,
    seconds: float = TICK,
) -> Ticked | None:
    """Insert the jobs of the schedule that has been due for longest, in one transaction; None: none is that is not locked.

    `skip` names schedules that are not looked at. `now` stands for the database's clock. The server ends the insert after
    `seconds`, or later when many ticks are due. What is wrong with a schedule is
    written to its row and returned: it must not stop the others. Raises psycopg.Error when it is the connection's fault.
    """
    name = ""
    transient = False
    try:
        async with limited(connection, TICK):
            rows = await fetch(connection, schema, "schedule_due", now=now, skip=skip or [])
            if not rows:
                return None
            name, *timing, missed, max_missed, since, moment = rows[0]
            # In a thread: thousands of ticks may have been missed, and heartbeats must not wait for the arithmetic.
            found = await asyncio.to_thread(_due, timing, since, moment, missed=missed, max_missed=max_missed)
            enough = min(max(seconds, TICK + TICK_EACH * (len(found.ticks) - 1)), TICK_LONGEST)
            async with limited(connection, enough) if enough > TICK else contextlib.nullcontext():
                [(jobs,)] = await fetch(
                    connection,
                    schema,
                    "schedule_fire",
                    name=name,
                    ticks=[at.astimezone(UTC).isoformat() for at in found.ticks],
                    next_at=found.next_at,
                )
    except psycopg.Error as error:
        # What a rule refuses, takes too long, or lacks a lock is this schedule's own trouble: the others go on.
        kind = classify(error, connection)
        if not name or kind is ErrorKind.CONNECTION:
            raise
        said, transient = error.diag.message_primary or str(error), kind is ErrorKind.TRANSIENT
    except Exception as error:
        if not name:
            raise
        # Its rule is none, or its zone's file cannot be read.
        said = "it never ticks again" if isinstance(error, NeverAgain) else str(error) or type(error).__name__
    else:
        if found.left_out:
            logger.info(
                "ticks were missed and left out", extra={"schedule": name, "missed": missed, "since": str(since)}
            )
        return Ticked(name, jobs)
    said = said.replace("\x00", "")[:1000]
    try:
        if await fetch(connection, schema, "schedule_failed", name=name, error=said):
            logger.error("a schedule cannot tick", extra={"schedule": name, "error": said})
    except psycopg.Error as error:
        if classify(error, connection) is ErrorKind.CONNECTION:
            raise
        logger.error("a schedule cannot tick, nor that be written to its row", extra={"schedule": name, "error": said})
    return Ticked(name, error=said, transient=transient)


def _due(timing: list[Any], since: datetime | None, now: datetime, *, missed: str, max_missed: int) -> Due:
    rule = when(*timing)
    if since is None:
        # Written by hand: it begins now.
        return Due(ticks=[], next_at=rule.next(now), left_out=False)
    return due(rule, since, now, missed=missed, max_missed=max_missed)


class Scheduler:
    """One worker's loop. `worker` tells its present id: after a lost lease it is another, and is made known again."""

    def __init__(self, options: WorkerOptions, database: Database, worker: Callable[[], UUID]) -> None:
        self._schema = options.settings.schema
        self._app = options.app
        self._database = database
        self._worker = worker
        self._declared_as: UUID | None = None
        self._look_at = 0.0
        """When to compare code and rows again, in time.monotonic() seconds."""
        self._bad: dict[str, float] = {}
        """Schedules that cannot be understood, each until when it is left alone."""
        self._tries: dict[str, int] = {}
        """How often those have failed in a row."""
        self._withdrawals = SetAside[str](patience=1, seconds=WITHDRAW)
        self._declarations = SetAside[str]()
        self._begin_at = 0.0
        self.problems = Problems()
        """Where it says what cannot be done."""
        self._connection: Connection | None = None
        self._poked = asyncio.Event()
        self._repeats = Repeats()
        self._error: tuple[str, float] | None = None
        self.declared: list[ScheduleFacts] = []
        """What the application declares. To be set before `run`."""

    def poke(self) -> None:
        """Some schedule was made or changed."""
        self._bad.clear()
        self._begin_at = 0.0
        self._look_at = 0.0
        self._poked.set()

    def trouble(self) -> Trouble | None:
        """Return since when and why schedules do not tick, if they do not."""
        return None if self._error is None else Trouble(*self._error)

    async def run(self) -> None:
        """Tick until cancelled, connecting again as often as needed."""
        try:
            while True:
                try:
                    self._poked.clear()
                    pause = await self._turn(await self._connected())
                    self._error = None
                except (psycopg.Error, OSError, TimeoutError) as error:
                    # Whatever it is: a worker must not end for a schedule's sake.
                    said = self._repeats.warn("no schedule ticks", error)
                    self._error = (said, self._error[1] if self._error else time.monotonic())
                    if classify(error, self._connection) is ErrorKind.CONNECTION:
                        await self._drop()
                    pause = random.uniform(0.5, 1.5)
                if pause > STAY:
                    await self._drop()
                await self._wait(min(pause, LOOK_INTERVAL))
        finally:
            await self._drop()

    async def _turn(self, connection: Connection) -> float:
        """Do what is due; return in how many seconds something will be, or infinity."""
        if self._declared_as != (worker := self._worker()) and time.monotonic() >= self._begin_at:
            self._begin_at = time.monotonic() + AGAIN_SOON
            if await self._attempt("declare schedules", self._begin(connection, worker)):
                self._declared_as = worker
        if time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + LOOK_INTERVAL
            await self._attempt("withdraw schedules", self._withdraw(connection))
            await self._attempt("compare schedules with the code", self._compare(connection))
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
            # Due, but locked: another worker is at it.
            await asyncio.sleep(locked)
            locked = min(locked * 2, 1.0)

    async def _tick(self, connection: Connection) -> Ticked | None:
        """Let the schedule tick that has been due for longest; those that failed the last time after all others."""
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
        """Do what ticking need not wait for. Raises psycopg.Error when the connection is lost."""
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

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._poked.wait()
        except TimeoutError:
            return

    async def _begin(self, connection: Connection, worker: UUID) -> bool:
        """Say what the application declares; False when the worker has no row at present.

        The worker's row comes first: then no worker withdraws a schedule that is about to be written.
        """
        names = [facts.name for facts in self.declared]
        if not await fetch(connection, self._schema, "schedule_workers", names=names, worker=worker):
            return False
        await self._declare(connection, self.declared)
        for (name,) in await fetch(connection, self._schema, "schedule_taken", names=names):
            said = f"application {self._app} declares a schedule of this name, too: remove this one, or give that another name"
            if await fetch(connection, self._schema, "schedule_failed", name=name, error=said):
                logger.error("a schedule's name is taken by one made at run time", extra={"schedule": name})
        return True

    async def _declare(self, connection: Connection, wanted: list[ScheduleFacts]) -> None:
        """Write down these schedules, where something else or nothing is written.

        Each is its own transaction, in the order of names, so that workers that start together do not wait in a circle.
        """
        [(now,)] = await (await connection.execute("SELECT clock_timestamp()")).fetchall()
        for facts in wanted:
            try:
                row = self._row(facts, now)
            except Exception as error:
                logger.error("a schedule cannot be written down", extra={"schedule": facts.name, "error": str(error)})
                continue
            try:
                rows = await fetch(connection, self._schema, "schedule_declare", **row)
            except psycopg.Error as error:
                if classify(error, connection) is ErrorKind.CONNECTION:
                    raise
                self._declarations.leave_out(Refused(facts.name, error))
                logger.error("a schedule cannot be written down", extra={"schedule": facts.name, "error": str(error)})
                continue
            for (what,) in rows:
                logger.info(f"a schedule is {what}", extra={"schedule": facts.name})

    async def _withdraw(self, connection: Connection) -> None:
        """Withdraw what no worker declares any more. Raises Incomplete with what cannot be withdrawn."""

        async def withdraw(names: list[str] | None) -> list[str]:
            return [name for (name,) in await fetch(connection, self._schema, "schedule_withdraw", only=names)]

        async def undeclared() -> list[str]:
            left_out = frozenset(aside.keys())
            return [
                name for (name,) in await fetch(connection, self._schema, "schedule_undeclared") if name not in left_out
            ]

        async def everything() -> list[str]:
            return await withdraw(await undeclared() if aside.keys() else None)

        aside = self._withdrawals
        async with limited(connection, WITHDRAW):
            withdrawn = await aside.change_whole(connection, everything, undeclared, withdraw)
        for name in (name for names in withdrawn for name in names):
            logger.warning("a schedule is withdrawn: its application no longer declares it", extra={"schedule": name})
        aside.report("schedules withdrawn", "schedule")

    async def _compare(self, connection: Connection) -> None:
        """Write again what is gone although this worker declares it."""
        if self.declared and self._declared_as == self._worker():
            names = [facts.name for facts in self.declared]
            lost = {name for (name,) in await fetch(connection, self._schema, "schedule_lost", names=names)}
            if lost := lost.difference(self._declarations.keys()):
                await self._declare(connection, [facts for facts in self.declared if facts.name in lost])

    def _row(self, facts: ScheduleFacts, now: datetime) -> dict[str, Any]:
        return {
            **{name: getattr(facts, name) for name in facts.__struct_fields__},
            "next_at": when(facts.cron, facts.every, facts.timezone).next(now),
            "app": self._app,
            "made_by": socket.gethostname(),
        }

    async def _connected(self) -> Connection:
        if self._connection is None or self._connection.closed:
            self._connection = await self._database.connect("schedules", TERMS)
        return self._connection

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        await close(connection)
