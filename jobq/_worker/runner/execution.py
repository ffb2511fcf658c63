"""One execution of a job under way, and how its task is interrupted."""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

import msgspec

from jobq._core.logs.attempt import AttemptLog
from jobq._worker.ipc.messages import Job
from jobq._worker.runner.interpreter import tracing
from jobq._worker.runner.interpreter.forks import end_fork
from jobq.errors import TimedOut
from jobq.steps.log import StepLog

Tracebacks = dict[int, tuple[BaseException, str]]
"""Errors and their formatted tracebacks, by `id` of the error.

An entry keeps its error alive: the next error could get the id of one that is gone.
"""


class Execution(msgspec.Struct, kw_only=True, eq=False):
    """An execution under way, with the methods that other threads may call."""

    job: Job
    worker: UUID
    """The worker in whose name the job is claimed."""
    cancelled: bool = False
    stopping: bool = False
    """Whether the worker shuts down.

    Unless the task succeeds, the job goes back and its attempt is not counted.
    """
    draining: bool = False
    """Whether the worker has begun to shut down, and lets the task go on for a while."""
    timed_out: bool = False
    """Whether the job's timeout has passed and the task was notified."""
    deadline: float | None = None
    """When the timeout passes, in time.monotonic() seconds; None for no timeout."""
    durable: bool = False
    """Whether its task is known to work in steps."""
    is_undoing: bool = False
    """Whether its steps are being undone: it is not interrupted any more."""
    steps: StepLog | None = None
    """The steps of a durable job, once its task has asked for the current job."""
    flow: object = None
    """The thread (its identifier) or the asyncio task that calls the task's function."""
    log: AttemptLog | None = None
    """The newest log records of the task, if they are kept; None until the first record."""
    tracebacks: Tracebacks | None = None
    """The formatted tracebacks of errors with which several jobs of a call end; None: reuse none."""
    _interrupt: Callable[[], object] | None = None
    _is_interrupted: bool = False
    _at_timeout: Callable[[], object] | None = None
    _freeing: threading.Thread | None = None
    _thread: int | None = None
    _struck: bool = False
    """Whether TimedOut was sent to the thread."""
    _lock: threading.Lock = msgspec.field(default_factory=threading.Lock)

    def cancel(self, *, stopping: bool) -> None:
        """Ask the task to stop.

        A second call does not interrupt the task again, because it may be cleaning up.
        """
        with self._lock:
            self.stopping = self.stopping or stopping
            self.cancelled = True
            self._interrupt_once()

    def _interrupt_once(self) -> None:
        if self._interrupt is None or self._is_interrupted or self.is_undoing:
            return
        if (
            self.durable
            and self.job.claims > 1
            and not self.stopping
            and (self.steps is None or self.steps.is_catching_up)
        ):
            # It comes to the steps that may have to be undone, and ends at the next new one. The
            # request is repeated, and interrupts it if it is there by then.
            return
        self._is_interrupted = True
        self._interrupt()

    def is_aside(self) -> bool:
        """Whether the caller is another thread or asyncio task than that in which the task was called."""
        try:
            current: object = asyncio.current_task()
        except RuntimeError:  # no event loop runs in this thread
            current = None
        return (threading.get_ident() if current is None else current) != self.flow

    def interruptible(self, interrupt: Callable[[], object]) -> None:
        """Set the function that cancels the coroutine.

        If the task is already cancelled, call it at once.
        """
        with self._lock:
            self._interrupt = interrupt
            if self.cancelled:
                self._interrupt_once()

    def settled(self) -> None:
        """Note that the coroutine has ended and cannot be cancelled any more."""
        with self._lock:
            self._interrupt = None

    def time_out(self) -> None:
        """Note that the deadline has passed, and raise TimedOut once in the task's thread.

        The exception comes when the thread executes its next Python instruction, not during a call
        into C. A coroutine is cancelled by its event loop instead.
        """
        # Do not use `with`: the interrupted thread may hold the lock and then never release it.
        if self.timed_out or not self._lock.acquire(timeout=0.01):
            return
        try:
            self.timed_out = True
            if self._at_timeout is not None:
                self._freeing = threading.Thread(
                    target=self._free, args=(self._at_timeout,), name="jobq-timeout", daemon=True
                )
                self._freeing.start()
            else:
                self._raise_timeout()
        finally:
            self._lock.release()

    def _free(self, do: Callable[[], object]) -> None:
        do()
        if self._lock.acquire(timeout=1):
            try:
                self._raise_timeout()
            finally:
                self._lock.release()

    def _raise_timeout(self) -> None:
        if self._thread is not None:
            self._struck = True
            _raise_in(self._thread, TimedOut)

    def at_timeout(self, do: Callable[[], object]) -> None:
        """Call `do`, in a separate thread, when the deadline passes.

        This ends a wait that TimedOut cannot interrupt. TimedOut follows. If it were sent first, it
        would stay pending for as long as the wait.
        """
        with self._lock:
            self._at_timeout = do

    def past_timeout(self) -> bool:
        """Disable `at_timeout`.

        If its function was called, wait until it has ended. Return whether it was called.
        """
        with self._lock:
            self._at_timeout = None
        if self._freeing is None:
            return False
        self._freeing.join()
        return True

    def call(self, function: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
        """Call a task's function in this thread, where TimedOut can interrupt only this function."""
        process = os.getpid()
        try:
            # Without a timeout, nothing can interrupt it.
            return function(**arguments) if self.job.timeout is None else self._call_in_time(function, arguments)
        finally:
            if os.getpid() != process:
                end_fork(sys.exc_info()[1])
            if sys.gettrace() is not None or sys.getprofile() is not None:
                tracing.restore()

    def _call_in_time(self, function: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
        process = os.getpid()
        try:
            with self._lock:
                if self.timed_out:
                    raise TimedOut
                self._thread = threading.get_ident()
            return function(**arguments)
        finally:
            if os.getpid() != process:
                # The lock may be held by a thread that does not exist in this process.
                end_fork(sys.exc_info()[1])
            # An exception that is pending when the lock is taken is cleared. An exception that
            # arrives in these lines belongs to the function, which ended at the moment of its
            # timeout. TimedOut is sent only once, so no other follows.
            with self._lock:
                self._thread, struck = None, self._struck
            if struck:
                _clear_pending()


class _Withdrawn(BaseException):
    """Replaces a pending exception of this thread."""


def _raise_in(thread: int, error: type[BaseException]) -> None:
    """Raise `error` in a thread when it next executes Python code.

    This replaces a pending exception.
    """
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(error))


def _clear_pending() -> None:
    """Clear any pending exception of this thread.

    Setting NULL, which the C function allows, does not work: up to Python 3.12 the interpreter's
    flag for pending exceptions then stays set permanently. Every later call is slower, and where
    functions are traced the first call hangs.
    """
    try:
        _raise_in(threading.get_ident(), _Withdrawn)
        while True:
            time.sleep(0)
    except _Withdrawn:
        pass
