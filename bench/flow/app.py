"""The tasks that are run. Each execution leaves a line when it starts and one when it ends, by the machine's one clock."""

from __future__ import annotations

import os
import random
import time

from jobq import Backoff, JobQ, current_job, step

q = JobQ()
_ledger = os.open(os.environ.get("FLOW_LEDGER", os.devnull), os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def _note(what: str, group: str, n: int) -> None:
    # One write, which a kill cannot halve.
    os.write(_ledger, f"{what} {group} {n} {current_job().id} {os.getpid()} {time.monotonic():.6f}\n".encode())


@q.task(queue="flow", backoff=Backoff(base=0.05, cap=0.2), max_attempts=1000)
def act(group: str, n: int, seconds: float, failing: float) -> None:
    """Take `seconds`, and fail with the probability `failing`."""
    _note("start", group, n)
    time.sleep(seconds)
    if random.random() < failing:
        _note("fail", group, n)
        raise RuntimeError("as it should now and then")
    _note("end", group, n)


@q.task(queue="flow")
def noop(n: int) -> None: ...


@q.task(queue="plain")
def plain(n: int) -> None: ...


@q.task(queue="plain")
def nothing(n: int) -> None: ...


async def _return_async(n: int) -> int:
    return n


def _return(n: int) -> int:
    return n


@q.task(queue="plain", durable=True)
async def stepping_async(count: int) -> int:
    """Do `count` no-ops, each a step."""
    return sum([await step.run_async(_return_async, n) for n in range(count)])


@q.task(queue="plain", durable=True)
def stepping(count: int) -> int:
    """Do `count` no-ops, each a step."""
    return sum(step.run(_return, n) for n in range(count))


@q.task(queue="plain", durable=True)
async def waiting(n: int) -> float:
    """Wait for a signal that says when it was sent; return how long ago that was."""
    sent = await step.wait_for_async("go", float)
    return time.time() - sent


@q.task(queue="plain", durable=True)
async def sleeping(seconds: float) -> None:
    """Sleep."""
    await step.sleep_async(seconds)
