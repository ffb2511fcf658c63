"""Maintenance: rows in `chore`, each done by whichever worker finds it due. There is no leader to lose."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

import psycopg
from psycopg import AsyncConnection

from jobq.worker.database import fetch
from jobq.worker.errors import ErrorKind, classify
from jobq.worker.options import WorkerOptions
from jobq.worker.orphans import release_orphans
from jobq.worker.partitions import Incomplete, drop_partitions, make_partitions
from jobq.worker.rest import Rest
from jobq.worker.rollup import rollup
from jobq.worker.setaside import SetAside, attempted
from jobq.worker.sweep import Sweep
from jobq.worker.texts import clean

logger = logging.getLogger("jobq.worker")

# Partitions are made this many days ahead: as long as no worker may run before rows fall into the default partition.
DAYS_AHEAD = 7
# Expired keys and old ticks are deleted in batches, each a transaction of its own: an insert that wants an expired key waits
# for one of them at most.
KEY_BATCH = 5_000
# How long batches follow one another, in seconds, before other chores have their turn.
SHARE = 10.0
# A chore that has more to do is due again after this.
UNFINISHED = timedelta(seconds=1)
# One that commits in between is left alone by other workers for this long: longer than it may take.
ALONE = timedelta(minutes=10)
# So are expired jobs and parked ones, fewer: a caller that wants to replace one of them waits for its batch's commit.
EXPIRED_BATCH = 2_000
EXPIRED_BATCHES = 1_000


class Unfinished(str):
    """The report of a chore that has more to do and has used up its time."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Chore:
    """A piece of maintenance: how often, how soon again after an error, and what to do. Returns its report.

    `alone`: it commits in between, so its row is not locked meanwhile, but due later.
    `on_the_minute`: due just after an exact minute of the database's clock, rather than `every` after the last time.
    """

    name: str
    every: timedelta
    after_error: timedelta
    work: Callable[[AsyncConnection[Any]], Awaitable[str]]
    on_the_minute: bool = False
    alone: bool = False


class Chores:
    """The chores of one schema, done over one connection."""

    def __init__(self, options: WorkerOptions) -> None:
        self._schema = options.settings.schema
        self._claimed: str | None = None
        """The chore that is being done, or was done last."""
        self._expiring = False
        """Whether there are jobs that will expire, for whose sake to look more often what is due."""
        self._unfinished: set[str] = set()
        self._share = SHARE
        self._until = math.inf
        self._keys = SetAside[int]()
        self._expired = SetAside[int]()
        self._parked = SetAside[int]()
        self._rest = Rest(self._schema)
        # It is done once a minute: that one job is the reason is supposed at once.
        self._orphans = SetAside[int](patience=1)
        self._ticks = SetAside[tuple[str, str]]()
        self._sweep = Sweep(self._schema)
        self._rollup = SetAside[tuple[str, str]]()
        succeeded = timedelta(days=options.keep_succeeded_days)
        others = timedelta(days=options.keep_failed_days)
        self._keep_ticks = succeeded
        self._park_patience = options.park_patience
        self._keep = {
            "job_history_succeeded": succeeded,
            "job_history_failed": others,
            "job_history_cancelled": others,
            "job_history_expired": others,
            "job_attempt": others,
        }
        self.chores = {
            chore.name: chore
            for chore in (
                Chore(
                    name="partitions",
                    every=timedelta(hours=1),
                    after_error=timedelta(minutes=1),
                    work=self.make_partitions,
                    alone=True,
                ),
                Chore(
                    name="retention",
                    every=timedelta(hours=1),
                    after_error=timedelta(minutes=1),
                    work=self.drop_partitions,
                    alone=True,
                ),
                Chore(
                    name="orphans",
                    every=timedelta(minutes=1),
                    after_error=timedelta(minutes=1),
                    work=self.release_orphans,
                ),
                Chore(
                    name="keys",
                    every=timedelta(minutes=5),
                    after_error=timedelta(minutes=1),
                    work=self.expire_keys,
                    alone=True,
                ),
                # Due each time that a worker looks what is due, which it does more often where it is needed.
                Chore(
                    name="expiry",
                    every=timedelta(seconds=10),
                    after_error=timedelta(minutes=1),
                    work=self.expire_jobs,
                    alone=True,
                ),
                Chore(
                    name="parked",
                    every=timedelta(seconds=10),
                    after_error=timedelta(minutes=1),
                    work=self.fail_parked,
                    alone=True,
                ),
                Chore(
                    name="turns",
                    every=timedelta(minutes=1),
                    after_error=timedelta(minutes=1),
                    work=self.sweep_turns,
                ),
                Chore(
                    name="ticks",
                    every=timedelta(minutes=5),
                    after_error=timedelta(minutes=1),
                    work=self.expire_ticks,
                    alone=True,
                ),
                Chore(
                    name="rollup",
                    every=timedelta(minutes=1),
                    after_error=timedelta(minutes=1),
                    work=self.roll_up,
                    on_the_minute=True,
                ),
            )
        }

    async def register(self, connection: AsyncConnection[Any]) -> None:
        """Make the rows of chores that have none: a new version's."""
        await fetch(connection, self._schema, "chore_register", names=sorted(self.chores))

    @property
    def often(self) -> bool:
        """Whether to look more often what is due: there are jobs that will expire, or a chore has more to do."""
        return self._expiring or bool(self._unfinished)

    async def run_due(self, connection: AsyncConnection[Any], worker: UUID, *, share: float = SHARE) -> int:
        """Do every chore that is due and that no other worker is doing; return how many were done.

        The chore's row stays locked while it is done, or (`Chore.alone`) is due later; its outcome is written even when it
        fails. What fails is that chore's matter, whatever the error: the others are done. `share`: how many seconds one that
        goes batch by batch may take. Raises psycopg.Error when the connection is lost, or no chore can be claimed.
        """
        self._share = share
        done = 0
        left = set(self.chores)
        while left:
            try:
                if not await self._run_one(connection, worker, left):
                    break
            except psycopg.Error as failure:
                if self._claimed is None or classify(failure, connection) is ErrorKind.CONNECTION:
                    raise
                # It is done, or not; that cannot be written down. Its row is due as before.
                logger.warning(
                    "the outcome of a chore cannot be written",
                    extra={"chore": self._claimed, "error": str(failure).strip()},
                )
                left.discard(self._claimed)
            done += 1
        return done

    async def _run_one(self, connection: AsyncConnection[Any], worker: UUID, names: Iterable[str]) -> bool:
        """Do one chore of `names` that is due; return whether there was one. `_claimed` names it meanwhile."""
        self._claimed = None
        async with connection.transaction():
            rows = await fetch(connection, self._schema, "chore_claim", names=sorted(names))
            if not rows:
                return False
            chore = self.chores[rows[0][0]]
            self._claimed = chore.name
            if chore.alone:
                await fetch(connection, self._schema, "chore_defer", name=chore.name, again=ALONE)
            else:
                await self._do(chore, connection, worker)
        if chore.alone:
            await self._do(chore, connection, worker)
        return True

    async def _do(self, chore: Chore, connection: AsyncConnection[Any], worker: UUID) -> None:
        """Do `chore` and write down what came of it. Raises psycopg.Error when the connection is lost."""
        report: str | Incomplete = ""
        error: str | None = None
        self._until = time.monotonic() + self._share
        try:
            if chore.alone:
                report = await chore.work(connection)
            else:
                report = await attempted(connection, partial(self._others, chore, connection))
        except psycopg.Error as failure:
            if classify(failure, connection) is ErrorKind.CONNECTION:
                raise
            error = clean(str(failure).strip(), 1000)
            logger.warning("a chore failed", extra={"chore": chore.name, "error": error})
        except Incomplete as failure:
            report = failure
        except OSError:
            raise
        except Exception as failure:
            # A fault of ours in a piece of maintenance must end neither the others nor, one by one, all workers.
            error = f"{type(failure).__name__}: {failure}".replace("\x00", "")[:1000]
            logger.exception("a chore failed", extra={"chore": chore.name, "error": error})
        if isinstance(report, Incomplete):
            report, error = "", clean(str(report), 1000)
            logger.warning("a chore failed in part", extra={"chore": chore.name, "error": error})
        unfinished = isinstance(report, Unfinished)
        self._unfinished.discard(chore.name)
        if unfinished:
            self._unfinished.add(chore.name)
        await fetch(
            connection,
            self._schema,
            "chore_done",
            name=chore.name,
            worker=worker,
            report=str(report),
            error=error,
            again=chore.after_error if error is not None else UNFINISHED if unfinished else chore.every,
            on_the_minute=chore.on_the_minute,
        )

    @staticmethod
    async def _others(chore: Chore, connection: AsyncConnection[Any]) -> str | Incomplete:
        """Do `chore`; what it was refused is no error, which would take the others with it."""
        try:
            return await chore.work(connection)
        except Incomplete as failure:
            return failure

    async def _in_batches(
        self, batch: int, change: Callable[[], Awaitable[tuple[int, int]]], *, most: float = math.inf
    ) -> tuple[int, bool]:
        """Call `change`, which commits by itself, while it finds whole batches and this chore has time.

        `change` returns how many rows it has found and changed. Returns how many were changed, and whether there may be more.
        """
        total = batches = 0
        while True:
            found, changed = await change()
            total += changed
            batches += 1
            if found < batch:
                return total, False
            if batches >= most or time.monotonic() >= self._until:
                return total, True

    async def make_partitions(self, connection: AsyncConnection[Any]) -> str:
        """Make the days' partitions ahead of time."""
        return f"{await make_partitions(connection, self._schema, DAYS_AHEAD)} partitions made"

    async def drop_partitions(self, connection: AsyncConnection[Any]) -> str:
        """Drop the partitions whose last row has been kept for long enough, and delete such rows of the default partitions."""
        dropped, problems = await drop_partitions(connection, self._schema, self._keep)
        pruned, more, refused = await self._rest.prune(connection, self._keep, self._until)
        if problems or refused:
            raise Incomplete("; ".join([*problems, *refused])[:1000])
        report = f"{dropped} partitions dropped, {pruned} rows of default partitions deleted"
        return Unfinished(report) if more else report

    async def release_orphans(self, connection: AsyncConnection[Any]) -> str:
        """Put back jobs that run in the name of a worker that is long gone: claims that crossed with its rescue."""
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
        """Finish jobs that no worker has claimed in time, a batch at a time; a claim finishes those that it meets itself."""
        since = "-infinity"

        async def finish(ids: list[int]) -> int:
            [(expired, _)] = await fetch(connection, self._schema, "expire_jobs", ids=ids, channel=self._schema)
            return int(expired)

        async def batch() -> tuple[int, int]:
            nonlocal since
            aside = self._expired.keys()
            async with connection.transaction():
                # By the statistics of an empty table it is best to read and sort all that are late, for each batch.
                await connection.execute("SET LOCAL enable_sort = off")
                [(ids, last, to_come)] = await fetch(
                    connection, self._schema, "expired_jobs", batch=EXPIRED_BATCH, since=since, aside=aside
                )
                expired = await self._expired.change(connection, ids, finish)
            self._expiring = to_come or len(ids) == EXPIRED_BATCH
            since = last or since
            return len(ids), sum(expired)

        total, more = await self._in_batches(EXPIRED_BATCH, batch, most=EXPIRED_BATCHES)
        return self._report(f"{total} jobs expired", more, self._expired, "job")

    async def fail_parked(self, connection: AsyncConnection[Any]) -> str:
        """Fail jobs whose arguments have fitted no live worker's code for too long, a batch at a time."""

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
        """Give a turn to groups that have jobs waiting, none running, and no turn; forget what rates no longer need."""
        return await self._sweep.run(connection)

    async def expire_ticks(self, connection: AsyncConnection[Any]) -> str:
        """Delete the ticks of schedules that are older than the jobs they became, a batch at a time."""

        async def delete(among: bool | None, ticks: list[tuple[str, str]]) -> int:
            [(deleted,)] = await fetch(
                connection, self._schema, "schedule_ticks_expire", batch=KEY_BATCH, keep=self._keep_ticks, among=among,
                schedules=[schedule for schedule, _ in ticks], ticks=[at for _, at in ticks],
            )  # fmt: skip
            return int(deleted)

        async def batch() -> tuple[int, int]:
            aside = self._ticks.keys()

            async def old() -> list[tuple[str, str]]:
                # Those that are set aside stand at the beginning.
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

    async def roll_up(self, connection: AsyncConnection[Any]) -> str:
        """Count what finished in the minutes that have ended, for the page's charts."""
        return await rollup(connection, self._schema, self._rollup)
