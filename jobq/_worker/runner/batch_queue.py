"""Jobs of batch tasks in a runner that wait for others, so that one call executes many.

Jobs can share a batch if they have the same task, the same timeout (a call has one deadline) and the
same limit (`batch_limits.py`). A batch is ready when it is full, or when its first job has waited for
the task's `linger`. Then a ticket for it joins the runner's other jobs (`local_queue.py`), and the
slot that takes the ticket takes the jobs: those that have arrived until then, so that batches grow
while all slots are busy. A job thus waits at most `linger` longer than any other job.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import NamedTuple
from uuid import UUID

from jobq._worker.ipc.batch_limits import batch_limit
from jobq._worker.ipc.messages import Job
from jobq._worker.runner.local_queue import QueuedJob


class BatchSettings(NamedTuple):
    """The size and the linger of a batch task."""

    size: int
    """Most jobs in one call."""
    linger: float
    """Most seconds that a job waits for others to fill its batch."""


class BatchKey(NamedTuple):
    """What the jobs of a batch have in common."""

    task: str
    timeout: float | None
    """Seconds for the call; None for no timeout."""
    limit: int
    """Most jobs of the batch: see `batch_limit`."""


class QueuedItem(NamedTuple):
    """A job that waits for its batch."""

    serial: int
    """Its position among all jobs sent to this runner."""
    mark: int
    """Its mark in the slot table."""
    worker: UUID
    """The worker in whose name the job is claimed."""
    job: Job
    arrived: float
    """When it arrived, in time.monotonic() seconds."""


class BatchTicket(Job, array_like=True, frozen=True, gc=True, kw_only=True):
    """Stands in the local queue for the next batch of `key`. Its serial there is 0."""

    key: BatchKey


NO_WORKER = UUID(int=0)


def ticket(key: BatchKey) -> QueuedJob:
    """Return the entry of the local queue for the next batch of `key`."""
    return 0, NO_WORKER, BatchTicket(0, 0, key.task, "", b"", 0, 0, 0, key.timeout, b"", key=key)


@dataclass(slots=True)
class _Waiting:
    """The jobs of one key. Tickets that no slot has taken yet cover the first of them.

    Each of these tickets covers at least one job: there are more than `(tickets - 1) * limit` jobs.
    """

    linger: float
    items: deque[QueuedItem] = field(default_factory=deque)
    tickets: int = 0

    def due(self, limit: int) -> float | None:
        """Return when the first job without a ticket has waited long enough; None: there is none."""
        covered = self.tickets * limit
        return self.items[covered].arrived + self.linger if len(self.items) > covered else None


class BatchQueue:
    """The waiting jobs by key. Any thread may call it; the times are those of one monotonic clock."""

    def __init__(self, tasks: Mapping[str, BatchSettings]) -> None:
        self._tasks = tasks
        self.shortest_linger = min((linger for _, linger in tasks.values()), default=0.0)
        self._waiting: dict[BatchKey, _Waiting] = {}
        self._lock = threading.Lock()

    def put(self, items: Iterable[QueuedItem]) -> list[QueuedJob]:
        """Add jobs; return tickets for the batches that are ready now: full ones, and those of tasks without linger.

        The caller puts the tickets into the local queue. The slot that gets one calls `take` once, with its
        key. The other jobs wait until more jobs fill their batch, or until `expire` returns their ticket.
        """
        ready: list[QueuedJob] = []
        with self._lock:
            for item in items:
                job = item.job
                # Other code may have made a batch task of it since this runner began.
                size, linger = self._tasks.get(job.task, (1, 0.0))
                key = BatchKey(job.task, job.timeout, batch_limit(size, job))
                if (waiting := self._waiting.get(key)) is None:
                    waiting = self._waiting[key] = _Waiting(linger)
                waiting.items.append(item)
                if not linger or len(waiting.items) >= (waiting.tickets + 1) * key.limit:
                    self._issue(key, waiting, ready)
        return ready

    def expire(self, now: float) -> tuple[list[QueuedJob], float | None]:
        """Return tickets for batches whose jobs have waited long enough, and when the next ones will have."""
        ready: list[QueuedJob] = []
        upcoming: float | None = None
        with self._lock:
            for key, waiting in self._waiting.items():
                while (due := waiting.due(key.limit)) is not None and due <= now:
                    self._issue(key, waiting, ready)
                if due is not None:
                    upcoming = due if upcoming is None else min(upcoming, due)
        return ready, upcoming

    @staticmethod
    def _issue(key: BatchKey, waiting: _Waiting, ready: list[QueuedJob]) -> None:
        if len(waiting.items) > waiting.tickets * key.limit:
            waiting.tickets += 1
            ready.append(ticket(key))

    def take(self, key: BatchKey) -> list[QueuedItem]:
        """Return the jobs for one ticket of `key`, in their order: at least one, and at most the key's limit.

        Call it once for each ticket.
        """
        with self._lock:
            waiting = self._waiting[key]
            waiting.tickets -= 1
            items = waiting.items
            taken = [items.popleft() for _ in range(min(key.limit, len(items)))]
            if not items and not waiting.tickets:
                del self._waiting[key]
        return taken


class LingerThread:
    """Issues the tickets of batches that do not fill up. `issue` puts them into the local queue."""

    def __init__(self, queue: BatchQueue, issue: Callable[[list[QueuedJob]], object]) -> None:
        self._queue = queue
        self._issue = issue
        self._added = threading.Event()
        self._wakes_at: float | None = None
        """When the thread looks again; None: it does not by itself, or looks now."""

    def added(self, now: float) -> None:
        """Note that jobs have been added at `now`: they may be the next to have waited long enough."""
        # Most jobs follow others, and a thread is not woken for nothing.
        if self._wakes_at is None or self._wakes_at > now + self._queue.shortest_linger:
            self._added.set()

    def serve(self) -> None:
        """Issue tickets for ever. It sleeps while no job waits."""
        while True:
            # Reset it first: what is added from now on is looked at in the next round.
            self._wakes_at = None
            self._added.clear()
            ready, upcoming = self._queue.expire(monotonic())
            self._wakes_at = upcoming
            if ready:
                self._issue(ready)
            self._added.wait(None if upcoming is None else max(0.0, upcoming - monotonic()))
