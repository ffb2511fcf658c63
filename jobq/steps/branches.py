"""`step.gather`: several steps at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from typing import Any, TypeVar, overload

from jobq.steps.calls import check_branch, check_branches
from jobq.steps.current import for_async_tasks
from jobq.steps.current import step_log as _log
from jobq.steps.log import StepLog, branch_order, branch_path, in_branch
from jobq.steps.suspension import Suspended, merged

T = TypeVar("T")
T1 = TypeVar("T1")
T2 = TypeVar("T2")
T3 = TypeVar("T3")
T4 = TypeVar("T4")


class Branches:
    """The steps that wait for several."""

    @overload
    def gather(self, a: Callable[[], T1], b: Callable[[], T2], /) -> tuple[T1, T2]: ...
    @overload
    def gather(self, a: Callable[[], T1], b: Callable[[], T2], c: Callable[[], T3], /) -> tuple[T1, T2, T3]: ...
    @overload
    def gather(
        self, a: Callable[[], T1], b: Callable[[], T2], c: Callable[[], T3], d: Callable[[], T4], /
    ) -> tuple[T1, T2, T3, T4]: ...
    @overload
    def gather(self, /, *branches: Callable[[], T]) -> tuple[T, ...]: ...

    def gather(self, /, *branches: Callable[[], Any]) -> tuple[Any, ...]:
        """Call functions without parameters, and return their results in order.

        They are called one after another, in this thread; those that wait (a sleep, a signal, a child)
        wait together::

            approved, invoice = step.gather(
                lambda: step.wait_for("approval", Approval),
                lambda: step.invoke(bill, order_id),
            )

        If some of them raise, the first error in their order is raised, after all have ended or wait.
        """
        log = _log("gather", is_async=False)
        token = in_branch.set(True)
        found: list[Any] = [None] * len(branches)
        try:
            for number in _order(len(branches)):
                check_branch(branches[number])
                context = copy_context()
                context.run(branch_path.set, (*branch_path.get(), number))
                try:
                    found[number] = context.run(branches[number])
                except (Exception, Suspended) as error:
                    found[number] = error
        finally:
            in_branch.reset(token)
        return _gathered(log, found)

    @overload
    async def gather_async(self, a: Awaitable[T1], b: Awaitable[T2], /) -> tuple[T1, T2]: ...
    @overload
    async def gather_async(self, a: Awaitable[T1], b: Awaitable[T2], c: Awaitable[T3], /) -> tuple[T1, T2, T3]: ...
    @overload
    async def gather_async(
        self, a: Awaitable[T1], b: Awaitable[T2], c: Awaitable[T3], d: Awaitable[T4], /
    ) -> tuple[T1, T2, T3, T4]: ...
    @overload
    async def gather_async(self, /, *branches: Awaitable[T]) -> tuple[T, ...]: ...

    @for_async_tasks
    async def gather_async(self, /, *branches: Awaitable[Any]) -> tuple[Any, ...]:
        """Await several at once, and return their results in order.

        Use it in place of ``asyncio.gather``: if one of them waits, the others go on until they have
        ended or wait, too. If some of them raise, the first error in their order is raised, after all
        have ended or wait.
        """
        log = _log("gather_async", is_async=True)
        check_branches(branches)
        token = in_branch.set(True)
        try:
            tasks = {
                number: asyncio.ensure_future(_awaited(branches[number], number)) for number in _order(len(branches))
            }
        finally:
            in_branch.reset(token)
        in_order = [tasks[number] for number in range(len(branches))]
        return _gathered(log, await asyncio.gather(*in_order, return_exceptions=True))


def _order(count: int) -> list[int]:
    """Return in which order the branches of a gather begin."""
    order = branch_order.get()
    return list(range(count)) if order is None else order(count)


async def _awaited(branch: Awaitable[Any], number: int) -> Any:
    branch_path.set((*branch_path.get(), number))
    return await branch


def _gathered(log: StepLog, found: list[Any]) -> tuple[Any, ...]:
    errors = [each for each in found if isinstance(each, BaseException) and not isinstance(each, Suspended)]
    # What ends the execution whatever the task does comes before errors that the task may catch.
    for each in sorted(errors, key=lambda error: isinstance(error, Exception)):
        log.raised_together(each, [other for other in errors if isinstance(other, Exception) and other is not each])
        raise each
    if waiting := [each for each in found if isinstance(each, Suspended)]:
        both = merged(waiting)
        log.suspend(both.seconds, waits=both.waits)
    return tuple(found)
