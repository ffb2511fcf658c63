"""Whether claims are allowed at present, and how many jobs fit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sized

from jobq._worker.claiming.prefetch import PrefetchEstimator
from jobq._worker.faults.refused_claims import RefusedClaims
from jobq._worker.lanes.full_scan import FullScan
from jobq._worker.lease import Lease
from jobq._worker.outcomes.deferred_writes import Deferred
from jobq._worker.outcomes.store import JobStore
from jobq._worker.runners.pool import RunnerPool
from jobq._worker.statements.parameters import MAX_BATCH


class ClaimGate:
    """Whether claims are allowed.

    Heartbeats and operators change it. It is checked before each claim and each delivery.
    """

    def __init__(self, lease: Lease, pool: RunnerPool, store: JobStore, survey: FullScan, woken: asyncio.Event) -> None:
        """Create an open gate. `woken` is set when the claim loop must look again."""
        self.lease = lease
        self._pool = pool
        self._store = store
        self._survey = survey
        self._woken = woken
        self.suspended: str | None = None
        """Why nothing may be claimed at present. None: claims are allowed."""
        self.paused = False
        """Whether an operator has paused claims."""

    @property
    def closed(self) -> bool:
        """Whether nothing may be claimed or started."""
        return bool(self.suspended) or self.paused or not self.lease.fresh

    def suspend(self, reason: str) -> None:
        """Claim nothing until `resume`."""
        self.suspended = reason

    def resume(self) -> None:
        """Allow claims again."""
        self.suspended = None
        self._survey.told_of_many()
        self._woken.set()

    def pause(self, paused: bool) -> None:
        """Pause claims and leave claimed jobs that have not started to others, or claim again."""
        self.paused = self._store.for_others = paused
        if paused:
            self._pool.give_back()
        else:
            self._survey.told_of_many()
        self._woken.set()


class Capacity:
    """How many jobs one claim may ask for."""

    def __init__(
        self, gate: ClaimGate, pool: RunnerPool, refused: RefusedClaims, deferred: Deferred, undelivered: Sized
    ) -> None:
        """`undelivered`: claimed jobs that are not handed out yet. They also take room."""
        self._gate = gate
        self._pool = pool
        self._refused = refused
        self._deferred = deferred
        self._undelivered = undelivered
        self.pace = PrefetchEstimator()

    def want(self) -> int:
        """Return how many jobs to claim, including jobs to prefetch during the next claim."""
        if self._gate.closed or not self._pool.ready:
            return 0
        if self._refused.closed_until > time.monotonic() or self._deferred.too_many:
            return 0
        return max(0, min(MAX_BATCH, self._pool.room(self.pace.prefetch(), self.pace.soon()) - len(self._undelivered)))

    def startable(self) -> int:
        """Return how many jobs could start at once."""
        return self._pool.room(0)

    @property
    def waits_for_slots(self) -> bool:
        """Whether every slot has a job. If so, outcomes may collect before they are written."""
        return not len(self._undelivered) and self._pool.load >= self._pool.slots
