"""The runner: a process that imports the application and executes its jobs. A dispatcher starts it.

It uses several threads, so that none waits for another. The main thread runs the event loop, which
executes the jobs of async tasks. One reader receives frames from the dispatcher. Each slot executes
one job at a time. One writer sends outcomes that those threads cannot send. User code can block
every slot without delaying the dispatcher, which watches the slot table from outside.

The runner ends when its socket closes. If its dispatcher has closed the socket and has no more jobs
for it, the runner ends in good order (`exit.py`). Otherwise it ends at once, because a dispatcher
that is gone cannot use results. The runner leads its own process group, which ends with the runner
and with its dispatcher (`process_group.py`).
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
from collections.abc import Collection
from time import monotonic, sleep
from typing import Any, NoReturn, cast

import msgspec

from jobq._app.step_host import StepHost
from jobq._core import output
from jobq._core.logs import context as log_context
from jobq._core.logs import formats
from jobq._core.storable import storable_text
from jobq._worker.health import stacks
from jobq._worker.ipc import messages
from jobq._worker.ipc.messages import CancelJobs, Draining, ImportFailed, Run, StartFailed, WorkerStarted
from jobq._worker.ipc.runner_config import RunnerConfig
from jobq._worker.ipc.slot_table import SlotTable
from jobq._worker.ipc.unexecuted import unstarted
from jobq._worker.processes.process_group import die_with_parent, kill_own_group
from jobq._worker.runner import attempt_logs
from jobq._worker.runner.batch_executor import BatchExecutor
from jobq._worker.runner.batch_slots import BatchSlots
from jobq._worker.runner.error_report import text_of, traceback_of
from jobq._worker.runner.event_loop import JobLoop
from jobq._worker.runner.execution import Execution
from jobq._worker.runner.exit import end_in_time, exit_now, heed_lease, leave
from jobq._worker.runner.interpreter import recursion, tracing
from jobq._worker.runner.interpreter.forks import Over
from jobq._worker.runner.interpreter.signals import disarm
from jobq._worker.runner.lifecycle import Lifecycle
from jobq._worker.runner.local_queue import LocalQueue, QueuedJob
from jobq._worker.runner.loop_slots import LoopSlots
from jobq._worker.runner.open_resources import OpenResources
from jobq._worker.runner.outbox import Outbox, Outcome
from jobq._worker.runner.step_thread import StepThread
from jobq._worker.runner.task_info import describe
from jobq._worker.runner.transaction import Transactions
from jobq.app import JobQ, load

logger = logging.getLogger("jobq.runner")

# The loggers whose records must not make any of jobq's threads wait.
LOGGERS = ("jobq", "jobq.runner", "jobq.worker", "asyncio")
# Seconds between two pulses. The pulse also checks the lease and the timeouts.
_PULSE = 0.05
# Maximum seconds that a job waits for a blocked event loop.
_LOOP_PATIENCE = 1.0
# Files whose leading frames are left out of the traceback of a failed start.
_NOT_THE_APPLICATIONS = frozenset(
    code.co_filename
    for code in (
        Lifecycle.start.__code__,
        Lifecycle.start_worker.__code__,
        Lifecycle._call_all.__code__,
        OpenResources.open.__code__,
        JobLoop.run_alone.__code__,
        asyncio.BaseEventLoop.run_until_complete.__code__,
    )
) | {__file__}


class Runner:
    """Executes the jobs that arrive over `connection`, until it closes."""

    def __init__(
        self, connection: socket.socket, table: SlotTable, spec: RunnerConfig, app: JobQ | None = None
    ) -> None:
        """Create a runner. `app`: the application, if it is already imported."""
        self._connection = connection
        self._app = app
        self._table = table
        self._spec = spec
        self._outbox = Outbox(connection, self._cut_off)
        self._running: dict[int, Execution] = {}
        self._loop = JobLoop()
        self._parent = os.getppid()
        self._starting = False
        """Whether the application's start is under way; it calls the application's code."""
        self._is_draining = False
        """Whether the worker has begun to shut down."""
        self._loop_asked: float | None = None
        """When the event loop was last asked for a sign of life; None if it has answered."""
        self.executor: BatchExecutor
        self.batches: BatchSlots
        self._lifecycle: Lifecycle
        self._stock: LocalQueue
        self._loop_slots = LoopSlots(self._loop, self)

    def _forked(self) -> None:
        """Disable the runner's parts in a process that a task has forked.

        Its code may continue anywhere: in the text of an error, a result, a finalizer.
        """
        # These parts are all that the end of a job and the start of the next one need. The progress
        # of a task does not belong to them.
        self._table = self._outbox = cast(Any, Over())
        self._loop_slots.abandon()
        self._stock.abandon()
        self.batches.abandon()

    def run(self) -> int:
        """Import the application and serve until the socket closes. Returns an exit status."""
        try:
            app = self._app = self._app or load(self._spec.app)
            hello = describe(app)
            lifecycle = self._lifecycle = Lifecycle(app, self._loop.run_alone)
        except BaseException as error:
            self._outbox.send(ImportFailed(*_told(error, ())))
            return 78
        asyncio.set_event_loop(self._loop)
        self._starting = True
        try:
            if self._spec.starts_worker:
                lifecycle.start_worker()
                self._outbox.send(WorkerStarted())
            lifecycle.start()
        except BaseException as error:
            self._outbox.send(StartFailed(*_told(error, _NOT_THE_APPLICATIONS)))
            self._thread("jobq-stopper", end_in_time, lambda: self._lifecycle.doing)
            lifecycle.stop()
            return 78
        attempt_logs.keep(app.settings.attempt_log_bytes)
        self.executor = BatchExecutor(
            tasks=app.tasks,
            bodies=lifecycle.bodies,
            batch_body=lifecycle.bodies.batch,
            run_coroutine=self._loop.run_for,
            report_progress=self._outbox.progress,
            max_result_bytes=self._spec.max_result_bytes,
            max_error_bytes=self._spec.max_error_bytes,
            transactions=Transactions(self._spec.settings, self._loop.run_for),
            steps=StepThread(self._spec.settings),
            step_host=StepHost(app),
        )
        self._stock = LocalQueue(
            self._spec.concurrency,
            # A transaction is begun and ended by a thread, which waits for the database.
            on_loop=frozenset(name for name, task in app.tasks.items() if task.is_async and not task.transactional),
            drive=self._loop_slots.begin,
            flush=self._outbox.flush,
        )
        self.batches = BatchSlots(self._table, self._stock, self.executor, self._running, put=self.put)
        os.register_at_fork(after_in_child=self._forked)
        # Send this before any job can run: a job that closes our socket would make the dispatcher
        # wait for the import.
        self._table.beat(monotonic(), 0.0)
        self._outbox.send(hello)
        self._starting = False
        for slot in range(self._spec.concurrency):
            self._thread(f"jobq-slot-{slot}", self._serve_slot, slot)
        self._thread("jobq-writer", self._outbox.serve)
        if any(task.batch is not None for task in app.tasks.values()):
            self._thread("jobq-linger", self.batches.linger)
        self._thread("jobq-reader", self._read)
        self._thread("jobq-pulse", self._beat)
        recursion.keep()
        tracing.keep()
        self._loop.serve()
        leave(self._loop, app, lifecycle)

    def _thread(self, name: str, target: Any, *args: Any) -> None:
        threading.Thread(target=self._or_die, args=(target, *args), name=name, daemon=True).start()

    def _or_die(self, target: Any, *args: Any) -> None:
        """Run `target`; if it fails, end the process.

        Otherwise a failed thread of jobq would block the runner silently. The dispatcher must see
        the runner end instead.
        """
        try:
            target(*args)
        except BaseException:
            self.fail("a runner's own thread failed")

    def fail(self, what: str) -> NoReturn:
        """End the runner, whether or not the reason can be logged."""
        recursion.restore()
        try:
            logger.critical(what, exc_info=True)
        finally:
            exit_now(70)

    def _beat(self) -> None:
        """Record the pulse: threads run, with this lag.

        End when the lease expires, and time out jobs.
        """
        lag, due = 0.0, monotonic()
        while True:
            due += _PULSE
            sleep(max(0.0, due - monotonic()))
            now = monotonic()
            heed_lease(self._table, now)
            if os.getppid() != self._parent:
                # Usually the kernel has already killed this process. It cannot if a task has closed
                # the process's descriptors.
                kill_own_group()
                exit_now(0)
            lag += 0.3 * (now - due - lag)
            due = now
            self._table.beat(now, max(lag, self._loop_lag(now)))
            self._loop_slots.recall(now - _LOOP_PATIENCE)
            recursion.restore()
            for execution in list(self._running.values()):
                if execution.deadline is not None and now >= execution.deadline:
                    execution.time_out()

    def _loop_lag(self, now: float) -> float:
        """Return for how many seconds the event loop has owed its sign of life; 0.0 if it is idle."""
        if (asked := self._loop_asked) is not None:
            return now - asked
        if self._running or self._loop_slots:
            self._loop_asked = now
            self._loop.call_soon_threadsafe(self._loop_turns)
        return 0.0

    def _loop_turns(self) -> None:
        self._loop_asked = None

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop of async tasks."""
        return self._loop

    def _cut_off(self) -> None:
        """End the runner because outcomes can no longer be sent.

        The dispatcher is gone, or a task has closed the descriptors of its process. If the
        dispatcher hangs up while the application starts, the end is in good order: no job runs, and
        resources may be open.
        """
        self._table.end_cut_off()
        if self._app is not None and self._starting:
            self._thread("jobq-stopper", end_in_time, lambda: self._lifecycle.doing)
            leave(self._loop, self._app, self._lifecycle)
        exit_now(74)

    # --- slots --------------------

    def doing(self, thread: str) -> str:
        """Describe the job that the slot with this thread name executes; '' for none."""
        prefix, _, slot = thread.rpartition("-")
        if prefix != "jobq-slot" or (started := self._table.at(int(slot))) is None:
            return ""
        execution = self._running.get(started.id)
        task = execution.job.task if execution is not None else "?"
        what = f"a batch of {started.claims} jobs" if started.batch else f"job {started.id}"
        return f"{what}, task {task}, for {monotonic() - started.since:.1f} s"

    def _serve_slot(self, slot: int) -> None:
        tracing.keep()
        take, execute = self._stock.take, self.executor.execute
        while True:
            given = take(slot)
            began = monotonic()
            if not given[0]:
                self.batches.serve(slot, given, began)
            elif (execution := self.start(slot, given, began)) is not None:
                self.end(slot, execution, execute(execution, began), began)

    def start(self, slot: int, given: QueuedJob, now: float) -> Execution | None:
        """Start a job in `slot`, unless it was taken back."""
        serial, worker, job = given
        # A suspended machine may resume here, before the next pulse. Meanwhile other workers may
        # have run the jobs in the queue.
        heed_lease(self._table, now)
        deadline = None if job.timeout is None else now + job.timeout
        if not self._table.start(slot, serial, job.id, job.claims, now=now, deadline=deadline):
            # Report it anyway: if a newer job was started before this job was looked at, the
            # dispatcher cannot know.
            self.put(unstarted(job), now, now)
            return None
        execution = self._running[job.id] = Execution(job=job, worker=worker, deadline=deadline)
        # Asked only now: the reader may just have gone through the running ones.
        execution.draining = self._is_draining
        return execution

    def end(self, slot: int, execution: Execution, outcome: Outcome, began: float) -> None:
        # Restore the limit before anything else is called.
        recursion.restore()
        # Mark the slot as idle before the outcome is sent. A crash between the two can then only
        # repeat the job, never blame it.
        self._table.clear(slot)
        self._running.pop(execution.job.id, None)
        self.put(outcome, began, monotonic())

    def give_back(self, given: QueuedJob) -> None:
        """Give back what was taken from the local queue and has not started."""
        if given[0]:
            now = monotonic()
            self.put(unstarted(given[2]), now, now)
        else:
            self.batches.give_back(given)

    def after(self, slot: int) -> QueuedJob | None:
        """Return the next job for `slot`, whose job the event loop has ended.

        Returns None if the slot no longer belongs to the event loop.
        """
        return self._stock.after(slot)

    def put(self, outcome: Outcome, began: float, now: float) -> None:
        left = self._outbox.put(outcome, began, now, last=not self._stock)
        # Check this only now: a thread that was on its way a moment ago may have flushed before
        # this outcome was added.
        if left and not self._stock.called:
            self._outbox.call()

    # --- the socket --------------------

    def _read(self) -> None:
        stream = self._connection.makefile("rb", buffering=1 << 18)
        while True:
            try:
                prefix = stream.read(messages.LENGTH_SIZE)
                body = stream.read(messages.length(prefix)) if len(prefix) == messages.LENGTH_SIZE else None
            except ConnectionError:
                # The dispatcher has gone before it read all messages. If jobs run, end at once, as below.
                prefix, body = b"", None
            except OSError:
                # A task has closed the socket.
                self._cut_off()
                return
            if body is None:
                if prefix or self._running:
                    # End at once: other workers may run these jobs soon.
                    kill_own_group()
                    exit_now(0)
                self._loop.leave()
                end_in_time(lambda: self._lifecycle.doing)
            match messages.decode_to_runner(body):
                case Run(first, worker, jobs, marks) if marks:
                    self.batches.add(first, worker, jobs, marks)
                case Run(first, worker, jobs):
                    self._stock.put((serial, worker, job) for serial, job in enumerate(jobs, first))
                case Draining():
                    self._is_draining = True
                    for each in list(self._running.values()):
                        each.draining = True
                case CancelJobs(ids, stopping):
                    for job_id in ids:
                        if (execution := self._running.get(job_id)) is not None:
                            execution.cancel(stopping=stopping)
                    self.batches.cancel(ids, stopping=stopping)


def _told(error: BaseException, hidden: Collection[str]) -> tuple[str, str]:
    """Return the text of an error and its traceback, without leading frames in the files `hidden`."""
    return storable_text(text_of(error), 2000), storable_text(traceback_of(error, hidden), 16_000)


def main() -> None:
    """Entry point of the process."""
    spec = msgspec.json.decode(os.environ.pop("JOBQ_RUNNER"), type=RunnerConfig)
    # jobq's threads must not wait for the reader of the log. Otherwise the pulse would stop, and
    # outcomes would not be sent.
    formats.configure(format=spec.log_format, level=spec.log_level, waits=False)
    output.defer_logging(*LOGGERS)
    disarm()
    serve(spec)


def serve(spec: RunnerConfig, app: JobQ | None = None) -> NoReturn:
    """Run as the runner that `spec` describes. `app`: its application, if it is already imported."""
    if die_with_parent(spec.alive_fd):
        exit_now(0)
    log_context.install()
    connection = socket.socket(fileno=spec.socket_fd)
    runner = Runner(connection, SlotTable(spec.slots_fd, spec.concurrency), spec, app)
    stacks.install(f"jobq runner {os.getpid()}", lambda: runner.loop, job=runner.doing, relay=spec.stacks_fd)
    stacks.let_through()
    exit_now(runner.run())


if __name__ == "__main__":
    main()
