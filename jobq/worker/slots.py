"""What a runner is executing, in memory that it shares with its dispatcher.

A runner that dies, or that is held up by its user's code, cannot say what it was doing; the table can. Each slot belongs to one
thread of the runner at a time (`stock.py`), the only one to write it. The head carries what must pass between the two though
the runner may never read its socket again: from the dispatcher, until when it may vouch for the runner's jobs, and which jobs
it takes back; from the runner, its pulse. CLOCK_MONOTONIC is one clock for all processes of a machine, so times compare.

Taking jobs back needs no answer. A slot writes that it starts a job *before* it looks whether the job was taken back; the
dispatcher writes that it takes jobs back, waits (`SETTLED`) until every processor must have seen that, and *then* looks what
has been started. So at least one of the two notices, and a job is never both executed here and given away.

What has been started is told by serials, not by what is being executed: a job may have ended, its outcome held up on its
way by a neighbour. Jobs are started in the order of their serials, so what is newer than the newest start was never begun.

Every field is eight bytes, read and written as one machine word: never seen half-written.
"""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass

_WORD = 8
# The head: until when the dispatcher vouches, up to which serial it takes back; when the pulse was felt, and its lag; why the
# runner has ended itself (0: it has not), and the end of the lease that it then took for over.
_LEASE, _REVOKED, _PULSE, _LAG, _ENDED, _OVER, _HEAD = range(7)
# A slot: job id (0: idle), claims, start and deadline in time.monotonic() seconds (deadline 0.0: none), and the serial of the
# newest job that it has started, which outlasts that job.
_ID, _CLAIMS, _SINCE, _DEADLINE, _NEWEST, _SLOT = range(6)

_BY_LEASE, _CUT_OFF = 1, 2

# Seconds after which a write of one process is surely seen by the other: processors need microseconds.
SETTLED = 0.05


@dataclass(frozen=True, slots=True)
class Started:
    """A job that a slot is executing."""

    id: int
    claims: int
    since: float
    deadline: float | None


class SlotTable:
    """A table of `slots` slots, in the anonymous file `fd`, which both processes hold open."""

    def __init__(self, fd: int, slots: int) -> None:
        self.fd = fd
        self.slots = slots
        self._memory = mmap.mmap(fd, _size(slots))
        # As numbers, item by item: `struct` would write zeros first, which the other process could read.
        self._integers = memoryview(self._memory).cast("q")
        self._floats = memoryview(self._memory).cast("d")
        self._first = range(_HEAD, _HEAD + slots * _SLOT, _SLOT)

    @classmethod
    def create(cls, slots: int) -> SlotTable:
        """Return an empty table in new memory; pass `fd` to the runner."""
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
        """Jobs of serials up to this one are taken back, unless they had started."""
        return self._integers[_REVOKED]

    @revoked.setter
    def revoked(self, serial: int) -> None:
        self._integers[_REVOKED] = serial

    def beat(self, now: float, lag: float) -> None:
        """The runner's pulse: its threads get to run, `lag` seconds later than they want to."""
        self._floats[_PULSE] = now
        self._floats[_LAG] = lag

    @property
    def pulse(self) -> tuple[float, float]:
        """When the runner's pulse was last felt (0.0: never), and its lag in seconds."""
        return self._floats[_PULSE], self._floats[_LAG]

    @property
    def ended_by_lease(self) -> bool:
        """Whether the runner has ended itself since its lease was over: no job's fault."""
        return self._integers[_ENDED] == _BY_LEASE

    @property
    def taken_for_over(self) -> float:
        """The end of the lease that the runner took for over when it ended itself; 0.0: it has not."""
        return self._floats[_OVER]

    def end_by_lease(self, ends: float) -> None:
        """The runner's last word, when its lease, which ended at `ends`, is over. An exit status could be a task's."""
        self._floats[_OVER] = ends
        self._integers[_ENDED] = _BY_LEASE

    @property
    def ended_cut_off(self) -> bool:
        """Whether the runner has ended itself since it could not send any more: a job has closed its descriptors."""
        return self._integers[_ENDED] == _CUT_OFF

    def end_cut_off(self) -> None:
        """The runner's last word, when its socket is gone."""
        self._integers[_ENDED] = _CUT_OFF

    def start(self, slot: int, serial: int, job_id: int, claims: int, *, now: float, deadline: float | None) -> bool:
        """Mark the slot as executing the job, unless it was taken back before: then False, and the slot stays idle."""
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

    def clear(self, slot: int) -> None:
        """Mark the slot as idle."""
        self._integers[self._first[slot] + _ID] = 0

    def at(self, slot: int) -> Started | None:
        """Return what this slot is executing."""
        at = self._first[slot]
        job_id = self._integers[at + _ID]
        if not job_id:
            return None
        since, deadline = self._floats[at + _SINCE], self._floats[at + _DEADLINE]
        return Started(job_id, self._integers[at + _CLAIMS], since, deadline or None)

    def started(self) -> list[Started]:
        """Return what is being executed now."""
        return [found for slot in range(self.slots) if (found := self.at(slot)) is not None]

    @property
    def newest(self) -> int:
        """The serial of the newest job that was started; for a moment perhaps of one that turns out to be taken back."""
        return max(self._integers[at + _NEWEST] for at in self._first)

    def close(self) -> None:
        """Let go of the memory; again is no error."""
        if not self._memory.closed:
            self._integers.release()
            self._floats.release()
            self._memory.close()
            os.close(self.fd)


def _size(slots: int) -> int:
    return (_HEAD + slots * _SLOT) * _WORD
