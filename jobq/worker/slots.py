"""What a runner is executing, in memory that it shares with its dispatcher.

A runner that dies, or that is held up by its user's code, cannot say what it was doing; the table can. Each slot belongs to
one thread of the runner, the only one to write it. The head carries what must pass between the two though the runner may
never read its socket again: from the dispatcher, until when it may vouch for the runner's jobs, and which jobs it takes
back; from the runner, its pulse. CLOCK_MONOTONIC is one clock for all processes of a machine, so times compare.

Taking jobs back needs no answer. A slot writes that it starts a job *before* it looks whether the job was taken back; the
dispatcher writes that it takes jobs back, waits (`SETTLED`) until every processor must have seen that, and *then* looks what
has been started. So at least one of the two notices, and a job is never both executed here and given away.
"""

from __future__ import annotations

import mmap
import os
import struct
from dataclasses import dataclass

# job id (0: idle), claims, start and deadline in time.monotonic() seconds (deadline 0.0: none).
_SLOT = struct.Struct("=qqdd")
_LEASE = struct.Struct("=d")
_REVOKED = struct.Struct("=q")
_PULSE = struct.Struct("=dd")
_REVOKED_AT = _LEASE.size
_PULSE_AT = _REVOKED_AT + _REVOKED.size
_ENDED = struct.Struct("=q")
_ENDED_AT = _PULSE_AT + _PULSE.size
_HEAD_SIZE = _ENDED_AT + _ENDED.size
_IDLE = bytes(_SLOT.size)

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
        self._memory = mmap.mmap(fd, _HEAD_SIZE + slots * _SLOT.size)

    @classmethod
    def create(cls, slots: int) -> SlotTable:
        """Return an empty table in new memory; pass `fd` to the runner."""
        fd = os.memfd_create("jobq-slots", os.MFD_CLOEXEC)
        os.ftruncate(fd, _HEAD_SIZE + slots * _SLOT.size)
        return cls(fd, slots)

    @property
    def lease_ends(self) -> float:
        """When the runner must have ended, in time.monotonic() seconds; 0.0 before the first lease."""
        (ends,) = _LEASE.unpack_from(self._memory)
        return float(ends)

    @lease_ends.setter
    def lease_ends(self, ends: float) -> None:
        _LEASE.pack_into(self._memory, 0, ends)

    @property
    def revoked(self) -> int:
        """Jobs sent in frames up to this serial are taken back, unless they had started."""
        (serial,) = _REVOKED.unpack_from(self._memory, _REVOKED_AT)
        return int(serial)

    @revoked.setter
    def revoked(self, serial: int) -> None:
        _REVOKED.pack_into(self._memory, _REVOKED_AT, serial)

    def beat(self, now: float, lag: float) -> None:
        """The runner's pulse: its threads get to run, `lag` seconds later than they want to."""
        _PULSE.pack_into(self._memory, _PULSE_AT, now, lag)

    @property
    def pulse(self) -> tuple[float, float]:
        """When the runner's pulse was last felt (0.0: never), and its lag in seconds."""
        at, lag = _PULSE.unpack_from(self._memory, _PULSE_AT)
        return float(at), float(lag)

    @property
    def ended_by_lease(self) -> bool:
        """Whether the runner has ended itself since its lease was over: no job's fault."""
        (ended,) = _ENDED.unpack_from(self._memory, _ENDED_AT)
        return bool(ended)

    def end_by_lease(self) -> None:
        """The runner's last word, when its lease is over. An exit status could be a task's."""
        _ENDED.pack_into(self._memory, _ENDED_AT, 1)

    def start(self, slot: int, job_id: int, claims: int, now: float, deadline: float | None) -> None:
        """Mark the slot as executing the job."""
        _SLOT.pack_into(self._memory, _HEAD_SIZE + slot * _SLOT.size, job_id, claims, now, deadline or 0.0)

    def clear(self, slot: int) -> None:
        """Mark the slot as idle."""
        offset = _HEAD_SIZE + slot * _SLOT.size
        self._memory[offset : offset + _SLOT.size] = _IDLE

    def at(self, slot: int) -> Started | None:
        """Return what this slot is executing."""
        job_id, claims, since, deadline = _SLOT.unpack_from(self._memory, _HEAD_SIZE + slot * _SLOT.size)
        return Started(job_id, claims, since, deadline or None) if job_id else None

    def started(self) -> list[Started]:
        """Return what is being executed now."""
        found = []
        for job_id, claims, since, deadline in _SLOT.iter_unpack(self._memory[_HEAD_SIZE:]):
            if job_id:
                found.append(Started(job_id, claims, since, deadline or None))
        return found

    def close(self) -> None:
        """Let go of the memory; again is no error."""
        if not self._memory.closed:
            self._memory.close()
            os.close(self.fd)
