"""From a claim's answer to the runners: what is claimed is kept until the next statement is on its way, then handed out."""

from __future__ import annotations

import time
from collections.abc import Callable
from uuid import UUID

from jobq.worker.ended import Ended
from jobq.worker.frames import Ending, Setback
from jobq.worker.metrics import Metrics
from jobq.worker.outcomes import Claimed
from jobq.worker.pool import RunnerPool


class Delivery:
    """One claim loop's."""

    def __init__(
        self,
        pool: RunnerPool,
        ended: Ended,
        metrics: Metrics | None,
        closed: Callable[[], bool],
        on_keyed: Callable[[], None],
    ) -> None:
        self._pool = pool
        self._ended = ended
        self._metrics = metrics
        self._closed = closed
        self._on_keyed = on_keyed
        self._claimed: tuple[Claimed, UUID] | None = None
        """What the last statement claimed and no runner has yet, and in whose name."""

    def __len__(self) -> int:
        """How many jobs are claimed and not handed out."""
        return len(self._claimed[0]) if self._claimed is not None else 0

    def keep(self, claimed: Claimed, worker: UUID) -> None:
        """The last statement has claimed these in the name of `worker`."""
        self._claimed = (claimed, worker)

    def forget(self) -> None:
        """Drop them: they are another's now."""
        self._claimed = None

    def deliver(self) -> None:
        """Hand out what was claimed."""
        if self._claimed is None:
            return
        (claimed, worker), self._claimed = self._claimed, None
        self.hand_out(claimed, worker)

    def hand_out(self, claimed: Claimed, worker: UUID) -> None:
        """Give these jobs to the runners, or back."""
        if not len(claimed):
            return
        jobs, expired = claimed.jobs()
        if self._metrics is not None:
            self._metrics.claimed(jobs)
            self._metrics.claimed(expired)
        for job in expired:
            self._ended.set_back(Setback(job.id, job.claims, job.started, Ending.EXPIRE, message="expired"))
        keyed = claimed.keyed
        if keyed:
            if self._metrics is not None:
                self._metrics.claimed(keyed)
            # Parked before they start, those that this code cannot run keep their keys.
            keyed = self._pool.runnable(keyed)
        # While the statement was on its way, everything may have stood still.
        if self._closed():
            for job in jobs + keyed:
                self._ended.set_back(Setback(job.id, job.claims, job.started, Ending.RELEASE))
            return
        if jobs:
            self._pool.give(jobs, worker)
        if keyed:
            self._pool.starts.give(keyed, worker, time.monotonic())
            self._on_keyed()
