"""The workflow loop: it does what the end of a node has left to others.

Most of the work of a workflow is done by the statements that end jobs. They leave a row for what
would make them wait or take long: a join that another transaction has locked, a map of many items,
a run that is to be cancelled. Any worker does it; what one has locked, the others skip.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from functools import partial
from typing import Any

import psycopg

from jobq._worker.database import Connection, Database, close, fetch
from jobq._worker.database_errors import ErrorKind, classify
from jobq._worker.faults.problems import Problems
from jobq._worker.faults.set_aside import SetAside
from jobq._worker.health.stalls import RateLimitedLog, Stall
from jobq._worker.lease import wait_or
from jobq._worker.loops import MISSED, Topic
from jobq._worker.options import WorkerOptions
from jobq._worker.timeouts import Timeouts
from jobq._worker.wakeup.state import WakeupState
from jobq._worker.workflows.wakeups import Wakeups
from jobq.operations.workflows import FAILED, RunChange, cancel

logger = logging.getLogger("jobq.worker")

TERMS = Timeouts(statement=20.0, lock=2.0, patience=23.0)
# Seconds between looks: while notifications tell of all, while they do not, and for a while after
# a look that found something in that mode.
LOOK_TOLD = 30.0
LOOK = 0.25
LOOK_SOON = 0.01
BUSY_FOR = 2.0
PROBLEM = "go on with workflows"
# The connection is kept while the next look is nearer than this many seconds.
STAY = 5.0


class WorkflowLoop:
    """The loop of one worker."""

    name = "workflows"

    def __init__(self, options: WorkerOptions, database: Database, wakeups: WakeupState, problems: Problems) -> None:
        self._schema = options.settings.schema
        self._database = database
        self._wakeups = wakeups
        self._connection: Connection | None = None
        self._poked = asyncio.Event()
        self._repeats = RateLimitedLog()
        self._error: tuple[str, float] | None = None
        self._busy_until = 0.0
        self._problems = problems
        self._wakeups_of_jobs = Wakeups(self._schema)
        self._aside = SetAside[tuple[str, str]]()
        """Joins and maps that the database refuses: the others do not wait for them."""

    def wake(self, topic: Topic | None = None) -> None:
        """React to something left to do, or to missed notifications."""
        if topic is None or topic == MISSED or topic.kind == "workflow":
            self._poked.set()

    def stall(self) -> Stall | None:
        """Return since when and why workflows do not go on; None if they do."""
        return None if self._error is None else Stall(*self._error)

    async def run(self) -> None:
        """Do what is left until cancelled; reconnect as often as needed."""
        try:
            while True:
                self._poked.clear()
                try:
                    pause = await self._step(await self._connected())
                    self._error = None
                except (psycopg.Error, OSError, TimeoutError) as error:
                    # Any error: a workflow must not end a worker.
                    said = self._repeats.warn("no workflow goes on", error)
                    self._error = (said, self._error[1] if self._error else time.monotonic())
                    if classify(error, self._connection) is ErrorKind.CONNECTION:
                        await self._drop()
                    pause = random.uniform(0.5, 1.5)
                if pause > STAY:
                    await self._drop()
                await wait_or(self._poked, pause)
        finally:
            await self._drop()

    async def _step(self, connection: Connection) -> float:
        """Do one step; return the seconds until the next look."""
        try:
            row = await self._look(connection)
        except psycopg.Error as error:
            if classify(error, connection) is ErrorKind.CONNECTION:
                raise
            look, left = partial(self._look, connection), partial(self._left, connection)
            async with connection.transaction():
                await self._aside.change_whole(connection, look, left, look)
            row = await self._look(connection)
        done, failed, late, deadline, wakes = row
        now = time.monotonic()
        changed = 0
        due = [(run, "a node has failed") for run in failed] + [(run, "its deadline has passed") for run in late]
        for run, reason in due:
            try:
                changed += await self._cancel(connection, run, reason)
            except psycopg.Error as error:
                if classify(error, connection) is ErrorKind.CONNECTION:
                    raise
                # The others do not wait for it. It is tried again at the next look.
                self._repeats.warn(f"the workflow run {run} cannot be cancelled", error)
        # Last: if it fails, nothing else has waited for it.
        woken = wakes and await self._wakeups_of_jobs.step(connection)
        if refused := "; ".join(filter(None, (self._aside.refused("workflow"), self._wakeups_of_jobs.refused))):
            self._problems.note(PROBLEM, refused)
        else:
            self._problems.clear(PROBLEM)
        if done or changed or woken:
            self._busy_until = now + BUSY_FOR
            return LOOK_SOON
        if failed or late:
            return LOOK
        pause = LOOK_TOLD if self._wakeups.hears_all() and not self._wakeups.leading else LOOK
        if now < self._busy_until:
            pause = min(pause, LOOK_SOON * 2)
        held = self._wakeups_of_jobs.pause
        return min(each for each in (pause, deadline, held) if each is not None) * random.uniform(0.8, 1.2)

    async def _look(self, connection: Connection, only: list[tuple[str, str]] | None = None) -> tuple[Any, ...]:
        """Do one step with what is not set aside, or with only these joins and maps."""
        [row] = await fetch(
            connection,
            self._schema,
            "workflow_step",
            **self._left_out(),
            only_joins=None if only is None else _ids(only, "join"),
            only_turns=None if only is None else _ids(only, "turn"),
        )
        return row

    async def _left(self, connection: Connection) -> list[tuple[str, str]]:
        """Return the joins and the map that a step would look at."""
        rows = await fetch(connection, self._schema, "workflow_left", **self._left_out())
        return [(kind, str(id)) for kind, id in rows]

    def _left_out(self) -> dict[str, list[int]]:
        aside = self._aside.keys()
        return {"joins_left_out": _ids(aside, "join"), "turns_left_out": _ids(aside, "turn")}

    async def _cancel(self, connection: Connection, run: int, reason: str) -> int:
        """Do one round of a cancellation, and return the number of jobs that it changed.

        Where jobs are locked by others, the next look does another round.
        """
        async with connection.transaction():
            script = cancel(self._schema, run, None, reason=reason, as_state=FAILED, if_due=True)
            done: RunChange | None = None
            try:
                name, parameters = next(script)
                while True:
                    name, parameters = script.send(await fetch(connection, self._schema, name, **parameters))
            except StopIteration as end:
                done = end.value
            if done is None or not done.left:
                await fetch(connection, self._schema, "workflow_turn_done", id=run)
        if done is not None and done.jobs:
            logger.warning("jobs of a workflow's run are cancelled", extra={"workflow": run, "jobs": done.jobs})
        return 0 if done is None else done.jobs

    async def _connected(self) -> Connection:
        if self._connection is None:
            self._connection = await self._database.connect(self.name, TERMS)
        return self._connection

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await close(connection)

    async def close(self) -> None:
        """Do nothing: `run` closes the connection."""


def _ids(keys: list[tuple[str, str]], kind: str) -> list[int]:
    return [int(id) for of, id in keys if of == kind]
