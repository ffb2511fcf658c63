"""Ended executions, from their runner's report until their outcome is written."""

from __future__ import annotations

import asyncio
import logging
import time

import psycopg

from jobq._worker.database import Connection
from jobq._worker.database_errors import ErrorKind, classify
from jobq._worker.faults.suspects import PATIENCE
from jobq._worker.health.metrics import Metrics
from jobq._worker.health.stalls import RateLimitedLog
from jobq._worker.ipc.messages import AlreadyCommitted, Failure, Success, head, outcome_size
from jobq._worker.lease import Lease
from jobq._worker.outcomes.deferred_writes import Deferred, Written
from jobq._worker.outcomes.locked_outcomes import LockedOutcomes, Name
from jobq._worker.outcomes.outcome_log import OutcomeLog
from jobq._worker.outcomes.store import JobStore
from jobq._worker.statements.parameters import MAX_BATCH
from jobq._worker.statements.results import Claimed, Settled

logger = logging.getLogger("jobq.worker")


class OutcomeBuffer:
    """The unwritten outcomes of one worker. Lives in the dispatcher's event loop."""

    def __init__(
        self,
        ledger: JobStore,
        lease: Lease,
        metrics: Metrics | None,
        repeats: RateLimitedLog,
        deferred: Deferred,
        *,
        tracebacks: bool = False,
    ) -> None:
        self._log = OutcomeLog(repeats, tracebacks=tracebacks)
        self._ledger = ledger
        self.deferred = deferred
        """Outcomes that could not be written with the others."""
        self._most = MAX_BATCH
        """Number of successes per write. Reduced for a while after a batch that took too long."""
        self._lease = lease
        self._metrics = metrics
        self._repeats = repeats
        self.successes: list[Success] = []
        self.setbacks: list[Failure] = []
        self.locked = LockedOutcomes(ledger, repeats, on_due=self._one_more, on_setback=self._try_again)
        """Outcomes whose jobs were locked when they were due to be written."""
        self._recorded: set[Name] = set()
        """Executions since `recount` whose outcomes runners have written themselves."""
        self._landed = 0
        self._losses = 0
        """Number of sessions in a row that `settle` has lost."""
        self.finished = 0
        """Number of outcomes recorded so far."""
        self.odd = False
        """Whether the database refused an outcome as not ours.

        If so, it may hold jobs in our name that nothing here runs.
        """
        self.waiting_since: float | None = None
        """Since when outcomes wait while none of them is written. None: none waits."""
        self.more = asyncio.Event()
        """Set when an execution has ended."""

    def __len__(self) -> int:
        """Number of ended executions whose outcomes are not written."""
        return len(self.successes) + len(self.setbacks) + len(self.locked) + len(self.deferred)

    @property
    def hopeless(self) -> bool:
        """Whether only outcomes are left that the database does not accept."""
        return len(self) == len(self.deferred) and self.deferred.hopeless

    @property
    def writable(self) -> bool:
        """Whether something can be written now."""
        return bool(self.successes or self.setbacks or self.locked.due)

    def succeeded(self, successes: list[Success]) -> None:
        """Take successes that a runner reports."""
        if self._metrics is not None:
            self._metrics.succeeded(successes)
        self.successes += successes
        self._one_more()

    def set_back(self, setback: Failure) -> None:
        """Take any other outcome, reported by a runner or by the pool in its name."""
        if self._metrics is not None:
            self._metrics.ended(setback)
        self.setbacks.append(setback)
        self._one_more()

    def _try_again(self, setback: Failure) -> None:
        self.setbacks.append(setback)
        self._one_more()

    def _one_more(self) -> None:
        self.more.set()
        if self.waiting_since is None:
            self.waiting_since = time.monotonic()

    def recorded(self, recorded: AlreadyCommitted) -> None:
        """Take a report of a transactional task, whose outcome the runner has already written."""
        self._recorded.add((recorded.id, recorded.claims, recorded.started))
        if recorded.accepted:
            self.finished += 1
            self._landed += 1
        else:
            self.odd = True
            logger.warning("an outcome was refused: the job was no longer ours", extra={"job": recorded.id})
        if recorded.accepted and recorded.unstored is not None:
            self._log.unstored(recorded.id, recorded.unstored)
        self.more.set()

    def forget(self) -> None:
        """Drop the outcomes of a lost worker identity: the fence would refuse them."""
        self.successes.clear()
        self.setbacks.clear()
        self.locked.forget()
        self.deferred.forget()
        self.waiting_since = None
        if self._metrics is not None:
            self._metrics.forget()

    def recount(self) -> None:
        """Begin a comparison with the database: it knows all outcomes that runners wrote before."""
        self._recorded.clear()

    def names(self) -> set[Name]:
        """Return the names of ended executions that the database may still consider running."""
        ended = {(s.id, s.claims, s.started) for s in self.successes}
        ended |= {(s.id, s.claims, s.started) for s in self.setbacks}
        return ended | self.locked.names() | self._recorded | self.deferred.names()

    # --- writing --------------------

    async def set_aside(self, connection: Connection, successes: list[Success]) -> bool:
        """Keep back the locked ones among `successes`, which are the next batch.

        Return whether there are any. Raises psycopg.Error.
        """
        free = await self.locked.keep_back(connection, successes)
        if len(free) == len(successes):
            return False
        self.successes[: len(successes)] = free
        return True

    async def take_back(self, connection: Connection) -> None:
        """Move set-aside outcomes that are unlocked back to the others. Raises psycopg.Error."""
        free = await self.locked.take_back(connection)
        self.successes += free

    def batch(self) -> list[Success]:
        """Return the successes to write next."""
        return head(self.successes, outcome_size, self._most)

    def written(self, successes: list[Success], claimed: Claimed, refused: list[Failure]) -> int:
        """Record a written batch. Return how many executions have ended since the last one."""
        del self.successes[: len(successes)]
        self.setbacks += refused
        self.finished += claimed.accepted
        if successes:
            self._most = min(2 * self._most, MAX_BATCH)
        if claimed.unwritten:
            self.deferred.add(claimed.unwritten, claimed.error or psycopg.OperationalError("unknown"))
        if claimed.accepted:
            self.deferred.wrote()
        self._wrote()
        if lost := len(successes) - claimed.accepted - len(refused) - len(claimed.unwritten):
            self.odd = True
            logger.warning("outcomes were refused: those jobs were no longer ours", extra={"refused": lost})
        landed, self._landed = self._landed, 0
        return len(successes) + landed

    def defer(self, successes: list[Success], error: psycopg.Error) -> None:
        """Write `successes`, which are next and failed, apart from now on, and fewer at a time."""
        del self.successes[: len(successes)]
        if isinstance(error, psycopg.errors.QueryCanceled):
            self._most = max(1, len(successes) // 2)
        self._repeats.warn("outcomes are written apart from the others", error)
        self.deferred.add(successes, error)
        self._wrote()

    def written_apart(self, written: Written) -> None:
        """Record deferred outcomes that were written."""
        self.finished += written.accepted
        # A comparison that is under way may still find these jobs.
        self._recorded.update((outcome.id, outcome.claims, outcome.started) for outcome in written.outcomes)
        for outcome in written.outcomes:
            if isinstance(outcome, Failure):
                self._log.ended(outcome)
        if (refused := len(written.outcomes) - written.accepted) > 0:
            self.odd = True
            self._log.refused(refused, written.outcomes[0].id)
        self._wrote()
        self.more.set()

    def _wrote(self) -> None:
        # Deferred outcomes are reported as a problem of their own, and are no stall.
        self.waiting_since = time.monotonic() if len(self) > len(self.deferred) else None

    async def settle(self, connection: Connection) -> tuple[list[Failure], Settled]:
        """Write a batch of failures. Return the failures that are done with, and the results.

        Raises psycopg.Error if the connection is lost. After any other error, the batch is written
        apart.
        """
        setbacks = head(self.setbacks, outcome_size, MAX_BATCH)
        try:
            settled = await self._ledger.settle(connection, self._lease.worker, setbacks)
        except psycopg.Error as error:
            if classify(error, connection) is ErrorKind.CONNECTION:
                self._losses += 1
                if self._losses >= PATIENCE:
                    # One of them may be the reason.
                    self._losses = 0
                    del self.setbacks[: len(setbacks)]
                    self.deferred.add(setbacks, error)
                    self._wrote()
                raise
            settled = Settled(unwritten=tuple(setbacks), error=error)
        self._losses = 0
        self.finished += len(settled.accepted)
        del self.setbacks[: len(setbacks)]
        if settled.unwritten:
            self.deferred.add(settled.unwritten, settled.error or psycopg.OperationalError("unknown"))
        for setback in settled.busy:
            self.locked.postpone(setback)
        self._wrote()
        for setback in settled.accepted:
            self._log.ended(setback)
        if settled.refused:
            self.odd = True
            self._log.refused(len(settled.refused), settled.refused[0].id)
        return [*settled.accepted, *settled.refused], settled
