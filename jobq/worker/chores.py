"""Maintenance: rows in `chore`, each done by whichever worker finds it due. There is no leader to lose."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
from psycopg import AsyncConnection, sql

from jobq.worker.database import fetch
from jobq.worker.errors import ErrorKind, classify
from jobq.worker.options import WorkerOptions
from jobq.worker.rollup import rollup
from jobq.worker.texts import clean

logger = logging.getLogger("jobq.worker")

# Partitions are made this many days ahead: as long as no worker may run before rows fall into the default partition.
DAYS_AHEAD = 7
# Expired keys and old ticks are deleted in batches, at most so many a time.
KEY_BATCH = 5_000
KEY_BATCHES = 40
# Groups that are looked at for a turn at a time.
GROUPS = 10_000
# So are expired jobs, fewer: until the chore commits, whoever wants to replace one of them waits.
EXPIRED_BATCH = 2_000
EXPIRED_BATCHES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Chore:
    """A piece of maintenance: how often, how soon again after an error, and what to do. Returns its report.

    `on_the_minute`: due just after an exact minute of the database's clock, rather than `every` after the last time.
    """

    name: str
    every: timedelta
    after_error: timedelta
    work: Callable[[AsyncConnection[Any]], Awaitable[str]]
    on_the_minute: bool = False


class Chores:
    """The chores of one schema, done over one connection."""

    def __init__(self, options: WorkerOptions) -> None:
        self._schema = options.settings.schema
        self._claimed: str | None = None
        """The chore that is being done, or was done last."""
        self.often = False
        """Whether there are jobs that will expire, for whose sake to look more often what is due."""
        succeeded = timedelta(days=options.keep_succeeded_days)
        others = timedelta(days=options.keep_failed_days)
        self._keep_ticks = succeeded
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
                ),
                Chore(
                    name="retention",
                    every=timedelta(hours=1),
                    after_error=timedelta(minutes=1),
                    work=self.drop_partitions,
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
                ),
                # Due each time that a worker looks what is due, which it does more often where it is needed.
                Chore(
                    name="expiry",
                    every=timedelta(seconds=10),
                    after_error=timedelta(minutes=1),
                    work=self.expire_jobs,
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

    async def run_due(self, connection: AsyncConnection[Any], worker: UUID) -> int:
        """Do every chore that is due and that no other worker is doing; return how many were done.

        The chore's row stays locked while it is done; its outcome is written even when it fails. What fails is that chore's
        matter, whatever the error: the others are done. Raises psycopg.Error when the connection is lost, or no chore can be
        claimed.
        """
        done = 0
        left = set(self.chores)
        while left:
            chore: Chore | None = None
            try:
                chore = await self._run_one(connection, worker, left)
                if chore is None:
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

    async def _run_one(self, connection: AsyncConnection[Any], worker: UUID, names: Iterable[str]) -> Chore | None:
        """Do one chore of `names` that is due; None: none is. `_claimed` names it meanwhile."""
        self._claimed = None
        async with connection.transaction():
            rows = await fetch(connection, self._schema, "chore_claim", names=sorted(names))
            if not rows:
                return None
            chore = self.chores[rows[0][0]]
            self._claimed = chore.name
            report, error = "", None
            try:
                async with connection.transaction():
                    report = await chore.work(connection)
            except psycopg.Error as failure:
                if classify(failure, connection) is ErrorKind.CONNECTION:
                    raise
                error = clean(str(failure).strip(), 1000)
                logger.warning("a chore failed", extra={"chore": chore.name, "error": error})
            except OSError:
                raise
            except Exception as failure:
                # A fault of ours in a piece of maintenance must end neither the others nor, one by one, all workers.
                error = f"{type(failure).__name__}: {failure}".replace("\x00", "")[:1000]
                logger.exception("a chore failed", extra={"chore": chore.name, "error": error})
            await fetch(
                connection,
                self._schema,
                "chore_done",
                name=chore.name,
                worker=worker,
                report=report,
                error=error,
                again=chore.every if error is None else chore.after_error,
                on_the_minute=chore.on_the_minute,
            )
            return chore

    async def make_partitions(self, connection: AsyncConnection[Any]) -> str:
        """Make the days' partitions ahead of time."""
        query = sql.SQL("SELECT {}.make_partitions(%s)").format(sql.Identifier(self._schema))
        rows = await (await connection.execute(query, (DAYS_AHEAD,))).fetchall()
        return f"{len(rows)} partitions made"

    async def drop_partitions(self, connection: AsyncConnection[Any]) -> str:
        """Drop the partitions whose last row has been kept for long enough."""
        dropped = 0
        query = sql.SQL("SELECT {}.drop_partitions(%s, %s)").format(sql.Identifier(self._schema))
        for parent, keep in self._keep.items():
            dropped += len(await (await connection.execute(query, (parent, keep))).fetchall())
        return f"{dropped} partitions dropped"

    async def release_orphans(self, connection: AsyncConnection[Any]) -> str:
        """Put back jobs that run in the name of a worker that is long gone: claims that crossed with its rescue."""
        rows = await fetch(connection, self._schema, "release_orphans", channel=self._schema)
        return f"{rows[0][0]} jobs released"

    async def expire_keys(self, connection: AsyncConnection[Any]) -> str:
        """Delete keys whose period is over, a batch at a time."""
        expired = 0
        for _ in range(KEY_BATCHES):
            rows = await fetch(connection, self._schema, "keys_expire", batch=KEY_BATCH)
            expired += rows[0][0]
            if rows[0][0] < KEY_BATCH:
                break
        return f"{expired} keys expired"

    async def expire_jobs(self, connection: AsyncConnection[Any]) -> str:
        """Finish jobs that nobody has claimed in time, a batch at a time; a claim finishes those that it meets itself."""
        expired, since = 0, "-infinity"
        # By the statistics of an empty table it is best to read and sort all that are late, for each batch.
        await connection.execute("SET LOCAL enable_sort = off")
        for _ in range(EXPIRED_BATCHES):
            [(count, last, to_come, _)] = await fetch(
                connection, self._schema, "expire_jobs", batch=EXPIRED_BATCH, since=since, channel=self._schema
            )
            expired += count
            self.often = to_come or count == EXPIRED_BATCH
            if count < EXPIRED_BATCH:
                break
            since = last
        return f"{expired} jobs expired"

    async def sweep_turns(self, connection: AsyncConnection[Any]) -> str:
        """Give a turn to groups that have jobs waiting, none running, and no turn; forget what rates no longer need."""
        # The groups that have turns are looked up all at once, not by each of those that may lack one.
        await connection.execute("SET LOCAL enable_hashjoin = on")
        rows = await fetch(connection, self._schema, "turns_sweep", most=GROUPS, channel=self._schema)
        pruned = await fetch(connection, self._schema, "gates_prune")
        return f"{rows[0][0]} turns given, {pruned[0][0]} rates forgotten"

    async def expire_ticks(self, connection: AsyncConnection[Any]) -> str:
        """Delete the ticks of schedules that are older than the jobs they became, a batch at a time."""
        expired = 0
        for _ in range(KEY_BATCHES):
            rows = await fetch(
                connection, self._schema, "schedule_ticks_expire", batch=KEY_BATCH, keep=self._keep_ticks
            )
            expired += rows[0][0]
            if rows[0][0] < KEY_BATCH:
                break
        return f"{expired} ticks expired"

    async def roll_up(self, connection: AsyncConnection[Any]) -> str:
        """Count what finished in the minutes that have ended, for the page's charts."""
        return await rollup(connection, self._schema)
