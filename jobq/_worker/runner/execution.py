"""One execution of one job under way: what may be asked of it from outside, and how its task is interrupted."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

import msgspec

from jobq.errors import TimedOut
from jobq.worker import tracing
from jobq.worker.forks import end_fork
from jobq.worker.frames import Job


class Execution(msgspec.Struct, kw_only=True, eq=False):
    """An execution under way: what may be asked of it from other threads."""

    job: Job
    worker: UUID
    """In whose name it is claimed."""
    cancelled: bool = False
    stopping: bool = False
    """The worker shuts down: however the task reacts, the job goes back unpunished unless it succeeds."""
    timed_out: bool = False
    """The job's timeout has passed, and it was told so."""
    deadline: float | None = None
    """When its timeout passes, in time.monotonic() seconds."""
    _interrupt: Callable[[], object] | None = None
    _at_timeout: Callable[[], object] | None = None
    _freeing: threading.Thread | None = None
    _thread: int | None = None
    _struck: bool = False
    """Whether TimedOut was sent to the thread."""
    _lock: threading.Lock = msgspec.field(default_factory=threading.Lock)

    def cancel(self, *, stopping: bool) -> None:
        """Tell the task that it should stop. Told again, it is not interrupted again: it may be cleaning up."""
        with self._lock:
            self.stopping = self.stopping or stopping
            already, self.cancelled = self.cancelled, True
            if self._interrupt is not None and not already:
                self._interrupt()

    def interruptible(self, interrupt: Callable[[], object]) -> None:
        """From here on `interrupt` cancels the coroutine; called at once if it should have been already."""
        with self._lock:
            self._interrupt = interrupt
            if self.cancelled:
                interrupt()

    def settled(self) -> None:
        """The coroutine has ended: there is nothing to cancel."""
        with self._lock:
            self._interrupt = None

    def time_out(self) -> None:
        """Its deadline has passed: tell it, and raise TimedOut in the thread that runs the task, once.

        The exception comes when the thread executes its next Python instruction: not during a call into C. A coroutine is
        cancelled by its event loop instead.
        """
        # Not `with`: the thread that the exception hits may hold the lock, and then never release it.
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
                self._strike()
        finally:
            self._lock.release()

    def _free(self, do: Callable[[], object]) -> None:
        do()
        if self._lock.acquire(timeout=1):
            try:
                self._strike()
            finally:
                self._lock.release()

    def _strike(self) -> None:
        if self._thread is not None:
            self._struck = True
            _raise_in(self._thread, TimedOut)

    def at_timeout(self, do: Callable[[], object]) -> None:
        """Have `do` called, in a thread of its own, when the deadline passes: to end a wait that TimedOut cannot reach.

        TimedOut follows: sent first, it would be on its way for as long as the wait.
        """
        with self._lock:
            self._at_timeout = do

    def past_timeout(self) -> bool:
        """From here on nothing is done at a timeout any more; tell whether it was, after waiting for its end."""
        with self._lock:
            self._at_timeout = None
        if self._freeing is None:
            return False
        self._freeing.join()
        return True

    def call(self, function: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
        """Call a task's function in this thread, where TimedOut can hit it, and only it."""
        process = os.getpid()
        try:
            # Without a timeout nothing will hit it.
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
                # The lock may be held by a thread that this process does not have.
                end_fork(sys.exc_info()[1])
            # An exception that is on its way when the lock is taken is withdrawn; one that arrives in these lines is the
            # function's, which has ended at the very moment of its timeout. It comes once, so nothing comes after it.
            with self._lock:
                self._thread, struck = None, self._struck
            if struck:
                _withdraw()


class _Withdrawn(BaseException):
    """Takes the place of an exception that is on its way to this thread."""


def _raise_in(thread: int, error: type[BaseException]) -> None:
    """Raise `error` in a thread as soon as it executes Python code, instead of one that is on its way to it."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(error))


def _withdraw() -> None:
    """See to it that no exception is on its way to this thread.

    Not by setting NULL, which the C function offers: up to Python 3.12 that leaves the interpreter's sign up that there is
    something to raise, for ever. Every call is slower from then on, and where functions are traced the first one hangs.
    """
    try:
        _raise_in(threading.get_ident(), _Withdrawn)
        while True:
            time.sleep(0)
    except _Withdrawn:
        pass
