"""Builds the parts of a claim loop in order: each part is made after the parts that it needs."""

from __future__ import annotations

import asyncio

from jobq._worker.claiming.attempts import Attempts
from jobq._worker.claiming.capacity import Capacity, ClaimGate
from jobq._worker.claiming.claimer import Claimer
from jobq._worker.claiming.delivery import Delivery
from jobq._worker.claiming.finder import JobFinder
from jobq._worker.claiming.limited_claimer import LimitedClaimer
from jobq._worker.claiming.parked import Parked
from jobq._worker.claiming.periodic_sync import PeriodicSync
from jobq._worker.claiming.session import ClaimSession
from jobq._worker.claiming.starter import JobStarter
from jobq._worker.database import Database
from jobq._worker.faults.problems import Problems
from jobq._worker.faults.refused_claims import RefusedClaims
from jobq._worker.health.metrics import Metrics
from jobq._worker.health.stalls import RateLimitedLog
from jobq._worker.health.state import LoopHealth
from jobq._worker.lanes.aging import Aging
from jobq._worker.lanes.cursor import Cursor
from jobq._worker.lanes.full_scan import FullScan
from jobq._worker.lanes.lanes import Lanes
from jobq._worker.lanes.next_due import NextDueTimer
from jobq._worker.lease import Lease
from jobq._worker.limited.queues import LimitedQueues
from jobq._worker.options import WorkerOptions
from jobq._worker.outcomes.deferred_writes import Deferred
from jobq._worker.outcomes.outcome_buffer import OutcomeBuffer
from jobq._worker.outcomes.reconcile import Reconciler
from jobq._worker.outcomes.store import JobStore
from jobq._worker.runners.pool import RunnerPool
from jobq._worker.wakeup.state import WakeupState


class ClaimParts:
    """The parts of one claim loop."""

    def __init__(
        self,
        options: WorkerOptions,
        pool: RunnerPool,
        lease: Lease,
        pulse: LoopHealth,
        metrics: Metrics | None,
        *,
        database: Database,
        wakeups: WakeupState,
        problems: Problems,
    ) -> None:
        schema, repeats = options.settings.schema, RateLimitedLog()
        self.woken = asyncio.Event()
        """Set when the loop must look again."""
        self._know_of_jobs(options, pool, database, wakeups, problems)
        self.attempts = Attempts(pulse, problems, repeats)
        self.store = JobStore(schema, options.park_patience)
        self.refused = RefusedClaims(schema, self.store, problems, repeats)
        deferred = Deferred(database, self.store, lease, problems=problems, repeats=repeats)
        self.outcomes = OutcomeBuffer(self.store, lease, metrics, repeats, deferred, tracebacks=options.log_tracebacks)
        self.gate = ClaimGate(lease, pool, self.store, self._survey, self.woken)
        self.delivery = Delivery(pool, self.outcomes, metrics, self.gate, self.woken.set)
        self.capacity = Capacity(self.gate, pool, self.refused, deferred, self.delivery)
        self.finder = JobFinder(
            lanes=self._lanes,
            cursor=self._cursor,
            survey=self._survey,
            limited=self._limited,
            parked=self.parked,
            capacity=self.capacity,
            lease=lease,
            woken=self.woken,
        )
        self.session = ClaimSession(database, self.attempts, self.finder.look_again)
        self.limited_claimer = LimitedClaimer(
            options,
            session=self.session,
            finder=self.finder,
            capacity=self.capacity,
            delivery=self.delivery,
            lease=lease,
        )
        self.claimer = Claimer(
            schema,
            session=self.session,
            store=self.store,
            finder=self.finder,
            next_due=self.next_due,
            limited=self.limited_claimer,
            refused=self.refused,
            capacity=self.capacity,
            outcomes=self.outcomes,
            delivery=self.delivery,
            lease=lease,
            metrics=metrics,
            aging=self._aging,
        )
        self.starter = JobStarter(
            schema,
            session=self.session,
            finder=self.finder,
            gate=self.gate,
            pool=pool,
            outcomes=self.outcomes,
            delivery=self.delivery,
            lease=lease,
            metrics=metrics,
            problems=problems,
            repeats=repeats,
        )
        reconciler = Reconciler(schema, lease, pool)
        reconciler.problems = problems
        self.sync = PeriodicSync(
            schema,
            session=self.session,
            finder=self.finder,
            reconciler=reconciler,
            outcomes=self.outcomes,
            delivery=self.delivery,
            pool=pool,
            lease=lease,
            hears_all=wakeups.hears_all,
            woken=self.woken,
        )

    def _know_of_jobs(
        self,
        options: WorkerOptions,
        pool: RunnerPool,
        database: Database,
        wakeups: WakeupState,
        problems: Problems,
    ) -> None:
        """Make the parts that remember where jobs are."""
        schema, poll_interval, listening = options.settings.schema, options.poll_interval, wakeups.hears_all
        self._aging = Aging(options.aging) if options.aging is not None else None
        self._lanes = Lanes.of(options, self._aging)
        self._cursor = Cursor()
        self._survey = FullScan(database, schema, self._cursor, self._lanes, self.woken.set)
        self._limited = LimitedQueues(schema, poll_interval, self._lanes.caps, listening=listening)
        self._limited.problems = problems
        self.parked = Parked(options, pool.application, self._limited)
        self.parked.problems = problems
        self.next_due = NextDueTimer(
            schema,
            self._lanes,
            self._cursor,
            self._survey,
            poll_interval=poll_interval,
            listening=listening,
        )
