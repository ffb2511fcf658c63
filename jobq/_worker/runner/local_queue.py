"""The jobs that a runner has and has not started, and the threads that come for them.

A slot belongs to the one that took it off the list of idle ones: its own thread, or the event loop, which executes the jobs
of async tasks itself while the slot's thread sleeps.

Waking a thread costs as much as many a short job. So only one thread at a time is called, and the one that takes a job while
others wait calls the next: a called thread gets the interpreter when the one before it waits for something (or after 5 ms),
takes a job and calls in its turn. While one slot keeps up, no other runs; when jobs wait for something, all slots soon work.

No lock: `deque` and `list` operations are single steps. A slot that becomes idle says so first and then looks for jobs again;
a job is put first and then idle slots are looked for. So one of the two notices.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Container, Iterable
from typing import Any, cast
from uuid import UUID

from jobq.worker.forks import Over
from jobq.worker.frames import Job

Given = tuple[int, UUID, Job]
"""A job with its serial and in whose name it is claimed."""


class Stock:
    """Jobs for `slots` slots.

    `on_loop`: the tasks whose jobs the event loop executes. `drive` has the loop begin jobs, each in its slot; it may be called
    by any thread. `flush` is called by a slot's thread before it sleeps and when it was called: that one is on its way lets
    others leave their outcomes to it.
    """

    def __init__(
        self,
        slots: int,
        *,
        on_loop: Container[str],
        drive: Callable[[list[tuple[int, Given]]], object],
        flush: Callable[[], object],
    ) -> None:
        self._on_loop = on_loop
        self._drive = drive
        self._flush = flush
        self._jobs: deque[Given] = deque()
        self._idle: list[int] = []
        self._handed: list[Given | None] = [None] * slots
        """What a slot's thread finds when it was rung for; None: look for yourself."""
        self._bells = [threading.Lock() for _ in range(slots)]
        for bell in self._bells:
            bell.acquire()
        self.called = False
        """Whether a thread is on its way that will flush, and look for jobs. Each one who sets it rings for a thread that
        unsets it later, so it cannot stay set with no thread on the way."""

    def __len__(self) -> int:
        """How many jobs wait to be started."""
        return len(self._jobs)

    def abandon(self) -> None:
        """In a forked process: the jobs are its parent's."""
        self._jobs = cast(Any, Over())

    def put(self, jobs: Iterable[Given]) -> None:
        """Add jobs, and have someone come for them."""
        self._jobs.extend(jobs)
        if not self.called:
            self._call()

    def take(self, slot: int) -> Given:
        """Return the next job for the thread of `slot`; waits for one."""
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

    def after(self, slot: int) -> Given | None:
        """Return the next job for the event loop to execute in `slot`, which is its own; None: the slot is not any more."""
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
        """Have the loop begin what comes first, if it is the loop's, and a thread come for what is not."""
        driven: list[tuple[int, Given]] = []
        jobs, idle = self._jobs, self._idle
        try:
            while jobs[0][2].task in self._on_loop:
                slot = idle.pop()
                try:
                    given = jobs.popleft()
                except IndexError:
                    # Taken meanwhile. Said to be idle again before the next look at the jobs.
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
            pass  # nothing left, or no slot is idle: the next to be so will look
        if driven:
            self._drive(driven)

    def _hand(self, slot: int, given: Given) -> None:
        self._handed[slot] = given
        self._bells[slot].release()

    def _idles(self, slot: int) -> bool:
        """Put `slot` on the list of idle ones; tell whether it was left there, or was taken off already."""
        self._idle.append(slot)
        if not self._jobs:
            return True
        try:
            self._idle.remove(slot)
        except ValueError:
            return True
        return False

    def _rest(self, slot: int) -> Given | None:
        self._flush()
        return self._sleep(slot) if self._idles(slot) else None

    def _sleep(self, slot: int) -> Given | None:
        self._bells[slot].acquire()
        given, self._handed[slot] = self._handed[slot], None
        if given is None:
            self.called = False
            self._flush()
        return given
