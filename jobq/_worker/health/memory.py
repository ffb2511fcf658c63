"""The memory use of a process as the kernel counts it: one read of a small file."""

from __future__ import annotations

import os

_PAGE = os.sysconf("SC_PAGE_SIZE")


def resident(pid: int | None = None) -> int:
    """Return the resident memory in bytes of the process `pid` (None: this process).

    If there is no such process, or the value cannot be read, return 0.
    """
    try:
        with open(f"/proc/{'self' if pid is None else pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * _PAGE
    except (OSError, IndexError, ValueError):
        return 0
