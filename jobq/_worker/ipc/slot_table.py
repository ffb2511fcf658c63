"""The slot table: which jobs a runner is executing, in memory shared with its dispatcher.

A runner that has died, or that is blocked by user code, cannot say which jobs it was executing; the
table can. Each slot belongs to one thread of the runner at a time (`local_queue.py`), and only that
thread writes it. The header carries the facts that must pass between the two processes even if the
runner never reads its socket again. The dispatcher writes until when the runner may run jobs, and
which jobs it takes back. The runner writes its pulse. CLOCK_MONOTONIC is one clock for all
processes of a machine, so times can be compared.

Taking jobs back needs no answer. A slot writes that it starts a job *before* it checks whether the
job was taken back. The dispatcher writes that it takes jobs back, waits (`SETTLED`) until every
processor must have seen that write, and *then* checks which jobs have started. So at least one of
the two notices, and a job is never both executed here and given to another worker.

Started jobs are identified by serials, not by the jobs being executed: a job may have ended while
its outcome is held up on the way by another job. Jobs are started in the order of their serials, so
a job newer than the newest start was never started.

The jobs of batch tasks are an exception: they wait for one another while other jobs start. Each of
them has a mark, a field of its own behind the slots: the number of the batch in which it was started
(0: not yet). The dispatcher sets the mark to 0 before it sends the job. A slot that executes a batch
has that number in place of a job's id, so one write ends all jobs of the batch. The start of a batch
does not change the serial of the newest start.

Every field is eight bytes and is read and written as one machine word, so it is never seen
half-written.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from dataclasses import dataclass

_WORD = 8
# The header: deadline of the lease; serial up to which jobs are taken back; time and lag of the
# last pulse; why the runner ended itself (0: it did not), and the end of the lease that it then
# considered expired.
_LEASE, _REVOKED, _PULSE, _LAG, _ENDED, _OVER, _HEAD = range(7)
# A slot: job id (0: idle; below 0: the number of a batch), claims (of a batch: how many jobs it has),
# start and deadline in time.monotonic() seconds (deadline 0.0: none), and the serial of the newest
# job that it has started, which is kept after that job.
_ID, _CLAIMS, _SINCE, _DEADLINE, _NEWEST, _SLOT = range(6)

# Number of marks: most jobs of batch tasks that a runner can hold. Pages that no job has used take
# no memory.
MARKS = 1 << 15

_BY_LEASE, _CUT_OFF = 1, 2

# Seconds after which a write of one process is certainly visible to the other; processors need
# microseconds.
SETTLED = 0.05


@dataclass(frozen=True, slots=True)
class Started:
    """A job that a slot is executing, or a batch of jobs."""

    id: int
    """The job's id; for a batch, its number below 0."""
    claims: int
    """Number of the job's claim; for a batch, the number of its jobs."""
    since: float
    deadline: float | None
    batch: int = 0
    """Number of the batch that the job is in; 0 if the job runs alone."""


class SlotTable:
    """A table of `slots` slots in the anonymous file `fd`, which both processes hold open."""

    def __init__(self, fd: int, slots: int) -> None:
        self.fd = fd
        self.slots = slots
        self._memory = mmap.mmap(fd, _size(slots))
        # Access single numbers through views: `struct` would write zeros first, and the other
        # process could read them.
        self._integers = memoryview(self._memory).cast("q")
        self._floats = memoryview(self._memory).cast("d")
        self._first = range(_HEAD, _HEAD + slots * _SLOT, _SLOT)
        self._marks = _HEAD + slots * _SLOT

    @classmethod
    def create(cls, slots: int) -> SlotTable:
        """Return an empty table in new memory. Pass its `fd` to the runner."""
        fd = os.memfd_create("jobq-slots", os.MFD_CLOEXEC)
        os.ftruncate(fd, _size(slots))
        return cls(fd, slots)

    @property
    def lease_ends(self) -> float:
        """When the runner must have ended, in time.monotonic() seconds; 0.0 before the first lease."""
        return self._floats[_LEASE]

    @lease_ends.setter
    def lease_ends(self, ends: float) -> None:
        self._floats[_LEASE] = ends

    @property
    def revoked(self) -> int:
        """Jobs with serials up to this one are taken back, unless they had started."""
        return self._integers[_REVOKED]

    @revoked.setter
    def revoked(self, serial: int) -> None:
        self._integers[_REVOKED] = serial

    def beat(self, now: float, lag: float) -> None:
        """Record the runner's pulse: its threads run, `lag` seconds later than they should."""
        self._floats[_PULSE] = now
        self._floats[_LAG] = lag

    @property
    def pulse(self) -> tuple[float, float]:
        """Time of the runner's last pulse (0.0: never), and its lag in seconds."""
        return self._floats[_PULSE], self._floats[_LAG]

    @property
    def ended_by_lease(self) -> bool:
        """Whether the runner ended itself because its lease had expired, which is no job's fault."""
        return self._integers[_ENDED] == _BY_LEASE

    @property
    def taken_for_over(self) -> float:
        """End of the lease that the runner considered expired when it ended itself; 0.0: none."""
        return self._floats[_OVER]

    def end_by_lease(self, ends: float) -> None:
        """Record in the runner that it ends because its lease, which ended at `ends`, has expired.

        An exit status is no proof, because a task can set it.
        """
        self._floats[_OVER] = ends
        self._integers[_ENDED] = _BY_LEASE

    @property
    def ended_cut_off(self) -> bool:
        """Whether the runner ended itself because it could not send: a job closed its descriptors."""
        return self._integers[_ENDED] == _CUT_OFF

    def end_cut_off(self) -> None:
        """Record in the runner that it ends because its socket is gone."""
        self._integers[_ENDED] = _CUT_OFF

    def start(self, slot: int, serial: int, job_id: int, claims: int, *, now: float, deadline: float | None) -> bool:
        """Mark the slot as executing the job.

        If the job was taken back before, return False and leave the slot idle.
        """
        at, integers, floats = self._first[slot], self._integers, self._floats
        before = integers[at + _NEWEST]
        integers[at + _CLAIMS] = claims
        floats[at + _SINCE] = now
        floats[at + _DEADLINE] = deadline or 0.0
        integers[at + _NEWEST] = serial
        integers[at + _ID] = job_id
        if serial > integers[_REVOKED]:
            return True
        integers[at + _ID] = 0
        integers[at + _NEWEST] = before
        return False

    def start_batch(
        self, slot: int, number: int, jobs: Sequence[tuple[int, int]], *, now: float, deadline: float | None
    ) -> list[int]:
        """Mark the slot as executing a batch of `jobs`, which are pairs of serial and mark.

        Only one thread of the runner may call this at a time: the mark of a job that was taken back
        may already belong to another job, so it is not written. Return the places of the jobs that
        may start: those that were not taken back. If there is none, leave the slot idle.
        """
        at, first, integers, floats = self._first[slot], self._marks, self._integers, self._floats
        revoked = integers[_REVOKED]
        places = [place for place, (serial, _) in enumerate(jobs) if serial > revoked]
        for place in places:
            integers[first + jobs[place][1]] = number
        floats[at + _SINCE] = now
        floats[at + _DEADLINE] = deadline or 0.0
        # As in `start`: first write that they start, then look whether they were taken back.
        if (newer := integers[_REVOKED]) != revoked:
            for place in places:
                if jobs[place][0] <= newer:
                    integers[first + jobs[place][1]] = 0
            places = [place for place in places if jobs[place][0] > newer]
        if places:
            integers[at + _CLAIMS] = len(places)
            integers[at + _ID] = -number
        return places

    def batch_of(self, mark: int) -> int:
        """Return the number of the batch in which the job with this mark was started; 0: not yet."""
        return self._integers[self._marks + mark]

    def reset_mark(self, mark: int) -> None:
        """Note in the dispatcher that the next job with this mark has not started."""
        self._integers[self._marks + mark] = 0

    def clear(self, slot: int) -> None:
        """Mark the slot as idle."""
        self._integers[self._first[slot] + _ID] = 0

    def at(self, slot: int) -> Started | None:
        """Return the job that this slot is executing; None if it is idle."""
        at = self._first[slot]
        job_id = self._integers[at + _ID]
        if not job_id:
            return None
        since, deadline = self._floats[at + _SINCE], self._floats[at + _DEADLINE]
        batch = -job_id if job_id < 0 else 0
        return Started(job_id, self._integers[at + _CLAIMS], since, deadline or None, batch)

    def started(self) -> list[Started]:
        """Return the jobs being executed now."""
        return [found for slot in range(self.slots) if (found := self.at(slot)) is not None]

    @property
    def newest(self) -> int:
        """Serial of the newest job that was started outside a batch.

        For a moment it can be the serial of a job that turns out to be taken back.
        """
        return max(self._integers[at + _NEWEST] for at in self._first)

    def close(self) -> None:
        """Release the memory. Calling it again is no error."""
        if not self._memory.closed:
            self._integers.release()
            self._floats.release()
            self._memory.close()
            os.close(self.fd)


def _size(slots: int) -> int:
    # Marks count from 1.
    return (_HEAD + slots * _SLOT + 1 + MARKS) * _WORD
