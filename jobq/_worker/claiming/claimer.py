"""The statement of one round: outcomes and the next claim in one commit, and its preparation.

While the server executes the statement, the jobs of the previous claim are handed out to runners.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any
from uuid import UUID

import psycopg

from jobq._worker.claiming.capacity import Capacity
from jobq._worker.claiming.delivery import Delivery
from jobq._worker.claiming.finder import JobFinder
from jobq._worker.claiming.limited_claimer import LimitedClaimer
from jobq._worker.claiming.session import ClaimSession
from jobq._worker.database import Connection
from jobq._worker.database_errors import ErrorKind, classify
from jobq._worker.faults.refused_claims import ALL as CLAIM
from jobq._worker.faults.refused_claims import RefusedClaims
from jobq._worker.faults.suspects import PATIENCE
from jobq._worker.health.metrics import Metrics
from jobq._worker.health.stalls import Stall
from jobq._worker.ipc.messages import AlreadyCommitted, Disposition, Failure, Success
from jobq._worker.lanes.aging import Aging
from jobq._worker.lanes.cursor import NOWHERE, ClaimPlan, ClaimSnapshot
from jobq._worker.lanes.lanes import MOST_LANES
from jobq._worker.lanes.next_due import NextDueTimer
from jobq._worker.lease import Lease
from jobq._worker.outcomes.deferred_writes import Written
from jobq._worker.outcomes.outcome_buffer import OutcomeBuffer
from jobq._worker.outcomes.store import JobStore
from jobq._worker.statements.results import Claimed
from jobq._worker.wakeup.policy import LastClaim

# A claim looks at this many lanes, even if it wants few jobs.
LEAST_LANES = 64
# Lanes with recent jobs that a statement with outcomes also looks at, because inserts may be
# silent.
WARM_LANES = 64


class Claimer:
    """Writes outcomes and claims jobs, for one claim loop."""

    def __init__(
        self,
        schema: str,
        *,
        session: ClaimSession,
        store: JobStore,
        finder: JobFinder,
        next_due: NextDueTimer,
        limited: LimitedClaimer,
        refused: RefusedClaims,
        capacity: Capacity,
        outcomes: OutcomeBuffer,
        delivery: Delivery,
        lease: Lease,
        metrics: Metrics | None,
        aging: Aging | None,
    ) -> None:
        self._schema = schema
        self._session = session
        self._store = store
        self._finder = finder
        self._next_due = next_due
        self._limited = limited
        self._refused = refused
        self._capacity = capacity
        self._outcomes = outcomes
        self._delivery = delivery
        self._lease = lease
        self._metrics = metrics
        self._aging = aging
        self._losses = 0
        """Number of sessions that outcomes have lost in a row."""
        self.claims = LastClaim()
        outcomes.deferred.subscribe(self._written_apart)

    # --- outcomes written elsewhere --------------------

    def recorded(self, recorded: AlreadyCommitted) -> None:
        """Take note that a runner has written an outcome itself."""
        self._outcomes.recorded(recorded)
        self._finder.limited.ended([recorded])

    def _written_apart(self, written: Written) -> None:
        self._outcomes.written_apart(written)
        self._finder.limited.ended(written.outcomes)
        self._finder.put_back(written.queues, written.lowered)
        # So many outcomes may have waited that claiming stopped.
        self._finder.look_again()

    # --- before the statement --------------------

    async def look_around(self) -> None:
        """If it is time, read which lanes exist, and the next jobs of lanes without due jobs."""
        session, survey = self._session, self._finder.survey
        now = time.monotonic()
        if now >= survey.due_at:
            self._delivery.deliver()
            async with session.lock:
                connection = await session.connected()
                await session.attempt("read which queues have jobs", survey.read(connection), connection)
        if (self._finder.more or self._outcomes.writable) and now >= self._next_due.look_up_at:
            self._delivery.deliver()
            async with session.lock:
                connection = await session.connected()
                await session.attempt("look up what is due next", self._next_due.look_up(connection), connection)

    async def claim_parked(self) -> None:
        """Claim jobs that other workers' code could not run.

        While other jobs wait, use half of the free slots.
        """
        session = self._session
        self._delivery.deliver()
        async with session.lock:
            connection = await session.connected()
            if (want := self._capacity.want()) <= 0:
                return
            worker = self._lease.worker
            claim = self._finder.parked.claim(connection, worker, (want + 1) // 2 if self._finder.more else want)
            claimed = await session.attempt("claim parked jobs", claim, connection)
        if claimed is not None:
            self._delivery.hand_out(claimed, worker)

    # --- the statement --------------------

    async def step(self, want: int) -> None:
        """Write a batch of outcomes, and claim up to `want` jobs.

        Raises psycopg.Error if the connection is lost, or if a statement fails that is not expected
        to fail.
        """
        session, outcomes, refused, capacity = self._session, self._outcomes, self._refused, self._capacity
        async with session.lock:
            connection = await session.connected()
            # Writing the failures may have taken so long that the lease is lost.
            want = min(want, capacity.want())
            if outcomes.setbacks:
                await self._settle(connection)
            if outcomes.locked.due:
                await session.attempt("look for locked jobs", outcomes.take_back(connection), connection)
            if want > 0 and refused.due_at <= time.monotonic():
                self._delivery.deliver()
                worker = self._lease.worker
                self._delivery.hand_out(await refused.retry(connection, worker, self._finder.lanes.serves), worker)
                want = min(want, capacity.want())
            if want > 0 and self._aging is not None and self._aging.due:
                lanes = self._finder.cursor.plan(*self._finder.lanes.arrays(), remember=False)
                await session.attempt(
                    "look at the heads", self._aging.look(connection, self._schema, lanes), connection
                )
            successes = outcomes.batch()
            if successes and outcomes.locked.wary:
                await session.attempt("look for locked jobs", outcomes.set_aside(connection, successes), connection)
                successes = outcomes.batch()
            if successes and refused.apart:
                # The outcomes need a statement of their own, because the claim may be refused.
                await self._exchange(connection, successes, NOWHERE, 0)
                want, successes = min(want, capacity.want()), []
            await self._acknowledge_and_claim(connection, successes, min(want, refused.most))
        if not (outcomes.writable or (self._finder.more and capacity.want() > 0)):
            self._delivery.deliver()

    async def _settle(self, connection: Connection) -> None:
        """Write a batch of failures."""
        # Hand out jobs first, because this statement may take long.
        self._delivery.deliver()
        written, settled = await self._outcomes.settle(connection)
        finder = self._finder
        finder.limited.ended(written)
        finder.parked.refused(written)
        finder.put_back(settled.queues, settled.lowered)
        if any(setback.ending not in (Disposition.FAIL, Disposition.SUCCEED) for setback in written):
            # Some jobs may be ready again at once, others before the next known job, and mostly in
            # the lanes that they came from.
            finder.lanes.poll()
            finder.survey.hasten()
        self._session.attempts.error = None

    async def _acknowledge_and_claim(self, connection: Connection, successes: list[Success], want: int) -> None:
        """Choose what to claim, and execute the statement.

        If there is nothing to write or read, only hand out jobs.
        """
        finder, limited = self._finder, self._limited
        queue = None if connection.pooled or self._refused.any else finder.limited.queue_of(successes)
        part = limited.part_beside(queue, want) if queue is not None and want > 0 else 0
        want -= part
        scan = self._scan(want, warm=WARM_LANES if successes else 0) if want > 0 else NOWHERE
        if not scan.queues:
            want = 0
        if want > 0 and not self._capacity.pace.prefetch():
            # These jobs take long. One queue must not hold all slots for that time.
            want = finder.lanes.first(want)
        if not successes and not scan.queues:
            self._delivery.deliver()
            return
        beside = None
        if queue is not None and part > 0:
            beside = finder.limited.begin(self._lease.worker, queue, part, ending=successes)
        await self._exchange(connection, successes, scan, max(want, 0), beside)

    def _scan(self, want: int, *, warm: int) -> ClaimPlan:
        """Return the lanes to read.

        They are enough lanes with possible due jobs for `want`, and `warm` lanes with recent jobs.
        """
        # Most of these lanes are known to have a job.
        most = min(MOST_LANES, max(LEAST_LANES, 2 * want))
        return self._finder.cursor.plan(*self._finder.lanes.arrays(most, warm=warm))

    async def _exchange(
        self,
        connection: Connection,
        successes: list[Success],
        scan: ClaimPlan,
        want: int,
        beside: dict[str, Any] | None = None,
    ) -> None:
        """Write outcomes and claim. While the server works, hand out the jobs of the last claim.

        `beside`: a claim from a limited queue that is made in the same commit.
        """
        begun = time.monotonic()
        finder = self._finder
        # A notification from now on may be about jobs that this claim does not see.
        told = finder.told
        if want > 0:
            finder.told = False
        worker = self._lease.worker
        answer = asyncio.ensure_future(self._ask(connection, worker, successes, scan, want=want, beside=beside))
        try:
            # Let the statement be sent.
            await asyncio.sleep(0)
            self._delivery.deliver()
            claimed, refused = await answer
        except asyncio.CancelledError:
            # The statement must not continue without the lock.
            answer.cancel()
            await asyncio.gather(answer, return_exceptions=True)
            raise
        except psycopg.Error as error:
            if classify(error, connection) is ErrorKind.CONNECTION:
                self._lost_by(successes, want, error)
                raise
            finder.told = finder.told or told
            if successes:
                self._refused.looking = self._refused.looking or want > 0
                await self._not_acknowledged(connection, successes, error)
            else:
                self._delivery.keep(await self._refused.failed(connection, worker, scan, want, error), worker)
                if self._refused.closed_until > time.monotonic():
                    self._session.attempts.failed(CLAIM, error)
            return
        self._session.attempts.error = None
        if successes:
            self._losses = 0
        # For the database, refused and deferred jobs keep running until their outcomes are written.
        lost = {setback.id for setback in refused} | {success.id for success in claimed.unwritten}
        finder.limited.ended(success for success in successes if success.id not in lost)
        now = time.monotonic()
        self._capacity.pace.measured(now, self._outcomes.written(successes, claimed, refused), now - begun)
        if self._metrics is not None:
            self._metrics.round_trip(now - begun)
        if claimed.sight is not None:
            self._saw(scan, claimed.sight, len(claimed), told=told)
            self.claims.made(begun, want=want, got=len(claimed), complete=finder.lanes.complete)
        elif want > 0:
            # A bad outcome also undid the claim, or the claim itself is refused.
            finder.told = finder.told or told
            self._refused.looking = True
        self._delivery.keep(claimed, worker)

    async def _ask(
        self,
        connection: Connection,
        worker: UUID,
        successes: list[Success],
        scan: ClaimPlan,
        *,
        want: int,
        beside: dict[str, Any] | None,
    ) -> tuple[Claimed, list[Failure]]:
        if beside is not None:
            try:
                claimed, rows = await self._store.advance_and_claim(
                    connection, worker, successes, scan, want=want, claim=beside
                )
            except psycopg.Error as error:
                kind = classify(error, connection)
                self._finder.limited.failed(beside["queue"], error, kind)
                if kind is ErrorKind.CONNECTION:
                    raise
                # A row's lock was not free, or an outcome cannot be stored: write those outcomes
                # alone, and claim later.
            else:
                self._limited.claimed_beside(beside, rows, successes, worker)
                return claimed, []
        refused = self._refused
        if want > 0 and not successes and refused.lose_sessions:
            return await refused.find(connection, worker, scan) or Claimed(), []
        within = refused.within if want > 0 else None
        return await self._store.advance(connection, worker, successes, scan, want, refused=refused.ids, within=within)

    def _saw(self, scan: ClaimPlan, sight: ClaimSnapshot, jobs: int, *, told: bool) -> None:
        self._limited.plain_claim_saw(scan, sight)
        self._refused.went_well()
        self._finder.cursor.read(scan, sight)
        self._finder.lanes.claimed(scan, sight)
        if told and not jobs:
            # Another worker may have the job, or the job lies below the range that was read.
            self._finder.survey.hasten()

    # --- failures --------------------

    def _lost_by(self, batch: list[Success], want: int, error: psycopg.Error) -> None:
        """Handle a statement that lost its session.

        After repeated losses, one of its rows may be the reason.
        """
        if not batch:
            self._refused.lost()
            return
        if want > 0:
            # Next time, claim each job alone.
            self._refused.looking = True
        self._losses += 1
        if self._losses >= PATIENCE:
            self._losses = 0
            self._outcomes.defer(batch, error)

    async def _not_acknowledged(self, connection: Connection, successes: list[Success], error: psycopg.Error) -> None:
        if isinstance(error, psycopg.errors.LockNotAvailable) and await self._outcomes.set_aside(connection, successes):
            return
        # The statement lacks something other than a job's or a key's lock, or the error was no lock
        # at all.
        self._outcomes.defer(successes, error)

    def stall(self) -> Stall | None:
        """Return the current stall: since when and why outcomes are not written. None: no stall."""
        since = self._outcomes.waiting_since
        if since is None:
            return None
        return Stall(f"{len(self._outcomes)} outcomes wait: {self._session.cause()}", since)
