"""The event loop that the async jobs of a runner share: no job can end it, and no forked process goes on with it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

from jobq.worker import recursion
from jobq.worker.forks import Over, end_fork

logger = logging.getLogger("jobq.runner")

# A loop that raises this often within a second is broken: a job has closed its descriptors.
_BREAKS = 10
_LIKE_EXIT = (SystemExit, KeyboardInterrupt)


class JobLoop(asyncio.SelectorEventLoop):
    """Runs until `leave`, whatever its callbacks and tasks raise."""

    def __init__(self) -> None:
        super().__init__()
        self._leaving = False
        self._process = os.getpid()
        self._thread: int | None = None
        """The thread that serves."""
        os.register_at_fork(after_in_child=self._forked)

    def serve(self) -> None:
        """Run until `leave` is called. Raises what the loop raises when it cannot go on."""
        self._thread = threading.get_ident()
        broken: list[float] = []
        while not self._leaving:
            try:
                self.run_forever()
            except BaseException as error:
                if os.getpid() != self._process:
                    end_fork(error)
                # With a lowered limit even a log record may be too deep.
                recursion.restore()
                if isinstance(error, _LIKE_EXIT):
                    # asyncio lets it through once the task that raised it has it as its result.
                    with contextlib.suppress(BaseException):
                        logger.warning("%s was raised on the event loop, which goes on", type(error).__name__)
                    continue
                now = time.monotonic()
                broken = [*(at for at in broken if now - at < 1.0), now]
                if len(broken) >= _BREAKS:
                    raise
                with contextlib.suppress(BaseException):
                    logger.exception("the event loop has raised an error, and goes on")

    def leave(self) -> None:
        """Let `serve` return. Called from another thread."""
        self._leaving = True
        self.call_soon_threadsafe(self.stop)

    # --- what a job must not do to the others ------------

    def stop(self) -> None:
        """Stop the loop, when the runner ends. Raises RuntimeError before that."""
        self._refuse("stop")
        super().stop()

    def close(self) -> None:
        """Close the loop, when the runner ends. Raises RuntimeError before that."""
        self._refuse("close")
        super().close()

    async def shutdown_asyncgens(self) -> None:
        """Close all asynchronous generators, when the runner ends: they are other jobs', too."""
        if self._leaving:
            await super().shutdown_asyncgens()

    async def shutdown_default_executor(self, *args: Any, **options: Any) -> None:
        """Shut down the threads of `to_thread`, when the runner ends: they are other jobs', too."""
        if self._leaving:
            await super().shutdown_default_executor(*args, **options)

    def set_task_factory(self, factory: Any) -> None:
        """Refuse: it would make the tasks of every job. Raises RuntimeError."""
        self._refuse("set_task_factory")
        super().set_task_factory(factory)

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Call `func` in a thread; in a new default executor, if a job has set one of its own and shut it down."""
        try:
            return super().run_in_executor(executor, func, *args)
        except RuntimeError:
            if executor is not None or self._leaving:
                raise
            self._default_executor: Executor | None = None
            return super().run_in_executor(executor, func, *args)

    def _refuse(self, method: str) -> None:
        if not self._leaving:
            raise RuntimeError(
                f"loop.{method}(): this event loop runs all async jobs of its process; return from the task instead"
            )

    # --- forks -------------------------------------------

    def _forked(self) -> None:
        """In a process that a coroutine has forked: it may go on with what it is doing, and not come back to the loop.

        It has a copy of every other job's coroutine, and would execute their next steps; and it shares the selector with its
        parent, whose events it would take.
        """
        if threading.get_ident() == self._thread:
            self._ready = Over()
