"""An application whose durable tasks end their runner, or do not end in time, after steps that can be undone."""

from __future__ import annotations

import ctypes
import os
import signal
from pathlib import Path

from jobq import Fail, JobQ, step
from tests.apps.durable import exists, trace

q = JobQ()


def die(path: str) -> None:
    trace(path, "dies")
    os.kill(os.getpid(), signal.SIGKILL)


def hang(path: str) -> None:
    trace(path, "hangs")
    ctypes.PyDLL(None).sleep(3600)


@q.task(durable=True, backoff=[0.05], max_attempts=1)
def deadly_saga(path: str, last: str, undo_dies: int = 0) -> str:
    """Two steps that can be undone; then it dies, hangs, or waits. The undo of the first one may die, so often."""

    def undo_first(number: int) -> None:
        if Path(path).read_text().splitlines().count("undo dies") < undo_dies:
            trace(path, "undo dies")
            os.kill(os.getpid(), signal.SIGKILL)
        trace(path, f"undo first {number}")

    step.options(undo=undo_first).run(trace, path, "first")
    step.options(undo=lambda number: trace(path, f"undo second {number}")).run(trace, path, "second")
    if last == "die" and not exists(f"{path}.heals"):
        step.run(die, path)
    if last == "hang":
        step.run(hang, path)
    if last == "wait":
        step.wait_for("never", str)
    return "good"


@q.task(durable=True, backoff=[3600.0], max_attempts=3)
def slow_undo(path: str, how: str) -> str:
    """Two steps; the undo of the second one hangs once, or raises once and is tried again after an hour."""

    def undo_second(number: int) -> None:
        if not exists(f"{path}.heals"):
            Path(f"{path}.heals").touch()
            trace(path, f"undo {how}s")
            if how == "raise":
                raise RuntimeError("not yet")
            ctypes.PyDLL(None).sleep(3600)
        trace(path, f"undo second {number}")

    step.options(undo=lambda number: trace(path, f"undo first {number}")).run(trace, path, "first")
    step.options(undo=undo_second).run(trace, path, "second")
    raise Fail("no way")
