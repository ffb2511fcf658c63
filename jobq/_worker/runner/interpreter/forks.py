"""Processes that a task forks: they may do anything, but must not return to their runner's work.

Such a process has copies of the queued jobs and of every other job's coroutine. It shares the slot
table, sockets and transactions with its parent. It would run the other jobs a second time.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import Any, NoReturn

_CAME_BACK = (
    "jobq: a process that a task has forked came back to its runner, and was ended: let it end by os._exit(), or use "
    "multiprocessing or subprocess\n"
)


def end_fork(error: BaseException | None) -> NoReturn:
    """End a forked process that has returned from the task, in the same way as its parent will."""
    status = 0
    try:
        if isinstance(error, SystemExit) and (error.code is None or isinstance(error.code, int)):
            status = (error.code or 0) & 255
        elif error is not None:
            status = 1
            traceback.print_exception(error)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        # This must happen whatever user code ran above and whatever it raised.
        os._exit(status)


class Over:
    """Replaces the parent's objects in a forked process. Any use of it ends the process."""

    def _end(self, *_: object) -> NoReturn:
        try:
            sys.stderr.write(_CAME_BACK)
            sys.stderr.flush()
        finally:
            os._exit(1)

    # Python looks up these methods in the class, not through `__getattr__`.
    __len__ = __bool__ = __iter__ = __getitem__ = _end

    def __getattr__(self, name: str) -> Any:
        self._end()
