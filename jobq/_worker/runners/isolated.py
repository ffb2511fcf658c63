"""Runners for one job at a time: for tasks that ask for a process of their own, and for jobs that have met with trouble.

- A job that has cost a runner its life, or has seen two runners crash, runs here, so that its next crash can only be its own.
- So do, for a while, all jobs of a task that has ended several runners (`quarantine.py`).
- A job whose runner was ended under it twice for the sake of others runs here, so that it can end.

The former may take long to fail, for they hang until their timeouts. So they share no places with the others.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable
from uuid import UUID

from jobq.backoff import Backoff
from jobq.worker.children import Child
from jobq.worker.frames import Job
from jobq.worker.quarantine import Quarantine

logger = logging.getLogger("jobq.worker")

_RESTART = Backoff(base=0.5, cap=30)
# Between the starts of runners that their jobs end one after the other: each start costs an import of the application.
_NEXT = Backoff(base=0.25, cap=2)
_NEXT_WITHIN = 30.0

# A job that has seen this many runners crash, or end for the sake of others, runs in a runner of its own.
QUARANTINE_AFTER = 2
SHELTER_AFTER = 2
# Seconds that a runner without a job stays, for the next one: it has the application imported.
KEEP_IDLE = 10.0
# How long a job waits here for a process before it goes back to the database.
WAIT_AT_MOST = 1.0


class Solos:
    """At most `limit` such runners, made by `hire` as they are needed, each for at most `most` jobs (None: any number).

    Lives in the dispatcher's event loop.
    """

    def __init__(self, limit: int, most: int | None, hire: Callable[[], Child]) -> None:
        self._limit = limit
        self._most = most
        self._hire = hire
        self._failures = 0
        self._again_at = 0.0
        """When the next runner may be started, after one that could not import the application."""
        self._ends: deque[float] = deque()
        """When runners last ended under their jobs."""
        self._waiting: deque[tuple[Job, UUID, float]] = deque()
        """Jobs, each with in whose name it is claimed, and since when it waits."""
        self.children: list[Child] = []

    def __len__(self) -> int:
        """How many jobs wait here for a process."""
        return len(self._waiting)

    @property
    def free(self) -> int:
        """How many jobs could begin now, each in a process of its own."""
        return max(0, self._limit - sum(bool(child.jobs) for child in self.children) - len(self._waiting))

    def waiting(self) -> list[Job]:
        """Return the jobs that wait here for a process."""
        return [job for job, _, _ in self._waiting]

    def give(self, jobs: list[Job], worker: UUID, now: float, *, first: bool = False) -> None:
        """Take jobs over, claimed in the name of `worker`; those for which no process is idle wait for one.

        `first`: before those that wait already.
        """
        waiting = [(job, worker, now) for job in jobs]
        if first:
            self._waiting.extendleft(reversed(waiting))
        else:
            self._waiting.extend(waiting)
        self.assign(now)

    def assign(self, now: float) -> None:
        """Give each idle runner a waiting job, and start runners while there are too few."""
        while self._waiting:
            child = next((child for child in self.children if not child.jobs and self._usable(child)), None)
            if child is None:
                # One that is ending in good order takes no place.
                if sum(not child.dismissed for child in self.children) >= self._limit or now < self._again_at:
                    return
                try:
                    child = self._hire()
                except OSError as error:
                    logger.error("no runner can be started", extra={"error": str(error)})
                    return
                self.children.append(child)
            job, worker, _ = self._waiting.popleft()
            child.send([job], worker, now)

    def buried(self, child: Child, now: float) -> None:
        """One of these has ended. After those that could not import the application the next waits ever longer."""
        self.children.remove(child)
        if child.imported:
            self._failures = 0
            if not child.dismissed:
                self._ended(now)
        elif child.killed_for is None:
            self._failures += 1
            self._again_at = now + _RESTART.longest(self._failures)

    def _ended(self, now: float) -> None:
        self._ends.append(now)
        while now - self._ends[0] > _NEXT_WITHIN:
            self._ends.popleft()
        # As many as there are places, twice, are followed at once.
        if (more := len(self._ends) - 2 * self._limit) > 0:
            self._again_at = now + _NEXT.longest(min(more, 10))

    def surplus(self) -> list[Job]:
        """Return the waiting jobs, the last ones, that are more than there may be runners; and let go of them."""
        return [self._waiting.pop()[0] for _ in range(len(self._waiting) - self._limit)]

    def overdue(self, now: float) -> list[Job]:
        """Return the jobs that have waited for too long, and let go of them."""
        if all(now - since <= WAIT_AT_MOST for _, _, since in self._waiting):
            return []
        back = [job for job, _, since in self._waiting if now - since > WAIT_AT_MOST]
        self._waiting = deque(waiting for waiting in self._waiting if now - waiting[2] <= WAIT_AT_MOST)
        return back

    def withdraw(self, ids: set[int] | None = None) -> list[Job]:
        """Return the waiting jobs (those of `ids` only), and let go of them."""
        back = [job for job, _, _ in self._waiting if ids is None or job.id in ids]
        self._waiting = deque(waiting for waiting in self._waiting if ids is not None and waiting[0].id not in ids)
        return back

    def dismiss_idle(self, now: float) -> None:
        """End the runners that have had nothing to do for a while, and those that are worn."""
        for child in self.children:
            if child.imported and not child.jobs and (child.worn or now - child.idle_since > KEEP_IDLE):
                child.dismiss(child.worn or "nothing to do in isolation")

    def _usable(self, child: Child) -> bool:
        # One that is still importing will read its job when it is ready.
        fresh = self._most is None or child.given < self._most
        return fresh and child.killed_for is None and child.worn is None and child.retiring is None


class Isolation:
    """Jobs that run alone: `declared` by their tasks or sheltered from others, and `suspects`, each up to `limit` at a time."""

    def __init__(self, limit: int, most: int | None, hire: Callable[[], Child], quarantine: Quarantine) -> None:
        self._quarantine = quarantine
        self._declared = Solos(limit, most, hire)
        self._suspects = Solos(limit, most, hire)
        self._kinds = (self._declared, self._suspects)

    @property
    def children(self) -> list[Child]:
        """The runners."""
        return self._declared.children + self._suspects.children

    def __len__(self) -> int:
        """How many jobs wait for a process."""
        return len(self._declared) + len(self._suspects)

    def waiting(self) -> list[Job]:
        """Return the jobs that wait for a process."""
        return self._declared.waiting() + self._suspects.waiting()

    def _kind(self, job: Job, isolated: frozenset[str]) -> Solos | None:
        """Return where `job` is to run alone; None: it does not."""
        if job.run_alone or job.crashes >= QUARANTINE_AFTER or job.task in self._quarantine:
            return self._suspects
        if job.releases >= SHELTER_AFTER or job.task in isolated:
            return self._declared
        return None

    def takes(self, job: Job, isolated: frozenset[str]) -> bool:
        """Tell whether `job` is to run alone."""
        return self._kind(job, isolated) is not None

    def pick(
        self, jobs: Iterable[Job], worker: UUID, now: float, isolated: frozenset[str], again: frozenset[int]
    ) -> list[Job]:
        """Take over those of `jobs` that are to run alone, those of the tasks `isolated` among them; return the others.

        `again`: the ids of those that must share no runner with an earlier execution of the same id.
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
        """Return the suspects that are too many to wait for a process, and let go of them."""
        return self._suspects.surplus()

    def keep_others_out(self, slots: int) -> int:
        """Return how many other jobs, for all of the `slots` of ordinary runners, are not to be claimed for those that wait.

        What waits must not pile up; but a stream of suspects must not keep the others from their slots.
        """
        return len(self._declared) + min(len(self._suspects), slots // 2)

    def suspects(self, job: Job, isolated: frozenset[str]) -> bool:
        """Tell whether `job` is to run alone because it, or its task, has ended runners."""
        return self._kind(job, isolated) is self._suspects

    def startable(self, jobs: list[Job], free: int, isolated: frozenset[str]) -> list[Job]:
        """Return those of `jobs`, from the first, that could begin now, when `free` slots of ordinary runners are."""
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

    def freed(self, child: Child, now: float) -> None:
        """A runner has told of ends: if it is one of these, it can take another job."""
        for kind in self._kinds:
            if child in kind.children:
                kind.assign(now)

    def tend(self, now: float) -> list[Job]:
        """Start, use and dismiss runners as needed; return the jobs that have waited for too long, and let go of them."""
        back = []
        for kind in self._kinds:
            back += kind.overdue(now)
            kind.assign(now)
            kind.dismiss_idle(now)
        return back

    def buried(self, child: Child, now: float) -> None:
        """One of these has ended."""
        for kind in self._kinds:
            if child in kind.children:
                kind.buried(child, now)

    def withdraw(self, ids: set[int] | None = None) -> list[Job]:
        """Return the waiting jobs (those of `ids` only), and let go of them."""
        return self._declared.withdraw(ids) + self._suspects.withdraw(ids)
