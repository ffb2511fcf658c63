"""Run maintenance tasks that are due. Any worker runs a due task; there is no leader."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

import psycopg
from psycopg import AsyncConnection

from jobq._core.storable import storable_text
from jobq._worker.database import fetch
from jobq._worker.database_errors import ErrorKind, classify
from jobq._worker.faults.set_aside import Incomplete, attempted
from jobq._worker.maintenance.tasks import MaintenanceTask, MaintenanceTasks, Unfinished
from jobq._worker.options import WorkerOptions

logger = logging.getLogger("jobq.worker")

# Seconds for which batches of one task follow one another before other tasks run.
SHARE = 10.0
# A task that has more to do is due again after this.
UNFINISHED = timedelta(seconds=1)
# A task that commits between batches is left to its worker for this long: longer than it may take.
ALONE = timedelta(minutes=10)


class Maintenance:
    """The maintenance tasks of one schema, run over one connection."""

    def __init__(self, options: WorkerOptions) -> None:
        self._schema = options.settings.schema
        self._claimed: str | None = None
        """The task that is running, or ran last."""
        self._unfinished: set[str] = set()
        self._share = SHARE
        self.tasks = MaintenanceTasks(options)
        self.by_name = {task.name: task for task in self.tasks.all()}

    async def register(self, connection: AsyncConnection[Any]) -> None:
        """Insert missing rows of tasks, for example those of a new version."""
        await fetch(connection, self._schema, "maintenance_register", names=sorted(self.by_name))

    @property
    def often(self) -> bool:
        """Whether to check for due tasks more often: jobs will expire, or a task has more to do."""
        return self.tasks.expiring or bool(self._unfinished)

    async def run_due(self, connection: AsyncConnection[Any], worker: UUID, *, share: float = SHARE) -> int:
        """Run every due task that no other worker is running; return the number of tasks.

        The task's row stays locked while it runs, or (`MaintenanceTask.alone`) becomes due later.
        Its result is written even if it fails. Any error concerns only that task: the others run.
        `share`: seconds that a task in batches may take. Raises psycopg.Error if the connection is
        lost, or no task can be claimed.
        """
        self._share = share
        done = 0
        left = set(self.by_name)
        while left:
            try:
                if not await self._run_one(connection, worker, left):
                    break
            except psycopg.Error as failure:
                if self._claimed is None or classify(failure, connection) is ErrorKind.CONNECTION:
                    raise
                # Its result is unknown and cannot be written. Its row is due as before.
                logger.warning(
                    "the outcome of a maintenance task could not be written",
                    extra={"maintenance_task": self._claimed, "error": str(failure).strip()},
                )
                left.discard(self._claimed)
            done += 1
        return done

    async def _run_one(self, connection: AsyncConnection[Any], worker: UUID, names: Iterable[str]) -> bool:
        """Run one due task from `names`; return whether there was one.

        `_claimed` names it meanwhile.
        """
        self._claimed = None
        async with connection.transaction():
            rows = await fetch(connection, self._schema, "maintenance_claim", names=sorted(names))
            if not rows:
                return False
            task = self.by_name[rows[0][0]]
            self._claimed = task.name
            if task.alone:
                await fetch(connection, self._schema, "maintenance_defer", name=task.name, again=ALONE)
            else:
                await self._do(task, connection, worker)
        if task.alone:
            await self._do(task, connection, worker)
        return True

    async def _do(self, task: MaintenanceTask, connection: AsyncConnection[Any], worker: UUID) -> None:
        """Run a task and write its result. Raises psycopg.Error if the connection is lost."""
        report: str | Incomplete = ""
        error: str | None = None
        self.tasks.until = time.monotonic() + self._share
        try:
            if task.alone:
                report = await task.work(connection)
            else:
                report = await attempted(connection, partial(self._others, task, connection))
        except psycopg.Error as failure:
            if classify(failure, connection) is ErrorKind.CONNECTION:
                raise
            error = storable_text(str(failure).strip(), 1000)
            logger.warning("a maintenance task failed", extra={"maintenance_task": task.name, "error": error})
        except Incomplete as failure:
            report = failure
        except OSError:
            raise
        except Exception as failure:
            # A bug of jobq in one task must not end the others, nor all workers one by one.
            error = f"{type(failure).__name__}: {failure}".replace("\x00", "")[:1000]
            logger.exception("a maintenance task failed", extra={"maintenance_task": task.name, "error": error})
        if isinstance(report, Incomplete):
            report, error = "", storable_text(str(report), 1000)
            logger.warning("a maintenance task failed in part", extra={"maintenance_task": task.name, "error": error})
        unfinished = isinstance(report, Unfinished)
        self._unfinished.discard(task.name)
        if unfinished:
            self._unfinished.add(task.name)
        await fetch(
            connection,
            self._schema,
            "maintenance_done",
            name=task.name,
            worker=worker,
            report=str(report),
            error=error,
            again=task.after_error if error is not None else UNFINISHED if unfinished else task.every,
            on_the_minute=task.on_the_minute,
        )

    @staticmethod
    async def _others(task: MaintenanceTask, connection: AsyncConnection[Any]) -> str | Incomplete:
        """Run a task. Return refusals instead of raising them, which would undo the other work."""
        try:
            return await task.work(connection)
        except Incomplete as failure:
            return failure
