"""The steps of the durable job that is run here."""

from __future__ import annotations

from functools import partial

from jobq.context import current_job
from jobq.errors import NoCurrentJob, NotDurable
from jobq.steps.calls import checked_at_call
from jobq.steps.log import StepLog


def step_log(method: str, *, is_async: bool) -> StepLog:
    """Return the log of the job that is run here. Raises NotDurable."""
    try:
        job = current_job()
    except NoCurrentJob:
        raise NotDurable(
            f"step.{method}: no durable job is run here: call it in a task with @q.task(durable=True) that a worker runs"
        ) from None
    log = job.steps
    if not isinstance(log, StepLog):
        raise NotDurable(f"step.{method}: task {job.task!r} is not durable: define it with @q.task(durable=True)")
    if log.is_async != is_async:
        fix = method.removesuffix("_async") if is_async else f"{method}_async"
        raise NotDurable(
            f"step.{method}: task {job.task!r} is {'an `async def`' if log.is_async else 'a `def`'}: "
            f"use {'await ' if log.is_async else ''}step.{fix}"
        )
    return log


for_async_tasks = checked_at_call(partial(step_log, is_async=True))
"""Decorates the methods for async tasks: a call in a `def` task raises NotDurable at once, not when it is awaited."""
