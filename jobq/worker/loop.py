"""The event loop that the async jobs of a runner share: no job can end it, and no forked process goes on with it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import threading
import time
from typing import Any, NoReturn

from jobq.worker import recursion
from jobq.worker.execution import end_fork

logger = logging.getLogger("jobq.runner")

# A loop that raises this often within a second is broken: a job has closed its descriptors.
_BREAKS = 10
_CAME_BACK = (
    "jobq: a process forked in a coroutine came back to its parent's event loop, and was ended: let it end by os._exit(), or "
    "use multiprocessing or subprocess\n"
)
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
                    with contextlib.suppress(Exception):
                        logger.warning("%s was raised on the event loop, which goes on", type(error).__name__)
                    continue
                now = time.monotonic()
                broken = [*(at for at in broken if now - at < 1.0), now]
                if len(broken) >= _BREAKS:
                    raise
                with contextlib.suppress(Exception):
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
            self._ready = _Over()


class _Over:
    """Stands for a loop's queue of callbacks. Whatever is done with it ends the process."""

    def _end(self, *_: object) -> NoReturn:
        try:
            sys.stderr.write(_CAME_BACK)
            sys.stderr.flush()
        finally:
            os._exit(1)

    append = appendleft = extend = popleft = clear = __len__ = __bool__ = __iter__ = __getitem__ = _end
