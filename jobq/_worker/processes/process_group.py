"""Process groups: a runner and the programs that its jobs have started end together.

Out of reach are programs that leave the group, by `setsid` or `setpgid`.
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

# Seconds that programs get to end by SIGTERM, when their runner has ended by itself.
TERM_PATIENCE = 1.0
_PR_SET_PDEATHSIG = 1


def signal_group(group: int, number: int) -> bool:
    """Send a signal to all processes of `group`; tell whether there is any."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    except PermissionError:
        # There is one, of another user.
        return True
    return True


async def end_group(group: int) -> None:
    """End what is left of `group`: by SIGTERM, and by SIGKILL what has not ended in time."""
    if not signal_group(group, signal.SIGTERM):
        return
    until = time.monotonic() + TERM_PATIENCE
    while time.monotonic() < until:
        await asyncio.sleep(0.02)
        if not signal_group(group, 0):
            return
    signal_group(group, signal.SIGKILL)


def kill_own_group() -> None:
    """Kill this process with its group, if it leads one. Else, do nothing."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)


def die_with_parent(alive: int) -> bool:
    """Have the kernel kill this process, and its group if it leads one, when its parent ends; tell whether it has already.

    `alive`: the read end of a pipe to which nothing is written; its other end only the parent holds. No code of ours has to run
    for it: a task may hold the interpreter for ever.
    """
    if sys.platform != "linux":
        return False
    if alive < 0 or not _killed_with_pipe(alive):
        # Only then. It comes when the parent's thread ends, before the pipe closes: the group would be left.
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
        # When the pipe's other end closes, the kernel signals the owner of this end: the group. (See fcntl(2), F_SETSIG.)
        fcntl.fcntl(alive, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(alive, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(alive, fcntl.F_SETFL, fcntl.fcntl(alive, fcntl.F_GETFL) | os.O_ASYNC)
    except OSError:
        return False
    return True
