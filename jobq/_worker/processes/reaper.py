"""Reaping orphans: as process 1 of a container, a worker is the parent of every process there whose own parent has ended.

Only where that is so: as process 1, or as a "child subreaper". The worker's own children are waited for by asyncio, which must
find their exit statuses; so none is reaped whose id is known, and none at all while one is being started.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import sys
from pathlib import Path

from jobq.worker.process import RunnerProcess

logger = logging.getLogger("jobq.worker")

INTERVAL = 0.5
_PR_GET_CHILD_SUBREAPER = 37


def adopts_orphans() -> bool:
    """Tell whether processes without a parent become children of this one."""
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
    """Reap orphans for ever; return at once where there are none to come."""
    if not adopts_orphans():
        return
    while True:
        await asyncio.sleep(INTERVAL)
        if not RunnerProcess.starting:
            reap(RunnerProcess.pids)


def reap(known: set[int]) -> int:
    """Reap the children that have ended, but for the `known`; return how many."""
    with contextlib.suppress(ChildProcessError):
        if os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            return 0
    reaped = 0
    for pid in _children() - known:
        with contextlib.suppress(ChildProcessError):
            reaped += os.waitpid(pid, os.WNOHANG)[0] == pid
    return reaped


def _children() -> set[int]:
    # Of every thread: an orphan can become the child of any.
    found: set[int] = set()
    for path in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found.update(map(int, path.read_text().split()))
    return found
