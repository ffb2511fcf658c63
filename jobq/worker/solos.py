"""Runners for one job at a time: for tasks that ask for a process of their own, and for jobs that have crashed runners.

A job that has seen two runners crash runs here, so that its next crash can only be its own.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from uuid import UUID

from jobq.backoff import Backoff
from jobq.worker.children import Child
from jobq.worker.frames import Job

logger = logging.getLogger("jobq.worker")

_RESTART = Backoff(base=0.5, cap=30)

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

    def give(self, jobs: list[Job], worker: UUID, now: float) -> None:
        """Take jobs over, claimed in the name of `worker`; those for which no process is idle wait for one."""
        self._waiting.extend((job, worker, now) for job in jobs)
        self.assign(now)

    def assign(self, now: float) -> None:
        """Give each idle runner a waiting job, and start runners while there are too few."""
        while self._waiting:
            child = next((child for child in self.children if not child.jobs and self._usable(child)), None)
            if child is None:
                if len(self.children) >= self._limit or now < self._again_at:
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
        elif child.killed_for is None:
            self._failures += 1
            self._again_at = now + _RESTART.longest(self._failures)

    def overdue(self, now: float) -> list[Job]:
        """Return the jobs that have waited for too long, and let go of them."""
        back = []
        while self._waiting and now - self._waiting[0][2] > WAIT_AT_MOST:
            back.append(self._waiting.popleft()[0])
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
        return fresh and child.killed_for is None and child.worn is None
