"""The runners of a worker and the jobs that they hold."""

from __future__ import annotations

import logging
import time

from jobq._worker.ipc.messages import Job
from jobq._worker.options import WorkerOptions
from jobq._worker.runners.application_info import ApplicationInfo
from jobq._worker.runners.batch_distribution import BatchMix
from jobq._worker.runners.isolated import Isolation
from jobq._worker.runners.key_starts import Starts
from jobq._worker.runners.process import RunnerProcess

logger = logging.getLogger("jobq.worker")


class RunnerSet:
    """Ordinary runners, isolated runners, and the jobs that wait for either.

    An ordinary runner executes many jobs at a time. An isolated runner executes one job at a time.
    """

    def __init__(self, options: WorkerOptions, application: ApplicationInfo, isolation: Isolation) -> None:
        self._options = options
        self.application = application
        self.isolation = isolation
        self.starts = Starts()
        self.mix = BatchMix()
        self.ordinary: list[RunnerProcess] = []
        self.failed_starts = 0
        """Number of runners that ended before they were ready, since a runner was last ready."""

    @property
    def runners(self) -> list[RunnerProcess]:
        """All runners, including those that are starting or ending."""
        return [*self.ordinary, *self.isolation.runners]

    @property
    def wanted(self) -> int:
        """Number of ordinary runners that there should be.

        Each stuck runner adds one. The number is at most twice the configured number.
        """
        stuck = sum(runner.liveness.stuck and runner.killed_for is None for runner in self.ordinary)
        return self._options.processes + min(stuck, self._options.processes)

    @property
    def slots(self) -> int:
        """Number of jobs that the ready runners can execute at the same time."""
        return sum(runner.slots for runner in self.ordinary if runner.ready)

    @property
    def load(self) -> int:
        """Number of jobs that ready runners hold, started or not, or that wait for a runner.

        The jobs of a batch count as one.
        """
        return (
            sum(runner.held.load for runner in self.ordinary if runner.ready) + len(self.isolation) + len(self.starts)
        )

    @property
    def held(self) -> int:
        """Number of jobs that this worker holds, started or not."""
        return sum(len(runner.jobs) for runner in self.runners) + len(self.isolation) + self.starts.held

    @property
    def ready(self) -> bool:
        """Whether at least one runner accepts jobs."""
        return any(runner.ready for runner in self.ordinary)

    @property
    def runners_ready(self) -> int:
        """Number of runners that accept jobs."""
        return sum(runner.ready for runner in self.ordinary)

    @property
    def unready(self) -> str | None:
        """Explanation of why no runner accepts jobs; None if one does."""
        if self.ready:
            return None
        if self.application.import_failure is not None:
            return self.application.import_failure
        if self.application.start_failure is not None:
            return self.application.start_failure
        now, ordinary = time.monotonic(), self.ordinary
        since = [at for runner in ordinary if (at := runner.liveness.unresponsive_since) is not None]
        if since:
            return f"{len(since)} runners do not react, for up to {now - min(since):.0f} s"
        if any(not runner.has_lease for runner in ordinary):
            return "the lease is over: no heartbeat for too long"
        importing = [now - runner.born for runner in ordinary if not runner.imported]
        if importing:
            what = f"importing the application {self.application.name!r}"
            return f"{len(importing)} {what}, for up to {max(importing):.0f} s"
        if waiting := sum(not runner.accepted for runner in ordinary):
            return f"{waiting} runners wait until the application's functions for the start of the worker have returned"
        return f"{self.failed_starts} runners ended one after the other; another is about to be started"

    @property
    def rss(self) -> int:
        """The runners' resident memory in bytes."""
        return sum(runner.rss for runner in self.runners)

    def room(self, prefetch: int, soon: float = 0.0) -> int:
        """Return how many more jobs the runners can accept now.

        Args:
            prefetch: Number of jobs that may wait beyond those being executed.
            soon: Number of jobs that will end in about half a second. If that is as much as a
                batch, a batch may wait for each runner as well: a slot that becomes idle finds it.
        """
        ready = [runner for runner in self.ordinary if runner.ready]
        # Isolated jobs do not use slots of ordinary runners.
        slots = sum(runner.slots for runner in ready)
        room = slots - sum(runner.held.load for runner in ready) - self.isolation.keep_others_out(slots)
        if self.mix:
            room = self.mix.jobs_for(room + min(len(ready), int(soon / self.mix.jobs_for(1))))
            room = min(room, sum(runner.held.marks_left for runner in ready))
        if waiting := len(self.starts):
            # These jobs start only in free slots. Prefetched jobs must not take such a slot.
            room -= waiting
        else:
            room += prefetch
        if (limit := self._options.max_jobs_per_runner) is not None:
            room = min(room, sum(limit - runner.held.given for runner in ready))
        return max(0, room)

    def startable(self, jobs: list[Job]) -> list[Job]:
        """Return the jobs, in order, for which a slot is idle."""
        free = sum(max(0, runner.slots - runner.held.load) for runner in self.ordinary if runner.ready)
        return self.isolation.startable(jobs, free, self.application.isolated)

    def holds(self, job_id: int, claims: int, started: int) -> bool:
        """Return whether this worker holds this execution."""
        jobs = [held.job for runner in self.runners if (held := runner.jobs.get(job_id)) is not None]
        return self.starts.holds(job_id, claims, started) or any(
            (job.id, job.claims, job.started) == (job_id, claims, started) for job in (*jobs, *self.isolation.waiting())
        )

    def held_again(self, jobs: list[Job]) -> frozenset[int]:
        """Return the ids of `jobs` that also name an older execution here, unknown to the database.

        If a failover loses the last commits of the former primary, the new primary issues their ids
        again. A runner holds at most one job with a given id, so that the outcome of one job is
        never taken for the other's. Therefore the new job gets a runner of its own.
        """
        ids = [job.id for job in jobs]
        found = [runner.jobs.keys() & ids for runner in self.runners if not runner.jobs.keys().isdisjoint(ids)]
        for job_id in (again := frozenset().union(*found)):
            logger.warning(
                "an execution runs here that the database has lost: its id was issued again", extra={"job": job_id}
            )
        return again
