"""Reaping of orphans, for a worker that adopts processes whose parent has ended.

This is the case if the worker is process 1 of a container, or a "child subreaper". asyncio waits
for the worker's own children and needs their exit statuses. So the reaper never reaps a known
child, and reaps nothing while a child is being started.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import sys

from jobq._worker.processes.process_group import children
from jobq._worker.processes.spawned_process import OsProcess

logger = logging.getLogger("jobq.worker")

INTERVAL = 0.5
_PR_GET_CHILD_SUBREAPER = 37


def adopts_orphans() -> bool:
    """Return whether processes without a parent become children of this process."""
    if os.getpid() == 1:
        return True
    if sys.platform != "linux":
        return False
    answer = ctypes.c_int(0)
    try:
        ctypes.CDLL(None).prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(answer))
    except (OSError, AttributeError):
        return False
    return bool(answer.value)


async def reap_orphans() -> None:
    """Reap orphans until cancelled. If this process adopts no orphans, return at once."""
    if not adopts_orphans():
        return
    while True:
        await asyncio.sleep(INTERVAL)
        if not OsProcess.starting:
            reap(OsProcess.pids)


def reap(known: set[int]) -> int:
    """Reap the children that have ended, except the `known` ones; return the number reaped."""
    with contextlib.suppress(ChildProcessError):
        if os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            return 0
    reaped = 0
    for pid in children() - known:
        with contextlib.suppress(ChildProcessError):
            reaped += os.waitpid(pid, os.WNOHANG)[0] == pid
    return reaped
