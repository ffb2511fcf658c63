"""An application whose durable tasks end their runner, or do not end in time, after steps that can be undone."""

from __future__ import annotations

import ctypes
import os
import signal
from pathlib import Path

from jobq import JobQ, step
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
