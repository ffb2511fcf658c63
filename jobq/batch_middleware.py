"""Middleware around the calls of batch tasks.

`run` takes one job, and a batch task has many in one call. So such a call has forms of its own:
``run_batch(batch, call_next)`` around a ``def``, ``run_batch_async`` around an ``async def``. It is
called once for a batch, not once for a job. What ``call_next`` returns is what the function has
returned: None, or a list in which an exception is the failure of one job.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Protocol, TypeAlias

from jobq.batch import CurrentBatch, current_batch
from jobq.errors import MiddlewareError

BatchRunNext: TypeAlias = Callable[[CurrentBatch], Any]
"""Type of `call_next` in `run_batch`.

It calls the next layer, finally the task, and returns its result.
"""
AsyncBatchRunNext: TypeAlias = Callable[[CurrentBatch], Awaitable[Any]]
"""The type of `call_next` in `run_batch_async`."""


class BatchRunMiddleware(Protocol):
    """An object with a method around each call of a ``def`` batch task."""

    def run_batch(self, batch: CurrentBatch, call_next: BatchRunNext, /) -> Any:
        """Return the task's result: the value of ``call_next(batch)``, or another."""


class AsyncBatchRunMiddleware(Protocol):
    """An object with a method around each call of an ``async def`` batch task."""

    async def run_batch_async(self, batch: CurrentBatch, call_next: AsyncBatchRunNext, /) -> Any:
        """Return the task's result, like `BatchRunMiddleware.run_batch`."""


def around(forms: Sequence[Callable[..., Any]], function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function that runs a batch: `function` inside `forms`, the outermost first."""
    if not forms:
        return function

    def outermost(**arguments: Any) -> Any:
        running = current_batch()

        def innermost(batch: CurrentBatch, /) -> Any:
            if batch is not running:
                raise MiddlewareError(
                    "call_next(batch): pass the batch that the middleware was given; a run changes no job"
                )
            return function(**arguments)

        call: BatchRunNext = innermost
        for form in reversed(forms):
            call = partial(_run, form, call)
        return call(running)

    return outermost


def _run(form: Callable[[CurrentBatch, BatchRunNext], Any], call_next: BatchRunNext, batch: CurrentBatch, /) -> Any:
    return form(batch, call_next)
