"""`step.invoke`: jobs that a durable task runs, and for whose end it waits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, overload

from jobq.job import NewJob
from jobq.steps import kinds
from jobq.steps.calls import Invocable, child_job
from jobq.steps.current import for_async_tasks
from jobq.steps.current import step_log as _log
from jobq.steps.drive import drive, drive_async

P = ParamSpec("P")
R = TypeVar("R")


class Children:
    """The steps that run jobs of other tasks."""

    @overload
    def invoke(self, job: NewJob, /, *, undo: Callable[[Any], object] | None = None) -> Any: ...

    @overload
    def invoke(self, task: Invocable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...

    def invoke(self, target: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Run a job of another task once, wait for its end without a slot, and return its result.

        The job is inserted together with the step. It has its own retries, queue and page::

            receipt = step.invoke(bill, order_id, copies=2)
            parcel = step.invoke(ship.options(queue="slow", timeout=600), order_id)

        Args:
            target: a task, or ``task.options(…)`` without `key` and `run_at`; or a job,
                ``task.job(…)``, whose result has no type for type checkers.
            *args: arguments of the task.
            **kwargs: arguments of the task; with ``task.job(…)``, `undo` as for ``step.options``.

        Raises:
            ChildFailed: the job did not succeed, also in a replay.
            InvalidArguments: the arguments do not fit the task's signature.
            InvalidOption: `target` is anything else, or has an option that cannot be used here.
        """
        log = _log("invoke", is_async=False)
        undo = kwargs.pop("undo", None) if isinstance(target, NewJob) else None
        host, job = log.host, child_job("invoke", target, args, kwargs)
        return drive(log, kinds.invoke(log, job, kinds.Children(host.decoder(job), host.start_child, host.look), undo))

    @overload
    async def invoke_async(self, job: NewJob, /, *, undo: Callable[[Any], object] | None = None) -> Any: ...

    @overload
    async def invoke_async(self, task: Invocable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...

    @for_async_tasks
    async def invoke_async(self, target: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Run a job of another task once and return its result, like `invoke`."""
        log = _log("invoke_async", is_async=True)
        undo = kwargs.pop("undo", None) if isinstance(target, NewJob) else None
        host, job = log.host, child_job("invoke_async", target, args, kwargs)
        taking = kinds.invoke(
            log, job, kinds.Children(host.decoder(job), host.start_child_async, host.look_async), undo
        )
        return await drive_async(log, taking)
