"""Isolated runners, each for one job at a time.

These jobs run in isolated runners:

- A job that has ended a runner, or that has seen two runners crash. Its next crash can then only be
  its own.
- For a while, all jobs of a task that has ended several runners (`quarantine.py`).
- A job whose runner was ended twice because of other jobs. Here it can end.
- A job of a task that asks for a process of its own.

Jobs of the first two kinds are suspects. They may take long to fail, because they hang until their
timeouts. So they do not share places with the other two kinds.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable
from uuid import UUID

from jobq._worker.faults.quarantine import Quarantine
from jobq._worker.ipc.messages import Job
from jobq._worker.runners.process import RunnerProcess
from jobq.retry import Backoff

logger = logging.getLogger("jobq.worker")

_RESTART = Backoff(base=0.5, cap=30)
# Delay between starts of runners that their jobs end one after the other. Each start costs an
# import of the application.
_NEXT = Backoff(base=0.25, cap=2)
_NEXT_WITHIN = 30.0

# A job that has seen this many runners crash, or end because of other jobs, gets a runner of its
# own.
QUARANTINE_AFTER = 2
SHELTER_AFTER = 2
# Seconds that an idle runner stays for the next job, because it has already imported the
# application.
KEEP_IDLE = 10.0
# Seconds that a job waits here for a runner before it goes back to the database.
WAIT_AT_MOST = 1.0


class IsolatedRunners:
    """At most `limit` isolated runners, created with `start_runner` when needed.

    Each runner executes at most `most` jobs (None: any number). The object belongs to the
    dispatcher's event loop.
    """

    def __init__(self, limit: int, most: int | None, start_runner: Callable[[], RunnerProcess]) -> None:
        self._limit = limit
        self._most = most
        self._start_runner = start_runner
        self._failures = 0
        self._again_at = 0.0
        """Earliest start of the next runner, after a runner that could not import the application."""
        self._ends: deque[float] = deque()
        """When runners recently ended while they held jobs."""
        self._waiting: deque[tuple[Job, UUID, float]] = deque()
        """Waiting jobs: job, worker that claimed it, and since when it waits."""
        self.runners: list[RunnerProcess] = []

    def __len__(self) -> int:
        """Return the number of jobs that wait here for a runner."""
        return len(self._waiting)

    @property
    def free(self) -> int:
        """Number of jobs that could begin now, each in a runner of its own."""
        return max(0, self._limit - sum(bool(runner.jobs) for runner in self.runners) - len(self._waiting))

    def waiting(self) -> list[Job]:
        """Return the jobs that wait here for a runner."""
        return [job for job, _, _ in self._waiting]

    def give(self, jobs: list[Job], worker: UUID, now: float, *, first: bool = False) -> None:
        """Accept jobs claimed in the name of `worker`. If no runner is idle, the jobs wait.

        `first`: put the jobs before those that wait already.
        """
        waiting = [(job, worker, now) for job in jobs]
        if first:
            self._waiting.extendleft(reversed(waiting))
        else:
            self._waiting.extend(waiting)
        self.assign(now)

    def assign(self, now: float) -> None:
        """Send a waiting job to each idle runner, and start runners while there are too few."""
        while self._waiting:
            runner = next((runner for runner in self.runners if not runner.jobs and self._usable(runner)), None)
            if runner is None:
                # A runner that is ending in good order takes no place.
                if sum(not runner.dismissed for runner in self.runners) >= self._limit or now < self._again_at:
                    return
                try:
                    runner = self._start_runner()
                except OSError as error:
                    logger.error("no runner can be started", extra={"error": str(error)})
                    return
                self.runners.append(runner)
            job, worker, _ = self._waiting.popleft()
            runner.send([job], worker, now)

    def on_exit(self, runner: RunnerProcess, now: float) -> None:
        """Note that one of these runners has ended.

        After consecutive runners that could not import the application, the next start waits longer
        and longer.
        """
        self.runners.remove(runner)
        if runner.imported:
            self._failures = 0
            if not runner.dismissed:
                self._ended(now)
        elif runner.killed_for is None:
            self._failures += 1
            self._again_at = now + _RESTART.longest(self._failures)

    def _ended(self, now: float) -> None:
        self._ends.append(now)
        while now - self._ends[0] > _NEXT_WITHIN:
            self._ends.popleft()
        # Up to twice as many ends as there are places have no delay.
        if (more := len(self._ends) - 2 * self._limit) > 0:
            self._again_at = now + _NEXT.longest(min(more, 10))

    def surplus(self) -> list[Job]:
        """Remove and return the last waiting jobs that exceed the limit of runners."""
        return [self._waiting.pop()[0] for _ in range(len(self._waiting) - self._limit)]

    def overdue(self, now: float) -> list[Job]:
        """Remove and return the jobs that have waited for too long."""
        if all(now - since <= WAIT_AT_MOST for _, _, since in self._waiting):
            return []
        back = [job for job, _, since in self._waiting if now - since > WAIT_AT_MOST]
        self._waiting = deque(waiting for waiting in self._waiting if now - waiting[2] <= WAIT_AT_MOST)
        return back

    def withdraw(self, ids: set[int] | None = None) -> list[Job]:
        """Remove and return the waiting jobs; if `ids` is set, only these jobs."""
        back = [job for job, _, _ in self._waiting if ids is None or job.id in ids]
        self._waiting = deque(waiting for waiting in self._waiting if ids is not None and waiting[0].id not in ids)
        return back

    def dismiss_idle(self, now: float) -> None:
        """End the runners that were idle for a while and those that need a replacement."""
        for runner in self.runners:
            if (
                runner.imported
                and not runner.jobs
                and (runner.needs_replacement or now - runner.held.idle_since > KEEP_IDLE)
            ):
                runner.dismiss(runner.needs_replacement or "nothing to do in isolation")

    def _usable(self, runner: RunnerProcess) -> bool:
        # A runner that is still importing reads its job when it is ready.
        fresh = self._most is None or runner.held.given < self._most
        return fresh and runner.killed_for is None and runner.needs_replacement is None and runner.draining is None


class Isolation:
    """The jobs that run alone, in two kinds with up to `limit` runners each.

    `declared` holds jobs whose tasks ask for isolation and jobs that are sheltered from others.
    `suspects` holds jobs that may end their runner.
    """

    def __init__(
        self, limit: int, most: int | None, start_runner: Callable[[], RunnerProcess], quarantine: Quarantine
    ) -> None:
        self._quarantine = quarantine
        self._declared = IsolatedRunners(limit, most, start_runner)
        self._suspects = IsolatedRunners(limit, most, start_runner)
        self._kinds = (self._declared, self._suspects)

    @property
    def runners(self) -> list[RunnerProcess]:
        """All isolated runners."""
        return self._declared.runners + self._suspects.runners

    def __len__(self) -> int:
        """Return the number of jobs that wait for a runner."""
        return len(self._declared) + len(self._suspects)

    def waiting(self) -> list[Job]:
        """Return the jobs that wait for a runner."""
        return self._declared.waiting() + self._suspects.waiting()

    def _kind(self, job: Job, isolated: frozenset[str]) -> IsolatedRunners | None:
        """Return the runners for `job`; None if it does not run alone."""
        if job.run_alone or job.crashes >= QUARANTINE_AFTER or job.task in self._quarantine:
            return self._suspects
        if job.releases >= SHELTER_AFTER or job.task in isolated:
            return self._declared
        return None

    def takes(self, job: Job, isolated: frozenset[str]) -> bool:
        """Return whether `job` must run alone."""
        return self._kind(job, isolated) is not None

    def pick(
        self, jobs: Iterable[Job], worker: UUID, now: float, isolated: frozenset[str], again: frozenset[int]
    ) -> list[Job]:
        """Accept the jobs that must run alone; return the others.

        Args:
            jobs: The jobs to look at.
            worker: Id of the worker that claimed them.
            now: Current time.monotonic().
            isolated: Tasks whose jobs run in a process of their own.
            again: Ids of jobs that must not share a runner with an earlier execution of the same
                id.
        """
        others: list[Job] = []
        suspects: list[Job] = []
        sheltered: list[Job] = []
        declared: list[Job] = []
        for job in jobs:
            kind = self._kind(job, isolated)
            if kind is self._suspects or job.id in again:
                suspects.append(job)
            elif kind is None:
                others.append(job)
            elif job.releases >= SHELTER_AFTER:
                sheltered.append(job)
            else:
                declared.append(job)
        if suspects:
            self._suspects.give(suspects, worker, now)
        if sheltered:
            self._declared.give(sheltered, worker, now, first=True)
        if declared:
            self._declared.give(declared, worker, now)
        return others

    def surplus(self) -> list[Job]:
        """Remove and return the suspects that exceed the limit of waiting jobs."""
        return self._suspects.surplus()

    def keep_others_out(self, slots: int) -> int:
        """Return how many slots of the ordinary runners to keep free while isolated jobs wait.

        Waiting jobs must not pile up. But a stream of suspects must not keep the other jobs from
        their slots.

        Args:
            slots: Number of slots of all ordinary runners.
        """
        return len(self._declared) + min(len(self._suspects), slots // 2)

    def suspects(self, job: Job, isolated: frozenset[str]) -> bool:
        """Return whether `job` must run alone because the job or its task has ended runners."""
        return self._kind(job, isolated) is self._suspects

    def startable(self, jobs: list[Job], free: int, isolated: frozenset[str]) -> list[Job]:
        """Return the jobs, in order, that could begin now.

        Args:
            jobs: The jobs to look at.
            free: Number of idle slots of ordinary runners.
            isolated: Tasks whose jobs run in a process of their own.
        """
        rooms = {kind: kind.free for kind in self._kinds}
        found = []
        for job in jobs:
            kind = self._kind(job, isolated)
            room = free if kind is None else rooms[kind]
            if room <= 0:
                continue
            if kind is None:
                free -= 1
            else:
                rooms[kind] -= 1
            found.append(job)
        return found

    def freed(self, runner: RunnerProcess, now: float) -> None:
        """Note that jobs of `runner` have ended: an isolated runner can take another job."""
        for kind in self._kinds:
            if runner in kind.runners:
                kind.assign(now)

    def tend(self, now: float) -> list[Job]:
        """Start, use and dismiss runners as needed.

        Returns the jobs that have waited for too long, and removes them.
        """
        back = []
        for kind in self._kinds:
            back += kind.overdue(now)
            kind.assign(now)
            kind.dismiss_idle(now)
        return back

    def on_exit(self, runner: RunnerProcess, now: float) -> None:
        """Note that a runner has ended, if it is an isolated one."""
        for kind in self._kinds:
            if runner in kind.runners:
                kind.on_exit(runner, now)

    def withdraw(self, ids: set[int] | None = None) -> list[Job]:
        """Remove and return the waiting jobs; if `ids` is set, only these jobs."""
        return self._declared.withdraw(ids) + self._suspects.withdraw(ids)
