"""The runner: a process that imports the application and executes its jobs. `python -m jobq.worker.runner` by a dispatcher.

Threads, so that none waits for another: the main thread runs the event loop of async tasks; one reader takes frames from
the dispatcher; one writer sends what has ended, as many outcomes a frame as there are; each slot executes one job at a
time. User code can hang every one of its slots without delaying the dispatcher, which watches the slot table from outside.
The runner ends when its socket closes: a dispatcher that is gone has no use for results.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Coroutine
from concurrent.futures import Future
from contextvars import copy_context
from queue import Empty, SimpleQueue
from typing import Any, NoReturn

import msgspec

from jobq import logs
from jobq.app import load
from jobq.worker import frames
from jobq.worker.execution import Execution, Executor, Outcome, clean
from jobq.worker.frames import (
    CancelJobs,
    Ending,
    Hello,
    ImportFailed,
    Job,
    Outcomes,
    Progress,
    Recall,
    Run,
    Setback,
)
from jobq.worker.slots import SlotTable
from jobq.worker.spec import Spec

logger = logging.getLogger("jobq.runner")

# Most outcomes in one frame.
_FRAME_OUTCOMES = 500


class Runner:
    """Executes what comes over `connection`, until it closes."""

    def __init__(self, connection: socket.socket, table: SlotTable, spec: Spec) -> None:
        self._connection = connection
        self._table = table
        self._spec = spec
        self._inbox: SimpleQueue[Job] = SimpleQueue()
        self._outbox: SimpleQueue[Outcome | None] = SimpleQueue()
        """What has ended; None: look at the progress."""
        self._progress: dict[int, Progress] = {}
        """The last word of each job, not sent yet: said faster than it is sent, it is replaced."""
        self._progress_lock = threading.Lock()
        self._running: dict[int, Execution] = {}
        self._loop = asyncio.new_event_loop()
        self._send_lock = threading.Lock()
        self._executor: Executor

    def run(self) -> int:
        """Import the application and serve until the socket closes. Returns an exit code."""
        try:
            app = load(self._spec.app)
        except BaseException as error:
            self._send(ImportFailed(clean(str(error), 2000), clean(traceback.format_exc(), 16_000)))
            return 78
        self._executor = Executor(
            tasks=app.tasks,
            run_coroutine=self._run_coroutine,
            report_progress=self._report_progress,
            max_result_bytes=self._spec.max_result_bytes,
            max_error_bytes=self._spec.max_error_bytes,
        )
        for slot in range(self._spec.concurrency):
            self._thread(f"jobq-slot-{slot}", self._serve_slot, slot)
        self._thread("jobq-writer", self._write)
        self._thread("jobq-reader", self._read)
        self._thread("jobq-lease", self._watch_lease)
        self._send(Hello(sorted(app.tasks)))
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        return 70

    def _thread(self, name: str, target: Any, *args: Any) -> None:
        threading.Thread(target=self._or_die, args=(target, *args), name=name, daemon=True).start()

    def _or_die(self, target: Any, *args: Any) -> None:
        """A thread of ours that fails would stall the runner silently; the dispatcher must see it end instead."""
        try:
            target(*args)
        except BaseException:
            logger.critical("a runner's own thread failed", exc_info=True)
            _exit(70)

    def _watch_lease(self) -> None:
        """End when the dispatcher has not vouched for us in time: another worker may be about to run our jobs."""
        while True:
            self._heed_lease(time.monotonic())
            time.sleep(0.1)

    def _heed_lease(self, now: float) -> None:
        ends = self._table.lease_ends
        if ends and now > ends:
            logger.error("the dispatcher's lease has run out: ending")
            _exit(75)

    # --- slots --------------------

    def _serve_slot(self, slot: int) -> None:
        take, put, running, table = self._inbox.get, self._outbox.put, self._running, self._table
        while True:
            job = take()
            execution = Execution(job=job)
            running[job.id] = execution
            started = time.monotonic()
            # A machine that was suspended wakes here, with jobs in stock that others have run meanwhile, before the watch
            # has had its turn.
            self._heed_lease(started)
            table.start(slot, job.id, job.claims, started, None if job.timeout is None else started + job.timeout)
            outcome = self._executor.execute(execution, started)
            # Idle before the outcome is out: a crash between the two can only repeat the job, never blame it.
            table.clear(slot)
            running.pop(job.id, None)
            put(outcome)

    def _run_coroutine(self, execution: Execution, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run `coroutine` on the loop and wait for its very end, even when it is cancelled: it may clean up for long."""
        ended: Future[Any] = Future()

        async def guarded() -> None:
            try:
                ended.set_result(await coroutine)
            except BaseException as error:
                # Here, and not to the loop, which a SystemExit would end.
                ended.set_exception(error)

        def never_begun(_: asyncio.Task[None]) -> None:
            # A task cancelled before its first step never enters `guarded`.
            if not ended.done():
                ended.set_exception(asyncio.CancelledError())

        def start() -> None:
            task = self._loop.create_task(guarded())
            execution.interrupt = lambda: self._loop.call_soon_threadsafe(task.cancel)
            if execution.cancelled:
                task.cancel()
            task.add_done_callback(never_begun)

        # In the slot's context, where current_job() is set.
        self._loop.call_soon_threadsafe(start, context=copy_context())
        try:
            return ended.result()
        finally:
            execution.interrupt = None
            coroutine.close()

    def _report_progress(self, job: Job, done: int, total: int | None) -> None:
        # One step with the writer's taking: else a word put in just after it would wake nobody, nor any word after it.
        with self._progress_lock:
            first = not self._progress
            self._progress[job.id] = Progress(job.id, job.claims, done, total)
        if first:
            self._outbox.put(None)

    # --- the socket --------------------

    def _read(self) -> None:
        stream = self._connection.makefile("rb", buffering=1 << 18)
        while True:
            prefix = stream.read(frames.LENGTH_SIZE)
            if len(prefix) < frames.LENGTH_SIZE:
                _exit(0)
            match frames.decode_to_runner(stream.read(frames.length(prefix))):
                case Run(jobs):
                    for job in jobs:
                        self._inbox.put(job)
                case Recall():
                    self._hand_back()
                case CancelJobs(ids, stopping):
                    for job_id in ids:
                        if (execution := self._running.get(job_id)) is not None:
                            execution.cancel(stopping=stopping)

    def _hand_back(self) -> None:
        while True:
            try:
                job = self._inbox.get_nowait()
            except Empty:
                return
            self._outbox.put(Setback(job.id, job.claims, Ending.RELEASE))

    def _write(self) -> None:
        while True:
            pending: list[Outcome | None] = [self._outbox.get()]
            with contextlib.suppress(Empty):
                while len(pending) < _FRAME_OUTCOMES:
                    pending.append(self._outbox.get_nowait())
            if self._progress:
                with self._progress_lock:
                    said, self._progress = self._progress, {}
                for progress in said.values():
                    self._send(progress)
            ended = (outcome for outcome in pending if outcome is not None)
            for batch in frames.batches(ended, _size):
                successes = [outcome for outcome in batch if isinstance(outcome, frames.Success)]
                setbacks = [outcome for outcome in batch if isinstance(outcome, Setback)]
                self._send(Outcomes(successes, setbacks))

    def _send(self, message: frames.FromRunner) -> None:
        with self._send_lock:
            try:
                self._connection.sendall(frames.encode(message))
            except OSError:
                _exit(0)


def _size(outcome: Outcome) -> int:
    if isinstance(outcome, frames.Success):
        return len(outcome.result)
    return len(outcome.message or "") + len(outcome.traceback or "")


def _exit(status: int) -> NoReturn:
    """End now: threads in user code would keep an ordinary exit waiting, perhaps for ever."""
    with contextlib.suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)


def _die_with_dispatcher() -> None:
    """Let the kernel kill this runner with its dispatcher: user code that never lets the reader run must not outlive it."""
    if sys.platform == "linux":
        parent = os.getppid()
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            _exit(0)


def main() -> None:
    """Entry point of the process."""
    spec = msgspec.json.decode(os.environ.pop("JOBQ_RUNNER"), type=Spec)
    logs.configure(format=spec.log_format, level=spec.log_level)
    # The terminal's Ctrl-C and systemd's SIGTERM reach the whole group: the dispatcher decides what they mean.
    # Handlers, not SIG_IGN: that one would be handed down to the programs that tasks start.
    signal.signal(signal.SIGINT, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda *_: None)
    _die_with_dispatcher()
    connection = socket.socket(fileno=spec.socket_fd)
    runner = Runner(connection, SlotTable(spec.slots_fd, spec.concurrency), spec)
    _exit(runner.run())


if __name__ == "__main__":
    main()
