"""How a runner ends: at once, or in good order as a program does that returns from its main function."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import threading
from typing import NoReturn

from jobq import output
from jobq.app import JobQ
from jobq.worker.loop import JobLoop
from jobq.worker.spec import LEAVE_WITHIN

# Of LEAVE_WITHIN: what coroutines left behind get to end, and what threads get, before the exit handlers run.
_TASKS_WITHIN = 1.0
_THREADS_WITHIN = 2.0


def exit_now(status: int) -> NoReturn:
    """End at once: threads in user code would keep an ordinary exit waiting, perhaps for ever."""
    try:
        output.finish()
    finally:
        os._exit(status)


def leave(loop: JobLoop, app: JobQ) -> NoReturn:
    """End in good order: coroutines, threads, what the application has registered with `atexit`, the streams.

    Called by the main thread, once no job runs here. Another thread bounds it: see `LEAVE_WITHIN`.
    """
    try:
        with contextlib.suppress(BaseException):
            loop.run_until_complete(_end_tasks(app))
        # As the interpreter does it at its own end, but within bounds: executors are shut down, threads waited for.
        threads = threading.Thread(target=_end_threads, daemon=True)
        threads.start()
        threads.join(_THREADS_WITHIN)
        # Not the interpreter's whole end: it would free what threads in user code are using.
        atexit._run_exitfuncs()
    finally:
        exit_now(0)


async def _end_tasks(app: JobQ) -> None:
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    if left:
        await asyncio.wait(left, timeout=_TASKS_WITHIN)
    with contextlib.suppress(Exception):
        async with asyncio.timeout(_TASKS_WITHIN):
            await app.aclose()


def _end_threads() -> None:
    # Not `threading._shutdown`, which waits for the main thread's end when another thread calls it.
    for shut_down in reversed(getattr(threading, "_threading_atexits", [])):
        with contextlib.suppress(BaseException):
            shut_down()
    ours = {threading.main_thread(), threading.current_thread()}
    while left := [thread for thread in threading.enumerate() if not thread.daemon and thread not in ours]:
        left[0].join()


# Beyond what the main thread needs for all of it.
assert LEAVE_WITHIN > 2 * _TASKS_WITHIN + _THREADS_WITHIN
