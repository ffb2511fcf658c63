"""The jobs that one runner holds: jobs sent to it and neither reported nor taken back."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Mapping
from typing import TypeVar

import msgspec

from jobq._worker.ipc.batch_limits import batch_limit
from jobq._worker.ipc.messages import AlreadyCommitted, Failure, Job, Success, TaskInfo
from jobq._worker.ipc.slot_table import MARKS, SETTLED, SlotTable, Started

OutcomeT = TypeVar("OutcomeT", Success, Failure, AlreadyCommitted)


class HeldJob(msgspec.Struct, gc=False):
    """A job that a runner holds."""

    job: Job
    since: float
    """When the job was sent, in time.monotonic() seconds."""
    serial: int
    """Its position among all jobs sent to this runner (1-based)."""
    mark: int = 0
    """Its mark in the slot table, if it is of a batch task; otherwise 0."""
    linger: float = 0.0
    """Seconds for which the runner may let it wait for others on purpose."""
    share: float = 0.0
    """The part of a batch that it fills, above 0 and at most 1: one over its `batch_limit`. 0: it has no mark."""


class HeldJobs:
    """The jobs of the runner that shares `table`. All times are time.monotonic() seconds."""

    def __init__(self, table: SlotTable, now: float) -> None:
        self.by_id: dict[int, HeldJob] = {}
        """The held jobs by job id. This object is never replaced, because others keep a reference."""
        self.given = 0
        """Number of jobs sent to the runner, without those that were taken back."""
        self.idle_since = now
        """When the runner last held a job, if it holds none now."""
        self._table = table
        self._serial = 0
        self._revoked_at: float | None = None
        self._batched = 0
        """Number of held jobs that have a mark."""
        self._shares = 0.0
        """Number of batches that these jobs fill: the sum of their shares."""
        self._free_marks: deque[int] = deque()
        """Marks that were used before."""
        self._marks = 0
        """Number of marks that were ever used."""

    @property
    def load(self) -> int:
        """Number of slots that the held jobs take, or will take: a batch takes one."""
        count = len(self.by_id)
        if not self._batched:
            return count
        batches = [slot for slot in self._table.started() if slot.batch]
        # The outcomes of some jobs may be on the way. They count as waiting.
        waiting = max(0, self._batched - sum(slot.claims for slot in batches))
        return count - self._batched + len(batches) + math.ceil(waiting * self._shares / self._batched - 1e-6)

    @property
    def marks_left(self) -> int:
        """Number of further jobs of batch tasks that the slot table has room for."""
        return MARKS - self._batched

    def assign(self, jobs: list[Job], now: float, batches: Mapping[str, TaskInfo] | None = None) -> int:
        """Hold `jobs`, which are about to be sent; return the serial of the first one.

        The jobs count as held from now on, even if the runner dies before it reads them. Those of
        the tasks `batches` get marks, so that the runner may execute many in one call.
        """
        first = self._serial + 1
        self.given += len(jobs)
        self._serial += len(jobs)
        self.by_id.update({job.id: HeldJob(job, now, serial) for serial, job in enumerate(jobs, first)})
        if batches:
            for job in jobs:
                if (task := batches.get(job.task)) is not None:
                    self._mark(self.by_id[job.id], task)
        return first

    def _mark(self, held: HeldJob, task: TaskInfo) -> None:
        if self._free_marks:
            held.mark = self._free_marks.popleft()
        elif self._marks < MARKS:
            self._marks += 1
            held.mark = self._marks
        else:
            # The runner executes it by itself.
            return
        self._table.reset_mark(held.mark)
        held.linger, held.share = task.linger, 1 / batch_limit(task.batch, held.job)
        self._batched += 1
        self._shares += held.share

    def _unmark(self, held: HeldJob) -> None:
        self._free_marks.append(held.mark)
        self._batched -= 1
        # Without rounding errors that add up.
        self._shares = self._shares - held.share if self._batched else 0.0

    def marks(self, jobs: list[Job]) -> list[int]:
        """Return the marks of held jobs, or an empty list if none of them has one."""
        if not self._batched:
            return []
        found = [self.by_id[job.id].mark for job in jobs]
        return found if any(found) else []

    def restart_waiting(self, now: float) -> None:
        """Restart the waiting time of the held jobs at `now`.

        The runner could not start them before.
        """
        for held in self.by_id.values():
            held.since = now

    def revoke(self, now: float) -> None:
        """Begin to take back the jobs that the runner has not started; `take_revoked` returns them."""
        self._table.revoked = self._serial
        self._revoked_at = now

    def take_revoked(self, now: float) -> list[Job]:
        """Remove and return the jobs that are taken back by `now`. The runner will not start them."""
        if self._revoked_at is None or now - self._revoked_at < SETTLED:
            return []
        self._revoked_at = None
        serial = self._table.revoked
        back = [held.job for held in self.unstarted() if held.serial <= serial]
        for job in back:
            if (held := self.by_id.pop(job.id)).mark:
                self._unmark(held)
        self.given -= len(back)
        self._note_idle(now)
        return back

    def unstarted(self) -> list[HeldJob]:
        """Return the held jobs that were never started.

        The other jobs are running, or their outcomes are on the way.
        """
        newest = self._table.newest
        return [held for held in self.by_id.values() if not self._has_started(held, newest)]

    def _has_started(self, held: HeldJob, newest: int) -> bool:
        return self._table.batch_of(held.mark) > 0 if held.mark else held.serial <= newest

    def running(self) -> list[Started]:
        """Return the held jobs that are being executed; those of a batch one by one."""
        started = self._table.started()
        batches = {slot.batch: slot for slot in started if slot.batch}
        found = [slot for slot in started if not slot.batch]
        if batches:
            found.extend(
                Started(held.job.id, held.job.claims, slot.since, slot.deadline, slot.batch)
                for held in self.by_id.values()
                if held.mark and (slot := batches.get(self._table.batch_of(held.mark))) is not None
            )
        return found

    def take(self, outcomes: list[OutcomeT]) -> list[OutcomeT]:
        """Return the outcomes whose executions are held, and stop holding these jobs."""
        jobs, taken = self.by_id, []
        for outcome in outcomes:
            held = jobs.get(outcome.id)
            if held is not None and held.job.started == outcome.started and held.job.claims == outcome.claims:
                del jobs[outcome.id]
                if held.mark:
                    self._unmark(held)
                taken.append(outcome)
        self._note_idle(time.monotonic())
        return taken

    def add_job_info(self, setback: Failure) -> Failure:
        """Return `setback` with its job's task, queue and attempts for the log, if the job is held."""
        held = self.by_id.get(setback.id)
        if held is None:
            return setback
        job = held.job
        return msgspec.structs.replace(
            setback, task=job.task, queue=job.queue, attempt=job.attempt, max_attempts=job.max_attempts
        )

    def owes_outcome(self, started: list[Started]) -> bool:
        """Return whether a held job has ended and was not reported.

        For a moment this is also true when a job is about to start.
        """
        newest, running = self._table.newest, {slot.id for slot in started}
        return any(
            self._has_started(held, newest)
            and (-self._table.batch_of(held.mark) if held.mark else job_id) not in running
            for job_id, held in self.by_id.items()
        )

    def _note_idle(self, now: float) -> None:
        if not self.by_id:
            self.idle_since = now
