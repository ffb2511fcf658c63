"""From a claim's answer to the runners: what is claimed is kept until the next statement is on its way, then handed out."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

from jobq.worker.due import Due
from jobq.worker.ended import Ended
from jobq.worker.frames import Ending, Setback
from jobq.worker.metrics import Metrics
from jobq.worker.outcomes import Claimed
from jobq.worker.pool import RunnerPool


class Delivery:
    """One claim loop's. `closed` tells whether nothing may be started at present."""

    def __init__(
        self, pool: RunnerPool, ended: Ended, due: Due, metrics: Metrics | None, closed: Callable[[], bool]
    ) -> None:
        self._pool = pool
        self._ended = ended
        self._due = due
        self._metrics = metrics
        self._closed = closed
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
            self._ended.set_back(Setback(job.id, job.claims, Ending.EXPIRE, message="expired"))
        if not jobs:
            return
        self._due.found()
        # While the statement was on its way, everything may have stood still.
        if self._closed():
            for job in jobs:
                self._ended.set_back(Setback(job.id, job.claims, Ending.RELEASE))
        else:
            self._pool.give(jobs, worker)
