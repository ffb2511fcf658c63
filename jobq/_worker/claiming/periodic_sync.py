"""Periodic exchange of a claim loop with the database: rules, progress, and running jobs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from jobq._worker.claiming.delivery import Delivery
from jobq._worker.claiming.finder import JobFinder
from jobq._worker.claiming.session import ClaimSession
from jobq._worker.database import Connection, fetch
from jobq._worker.ipc.messages import Progress
from jobq._worker.lease import Lease
from jobq._worker.outcomes.outcome_buffer import OutcomeBuffer
from jobq._worker.outcomes.reconcile import Reconciler
from jobq._worker.runners.pool import RunnerPool

# Seconds between two reads of the queues' rules, and between two comparisons of the jobs here with
# those in the database.
RECONCILE_INTERVAL = 5.0
# The same while nothing runs here and notifications arrive. It is below the ten seconds after which
# a worker without an answer from the database is not ready.
QUIET_RECONCILE_INTERVAL = 8.0
# Seconds from an outcome that the fence refused to the comparison that it requires: more of them
# may follow.
ODD_RECONCILE_AFTER = 0.5
# Seconds between two writes of the progress that running jobs report.
PROGRESS_INTERVAL = 1.0


class PeriodicSync:
    """The periodic exchange of one claim loop.

    It also proves that the database answers while nothing is claimed.
    """

    def __init__(
        self,
        schema: str,
        *,
        session: ClaimSession,
        finder: JobFinder,
        reconciler: Reconciler,
        outcomes: OutcomeBuffer,
        delivery: Delivery,
        pool: RunnerPool,
        lease: Lease,
        hears_all: Callable[[], bool],
        woken: asyncio.Event,
    ) -> None:
        """Create the exchange.

        Args:
            hears_all: Returns whether a notification announces every job.
            woken: Set when the claim loop must look again.
        """
        self._schema = schema
        self._session = session
        self._finder = finder
        self._reconciler = reconciler
        self._outcomes = outcomes
        self._delivery = delivery
        self._pool = pool
        self._lease = lease
        self._hears_all = hears_all
        self._woken = woken
        self._rules: str | None = None
        """When the queues' rules were last changed, from the last heartbeat."""
        self.due_at = 0.0
        """When to run next, in time.monotonic() seconds."""

    def hasten(self) -> None:
        """Run in the next round."""
        self.due_at = 0.0

    def progressed(self, progress: Progress) -> None:
        """Take a progress report of a runner.

        Only a job's last report before the write is written.
        """
        self._reconciler.progressed(progress)
        due = time.monotonic() + PROGRESS_INTERVAL
        if due < self.due_at:
            self.due_at = due
            self._woken.set()

    def heard(self, paused: list[str], rules: str | None) -> None:
        """Take a heartbeat's reply: the paused queues, and the time of the last change of rules."""
        self._finder.paused(paused)
        if rules != self._rules:
            self._rules = rules
            self.due_at = 0.0
            self._woken.set()
        served, limited = self._finder.lanes.limited, self._finder.limited
        if not served <= limited.queues:
            # Before the first claim from a queue, its jobs that run here must be counted:
            # `_read_rules`.
            self.due_at = 0.0
            self._woken.set()
        limited.refresh(served & limited.queues)

    def heed_refusals(self) -> None:
        """If the database refused an outcome as not ours, compare soon.

        It may hold jobs in this worker's name that nothing here runs.
        """
        if self._outcomes.odd:
            self._outcomes.odd = False
            self._reconciler.suspect()
            self.due_at = min(self.due_at, time.monotonic() + ODD_RECONCILE_AFTER)

    def lost(self) -> None:
        """The connection is lost: this worker may own claims that it does not know of."""
        self.due_at = 0.0
        self._reconciler.doubt()

    def forget(self) -> None:
        """Drop everything that belongs to a lost worker identity."""
        self._reconciler.forget()

    async def run(self) -> None:
        """Read the queues' rules, write progress, and put back claims that no runner here has.

        Raises psycopg.Error if the connection is lost.
        """
        self._delivery.deliver()
        session, reconciler, outcomes = self._session, self._reconciler, self._outcomes
        async with session.lock:
            connection = await session.connected()
            await session.attempt("read the queues", self._read_rules(connection), connection)
            await session.attempt("write progress", reconciler.write_progress(connection), connection)
            await session.attempt("look for parked jobs", self._finder.parked.look(connection), connection)
            outcomes.recount()
            strays = (
                await session.attempt("compare jobs", reconciler.strays(connection, outcomes.names), connection) or []
            )
            self._finder.limited.held.strayed(stray.id for stray in strays)
            for stray in strays:
                outcomes.set_back(stray)
        quiet = not self._pool.held and self._hears_all()
        self.due_at = time.monotonic() + (QUIET_RECONCILE_INTERVAL if quiet else RECONCILE_INTERVAL)
        if reconciler.behind:
            self.due_at = min(self.due_at, time.monotonic() + PROGRESS_INTERVAL)

    async def _read_rules(self, connection: Connection) -> None:
        """Read which queues are paused, and which have limits."""
        lanes, limited = self._finder.lanes, self._finder.limited
        if lanes.refresh(await fetch(connection, self._schema, "queue_rules")):
            self._finder.cursor.doubt()
        served = lanes.limited
        if new := sorted(served.difference(limited.queues)):
            # Jobs that are claimed and not handed out also count as running.
            worker = self._lease.worker
            limited.held.adopt(await fetch(connection, self._schema, "count_claimed", worker=worker, queues=new))
        limited.refresh(served)
