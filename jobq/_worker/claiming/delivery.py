"""Keeps claimed jobs until the next statement is sent, then hands them out to runners."""

from __future__ import annotations

import time
from collections.abc import Callable
from uuid import UUID

from jobq._worker.claiming.capacity import ClaimGate
from jobq._worker.health.metrics import Metrics
from jobq._worker.ipc.messages import Disposition, Failure
from jobq._worker.outcomes.outcome_buffer import OutcomeBuffer
from jobq._worker.runners.pool import RunnerPool
from jobq._worker.statements.results import Claimed


class Delivery:
    """Delivers the claimed jobs of one claim loop."""

    def __init__(
        self,
        pool: RunnerPool,
        ended: OutcomeBuffer,
        metrics: Metrics | None,
        gate: ClaimGate,
        on_keyed: Callable[[], None],
    ) -> None:
        self._pool = pool
        self._ended = ended
        self._metrics = metrics
        self._gate = gate
        self._on_keyed = on_keyed
        self._claimed: tuple[Claimed, UUID] | None = None
        """The last claimed jobs, if no runner has them yet, and the worker that claimed them."""

    def __len__(self) -> int:
        """Number of claimed jobs that are not handed out."""
        return len(self._claimed[0]) if self._claimed is not None else 0

    def keep(self, claimed: Claimed, worker: UUID) -> None:
        """Keep the jobs that the last statement has claimed for `worker`."""
        self._claimed = (claimed, worker)

    def forget(self) -> None:
        """Drop the kept jobs: they belong to another worker now."""
        self._claimed = None

    def deliver(self) -> None:
        """Hand out the kept jobs."""
        if self._claimed is None:
            return
        (claimed, worker), self._claimed = self._claimed, None
        self.hand_out(claimed, worker)

    def hand_out(self, claimed: Claimed, worker: UUID) -> None:
        """Send these jobs to the runners, or put them back."""
        if not len(claimed):
            return
        jobs, expired = claimed.jobs()
        if self._metrics is not None:
            self._metrics.claimed(jobs)
            self._metrics.claimed(expired)
        for job in expired:
            self._ended.set_back(Failure(job.id, job.claims, job.started, Disposition.EXPIRE, message="expired"))
        keyed = claimed.keyed
        if keyed:
            if self._metrics is not None:
                self._metrics.claimed(keyed)
            # Jobs that this code cannot run are parked before they start, so they keep their keys.
            keyed = self._pool.runnable(keyed)
        # The process may have been suspended while the statement ran.
        if self._gate.closed:
            for job in jobs + keyed:
                self._ended.set_back(Failure(job.id, job.claims, job.started, Disposition.RELEASE))
            return
        if jobs:
            self._pool.give(jobs, worker)
        if keyed:
            self._pool.starts.give(keyed, worker, time.monotonic())
            self._on_keyed()
