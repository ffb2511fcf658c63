"""The slot table: which jobs a runner has started, in memory shared with its dispatcher.

A runner that dies cannot say what it was doing; the table can. Its head carries the lease the other way: until when the
dispatcher may vouch for the runner's jobs, so that a dispatcher that is frozen cannot keep them running. Each slot belongs
to one thread of the runner, the only one to write it; the head is the dispatcher's. CLOCK_MONOTONIC is one clock for all
processes of a machine, so times compare.
"""

from __future__ import annotations

import mmap
import os
import struct
from dataclasses import dataclass

# job id (0: idle), claims, start and deadline in time.monotonic() seconds (deadline 0.0: none).
_SLOT = struct.Struct("=qqdd")
_HEAD = struct.Struct("=d")
_IDLE = bytes(_SLOT.size)


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
        self._memory = mmap.mmap(fd, _HEAD.size + slots * _SLOT.size)

    @classmethod
    def create(cls, slots: int) -> SlotTable:
        """Return an empty table in new memory; pass `fd` to the runner."""
        fd = os.memfd_create("jobq-slots", os.MFD_CLOEXEC)
        os.ftruncate(fd, _HEAD.size + slots * _SLOT.size)
        return cls(fd, slots)

    @property
    def lease_ends(self) -> float:
        """When the runner must have ended, in time.monotonic() seconds; 0.0 before the first lease."""
        (ends,) = _HEAD.unpack_from(self._memory)
        return float(ends)

    @lease_ends.setter
    def lease_ends(self, ends: float) -> None:
        _HEAD.pack_into(self._memory, 0, ends)

    def start(self, slot: int, job_id: int, claims: int, now: float, deadline: float | None) -> None:
        """Mark the slot as executing the job."""
        _SLOT.pack_into(self._memory, _HEAD.size + slot * _SLOT.size, job_id, claims, now, deadline or 0.0)

    def clear(self, slot: int) -> None:
        """Mark the slot as idle."""
        offset = _HEAD.size + slot * _SLOT.size
        self._memory[offset : offset + _SLOT.size] = _IDLE

    def at(self, slot: int) -> Started | None:
        """Return what this slot is executing."""
        job_id, claims, since, deadline = _SLOT.unpack_from(self._memory, _HEAD.size + slot * _SLOT.size)
        return Started(job_id, claims, since, deadline or None) if job_id else None

    def started(self) -> list[Started]:
        """Return what is being executed now."""
        found = []
        for job_id, claims, since, deadline in _SLOT.iter_unpack(self._memory[_HEAD.size :]):
            if job_id:
                found.append(Started(job_id, claims, since, deadline or None))
        return found

    def close(self) -> None:
        """Let go of the memory."""
        self._memory.close()
        os.close(self.fd)
