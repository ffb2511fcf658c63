"""Processes that a task forks: they may do what they like, but must not come back to their runner's work.

Such a process has copies of the jobs in stock and of every other job's coroutine, and shares the slot table, sockets and
transactions with its parent: it would run its neighbours' jobs a second time.
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
    """End a process that a task has forked and that has come back from it, as its parent will."""
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
        # Whatever user code the above has called, and whatever that has raised.
        os._exit(status)


class Over:
    """Stands, in a forked process, for what is its parent's. Whatever is done with it ends the process."""

    def _end(self, *_: object) -> NoReturn:
        try:
            sys.stderr.write(_CAME_BACK)
            sys.stderr.flush()
        finally:
            os._exit(1)

    # What Python itself asks of a class is not asked by `__getattr__`.
    __len__ = __bool__ = __iter__ = __getitem__ = _end

    def __getattr__(self, name: str) -> Any:
        self._end()
