"""Maintenance tasks: rows in `maintenance_task`.

The worker that finds one due runs it; no leader.
"""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

from psycopg import AsyncConnection

from jobq._worker.database import fetch
from jobq._worker.faults.set_aside import Incomplete, SetAside
from jobq._worker.maintenance.group_sweep import GroupSweep
from jobq._worker.maintenance.orphans import release_orphans
from jobq._worker.maintenance.partitions import drop_partitions, make_partitions
from jobq._worker.maintenance.retention import DefaultPartitionRetention
from jobq._worker.maintenance.rollup import rollup
from jobq._worker.maintenance.step_retention import SignalRetention, StepRetention
from jobq._worker.maintenance.workflow_runs import WorkflowCheck, WorkflowRetention
from jobq._worker.options import WorkerOptions

# Partitions are created this many days ahead. If no worker runs for longer, rows go to the default
# partition.
DAYS_AHEAD = 7
# Expired keys and old ticks are deleted in batches, each in its own transaction: an insert that
# needs an expired key waits for one batch at most.
KEY_BATCH = 5_000
# The same for expired and parked jobs, in smaller batches: a caller that replaces one of them waits
# for the commit of its batch.
EXPIRED_BATCH = 2_000
EXPIRED_BATCHES = 1_000


class Unfinished(str):
    """The report of a task that has used up its time and has more to do."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MaintenanceTask:
    """A maintenance task: its interval, its retry interval after an error, and its function.

    The function returns a report. `alone`: it commits between batches, so its row is not locked
    meanwhile, but due later. `on_the_minute`: due just after a full minute of the database's clock,
    instead of `every` after the last run.
    """

    name: str
    every: timedelta
    after_error: timedelta
    work: Callable[[AsyncConnection[Any]], Awaitable[str]]
    on_the_minute: bool = False
    alone: bool = False


class MaintenanceTasks:
    """The functions of the maintenance tasks of one schema."""

    def __init__(self, options: WorkerOptions) -> None:
        self._schema = options.settings.schema
        self.expiring = False
        """Whether jobs will expire, so due tasks must be checked more often."""
        self.until = math.inf
        """Until when batches may follow one another, in time.monotonic() seconds."""
        self._keys = SetAside[int]()
        self._expired = SetAside[int]()
        self._parked = SetAside[int]()
        self._rest = DefaultPartitionRetention(self._schema)
        # It runs once a minute: that a single job is the cause is assumed at once.
        self._orphans = SetAside[int](patience=1)
        self._ticks = SetAside[tuple[str, str]]()
        self._sweep = GroupSweep(self._schema)
        self._rollup = SetAside[tuple[str, str]]()
        succeeded = timedelta(days=options.keep_succeeded_days)
        others = timedelta(days=options.keep_failed_days)
        self._keep_ticks = succeeded
        self._runs = WorkflowRetention(self._schema, succeeded, others)
        self._stuck = WorkflowCheck(self._schema)
        self._old_steps = StepRetention(self._schema, min(succeeded, others))
        self._old_signals = SignalRetention(self._schema, min(succeeded, others))
        self._park_patience = options.park_patience
        self._keep = {
            "job_history_succeeded": succeeded,
            "job_history_failed": others,
            "job_history_cancelled": others,
            "job_history_expired": others,
            "job_attempt": others,
        }

    def all(self) -> list[MaintenanceTask]:
        """Return the maintenance tasks and their intervals."""
        return [
            MaintenanceTask(
                name="partitions",
                every=timedelta(hours=1),
                after_error=timedelta(minutes=1),
                work=self.make_partitions,
                alone=True,
            ),
            MaintenanceTask(
                name="retention",
                every=timedelta(hours=1),
                after_error=timedelta(minutes=1),
                work=self.drop_partitions,
                alone=True,
            ),
            MaintenanceTask(
                name="orphans",
                every=timedelta(minutes=1),
                after_error=timedelta(minutes=1),
                work=self.release_orphans,
            ),
            MaintenanceTask(
                name="keys",
                every=timedelta(minutes=5),
                after_error=timedelta(minutes=1),
                work=self.expire_keys,
                alone=True,
            ),
            # Due at every check for due tasks, which a worker makes more often where needed.
            MaintenanceTask(
                name="expiry",
                every=timedelta(seconds=10),
                after_error=timedelta(minutes=1),
                work=self.expire_jobs,
                alone=True,
            ),
            MaintenanceTask(
                name="parked",
                every=timedelta(seconds=10),
                after_error=timedelta(minutes=1),
                work=self.fail_parked,
                alone=True,
            ),
            MaintenanceTask(
                name="turns",
                every=timedelta(minutes=1),
                after_error=timedelta(minutes=1),
                work=self.sweep_turns,
            ),
            MaintenanceTask(
                name="ticks",
                every=timedelta(minutes=5),
                after_error=timedelta(minutes=1),
                work=self.expire_ticks,
                alone=True,
            ),
            MaintenanceTask(
                name="workflows",
                every=timedelta(minutes=5),
                after_error=timedelta(minutes=1),
                work=self.remove_runs,
                alone=True,
            ),
            MaintenanceTask(
                name="workflow_check",
                every=timedelta(minutes=5),
                after_error=timedelta(minutes=5),
                work=self.check_runs,
                alone=True,
            ),
            MaintenanceTask(
                name="steps",
                every=timedelta(minutes=5),
                after_error=timedelta(minutes=1),
                work=self.remove_steps,
                alone=True,
            ),
            MaintenanceTask(
                name="rollup",
                every=timedelta(minutes=1),
                after_error=timedelta(minutes=1),
                work=self.roll_up,
                on_the_minute=True,
            ),
        ]

    async def _in_batches(
        self, batch: int, change: Callable[[], Awaitable[tuple[int, int]]], *, most: float = math.inf
    ) -> tuple[int, bool]:
        """Call `change`, which commits, while it finds full batches and the task has time.

        `change` returns the number of rows that it found, and that it changed. Returns the number
        of changed rows, and whether there may be more.
        """
        total = batches = 0
        while True:
            found, changed = await change()
            total += changed
            batches += 1
            if found < batch:
                return total, False
            if batches >= most or time.monotonic() >= self.until:
                return total, True

    async def make_partitions(self, connection: AsyncConnection[Any]) -> str:
        """Create the daily partitions ahead of time."""
        return f"{await make_partitions(connection, self._schema, DAYS_AHEAD)} partitions made"

    async def drop_partitions(self, connection: AsyncConnection[Any]) -> str:
        """Drop partitions whose rows are all too old, and delete such rows in default ones."""
        dropped, problems = await drop_partitions(connection, self._schema, self._keep)
        pruned, more, refused = await self._rest.prune(connection, self._keep, self.until)
        if problems or refused:
            raise Incomplete("; ".join([*problems, *refused])[:1000])
        report = f"{dropped} partitions dropped, {pruned} rows of default partitions deleted"
        return Unfinished(report) if more else report

    async def release_orphans(self, connection: AsyncConnection[Any]) -> str:
        """Put back jobs that run in the name of a worker that is gone: claims during its rescue."""
        return await release_orphans(connection, self._schema, self._orphans)

    async def expire_keys(self, connection: AsyncConnection[Any]) -> str:
        """Delete keys whose period is over, a batch at a time."""
        since = "-infinity"

        keys: dict[int, str] = {}

        async def delete(job_ids: list[int]) -> int:
            part = [keys[job_id] for job_id in job_ids]
            [(deleted,)] = await fetch(connection, self._schema, "keys_expire", keys=part, job_ids=job_ids)
            return int(deleted)

        async def batch() -> tuple[int, int]:
            nonlocal since, keys
            aside = self._keys.keys()
            async with connection.transaction():
                [(job_ids, locked, last)] = await fetch(
                    connection, self._schema, "keys_expired", batch=KEY_BATCH, since=since, aside=aside
                )
                keys = dict(zip(job_ids, locked, strict=True))
                deleted = await self._keys.change(connection, job_ids, delete)
            since = last or since
            return len(job_ids), sum(deleted)

        total, more = await self._in_batches(KEY_BATCH, batch)
        return self._report(f"{total} keys expired", more, self._keys, "key of job")

    async def expire_jobs(self, connection: AsyncConnection[Any]) -> str:
        """Finish jobs that no worker has claimed in time, in batches.

        Claims finish those they find.
        """
        since = "-infinity"

        async def finish(ids: list[int]) -> int:
            [(expired, _)] = await fetch(connection, self._schema, "expire_jobs", ids=ids, channel=self._schema)
            return int(expired)

        async def batch() -> tuple[int, int]:
            nonlocal since
            aside = self._expired.keys()
            async with connection.transaction():
                # With the statistics of an empty table, the planner would read and sort all expired
                # jobs for each batch.
                await connection.execute("SET LOCAL enable_sort = off")
                [(ids, last, to_come)] = await fetch(
                    connection, self._schema, "expired_jobs", batch=EXPIRED_BATCH, since=since, aside=aside
                )
                expired = await self._expired.change(connection, ids, finish)
            self.expiring = to_come or len(ids) == EXPIRED_BATCH
            since = last or since
            return len(ids), sum(expired)

        total, more = await self._in_batches(EXPIRED_BATCH, batch, most=EXPIRED_BATCHES)
        return self._report(f"{total} jobs expired", more, self._expired, "job")

    async def fail_parked(self, connection: AsyncConnection[Any]) -> str:
        """Fail jobs whose arguments have fitted no live worker's code for too long, in batches."""

        async def fail(ids: list[int]) -> int:
            [(failed,)] = await fetch(connection, self._schema, "parked_fail", ids=ids)
            return int(failed)

        async def batch() -> tuple[int, int]:
            patience, aside = self._park_patience, self._parked.keys()
            async with connection.transaction():
                [(ids,)] = await fetch(
                    connection, self._schema, "parked_overdue", batch=EXPIRED_BATCH, patience=patience, aside=aside
                )
                return len(ids), sum(await self._parked.change(connection, ids, fail))

        total, more = await self._in_batches(EXPIRED_BATCH, batch, most=EXPIRED_BATCHES)
        return self._report(f"{total} jobs failed whose arguments fit no worker's code", more, self._parked, "job")

    @staticmethod
    def _report(done: str, more: bool, aside: SetAside[Any], name: str) -> str:
        return Unfinished(done) if more else aside.report(done, name)

    async def sweep_turns(self, connection: AsyncConnection[Any]) -> str:
        """Repair ready groups: groups with waiting jobs, no running job, and no `group_ready` row.

        Data that rates no longer need is deleted, too.
        """
        return await self._sweep.run(connection)

    async def expire_ticks(self, connection: AsyncConnection[Any]) -> str:
        """Delete ticks of schedules that are older than their jobs, a batch at a time."""

        async def delete(among: bool | None, ticks: list[tuple[str, str]]) -> int:
            [(deleted,)] = await fetch(
                connection, self._schema, "schedule_ticks_expire", batch=KEY_BATCH, keep=self._keep_ticks, among=among,
                schedules=[schedule for schedule, _ in ticks], ticks=[at for _, at in ticks],
            )  # fmt: skip
            return int(deleted)

        async def batch() -> tuple[int, int]:
            aside = self._ticks.keys()

            async def old() -> list[tuple[str, str]]:
                # Ticks that are set aside come first.
                most = KEY_BATCH + len(aside)
                rows = await fetch(connection, self._schema, "schedule_ticks_old", batch=most, keep=self._keep_ticks)
                left_out = frozenset(aside)
                return [(schedule, at) for schedule, at in rows if (schedule, at) not in left_out][:KEY_BATCH]

            async with connection.transaction():
                deleted = sum(
                    await self._ticks.change_whole(
                        connection, partial(delete, False if aside else None, aside), old, partial(delete, True)
                    )
                )
            return deleted, deleted

        total, more = await self._in_batches(KEY_BATCH, batch)
        return self._report(f"{total} ticks expired", more, self._ticks, "tick")

    async def remove_runs(self, connection: AsyncConnection[Any]) -> str:
        """Remove runs of workflows that ended long ago, in batches."""
        total, more = await self._in_batches(1, partial(self._runs.batch, connection))
        return self._report(f"{total} rows of ended workflows deleted", more, self._runs.aside, "workflow")

    async def check_runs(self, connection: AsyncConnection[Any]) -> str:
        """Look for running workflows that cannot go on; release joins that were not released."""
        return await self._stuck.run(connection)

    async def remove_steps(self, connection: AsyncConnection[Any]) -> str:
        """Remove steps of jobs that are gone, and signals to them, in batches."""
        steps, more = await self._in_batches(1, partial(self._old_steps.batch, connection))
        signals, more_signals = await self._in_batches(1, partial(self._old_signals.batch, connection))
        report = f"{steps} steps and {signals} signals of deleted jobs deleted"
        if more or more_signals:
            return Unfinished(report)
        refused = [each.aside.refused(each.name) for each in (self._old_steps, self._old_signals)]
        if any(refused):
            raise Incomplete(f"{report}; refused: {'; '.join(filter(None, refused))}")
        return report

    async def roll_up(self, connection: AsyncConnection[Any]) -> str:
        """Count the finished jobs of past minutes, for the page's charts."""
        return await rollup(connection, self._schema, self._rollup)
