"""One call of a batch task under way."""

from __future__ import annotations

import msgspec

from jobq._worker.ipc.messages import Job
from jobq._worker.runner.execution import Execution, Tracebacks


class BatchExecution(Execution, kw_only=True, eq=False):
    """An execution of several jobs in one call. Its `job` is the first of them."""

    jobs: list[Job]
    number: int = 0
    """Its number in the slot table."""
    cancelled_ids: set[int] = msgspec.field(default_factory=set)
    """Ids of the jobs that are to be cancelled, each for itself."""

    def cancel_jobs(self, ids: set[int], *, stopping: bool) -> None:
        """Ask the task to stop for these jobs, as far as they are in this batch.

        The call itself is interrupted only when all of its jobs are to stop: an operator who
        cancels one job must not undo the work on the others.
        """
        mine = ids & {job.id for job in self.jobs}
        if not mine:
            return
        self.cancelled_ids |= mine
        if len(self.cancelled_ids) == len(self.jobs):
            self.cancel(stopping=stopping)

    def of(self, job: Job, tracebacks: Tracebacks | None = None) -> Execution:
        """Return what this execution is for one of its jobs, to judge how it ended.

        `tracebacks`: see `Execution.tracebacks`.
        """
        return Execution(
            job=job,
            worker=self.worker,
            cancelled=self.cancelled or job.id in self.cancelled_ids,
            stopping=self.stopping,
            timed_out=self.timed_out,
            log=self.log,
            tracebacks=tracebacks,
        )
