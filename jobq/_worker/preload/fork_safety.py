"""Check whether a process may be forked after it has imported an application.

A fork must not break anything, or share anything by accident. A forked copy is sound only without
threads (a lock that a thread holds stays locked in the copy), without connections and event loops
(two processes would use the same one), without open files (both processes share the position),
without child processes, and without objects such as a temporary directory, which the first copy
would remove at its end. Functions of `atexit` run in every copy; they cannot be seen here.
"""

from __future__ import annotations

import os
import stat
import threading
import weakref
from pathlib import Path
from typing import Any

from jobq._worker.processes.process_group import children

# Files that may be open any number of times, because they have no state to share.
_HARMLESS = frozenset({"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"})


def open_descriptors() -> frozenset[int]:
    """Return the open descriptors of this process."""
    with os.scandir("/proc/self/fd") as entries:
        found = frozenset(int(entry.name) for entry in entries)
    return frozenset(each for each in found if _target(each) is not None)


def exit_finalizers() -> frozenset[weakref.finalize[Any, Any]]:
    """Return the finalizers that the interpreter will call at its end."""
    registry: dict[weakref.finalize[Any, Any], Any] = getattr(weakref.finalize, "_registry", {})
    return frozenset(each for each in registry if each.alive and each.atexit)


def unsafe_to_fork(before: frozenset[int], exits: frozenset[weakref.finalize[Any, Any]]) -> list[str]:
    """Return the reasons why this process must not be forked; an empty list if it may be.

    Args:
        before: The descriptors that were open before the application was imported.
        exits: The finalizers that existed then.
    """
    return [*_threads(), *_children(), *_opened(before), *_removed_at_exit(exits)]


def _threads() -> list[str]:
    number = len(os.listdir("/proc/self/task"))
    if number == 1:
        return []
    names = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    known = f" ({', '.join(sorted(names))})" if names else ""
    return [f"the import has started {number - 1} threads{known}"]


def _children() -> list[str]:
    found = sorted(children())
    return [f"the import has started processes ({', '.join(map(str, found))})"] if found else []


def _removed_at_exit(before: frozenset[weakref.finalize[Any, Any]]) -> list[str]:
    kept = [each.peek() for each in exit_finalizers() - before]
    names = sorted({type(one[0]).__name__ for one in kept if one is not None})
    return [f"the import has made what ends with the process ({', '.join(names)})"] if names else []


def _opened(before: frozenset[int]) -> list[str]:
    found = []
    for descriptor in sorted(open_descriptors() - before):
        target = _target(descriptor)
        if target is not None and not _may_be_shared(descriptor, target):
            found.append(f"the import has opened {target}")
    return found


def _target(descriptor: int) -> str | None:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return None


def _may_be_shared(descriptor: int, target: str) -> bool:
    if target in _HARMLESS:
        return True
    # A log file: each write goes to the end, in whichever process it happens.
    mode = os.fstat(descriptor).st_mode
    return stat.S_ISREG(mode) and bool(os.O_APPEND & _flags(descriptor))


def _flags(descriptor: int) -> int:
    for line in Path(f"/proc/self/fdinfo/{descriptor}").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "flags":
            return int(value, 8)
    return 0
