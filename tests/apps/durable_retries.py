"""Durable tasks that fail until a file is there, for the retries of operators."""

from __future__ import annotations

from pathlib import Path

from jobq import Fail, step
from tests.apps.durable import Declined, q, trace, trace_async


def is_good(path: str) -> bool:
    return Path(f"{path}.good").exists()


def gated(path: str, what: str) -> str:
    trace(path, what)
    if not is_good(path):
        raise Declined(len(what))
    return what


async def gated_async(path: str, what: str) -> str:
    return gated(path, what)


@q.task(durable=True)
def after_one(path: str, attempts: int) -> str:
    step.run(trace, path, "first")
    return step.options(max_attempts=attempts, backoff=[3600]).run(gated, path, "try")


@q.task(durable=True, max_attempts=1)
def in_branches(path: str) -> list[object]:
    once = step.options(max_attempts=1)
    return list(
        step.gather(
            lambda: once.run(gated, path, "branch 0"),
            lambda: step.run(trace, path, "branch 1"),
            lambda: once.run(gated, path, "branch 2"),
        )
    )


@q.task(durable=True, max_attempts=1)
async def in_branches_async(path: str) -> list[object]:
    once = step.options(max_attempts=1)
    return list(
        await step.gather_async(
            once.run_async(gated_async, path, "branch 0"),
            step.run_async(trace_async, path, "branch 1"),
            once.run_async(gated_async, path, "branch 2"),
        )
    )


@q.task(durable=True, max_attempts=1)
def compensating(path: str) -> None:
    """Catches a failure, undoes something, and then fails."""
    try:
        step.options(max_attempts=1).run(gated, path, "declined")
    except Declined as error:
        step.run(trace, path, "refunded")
        raise Fail("it was declined") from error


def fails_once(path: str) -> None:
    if trace(path, "fails once") == 1:
        raise Declined(1)


@q.task(durable=True, backoff=[3600])
def branch_fails_once(path: str) -> None:
    step.gather(lambda: step.run(fails_once, path), lambda: step.run(trace, path, "other"))


@q.task(max_attempts=1)
def gated_child(path: str) -> str:
    return gated(path, "child")


@q.task(durable=True)
def parent_of_gated(path: str) -> str:
    return str(step.invoke(gated_child.job(path)))
