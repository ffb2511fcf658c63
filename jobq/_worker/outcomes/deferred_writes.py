"""Outcomes that could not be written with the others: tried again on a connection of their own.

The claim loop never waits for them: not for a row that takes a minute (a trigger that sleeps), a
row that stays locked, or a row that a rule refuses for days (a foreign key on jobq.job, a trigger
on history). A batch is halved until the outcome at fault is alone. That outcome is then tried ever
more rarely. The fence (id, claims, worker) makes each try harmless.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from uuid import UUID

import psycopg

from jobq._worker.database import Connection, Database, close
from jobq._worker.database_errors import ErrorKind, classify
from jobq._worker.faults.problems import Problems
from jobq._worker.health.stalls import RateLimitedLog
from jobq._worker.ipc.messages import Failure, Success
from jobq._worker.lanes.cursor import NOWHERE
from jobq._worker.lease import Lease, wait_or
from jobq._worker.outcomes.store import JobStore
from jobq._worker.timeouts import Timeouts

logger = logging.getLogger("jobq.worker")

# Timeouts that allow for slow rows: nothing waits for this connection.
TERMS = Timeouts(statement=60.0, lock=1.0, patience=65.0)
# Seconds until the next try for an outcome that is alone. Doubled each time. If only a lock or
# resources are missing, the next try is sooner, because that may end at any moment.
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 300.0
LONGEST_TRANSIENT = 5.0
# If a batch fails this many times for lack of a lock or resources, it is halved: one row may be the
# reason.
PATIENCE = 3
# After this many failed outcomes in a row, or (MOST) in total, no more jobs are claimed.
MOST_IN_A_ROW = 200
MOST = 10_000
# Seconds that the connection stays open after its last use.
STAY = 5.0
PROBLEM = "write an outcome"


@dataclass(slots=True, eq=False)
class _Batch:
    """Outcomes of one kind that are written together. `due` is in time.monotonic() seconds."""

    outcomes: Sequence[Success] | Sequence[Failure]
    error: str
    due: float = 0.0
    tries: int = 0
    transient: bool = False
    losses: int = 0
    """Number of sessions that it has lost."""
    last_word: bool = field(default=False)
    """Whether it has been tried since the worker began to stop."""


@dataclass(frozen=True, slots=True)
class Written:
    """Result of one write: of `outcomes`, `accepted` were ours to write."""

    outcomes: Sequence[Success] | Sequence[Failure]
    accepted: int
    queues: frozenset[str] = frozenset()
    """The queues whose jobs can be claimed again."""
    lowered: tuple[tuple[str, int], ...] = ()
    """As `Settled.lowered`."""


class Deferred:
    """The deferred outcomes of one worker. Subscribers are called after each successful write."""

    def __init__(
        self,
        database: Database,
        ledger: JobStore,
        lease: Lease,
        *,
        problems: Problems,
        repeats: RateLimitedLog,
    ) -> None:
        self._database = database
        self._ledger = ledger
        self._lease = lease
        self._problems = problems
        self._repeats = repeats
        self._on_written: list[Callable[[Written], None]] = []
        self._batches: list[_Batch] = []
        self._in_a_row = 0
        self._losses = 0
        self._leaving = False
        self._connection: Connection | None = None
        self._task: asyncio.Task[None] | None = None
        self._news = asyncio.Event()

    def subscribe(self, on_written: Callable[[Written], None]) -> None:
        """Call `on_written` after each write from now on."""
        self._on_written.append(on_written)

    def __len__(self) -> int:
        """Number of outcomes that wait here."""
        return sum(len(batch.outcomes) for batch in self._batches)

    def names(self) -> set[tuple[int, int, int]]:
        """Return (id, claims, started) of the waiting outcomes."""
        return {(outcome.id, outcome.claims, outcome.started) for batch in self._batches for outcome in batch.outcomes}

    @property
    def too_many(self) -> bool:
        """Whether so many outcomes cannot be written that running more jobs would be useless."""
        return bool(self._batches) and (self._in_a_row >= MOST_IN_A_ROW or len(self) >= MOST)

    @property
    def hopeless(self) -> bool:
        """Whether every waiting outcome has been tried since `leave`."""
        return all(batch.last_word for batch in self._batches)

    @property
    def tried(self) -> bool:
        """Whether every waiting outcome has been tried here."""
        return all(batch.tries > 0 for batch in self._batches)

    def add(self, outcomes: Sequence[Success] | Sequence[Failure], error: BaseException) -> None:
        """Write `outcomes` apart from now on.

        `error`: why they could not be written with the others.
        """
        if not outcomes:
            return
        alone = len(outcomes) == 1
        kind = classify(error)
        # An outcome that has lost sessions elsewhere needs to lose only one more here.
        losses = PATIENCE - 1 if kind is ErrorKind.CONNECTION else 0
        batch = _Batch(outcomes, _text(error), transient=kind is not ErrorKind.REFUSED, losses=losses)
        if alone and not batch.transient:
            # The outcome has been tried alone.
            self._stands_alone(batch, error)
        self._batches.append(batch)
        self._begin()

    def wrote(self) -> None:
        """Take note that the claim loop has written an outcome: the database accepts some."""
        if self._in_a_row:
            self._recovered()

    def leave(self) -> None:
        """The worker stops: try everything once more, at once."""
        self._leaving = True
        for batch in self._batches:
            batch.due = 0.0
        self._begin()

    def forget(self) -> None:
        """Drop everything: the fence would refuse it."""
        for batch in self._batches:
            self._clear(batch)
        self._batches.clear()

    async def close(self) -> None:
        """Stop trying, and close the connection."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._drop()

    # --- retries --------------------

    def _begin(self) -> None:
        self._news.set()
        if self._batches and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._run(), name="deferred")

    async def _run(self) -> None:
        idle_since = time.monotonic()
        while self._batches or time.monotonic() < idle_since + STAY:
            self._news.clear()
            now = time.monotonic()
            batch = min(self._batches, key=lambda one: one.due, default=None)
            if batch is None or batch.due > now:
                pause = idle_since + STAY - now if batch is None else batch.due - now
                if pause > STAY:
                    await self._drop()
                await wait_or(self._news, max(pause, 0.01))
                continue
            try:
                await self._try(batch)
                self._losses = 0
            except (psycopg.Error, OSError, TimeoutError) as error:
                # The connection has failed. Nothing is known about the batch.
                self._losses += 1
                batch.due = max(batch.due, time.monotonic() + min(0.1 * 2 ** min(self._losses, 10), 2.0))
                batch.last_word = batch.last_word or self._leaving
                self._repeats.warn("no connection for outcomes that are written apart", error)
                await self._drop()
            except Exception as error:
                # A bug in jobq: the outcome is kept, and the other outcomes are written.
                logger.exception("an outcome cannot be written apart", extra={"job": batch.outcomes[0].id})
                batch.due, batch.last_word = time.monotonic() + LONGEST_PAUSE, batch.last_word or self._leaving
                self._problems.note(PROBLEM, error, job=batch.outcomes[0].id)
            idle_since = time.monotonic()
        await self._drop()

    async def _try(self, batch: _Batch) -> None:
        """Write one batch. Raises psycopg.Error if the connection is lost."""
        if self._connection is None or self._connection.closed:
            self._connection = await self._database.connect("outcomes", TERMS)
        connection = self._connection
        batch.tries += 1
        try:
            found, rest = await _write(self._ledger, self._lease.worker, connection, batch)
        except psycopg.Error as error:
            kind = classify(error, connection)
            if kind is ErrorKind.CONNECTION:
                batch.losses += 1
                if batch.losses < PATIENCE:
                    batch.tries -= 1
                elif batch in self._batches:
                    # The cause seems to be an outcome, not the connection.
                    self._failed(batch, error, ErrorKind.REFUSED)
                raise
            batch.last_word = self._leaving
            if batch in self._batches:  # otherwise they were dropped in the meantime
                self._failed(batch, error, kind)
            return
        if batch in self._batches:
            self._batches.remove(batch)
            if rest is not None:
                self._batches.append(rest)
            self._clear(batch)
            for tell in self._on_written:
                tell(found)
            self._recovered()
            if self._batches:
                # The obstacle of this batch may have been that of the others.
                min(self._batches, key=lambda other: other.due).due = 0.0

    def _failed(self, batch: _Batch, error: psycopg.Error, kind: ErrorKind) -> None:
        batch.error, batch.transient = _text(error), kind is ErrorKind.TRANSIENT
        timed_out = isinstance(error, psycopg.errors.QueryCanceled)
        if len(batch.outcomes) == 1:
            self._stands_alone(batch, error)
        elif kind is ErrorKind.REFUSED or timed_out or batch.tries >= PATIENCE:
            self._batches.remove(batch)
            middle = len(batch.outcomes) // 2
            self._batches += [
                _Batch(half, batch.error, transient=batch.transient, losses=min(batch.losses, PATIENCE - 1))
                for half in (batch.outcomes[:middle], batch.outcomes[middle:])
            ]
        else:
            batch.due = _soon(batch.tries)

    def _stands_alone(self, batch: _Batch, error: BaseException) -> None:
        """The outcome at fault is known: leave it alone for a while, and report it."""
        job = batch.outcomes[0].id
        longest = LONGEST_TRANSIENT if batch.transient and not _slow(error) else LONGEST_PAUSE
        batch.due = time.monotonic() + min(FIRST_PAUSE * 2.0 ** min(max(batch.tries - 1, 0), 20), longest)
        if batch.tries <= 1:
            self._in_a_row += 1
        self._problems.note(PROBLEM, error, job=job)
        self._repeats.warn("an outcome cannot be written: it is kept, and tried again ever more rarely", error, job=job)

    def _recovered(self) -> None:
        """Something was written.

        Batches that failed for lack of locks or resources may now succeed.
        """
        again = self._in_a_row >= MOST_IN_A_ROW
        self._in_a_row = 0
        for batch in self._batches:
            if again or batch.transient:
                batch.due = min(batch.due, _soon(1))
        self._news.set()

    def _clear(self, batch: _Batch) -> None:
        for outcome in batch.outcomes:
            self._problems.clear(PROBLEM, job=outcome.id)

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        await close(connection)


async def _write(
    ledger: JobStore, worker: UUID, connection: Connection, batch: _Batch
) -> tuple[Written, _Batch | None]:
    """Write one batch whole. Halves are written by later tries.

    Return the result, and the rest of the batch or None. Raises psycopg.Error.
    """
    successes = [outcome for outcome in batch.outcomes if isinstance(outcome, Success)]
    if len(successes) > 1:
        accepted = await ledger.acknowledge(connection, worker, successes)
        return Written(successes, accepted), None
    setbacks = [outcome for outcome in batch.outcomes if isinstance(outcome, Failure)]
    if successes:
        done, setbacks = await ledger.advance(connection, worker, successes, NOWHERE, 0)
        if done.error is not None:
            raise done.error
        if not setbacks:
            return Written(successes, done.accepted), None
    settled = await ledger.settle(connection, worker, setbacks)
    if settled.unwritten or settled.busy:
        left = [*settled.unwritten, *settled.busy]
        written = [one for one in setbacks if one not in left]
        if not written:
            raise settled.error or psycopg.errors.LockNotAvailable("the job's row is locked")
        rest = _Batch(left, _text(settled.error or "the job's row is locked"), due=_soon(1))
        return Written(written, len(settled.accepted), settled.queues, settled.lowered), rest
    return Written(batch.outcomes, len(settled.accepted), settled.queues, settled.lowered), None


def _slow(error: BaseException) -> bool:
    return isinstance(error, psycopg.errors.QueryCanceled)


def _soon(tries: int) -> float:
    return time.monotonic() + min(0.1 * 2.0 ** min(tries, 10), 2.0)


def _text(error: BaseException | str) -> str:
    return str(error).strip()
