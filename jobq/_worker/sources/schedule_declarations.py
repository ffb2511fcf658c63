"""The application's declared schedules: stored, compared with the code regularly, and withdrawn."""

from __future__ import annotations

import logging
import socket
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg

from jobq._worker.database import Connection, fetch, statement_deadline
from jobq._worker.database_errors import ErrorKind, classify
from jobq._worker.faults.set_aside import Refused, SetAside
from jobq._worker.ipc.messages import ScheduleInfo
from jobq.cron import when

logger = logging.getLogger("jobq.worker")

# Most seconds of one try to withdraw schedules.
WITHDRAW = 1.0


class ScheduleDeclarations:
    """The declarations of one worker."""

    def __init__(self, schema: str, app: str) -> None:
        self._schema = schema
        self._app = app
        self._withdrawals = SetAside[str](patience=1, seconds=WITHDRAW)
        self._declarations = SetAside[str]()
        self.declared: list[ScheduleInfo] = []
        """The declared schedules. They must be set before the scheduler runs."""

    async def begin(self, connection: Connection, worker: UUID) -> bool:
        """Store the declarations; return False if the worker has no row at present.

        The worker's row is written first, so no worker withdraws a schedule that is about to be
        stored.
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

    async def _declare(self, connection: Connection, wanted: list[ScheduleInfo]) -> None:
        """Store these schedules where the stored ones differ or are missing.

        Each is a separate transaction, in the order of names, so workers that start together do not
        deadlock.
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

    async def withdraw(self, connection: Connection) -> None:
        """Withdraw schedules that no worker declares. Raises Incomplete, which lists the others."""

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
        async with statement_deadline(connection, WITHDRAW):
            withdrawn = await aside.change_whole(connection, everything, undeclared, withdraw)
        for name in (name for names in withdrawn for name in names):
            logger.warning("a schedule is withdrawn: its application no longer declares it", extra={"schedule": name})
        aside.report("schedules withdrawn", "schedule")

    async def compare(self, connection: Connection) -> None:
        """Store declared schedules again if they are missing."""
        if self.declared:
            names = [facts.name for facts in self.declared]
            lost = {name for (name,) in await fetch(connection, self._schema, "schedule_lost", names=names)}
            if lost := lost.difference(self._declarations.keys()):
                await self._declare(connection, [facts for facts in self.declared if facts.name in lost])

    def _row(self, facts: ScheduleInfo, now: datetime) -> dict[str, Any]:
        return {
            **{name: getattr(facts, name) for name in facts.__struct_fields__},
            "next_at": when(facts.cron, facts.every, facts.timezone).next(now),
            "app": self._app,
            "made_by": socket.gethostname(),
        }
