"""Process groups: a runner and the programs that its jobs have started end together.

Programs that leave the group by `setsid` or `setpgid` are out of reach.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import os
import select
import signal
import sys
import time
from pathlib import Path

# Seconds for programs to end after SIGTERM, if their runner has ended by itself.
TERM_PATIENCE = 1.0
_PR_SET_PDEATHSIG = 1


def signal_group(group: int, number: int) -> bool:
    """Send a signal to all processes of `group`; return whether there is any."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    except PermissionError:
        # A process exists, but it belongs to another user.
        return True
    return True


async def end_group(group: int) -> None:
    """End the remaining processes of `group` by SIGTERM; after a while use SIGKILL."""
    if not signal_group(group, signal.SIGTERM):
        return
    until = time.monotonic() + TERM_PATIENCE
    while time.monotonic() < until:
        await asyncio.sleep(0.02)
        if not signal_group(group, 0):
            return
    signal_group(group, signal.SIGKILL)


def kill_own_group() -> None:
    """Kill this process and its group, if it leads one. Otherwise, do nothing."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)


def die_with_parent(alive: int) -> bool:
    """Make the kernel kill this process when its parent ends.

    If this process leads a group, the whole group is killed. No code of ours has to run for it,
    because a task may hold the interpreter forever.

    Args:
        alive: Read end of a pipe to which nothing is written. Only the parent holds the other end.

    Returns:
        Whether the parent has already ended.
    """
    if sys.platform != "linux":
        return False
    if alive < 0 or not _killed_with_pipe(alive):
        # Use this signal only as a fallback. It comes when the parent's thread ends, before the
        # pipe closes, and would leave the group behind.
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if alive < 0:
        return False
    poll = select.poll()
    poll.register(alive, 0)
    return bool(poll.poll(0))


def _killed_with_pipe(alive: int) -> bool:
    if os.getpgrp() != os.getpid():
        return False
    try:
        # When the other end of the pipe closes, the kernel signals the owner of this end: the
        # group. (See fcntl(2), F_SETSIG.)
        fcntl.fcntl(alive, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(alive, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(alive, fcntl.F_SETFL, fcntl.fcntl(alive, fcntl.F_GETFL) | os.O_ASYNC)
    except OSError:
        return False
    return True


def children() -> set[int]:
    """Return the process ids of this process's children."""
    # Look at every thread: an orphan can become the child of any of them.
    found: set[int] = set()
    for path in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found.update(map(int, path.read_text().split()))
    return found
