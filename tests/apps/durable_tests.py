"""Durable tasks for the tests of jobq.testing; some of them are wrong."""

from __future__ import annotations

import itertools

from jobq import step
from tests.apps.durable import Approval, Declined, broken, double, q, trace, trace_async

calls = itertools.count()


@q.task(durable=True)
def plan(path: str, values: list[int]) -> list[object]:
    """Each kind of step once."""
    step.run(trace, path, "first")
    step.sleep(1800)
    approval = step.wait_for("approval", Approval)
    doubled = step.gather(*(lambda value=value: step.invoke(double.job(value)) for value in values))
    lines = step.run(trace, path, "last")
    return [approval.by, 1, lines, max(doubled)]


@q.task(durable=True)
async def plan_async(path: str, values: list[int]) -> list[object]:
    await step.run_async(trace_async, path, "first")
    await step.sleep_async(1800)
    approval = await step.wait_for_async("approval", Approval)
    doubled = await step.gather_async(*(step.invoke_async(double.job(value)) for value in values))
    lines = await step.run_async(trace_async, path, "last")
    return [approval.by, 1, lines, max(doubled)]


@q.task(durable=True)
def naps(count: int, seconds: float) -> int:
    for _ in range(count):
        step.sleep(seconds)
    return count


@q.task(durable=True)
def sleep_and_wait(seconds: float) -> str:
    _, approval = step.gather(lambda: step.sleep(seconds), lambda: step.wait_for("approval", Approval))
    return approval.by


def fail_once(path: str) -> None:
    if trace(path, "fails") == 1:
        raise Declined(1)


@q.task(durable=True, backoff=[3600])
def wait_beside_failure(path: str) -> str:
    _, approval = step.gather(lambda: step.run(fail_once, path), lambda: step.wait_for("approval", Approval))
    return approval.by


@q.task(durable=True)
def counting(path: str) -> int:
    """Returns how often it was called, in all runs."""
    step.run(trace, path, "step")
    return next(calls)


@q.task(durable=True)
def branching_by_call(path: str) -> None:
    step.run(trace, path, "step")
    if next(calls) % 2:
        step.options(name="odd").run(trace, path, "odd")


@q.task(durable=True)
def argument_by_call(path: str) -> None:
    step.options(name="numbered").run(trace, path, str(next(calls)))


def number(branch: int) -> int:
    return branch


@q.task(durable=True)
def order_dependent(count: int) -> list[int]:
    """Returns in which order its branches have begun."""
    begun: list[int] = []

    def branch(value: int) -> int:
        begun.append(value)
        return step.run(number, value)

    step.gather(*(lambda value=value: branch(value) for value in range(count)))
    return begun


@q.task(durable=True)
def parent_that_fails() -> int:
    return int(step.invoke(broken.options(max_attempts=1).job(3)))
