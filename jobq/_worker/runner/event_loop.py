"""The event loop that the async jobs of a runner share.

No job can end it, and no forked process continues with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor, Future
from contextvars import copy_context
from typing import Any

from jobq._worker.runner.execution import Execution
from jobq._worker.runner.interpreter import recursion
from jobq._worker.runner.interpreter.forks import Over, end_fork

logger = logging.getLogger("jobq.runner")

# A loop that raises this many errors within a second is broken: a job has closed its descriptors.
_BREAKS = 10
_LIKE_EXIT = (SystemExit, KeyboardInterrupt)


class JobLoop(asyncio.SelectorEventLoop):
    """An event loop that runs until `leave`, whatever its callbacks and tasks raise."""

    def __init__(self) -> None:
        super().__init__()
        self._leaving = False
        self._alone = False
        """Whether it runs a single coroutine of jobq, before or after the jobs."""
        self._process = os.getpid()
        self._thread: int | None = None
        """The thread that runs `serve`."""
        self._context = copy_context()
        os.register_at_fork(after_in_child=self._forked)

    def serve(self) -> None:
        """Run until `leave` is called. If the loop cannot continue, raises its error."""
        self._thread = threading.get_ident()
        broken: list[float] = []
        while not self._leaving:
            try:
                self.run_forever()
            except BaseException as error:
                if os.getpid() != self._process:
                    end_fork(error)
                # With a lowered limit, even a log record may need too much depth.
                recursion.restore()
                if isinstance(error, _LIKE_EXIT):
                    # asyncio lets it through after it has become the result of the task that raised
                    # it.
                    with contextlib.suppress(BaseException):
                        logger.warning("%s was raised on the event loop, which goes on", type(error).__name__)
                    continue
                now = time.monotonic()
                broken = [*(at for at in broken if now - at < 1.0), now]
                if len(broken) >= _BREAKS:
                    raise
                with contextlib.suppress(BaseException):
                    logger.exception("the event loop has raised an error, and goes on")

    def run_alone(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run `coroutine` to its end, before or after `serve`, and return its result.

        It runs in the same context as the others.
        """
        self._alone = True
        try:
            return self.run_until_complete(asyncio.Task(coroutine, loop=self, context=self._context))
        finally:
            self._alone = False

    def run_for(self, execution: Execution, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run `coroutine` for `execution` and wait until it has really ended.

        A cancelled coroutine may clean up for a long time. Called from another thread.
        """
        ended: Future[Any] = Future()

        async def guarded() -> None:
            try:
                ended.set_result(await coroutine)
            except BaseException as error:
                # Keep the error here. In the loop, a SystemExit would end the loop.
                ended.set_exception(error)

        def never_begun(_: asyncio.Task[None]) -> None:
            # A task cancelled before its first step never enters `guarded`.
            if not ended.done():
                ended.set_exception(asyncio.CancelledError())

        def start() -> None:
            task = asyncio.Task(guarded(), loop=self)
            task.add_done_callback(never_begun)
            execution.interruptible(lambda: self.call_soon_threadsafe(task.cancel))

        # Use the slot's context, where current_job() is set.
        self.call_soon_threadsafe(start, context=copy_context())
        try:
            return ended.result()
        finally:
            execution.settled()
            coroutine.close()

    def leave(self) -> None:
        """Make `serve` return. Called from another thread."""
        self._leaving = True
        self.call_soon_threadsafe(self.stop)

    # --- what a job must not do to the others ------------

    def stop(self) -> None:
        """Stop the loop when the runner ends. Before that, raises RuntimeError."""
        self._refuse("stop")
        super().stop()

    def close(self) -> None:
        """Close the loop when the runner ends. Before that, raises RuntimeError."""
        self._refuse("close")
        super().close()

    async def shutdown_asyncgens(self) -> None:
        """Close all asynchronous generators when the runner ends.

        Before that, do nothing: they also belong to other jobs.
        """
        if self._leaving:
            await super().shutdown_asyncgens()

    async def shutdown_default_executor(self, *args: Any, **options: Any) -> None:
        """Shut down the threads of `to_thread` when the runner ends.

        Before that, do nothing: they also belong to other jobs.
        """
        if self._leaving:
            await super().shutdown_default_executor(*args, **options)

    def set_task_factory(self, factory: Any) -> None:
        """Refuse, because the factory would create the tasks of every job. Raises RuntimeError."""
        self._refuse("set_task_factory")
        super().set_task_factory(factory)

    def run_in_executor(  # type: ignore[override]  # typeshed has the arguments as TypeVarTuple
        self, executor: Executor | None, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Call `func` in a thread.

        If a job has set a default executor and shut it down, use a new one.
        """
        try:
            return super().run_in_executor(executor, func, *args)
        except RuntimeError:
            if executor is not None or self._leaving:
                raise
            self._default_executor: Executor | None = None
            return super().run_in_executor(executor, func, *args)

    def _refuse(self, method: str) -> None:
        # `run_until_complete` stops the loop.
        if not self._leaving and not (self._alone and method == "stop"):
            raise RuntimeError(
                f"loop.{method}(): this event loop runs all async jobs of its process; return from the task instead"
            )

    # --- forks -------------------------------------------

    def _forked(self) -> None:
        """Disable the loop in a process that a coroutine has forked.

        The process may continue with its work, but must not return to the loop. It has a copy of
        every other job's coroutine and would execute their next steps. It also shares the selector
        with its parent and would take the parent's events.
        """
        if threading.get_ident() == self._thread:
            self._ready = Over()
