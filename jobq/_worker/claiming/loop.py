"""The claim loop: writes outcomes and claims ready jobs, in one statement and commit per round.

While there is work, rounds follow each other. Each round writes the outcomes that arrived during
the round before, so batches grow with the load. When nothing is ready, the loop sleeps until a
notification, an outcome, the next due job, or the poll.

The state of a round lives where it changes: `JobFinder` knows where jobs are, `OutcomeBuffer` holds
ended executions, `ClaimGate` and `Capacity` decide how much may be claimed. `Claimer` executes the
statement of the round. The loop decides what a round does, and when.
"""

from __future__ import annotations

import asyncio
import time

import psycopg

from jobq._worker.claiming.attempts import ROUND
from jobq._worker.claiming.parts import ClaimParts
from jobq._worker.database import Database, fetch
from jobq._worker.faults.problems import Problems
from jobq._worker.health.metrics import Metrics
from jobq._worker.health.stalls import Stall
from jobq._worker.health.state import LoopHealth
from jobq._worker.lease import Lease
from jobq._worker.limited.queues import CALL_EVERY
from jobq._worker.loops import Topic
from jobq._worker.options import WorkerOptions
from jobq._worker.runners.pool import RunnerPool
from jobq._worker.statements.parameters import MAX_BATCH
from jobq._worker.wakeup.state import WakeupState
from jobq.retry import Backoff

# Outcomes wait this many seconds for more outcomes, unless a slot is idle.
FLUSH_AFTER = 0.002
_RECONNECT = Backoff(base=0.1, cap=2)


class ClaimLoop:
    """Claims jobs for one pool of runners, and writes their outcomes."""

    name = "claims"

    def __init__(
        self,
        options: WorkerOptions,
        pool: RunnerPool,
        lease: Lease,
        pulse: LoopHealth,
        metrics: Metrics | None = None,
        *,
        stop: asyncio.Event | None = None,
        database: Database | None = None,
        wakeups: WakeupState | None = None,
        problems: Problems | None = None,
    ) -> None:
        """Create the loop.

        Args:
            stop: Ends `run`. Other parts set it together with `wake`. Default: a new event.
            problems: Receives what the loop cannot do. Default: a new record.
        """
        self.stop = stop or asyncio.Event()
        self._options = options
        self._schema = options.settings.schema
        self._pool = pool
        self._wakeups = wakeups or WakeupState()
        parts = ClaimParts(
            options,
            pool,
            lease,
            pulse,
            metrics,
            database=database or Database(options.settings),
            wakeups=self._wakeups,
            problems=problems or Problems(),
        )
        self.finder = parts.finder
        self.outcomes = parts.outcomes
        self.gate = parts.gate
        self.claimer = parts.claimer
        self.sync = parts.sync
        self._store = parts.store
        self._woken = parts.woken
        self._attempts = parts.attempts
        self._session = parts.session
        self._capacity = parts.capacity
        self._delivery = parts.delivery
        self._limited = parts.limited_claimer
        self._next_due = parts.next_due
        self._parked = parts.parked
        self._refused = parts.refused
        self._starter = parts.starter

    # --- calls from other parts --------------------

    def wake(self, topic: Topic | None = None) -> None:
        """React to a notification. If `topic` is None, look at the own state again."""
        if topic is None:
            self._woken.set()
            return
        match topic.kind:
            case "insert":
                self.finder.heard_of(topic.subject)
            case "due":
                # From the lead poller. If this worker leads, its poller has already called this
                # loop.
                if not self._wakeups.leading:
                    self.finder.heard_of(topic.subject)
            case "below":
                if (place := topic.place) is not None:
                    self.finder.lowered(*place)
            case "parked":
                self.finder.heard_of_parked(topic.subject)
            case "many":
                self.finder.heard_of_many()
            case "cancel" | "workers" | "schedules" | "wake":
                pass
            case kind:
                # The queues' rules may have changed. Without a kind, any notification may have been
                # missed.
                self.sync.hasten()
                self._parked.wanted = True
                self.finder.heard_of_many(missed=not kind)

    async def forget(self) -> None:
        """Drop the jobs and outcomes of a lost worker identity: the fence would refuse them."""
        async with self._session.lock:
            self._delivery.forget()
            self.outcomes.forget()
            self.sync.forget()
            self.finder.limited.forget()
            self._pool.starts.withdraw()

    # --- the loop --------------------

    async def run(self) -> None:
        """Claim jobs and write outcomes until `stop` is set.

        With `drain`, stop when no work is left.
        """
        while not self.stop.is_set():
            try:
                self._attempts.begin()
                nothing_to_do = await self._round()
                self._attempts.ended()
                if nothing_to_do:
                    if self._options.drain and await self._drained():
                        return
                    await self._idle()
                self._attempts.rested()
            except (psycopg.Error, OSError, TimeoutError) as error:
                await self._failed(error)
        self._delivery.deliver()

    async def _failed(self, error: BaseException) -> None:
        """Handle a failed round: log it, wait briefly, and look again for what the round missed."""
        self._attempts.failures += 1
        failures = min(self._attempts.failures, 6)
        if self._session.is_lost(error):
            await self._lost(error)
            await asyncio.sleep(_RECONNECT.delay(failures))
        else:
            self._attempts.failed(ROUND, error)
            self._delivery.deliver()
            self.finder.look_again()
            await asyncio.sleep(min(0.05 * 2**failures, 0.5))

    async def _lost(self, error: BaseException) -> None:
        self._delivery.deliver()
        self._attempts.lost(error)
        self.sync.lost()
        self._refused.forget()
        self.finder.lost()
        await self._session.close()

    async def _round(self) -> bool:
        """Do one round. Return whether there is nothing to do now."""
        outcomes, finder, capacity = self.outcomes, self.finder, self._capacity
        self.sync.heed_refusals()
        if time.monotonic() >= self.sync.due_at:
            await self.sync.run()
        if capacity.want() > 0:
            self._next_due.wake()
            await self.claimer.look_around()
        want = capacity.want()
        if want > 0 and finder.limited.due_at <= time.monotonic():
            # An outcome frees room in its own limited queue. `step` writes the outcome and claims
            # into that room in one commit.
            beside = None if self._refused.any else finder.limited.queue_of(outcomes.successes)
            await self._limited.claim(beside=beside)
            want = capacity.want()
        if self._pool.starts.held:
            await self._starter.start()
            want = capacity.want()
        if want > 0 and self._parked.due_at <= time.monotonic():
            await self.claimer.claim_parked()
            want = capacity.want()
        if outcomes.writable or (want > 0 and (finder.more or self._refused.due_at <= time.monotonic())):
            await self.claimer.step(want)
        else:
            self._delivery.deliver()
        if finder.limited.left:
            await self._limited.call_others()
        if outcomes.writable:
            await self._gather()
            return False
        return (
            not (
                capacity.want() > 0
                and (finder.more or min(self._parked.due_at, self._refused.due_at) <= time.monotonic())
            )
            and not self._starter.due
        )

    async def _gather(self) -> None:
        """Let outcomes collect for a moment, unless a slot is idle for lack of a claim."""
        if self._capacity.waits_for_slots and len(self.outcomes.successes) < MAX_BATCH // 2:
            await asyncio.sleep(FLUSH_AFTER)

    async def _idle(self) -> None:
        """Sleep until an outcome, a notification, the next due job, or the poll."""
        outcomes, finder = self.outcomes, self.finder
        self.sync.heed_refusals()
        if self._capacity.want() > 0 and finder.lanes.unread:
            async with self._session.lock:
                await self._next_due.look_up(await self._session.connected())
        wake_at = self._wake_at()
        outcomes.more.clear()
        if outcomes.writable or ((finder.more or finder.lanes.unread) and self._capacity.want() > 0):
            # A notification or an outcome arrived during the look-up.
            return
        self._attempts.since = None
        waits = [asyncio.ensure_future(event.wait()) for event in (outcomes.more, self._woken)]
        finder.sleeping = True
        try:
            patience = max(wake_at - time.monotonic(), 0.001)
            await asyncio.wait(waits, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        finally:
            finder.sleeping = False
            for wait in waits:
                wait.cancel()
        self._woken.clear()

    def _wake_at(self) -> float:
        """Return when to do the next round if nothing arrives before."""
        # The comparison of jobs, the progress and the proof that the database answers do not wait
        # for the poll, which may be rare.
        wake_at, now = self.sync.due_at, time.monotonic()
        if self._capacity.want() > 0:
            wake_at = min(wake_at, self._next_due.next_at, self._parked.due_at, self._refused.due_at)
            if self._capacity.startable() > 0:
                wake_at = min(wake_at, self.finder.limited.due_at)
        if self._refused.closed_until > now:
            wake_at = min(wake_at, self._refused.closed_until)
        if self.finder.limited.left:
            wake_at = min(wake_at, now + CALL_EVERY)
        return min(wake_at, self._starter.due_at)

    # --- the end --------------------

    async def _drained(self) -> bool:
        """Return whether no served queue has a due job and no worker runs one."""
        outcomes, deferred = self.outcomes, self.outcomes.deferred
        if len(outcomes) > len(deferred) or not deferred.tried or self._pool.held:
            return False
        await self.sync.run()
        if self._parked.due_at <= time.monotonic() and self._capacity.want() > 0:
            await self.claimer.claim_parked()
        if outcomes.setbacks or self.finder.more or self._pool.held:
            return False
        async with self._session.lock:
            rows = await fetch(
                await self._session.connected(),
                self._schema,
                "is_drained",
                queues=list(self._options.queues) if self._options.queues is not None else None,
                leaving=[*self._refused.ids, *(id_ for id_, *_ in deferred.names())],
            )
        if not rows[0][0]:
            self.finder.survey.told_of_many()
        return bool(rows[0][0])

    @property
    def finished(self) -> bool:
        """Whether nothing is left to write to the database or to report to other workers."""
        return self.outcomes.hopeless and not self.finder.limited.left

    def leave(self) -> None:
        """Claim nothing from now on, and notify other workers of the jobs that are put back."""
        self._store.for_others = True
        self.outcomes.deferred.leave()

    async def flush(self) -> None:
        """Write one batch of outcomes and claim nothing. Used while the worker stops.

        An error is logged, and the next call tries again.
        """
        self._attempts.begin()
        if not self.outcomes.writable and not self.finder.limited.left:
            # Locked outcomes, if any, come back by themselves.
            await asyncio.sleep(0.02)
            return
        try:
            if self.outcomes.writable:
                await self.claimer.step(0)
            # There may be no later round in which to call other workers.
            await self._limited.call_others(every=0.0)
        except (psycopg.Error, OSError, TimeoutError) as error:
            self._attempts.failures = 0
            await self._failed(error)

    async def close(self) -> None:
        """Close the connections."""
        await self.finder.survey.close()
        await self.outcomes.deferred.close()
        await self._session.close()

    # --- stalls --------------------

    def stall(self) -> Stall | None:
        """Return the current stall: since when and why the loop waits for the database.

        None: no stall.
        """
        return self._session.stall()
