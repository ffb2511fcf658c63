"""Outcomes that could not be written with the others: tried again beside the claim loop, over a connection of their own.

They cost the claim loop nothing: neither a row that takes a minute (a trigger that sleeps), nor one that is kept
locked, nor one that a rule refuses for days (a foreign key on jobq.job, a trigger on history). A batch is halved until what
is at fault stands alone, and that is tried ever more rarely. The fence (id, claims, worker) makes each try harmless.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import psycopg

from jobq.worker.cursor import NOWHERE
from jobq.worker.database import Connection, Database, Terms, close
from jobq.worker.errors import ErrorKind, classify
from jobq.worker.frames import Setback, Success
from jobq.worker.lease import Lease
from jobq.worker.outcomes import Ledger, Settled
from jobq.worker.problems import Problems
from jobq.worker.stalls import Repeats

logger = logging.getLogger("jobq.worker")

# Time for rows of which each takes long: nothing waits for this connection.
TERMS = Terms(statement=60.0, lock=1.0, patience=65.0)
# Seconds until an outcome is tried again that stands alone: doubled each time. What only lacks a lock or resources comes back
# sooner, for that may be over at any moment.
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 300.0
LONGEST_TRANSIENT = 5.0
# A batch that has failed so many times because a lock or resources were missing is halved: one row may be the reason.
PATIENCE = 3
# After so many outcomes in a row none of which could be written, or so many in all, no more jobs are claimed.
MOST_IN_A_ROW = 200
MOST = 10_000
# The connection stays for so long after its last use, in seconds.
STAY = 5.0
PROBLEM = "write an outcome"


@dataclass(slots=True, eq=False)
class _Batch:
    """Outcomes of one kind, to be written together; `due` in time.monotonic() seconds."""

    outcomes: Sequence[Success] | Sequence[Setback]
    error: str
    due: float = 0.0
    tries: int = 0
    transient: bool = False
    losses: int = 0
    """How many sessions it has lost."""
    last_word: bool = field(default=False)
    """Whether it has been tried since the worker began to stop."""


@dataclass(frozen=True, slots=True)
class Written:
    """What one write has brought: of these outcomes `accepted` were ours to write."""

    outcomes: Sequence[Success] | Sequence[Setback]
    accepted: int
    queues: frozenset[str] = frozenset()
    """The queues with jobs that can be claimed again."""
    lowered: tuple[tuple[str, int], ...] = ()
    """As `Settled.lowered`."""


class Deferred:
    """One worker's. `on_written` is told of each write that went well."""

    def __init__(
        self,
        database: Database,
        ledger: Ledger,
        lease: Lease,
        *,
        problems: Problems,
        repeats: Repeats,
        on_written: Callable[[Written], None],
    ) -> None:
        self._database = database
        self._ledger = ledger
        self._lease = lease
        self._problems = problems
        self._repeats = repeats
        self._on_written = on_written
        self._batches: list[_Batch] = []
        self._in_a_row = 0
        self._losses = 0
        self._leaving = False
        self._connection: Connection | None = None
        self._task: asyncio.Task[None] | None = None
        self._news = asyncio.Event()

    def __len__(self) -> int:
        """How many outcomes wait here."""
        return sum(len(batch.outcomes) for batch in self._batches)

    def names(self) -> set[tuple[int, int, int]]:
        """Return (id, claims, started) of those."""
        return {(outcome.id, outcome.claims, outcome.started) for batch in self._batches for outcome in batch.outcomes}

    @property
    def too_many(self) -> bool:
        """Whether so much cannot be written that executing more jobs would be of no use."""
        return bool(self._batches) and (self._in_a_row >= MOST_IN_A_ROW or len(self) >= MOST)

    @property
    def hopeless(self) -> bool:
        """Whether all that waits has been tried since `leave`."""
        return all(batch.last_word for batch in self._batches)

    @property
    def tried(self) -> bool:
        """Whether all that waits has been tried here."""
        return all(batch.tries > 0 for batch in self._batches)

    def add(self, outcomes: Sequence[Success] | Sequence[Setback], error: BaseException) -> None:
        """Write these apart from now on. `error`: why they could not be written with the others."""
        if not outcomes:
            return
        alone = len(outcomes) == 1
        kind = classify(error)
        # What has lost its sessions elsewhere is to show here only once more that it does.
        losses = PATIENCE - 1 if kind is ErrorKind.CONNECTION else 0
        batch = _Batch(outcomes, _text(error), transient=kind is not ErrorKind.REFUSED, losses=losses)
        if alone and not batch.transient:
            # It has been tried alone.
            self._stands_alone(batch, error)
        self._batches.append(batch)
        self._begin()

    def wrote(self) -> None:
        """An outcome was written by the claim loop: the database takes some."""
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
        """Stop trying."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._drop()

    # --- trying again --------------------

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
                await self._wait(pause)
                continue
            try:
                await self._try(batch)
                self._losses = 0
            except (psycopg.Error, OSError, TimeoutError) as error:
                # Of the connection: nothing is known of the batch.
                self._losses += 1
                batch.due = max(batch.due, time.monotonic() + min(0.1 * 2 ** min(self._losses, 10), 2.0))
                batch.last_word = batch.last_word or self._leaving
                self._repeats.warn("no connection for outcomes that are written apart", error)
                await self._drop()
            except Exception as error:
                # A fault of ours: the outcome is kept all the same, and the others are written.
                logger.exception("an outcome cannot be written apart", extra={"job": batch.outcomes[0].id})
                batch.due, batch.last_word = time.monotonic() + LONGEST_PAUSE, batch.last_word or self._leaving
                self._problems.note(PROBLEM, error, job=batch.outcomes[0].id)
            idle_since = time.monotonic()
        await self._drop()

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(max(seconds, 0.01)):
                await self._news.wait()
        except TimeoutError:
            return

    async def _try(self, batch: _Batch) -> None:
        """Write one batch. Raises psycopg.Error when the connection is lost."""
        if self._connection is None or self._connection.closed:
            self._connection = await self._database.connect("outcomes", TERMS)
        connection = self._connection
        batch.tries += 1
        try:
            found = await self._write(connection, batch)
        except psycopg.Error as error:
            kind = classify(error, connection)
            if kind is ErrorKind.CONNECTION:
                batch.losses += 1
                if batch.losses < PATIENCE:
                    batch.tries -= 1
                elif batch in self._batches:
                    # Not the connection's fault, it seems, but that of an outcome.
                    self._failed(batch, error, ErrorKind.REFUSED)
                raise
            batch.last_word = self._leaving
            if batch in self._batches:  # else they were forgotten meanwhile
                self._failed(batch, error, kind)
            return
        if batch in self._batches:
            self._batches.remove(batch)
            self._clear(batch)
            self._on_written(found)
            self._recovered()
            if self._batches:
                # What stood in its way may have stood in theirs.
                min(self._batches, key=lambda other: other.due).due = 0.0

    async def _write(self, connection: Connection, batch: _Batch) -> Written:
        """Write a batch whole: in halves it is written by later tries. Raises psycopg.Error."""
        worker = self._lease.worker
        successes = [outcome for outcome in batch.outcomes if isinstance(outcome, Success)]
        if len(successes) > 1:
            accepted = await self._ledger.acknowledge(connection, worker, successes)
            return Written(successes, accepted)
        setbacks = [outcome for outcome in batch.outcomes if isinstance(outcome, Setback)]
        if successes:
            done, setbacks = await self._ledger.advance(connection, worker, successes, NOWHERE, 0)
            if done.error is not None:
                raise done.error
            if not setbacks:
                return Written(successes, done.accepted)
        settled: Settled = await self._ledger.settle(connection, worker, setbacks)
        if settled.unwritten or settled.busy:
            rest = [*settled.unwritten, *settled.busy]
            written = [one for one in setbacks if one not in rest]
            if not written:
                raise settled.error or psycopg.errors.LockNotAvailable("the job's row is locked")
            self._batches.append(_Batch(rest, _text(settled.error or "the job's row is locked"), due=_soon(1)))
            return Written(written, len(settled.accepted), settled.queues, settled.lowered)
        return Written(batch.outcomes, len(settled.accepted), settled.queues, settled.lowered)

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
        """It is known which outcome is at fault: leave it alone for a while, and let it be seen."""
        job = batch.outcomes[0].id
        longest = LONGEST_TRANSIENT if batch.transient and not _slow(error) else LONGEST_PAUSE
        batch.due = time.monotonic() + min(FIRST_PAUSE * 2.0 ** min(max(batch.tries - 1, 0), 20), longest)
        if batch.tries <= 1:
            self._in_a_row += 1
        self._problems.note(PROBLEM, error, job=job)
        self._repeats.warn("an outcome cannot be written: it is kept, and tried again ever more rarely", error, job=job)

    def _recovered(self) -> None:
        """Something was written. What failed because of locks or resources, or with all others, may go through now."""
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


def _slow(error: BaseException) -> bool:
    return isinstance(error, psycopg.errors.QueryCanceled)


def _soon(tries: int) -> float:
    return time.monotonic() + min(0.1 * 2.0 ** min(tries, 10), 2.0)


def _text(error: BaseException | str) -> str:
    return str(error).strip()
