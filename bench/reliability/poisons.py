"""Jobs that misbehave. Each may cost itself and nothing else. poison.py enqueues them."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import signal
import subprocess
import sys
import time
from typing import Any

from bench.reliability.app import q
from jobq import Backoff, Snooze, current_job

QUICK = Backoff(base=0.05, cap=0.2)
poison = q.task(queue="poison", backoff=QUICK, max_attempts=2)


# --- what the database refuses --------------------


@poison
def refused() -> None:
    """A row of the application's refers to its row, which cannot be deleted for it."""


@poison
def unwanted() -> None:
    """A trigger of the operator's refuses its row of history."""


@poison
def sly_snooze() -> None:
    snooze = Snooze(1)
    snooze.seconds = 1e15
    raise snooze


@poison
def nul_text() -> None:
    raise ValueError("a NUL \x00, a lone surrogate \ud800")


@poison
def wrong_progress() -> None:
    current_job().progress(2**70, 1)


@poison
def wrong_result() -> Any:
    return {"not a number": float("nan"), "unknown": object()}


@poison
def huge_result() -> str:
    return "x" * 60_000_000


@poison
def noisy() -> None:
    """Log and print lines of 5 MB."""
    logging.getLogger("noisy").error("%s", "x" * 5_000_000)
    print("y" * 5_000_000)
    raise ValueError("z" * 5_000_000)


# --- what harms its process --------------------


@q.task(queue="poison", timeout=1.0, max_attempts=1)
def hanging() -> None:
    time.sleep(3600)


@q.task(queue="poison", timeout=1.0, max_attempts=1)
def keeps_the_interpreter() -> None:
    ctypes.PyDLL(None).sleep(3600)


@q.task(queue="poison", timeout=1.0, max_attempts=1)
async def ignores_cancelling() -> None:
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            continue


@q.task(queue="poison", timeout=1.0, max_attempts=1)
def leaves_a_program() -> None:
    subprocess.run(["sleep", "3600"], check=False)


@poison
def segfault() -> None:
    ctypes.string_at(0)


@poison
def closes_descriptors() -> str:
    os.closerange(3, 1000)
    return "done"


@poison
def kills_its_group() -> None:
    os.killpg(os.getpgrp(), signal.SIGKILL)


@poison
def ends_its_group() -> None:
    os.killpg(os.getpgrp(), signal.SIGTERM)
    time.sleep(0.2)


@poison
def takes_memory() -> None:
    """Beyond `--max-rss-mb`, and then stay."""
    held = [os.urandom(1) * (8 << 20) for _ in range(80)]
    time.sleep(60)
    del held


@poison
async def exit_in_a_child_task() -> None:
    async def part() -> None:
        sys.exit(4)

    await asyncio.gather(part())


@poison
async def stops_the_loop() -> None:
    asyncio.get_running_loop().stop()
    await asyncio.sleep(0.05)


class Odd(Exception):
    def __str__(self) -> str:  # noqa: PLE0307 - it is the case
        sys.exit(3)


@poison
def odd_text() -> None:
    raise Odd


@poison
async def forks() -> None:
    if os.fork() == 0:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0)


@poison
def plain_error() -> None:
    raise RuntimeError("as any")


@poison
def no_parameters() -> None:
    """Is called with a parameter that it does not have."""


@poison
def counted() -> None:
    """Its row's counters are at the end of their type."""
