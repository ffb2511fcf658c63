"""The end of a runner: at once, or in good order.

Good order means the way in which a program ends that returns from its main function.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import logging
import os
import threading
from collections.abc import Callable
from time import sleep
from typing import NoReturn

from jobq._core import output
from jobq._worker.ipc.runner_config import LEAVE_WITHIN
from jobq._worker.ipc.slot_table import SlotTable
from jobq._worker.processes.process_group import kill_own_group
from jobq._worker.runner.event_loop import JobLoop
from jobq._worker.runner.lifecycle import Lifecycle
from jobq.app import JobQ

logger = logging.getLogger("jobq.runner")

# Seconds for coroutines left behind; for threads, before the exit handlers run. The application's
# stop code and the exit handlers have no limits of their own: they run in the main thread, which
# nothing can interrupt. They share LEAVE_WITHIN with these.
_TASKS_WITHIN = 1.0
_THREADS_WITHIN = 2.0
# Maximum seconds for logging that the lease has ended.
_LEASE_WORDS = 0.1


def exit_now(status: int) -> NoReturn:
    """End at once. In an ordinary exit, threads in user code would delay the end, possibly forever."""
    try:
        output.finish()
    finally:
        os._exit(status)


def heed_lease(table: SlotTable, now: float) -> None:
    """End the runner if the dispatcher has not extended the lease in time.

    Another worker may be about to run its jobs.
    """
    ends = table.lease_ends
    if ends and now > ends:
        table.end_by_lease(ends)
        logger.error("the dispatcher's lease has run out: ending")
        # Wait only briefly, because the jobs still run. But after the group is killed, nothing
        # can be written.
        output.finish(_LEASE_WORDS, streams=False)
        kill_own_group()
        exit_now(75)


def end_in_time(doing: Callable[[], str]) -> NoReturn:
    """End at once if the end in good order takes too long. `doing` tells the present step."""
    sleep(LEAVE_WITHIN)
    logger.error(
        "the runner has not ended in time: it ends at once",
        extra={"doing": doing(), "seconds": LEAVE_WITHIN},
    )
    exit_now(0)


def leave(loop: JobLoop, app: JobQ, lifecycle: Lifecycle) -> NoReturn:
    """End in good order.

    This closes the application's resources, calls its stop functions, ends coroutines and threads,
    runs `atexit` handlers and flushes the streams. The main thread calls it when no job runs.
    Another thread limits its time: see `LEAVE_WITHIN`.
    """
    try:
        # This comes first: closing resources may need coroutines.
        lifecycle.stop()
        with contextlib.suppress(BaseException):
            loop.run_alone(_end_tasks(app))
        # Do the same as the interpreter at its end, but within limits: shut down executors, wait
        # for threads.
        threads = threading.Thread(target=_end_threads, daemon=True)
        threads.start()
        threads.join(_THREADS_WITHIN)
        # Do not finalize the interpreter: that would free objects that threads in user code are
        # using.
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
    # Do not use `threading._shutdown`: if another thread calls it, it waits for the end of the main
    # thread.
    for shut_down in reversed(getattr(threading, "_threading_atexits", [])):
        with contextlib.suppress(BaseException):
            shut_down()
    ours = {threading.main_thread(), threading.current_thread()}
    while left := [thread for thread in threading.enumerate() if not thread.daemon and thread not in ours]:
        left[0].join()


# At least half of the time is left for the application's code.
assert LEAVE_WITHIN / 2 >= 2 * _TASKS_WITHIN + _THREADS_WITHIN
