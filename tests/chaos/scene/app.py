"""The application under attack. A task does what its plan says, one step an execution, and writes the ledger.

A plan is indexed by execution and not by attempt: a crash gives its attempt back, so a job whose plan is to crash once
must know that it has.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import re
import time

from jobq import Backoff, Cancel, Fail, JobQ, Snooze, current_job
from tests.chaos.scene import ledger

q = JobQ()

FAST = Backoff(base=0.05, cap=0.5)
OLD, NEW = "old", "new"


@q.task(backoff=FAST)
def act(token: str, plan: list[str]) -> str:
    """Do the plan's step for this execution; its last step again and again when there are more executions."""
    with ledger.here().execution(token) as running:
        step, _, size = plan[min(running.earlier, len(plan) - 1)].partition(":")
        if step == "big":
            running.how = "unstorable"
        return _do(step, float(size or 0))


@q.task(backoff=FAST)
async def act_async(token: str, plan: list[str]) -> str:
    """The same on the runner's event loop."""
    with ledger.here().execution(token) as running:
        step, _, size = plan[min(running.earlier, len(plan) - 1)].partition(":")
        if step in ("sleep", "stubborn"):
            await asyncio.sleep(float(size))
            return step
        await asyncio.sleep(0)
        return _do(step, float(size or 0))


@q.task(backoff=FAST)
def latest(key: str, version: int) -> None:
    """Note which version of what was wanted under `key` this execution has found."""
    ledger.here().write("version", key=key, version=version, job=current_job().id)


@q.task
def quiet() -> None:
    """Leave no trace."""


def _do(step: str, size: float) -> str:
    match step:
        case "ok":
            pass
        case "sleep":
            _sleep(size)
        case "stubborn":
            time.sleep(size)
        case "error":
            raise ValueError("as planned")
        case "nul":
            raise ValueError("a NUL \x00, a lone surrogate \ud800, and \U0001f600")
        case "fail":
            raise Fail("as planned")
        case "cancel":
            raise Cancel("as planned")
        case "snooze":
            raise Snooze(size)
        case "leave":
            raise SystemExit("as planned")
        case "exit":
            os._exit(3)
        case "segfault":
            ctypes.string_at(0)
        case "group":
            # As one who ends a program that he has started and forgotten to give a group of its own.
            os.killpg(os.getpgrp(), int(size))
            time.sleep(1)
        case "log":
            # With its traceback, the dispatcher logs as much again.
            logging.getLogger("chaos").error("%s", "x" * int(size))
            raise ValueError("y" * int(size))
        case "hang":
            # In C, with the GIL: no thread of the runner runs any more.
            ctypes.PyDLL(None).sleep(600)
        case "spin":
            # A regular expression that backtracks for ever keeps the GIL, and a CPU, all the while.
            re.match(r"(a+)+$", "a" * 64 + "b")
        case "grow":
            _grow(int(size))
        case "big":
            return "x" * int(size)
        case _:
            raise Fail(f"no step {step!r}")
    return step


def _sleep(seconds: float) -> None:
    """Wait; stop when an operator asks."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        if current_job().cancelled:
            raise Cancel("asked to")
        time.sleep(min(left, 0.02))


def _grow(mebibytes: int) -> None:
    """Take that much memory, and keep it until told otherwise by force."""
    held = []
    for _ in range(mebibytes // 8):
        held.append(os.urandom(1) * (8 << 20))
        time.sleep(0.005)
    time.sleep(600)


# Two versions of one application: each knows a task that the other does not.
if os.environ.get("CHAOS_VERSION") in (None, OLD):

    @q.task(backoff=FAST)
    def act_old(token: str, plan: list[str]) -> str:
        """Of the version before."""
        return act(token, plan)


if os.environ.get("CHAOS_VERSION") in (None, NEW):

    @q.task(backoff=FAST)
    def act_new(token: str, plan: list[str]) -> str:
        """Of the version after."""
        return act(token, plan)
