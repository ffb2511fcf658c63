"""CPU time and memory of processes, from /proc."""

from __future__ import annotations

import os
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")


def cpu_of(pid: int) -> float:
    """Return the CPU seconds of a process and of its ended children that were waited for; 0 when there is none.

    schedstat is exact but forgets threads that have ended; stat counts them, in ticks. The larger is nearer.
    """
    exact = 0
    fields: list[str] = []
    with suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with suppress(OSError):  # a thread that has just ended
                exact += int(Path(f"/proc/{pid}/task/{task}/schedstat").read_text().split()[0])
        fields = _stat(pid)
    if not fields:
        return 0.0
    own, children = (int(fields[at]) + int(fields[at + 1]) for at in (11, 13))
    return max(exact / 1e9, own / _TICK) + children / _TICK


def family(pid: int) -> set[int]:
    """Return `pid` with all that descend from it or are of the session that it leads."""
    parents: dict[int, int] = {}
    found = {pid}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with suppress(OSError):
                fields = _stat(int(entry))
                parents[int(entry)] = int(fields[1])
                if int(fields[3]) == pid:
                    found.add(int(entry))
    grown = True
    while grown:
        more = {child for child, parent in parents.items() if parent in found} - found
        found |= more
        grown = bool(more)
    return found & ({pid} | set(parents))


def cpu_of_family(pid: int, without: Collection[int] = ()) -> float:
    """Return the CPU seconds of `pid` and its family; a child that ends between two calls stays counted in its parent."""
    return sum(cpu_of(member) for member in family(pid) if member not in without)


def resident_mib(pid: int) -> float:
    """Return the resident memory of a process in MiB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def _stat(pid: int) -> list[str]:
    # The name, in parentheses, may hold anything.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
