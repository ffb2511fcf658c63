"""The queue of unstarted jobs in a runner, and the threads that take them.

A slot belongs to whichever took it from the list of idle slots: its own thread, or the event loop.
The event loop executes the jobs of async tasks itself while the slot's thread sleeps.

Waking a thread costs as much as many short jobs. So only one thread at a time is called. If that
thread takes a job while others wait, it calls the next thread. A called thread gets the interpreter
when the thread before it waits for something (or after 5 ms), takes a job and calls in its turn.
While one slot keeps up, no other runs. When jobs wait for something, all slots soon work.

There is no lock: `deque` and `list` operations are single steps. A slot that becomes idle first
enters the idle list and then checks for jobs again. A new job is first added, and then idle slots
are looked for. So one of the two notices.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Container, Iterable
from typing import Any, cast
from uuid import UUID

from jobq._worker.ipc.messages import Job
from jobq._worker.runner.interpreter.forks import Over

QueuedJob = tuple[int, UUID, Job]
"""What one slot executes at a time: its serial, the worker in whose name it is claimed, and the job.

The serial is the job's position among all jobs sent to this runner, from 1. If it is 0, the entry stands
for a batch: the job is a `BatchTicket`, and the worker is `NO_WORKER` (`batch_queue.py`).
"""


class LocalQueue:
    """The unstarted jobs for `slots` slots.

    Args:
        slots: Number of slots.
        on_loop: Tasks whose jobs the event loop executes.
        drive: Makes the event loop begin jobs, each in its slot. Any thread may call it.
        flush: Sends outcomes. A slot's thread calls it before it sleeps and when it was called.
            Other threads may leave their outcomes to a thread that is on its way.
    """

    def __init__(
        self,
        slots: int,
        *,
        on_loop: Container[str],
        drive: Callable[[list[tuple[int, QueuedJob]]], object],
        flush: Callable[[], object],
    ) -> None:
        self._on_loop = on_loop
        self._drive = drive
        self._flush = flush
        self._jobs: deque[QueuedJob] = deque()
        self._idle: list[int] = []
        self._handed: list[QueuedJob | None] = [None] * slots
        """Job handed to a waiting slot; None means: take one from the queue."""
        self._bells = [threading.Lock() for _ in range(slots)]
        for bell in self._bells:
            bell.acquire()
        self.called = False
        """Whether a called thread is on its way, which will flush and look for jobs.

        A thread that sets this wakes a thread that resets it later. So it cannot stay set with no
        thread on its way.
        """

    def __len__(self) -> int:
        """Return the number of jobs that wait to be started."""
        return len(self._jobs)

    def abandon(self) -> None:
        """Disable the queue in a forked process: the jobs belong to its parent."""
        self._jobs = cast(Any, Over())

    def put(self, jobs: Iterable[QueuedJob]) -> None:
        """Add jobs, and wake a thread for them."""
        self._jobs.extend(jobs)
        if not self.called:
            self._call()

    def take(self, slot: int) -> QueuedJob:
        """Return the next job for the thread of `slot`; wait for one."""
        jobs = self._jobs
        while True:
            try:
                given = jobs.popleft()
            except IndexError:
                handed = self._rest(slot)
                if handed is None:
                    continue
                given = handed
            if jobs and not self.called:
                self._call()
            if given[2].task not in self._on_loop:
                return given
            try:
                other = self._idle.pop()
            except IndexError:
                other = slot
            self._drive([(other, given)])
            if other == slot and (handed := self._sleep(slot)) is not None:
                return handed

    def after(self, slot: int) -> QueuedJob | None:
        """Return the next job for the event loop to execute in `slot`, which belongs to it.

        Returns None if the slot no longer belongs to the event loop.
        """
        jobs = self._jobs
        while True:
            try:
                given = jobs.popleft()
            except IndexError:
                if self._idles(slot):
                    return None
                continue
            if jobs and not self.called:
                self._call()
            if given[2].task in self._on_loop:
                return given
            self._hand(slot, given)
            return None

    def _call(self) -> None:
        """Make the event loop begin its jobs at the head of the queue; wake a thread for others."""
        driven: list[tuple[int, QueuedJob]] = []
        jobs, idle = self._jobs, self._idle
        try:
            while jobs[0][2].task in self._on_loop:
                slot = idle.pop()
                try:
                    given = jobs.popleft()
                except IndexError:
                    # The job was taken meanwhile. The slot must be in the idle list again before
                    # the next look at the jobs.
                    idle.append(slot)
                    continue
                if given[2].task in self._on_loop:
                    driven.append((slot, given))
                else:
                    self._hand(slot, given)
            if not self.called:
                slot = idle.pop()
                self.called = True
                self._bells[slot].release()
        except IndexError:
            pass  # no job is left, or no slot is idle: the next idle slot will look for jobs
        if driven:
            self._drive(driven)

    def _hand(self, slot: int, given: QueuedJob) -> None:
        self._handed[slot] = given
        self._bells[slot].release()

    def _idles(self, slot: int) -> bool:
        """Put `slot` on the idle list; return whether it stayed there or was already taken off."""
        self._idle.append(slot)
        if not self._jobs:
            return True
        try:
            self._idle.remove(slot)
        except ValueError:
            return True
        return False

    def _rest(self, slot: int) -> QueuedJob | None:
        self._flush()
        return self._sleep(slot) if self._idles(slot) else None

    def _sleep(self, slot: int) -> QueuedJob | None:
        self._bells[slot].acquire()
        given, self._handed[slot] = self._handed[slot], None
        if given is None:
            self.called = False
            self._flush()
        return given
