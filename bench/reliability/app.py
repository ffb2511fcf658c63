"""The tasks that are run. Each execution leaves a line in the ledger, by the machine's one clock. The poisons: poisons.py."""

from __future__ import annotations

import os
import time

from jobq import Backoff, JobQ, Snooze, current_job

q = JobQ()
_ledger = os.open(
    os.environ.get("RELIABILITY_LEDGER", os.devnull), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
)


def note(what: str, label: str = "-") -> None:
    """Append a line in one write, which a kill cannot halve."""
    job = current_job()
    # After os.closerange() by a poisoned job the descriptor may belong to another thread or be closed.
    os.write(_ledger, f"{what} {label} {job.id} {os.getpid()} {time.monotonic():.6f}\n".encode())


@q.task(queue="good")
def good(n: int) -> None:
    note("good", str(n))


@q.task
def noop() -> None: ...


@q.task
def short(seconds: float) -> None:
    note("start")
    time.sleep(seconds)
    note("end")


@q.task(queue="long")
def long(seconds: float) -> None:
    """Hold a slot; longer than whatever is done to the worker meanwhile."""
    note("start")
    time.sleep(seconds)
    note("end")


@q.task(backoff=Backoff(base=0.01, cap=0.02), max_attempts=1_000_000)
def failing() -> None:
    raise RuntimeError("again")


@q.task
def snoozing() -> None:
    raise Snooze(0.01)


@q.task
def visit(seconds: float) -> None:
    """Note in which queue this ran, as its claim had it."""
    queue = current_job().queue
    note("start", queue)
    time.sleep(seconds)
    note("end", queue)


import bench.reliability.poisons  # noqa: E402, F401 - its tasks belong to this application
