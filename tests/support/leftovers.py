"""An application whose tasks leave something behind in their process that is not theirs alone."""

from __future__ import annotations

import asyncio
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

from jobq import Backoff, JobQ, current_job

q = JobQ()


@q.task
def calm() -> str:
    return "calm"


@q.task
async def calm_async() -> int:
    return await asyncio.to_thread(int, "1")


class Exiting(Backoff):
    def delay(self, attempt: int) -> float:
        sys.exit(attempt)


class Asking(Backoff):
    """Valid where jobs run, and nowhere else."""

    def delay(self, attempt: int) -> float:
        return 0.01 * current_job().attempt


class Odd(Exception):
    """One that cannot be looked at."""

    @property
    def __traceback__(self) -> NoReturn:  # type: ignore[override]
        sys.exit(3)


@q.task(max_attempts=1, backoff=Exiting())
def exit_in_backoff(kind: str) -> None:
    raise Odd if kind == "odd" else ValueError(kind)


@q.task(max_attempts=2, backoff=Exiting())
async def exit_in_backoff_async() -> None:
    raise ValueError


@q.task(max_attempts=2, backoff=Asking())
def ask_in_backoff() -> None:
    raise ValueError


@q.task(max_attempts=1)
async def set_task_factory(kind: str) -> None:
    def raising(*_: Any, **__: Any) -> NoReturn:
        raise ValueError(kind)

    def without_context(loop: Any, coroutine: Any) -> Any:
        return asyncio.Task(coroutine, loop=loop)

    asyncio.get_running_loop().set_task_factory(raising if kind == "raising" else without_context)


@q.task(max_attempts=1)
async def shut_default_executor() -> str:
    with ThreadPoolExecutor(1) as executor:
        asyncio.get_running_loop().set_default_executor(executor)
        return await asyncio.to_thread(str, "done")


def _noise(frame: Any, _event: str, _argument: Any) -> Any:
    """Raise in the code of jobq that runs once the task's function has ended."""
    if frame.f_code.co_filename.endswith(("/runner.py", "/slots.py", "/outbox.py", "/stock.py")):
        raise ValueError("traced")
    return _noise


@q.task(max_attempts=1)
def leave_tracer(kind: str, fails: bool) -> None:
    (sys.settrace if kind == "trace" else sys.setprofile)(_noise)
    if fails:
        raise ValueError


@q.task(max_attempts=1)
async def leave_tracer_async(kind: str, fails: bool) -> None:
    (sys.settrace if kind == "trace" else sys.setprofile)(_noise)
    if fails:
        raise ValueError


@q.task(max_attempts=1)
def put_runner_clock_ahead() -> None:
    """As libraries do that replace such functions in every module that has imported them."""
    names = vars(sys.modules["__main__"])
    monotonic = names["monotonic"]
    names["monotonic"] = lambda: monotonic() + 1000.0
    time.sleep(3600)


@q.task(max_attempts=1)
def put_clock_ahead() -> str:
    """As libraries do that freeze the time, and do not always set it right again."""
    monotonic = time.monotonic
    time.monotonic = lambda: monotonic() + 1000.0
    return "ahead"
