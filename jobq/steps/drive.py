"""Takes steps: answers the requests of `kinds.py`, in a thread or on an event loop."""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
from typing import Any

from jobq._core import callables
from jobq.steps.calls import not_awaited
from jobq.steps.log import Call, Perform, StepLog, Taking
from jobq.steps.store import RestartJob, SetStepsAside, WriteSteps

_WRITES = (WriteSteps, SetStepsAside, RestartJob)


def drive(log: StepLog, taking: Taking) -> Any:
    """Take a step in this thread; return its value. Raises what the step raises."""
    try:
        request = next(taking)
        while True:
            try:
                if isinstance(request, Perform):
                    reply = request.function()
                elif isinstance(request, Call):
                    reply = not_awaited(request.function())
                else:
                    reply = _result(log.store.submit(log.holder, request))
            except BaseException as error:
                request = taking.throw(error)
            else:
                request = taking.send(reply)
    except StopIteration as end:
        return end.value


async def drive_async(log: StepLog, taking: Taking) -> Any:
    """Take a step on an event loop, like `drive`."""
    try:
        request = next(taking)
        while True:
            try:
                if isinstance(request, Perform):
                    reply = await request.function()
                elif not isinstance(request, Call):
                    reply = await _reply(log.store.submit(log.holder, request), kept=isinstance(request, _WRITES))
                elif callables.is_coroutine_function(request.function):
                    reply = await request.function()
                else:
                    # A `def` must not hold up the event loop.
                    reply = await asyncio.to_thread(request.function)
                    if inspect.iscoroutine(reply):  # a `def` around an `async def`
                        reply = await reply
            except BaseException as error:
                request = taking.throw(error)
            else:
                request = taking.send(reply)
    except StopIteration as end:
        return end.value


async def _reply(future: concurrent.futures.Future[Any], *, kept: bool) -> Any:
    """Wait for the store. `kept`: a cancellation waits, too, or the next execution would do the step again."""
    reply = asyncio.wrap_future(future)
    if not kept:
        return await reply
    try:
        return await asyncio.shield(reply)
    except asyncio.CancelledError:
        if not reply.done():
            await asyncio.wait([reply])
        if not reply.cancelled():
            # So that it is not logged as one that nothing has read.
            reply.exception()
        raise


def _result(future: concurrent.futures.Future[Any]) -> Any:
    # In parts, so that a timeout of the job can interrupt the wait.
    while not concurrent.futures.wait([future], 0.5).done:
        pass
    return future.result()
