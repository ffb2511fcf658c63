"""Durable tasks beside other parts of jobq: resources, middleware, isolation, timeouts, groups and workflows."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jobq import ChildFailed, CurrentJob, JobQ, Resource, RunNext, current_job, injected, step

q = JobQ()


def trace(path: str, what: str) -> int:
    """Append a line to a file, and return how many it has."""
    with Path(path).open("a") as file:
        file.write(f"{what}\n")
    return len(Path(path).read_text().splitlines())


def process() -> int:
    return os.getpid()


class Mailer:
    def send(self, path: str, text: str) -> int:
        return trace(path, text)


@q.resource
def mailer() -> Iterator[Mailer]:
    yield Mailer()


@q.task(durable=True)
def with_resource(path: str, mail: Resource[Mailer] = injected) -> int:
    """A method of the resource is a step."""
    mail_sent = step.run(mail.send, path, "mail")
    step.sleep(0.1)
    return mail_sent


@q.task(durable=True)
def with_middleware(path: str) -> str:
    step.run(trace, path, "step")
    step.sleep(0.1)
    return "done"


@q.middleware.run(tasks=[with_middleware])
def around(job: CurrentJob, call_next: RunNext) -> Any:
    trace(job.args["path"], "begin")
    try:
        return call_next(job)
    except Exception:
        trace(job.args["path"], "error")
        raise
    finally:
        trace(job.args["path"], "end")


@q.task(durable=True, isolation="process")
def alone(path: str) -> bool:
    first = step.run(process)
    step.sleep(0.1)
    step.run(trace, path, "second")
    return first == os.getpid()


@q.task(durable=True, timeout=1, max_attempts=2, backoff=[0.05])
def slow(path: str) -> str:
    """Its second step takes too long once."""
    step.run(trace, path, "first")
    step.run(slow_once, path)
    return "done"


def slow_once(path: str) -> None:
    trace(path, "second")
    while current_job().attempt == 1:
        time.sleep(0.01)


@q.task(durable=True, timeout=1.5)
def many_waits(count: int) -> int:
    """All waits together take longer than its timeout."""
    for number in range(count):
        step.sleep(0.8, name=f"wait {number}")
    return count


@q.task(durable=True, timeout=1, max_attempts=1)
async def slow_async(path: str) -> str:
    try:
        await step.run_async(trace, path, "first")
        await step.wait_for_async("never", int)
    finally:
        trace(path, "finally")
    return "done"


@q.task(queue="ordered", groups="ordered", durable=True)
def in_order(path: str, number: int) -> int:
    step.run(trace, path, f"begin {number}")
    step.sleep(0.3)
    step.run(trace, path, f"end {number}")
    return number


@q.task(durable=True)
def approve(amount: int) -> int:
    return step.wait_for("approved", int) + amount


@q.task
def double(value: int) -> int:
    return 2 * value


@q.task(durable=True)
def invokes(value: int) -> list[int]:
    first = step.invoke(double, value)
    second = step.invoke(double.options(queue="other", priority=9), first)
    try:
        step.invoke(refuses, second)
    except ChildFailed as error:
        told = str(error)
        step.options(name="told").run(lambda: told)
    return [first, second]


@q.task(max_attempts=1)
def refuses(value: int) -> int:
    raise ValueError(f"no {value}")
