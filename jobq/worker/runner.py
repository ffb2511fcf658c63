"""The runner: a process that imports the application and executes its jobs. `python -m jobq.worker.runner` by a dispatcher.

Threads, so that none waits for another: the main thread runs the event loop, which executes the jobs of async tasks; one
reader takes frames from the dispatcher; each slot executes one job at a time; one writer sends what has ended where those
cannot. User code can hang every one of its slots without delaying the dispatcher, which watches the slot table from outside.
The runner ends when its socket closes: in good order (`leaving.py`) when its dispatcher has closed it, having no more jobs
for it; at once otherwise, for a dispatcher that is gone has no use for results. It leads a process group of its own, which
ends with it and with its dispatcher (`processgroup.py`).
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
from collections import deque
from collections.abc import Coroutine
from concurrent.futures import Future
from contextvars import Context, copy_context
from functools import partial
from time import monotonic, sleep
from typing import Any, NoReturn, cast

import msgspec

from jobq import logs, output
from jobq.app import load
from jobq.worker import frames, recursion, stacks, tracing
from jobq.worker.execution import Execution
from jobq.worker.executor import Executor
from jobq.worker.facts import describe
from jobq.worker.forks import Over
from jobq.worker.frames import CancelJobs, ImportFailed, Run
from jobq.worker.leaving import exit_now, leave
from jobq.worker.loop import JobLoop
from jobq.worker.outbox import Outbox, Outcome
from jobq.worker.processgroup import die_with_parent, kill_own_group
from jobq.worker.reports import text_of, traceback_of
from jobq.worker.signals import disarm
from jobq.worker.slots import SlotTable
from jobq.worker.spec import LEAVE_WITHIN, Spec
from jobq.worker.stock import Given, Stock
from jobq.worker.texts import clean
from jobq.worker.transaction import Transactions
from jobq.worker.verdicts import unstarted

logger = logging.getLogger("jobq.runner")

# Seconds between two beats of the pulse, which also watches the lease and the timeouts.
_PULSE = 0.05
# Most seconds spent on writing that the lease has ended.
_LEASE_WORDS = 0.1
# Seconds that a job may wait for an event loop that does not turn.
_LOOP_PATIENCE = 1.0


class Runner:
    """Executes what comes over `connection`, until it closes."""

    def __init__(self, connection: socket.socket, table: SlotTable, spec: Spec) -> None:
        self._connection = connection
        self._table = table
        self._spec = spec
        self._outbox = Outbox(connection, self._cut_off)
        self._running: dict[int, Execution] = {}
        self._loop = JobLoop()
        self._parent = os.getppid()
        self._loop_asked: float | None = None
        """When the event loop was last asked for a sign of life, until it gives one."""
        self._executor: Executor
        self._stock: Stock
        self._driven: deque[tuple[float, int, Given]] = deque()
        """Jobs that the event loop is to begin, each since when and in its slot."""
        self._beginning = False
        """Whether the loop is about to begin the first of them."""

    def _forked(self) -> None:
        """In a process that a task has forked, wherever its code was called: by an error's text, a result, a finalizer."""
        # All that a job's end and the next one's beginning need. A task's progress is not of these.
        self._table = self._outbox = self._driven = cast(Any, Over())
        self._stock.abandon()

    def run(self) -> int:
        """Import the application and serve until the socket closes. Returns an exit code."""
        try:
            app = load(self._spec.app)
            hello = describe(app)
        except BaseException as error:
            self._outbox.send(ImportFailed(clean(text_of(error), 2000), clean(traceback_of(error, ()), 16_000)))
            return 78
        self._executor = Executor(
            tasks=app.tasks,
            run_coroutine=self._run_coroutine,
            report_progress=self._outbox.progress,
            max_result_bytes=self._spec.max_result_bytes,
            max_error_bytes=self._spec.max_error_bytes,
            transactions=Transactions(self._spec.settings, self._run_coroutine),
        )
        self._stock = Stock(
            self._spec.concurrency,
            # A transaction is begun and ended by a thread, which waits for the database.
            on_loop=frozenset(name for name, task in app.tasks.items() if task.is_async and not task.transactional),
            drive=self._drive,
            flush=self._outbox.flush,
        )
        os.register_at_fork(after_in_child=self._forked)
        # Before any job can run: one that closes our socket would make the dispatcher wait for the import.
        self._table.beat(monotonic(), 0.0)
        self._outbox.send(hello)
        for slot in range(self._spec.concurrency):
            self._thread(f"jobq-slot-{slot}", self._serve_slot, slot)
        self._thread("jobq-writer", self._outbox.serve)
        self._thread("jobq-reader", self._read)
        self._thread("jobq-pulse", self._beat)
        asyncio.set_event_loop(self._loop)
        recursion.keep()
        tracing.keep()
        self._loop.serve()
        leave(self._loop, app)

    def _thread(self, name: str, target: Any, *args: Any) -> None:
        threading.Thread(target=self._or_die, args=(target, *args), name=name, daemon=True).start()

    def _or_die(self, target: Any, *args: Any) -> None:
        """A thread of ours that fails would stall the runner silently; the dispatcher must see it end instead."""
        try:
            target(*args)
        except BaseException:
            self._fail("a runner's own thread failed")

    def _fail(self, what: str) -> NoReturn:
        """End the runner, whether or not that can be logged."""
        recursion.restore()
        try:
            logger.critical(what, exc_info=True)
        finally:
            exit_now(70)

    def _beat(self) -> None:
        """Show that threads get to run, and how late; end when the lease is over; tell jobs that their time is up."""
        lag, due = 0.0, monotonic()
        while True:
            due += _PULSE
            sleep(max(0.0, due - monotonic()))
            now = monotonic()
            self._heed_lease(now)
            if os.getppid() != self._parent:
                # Mostly the kernel has done it already; not where a task has closed the process's descriptors.
                kill_own_group()
                exit_now(0)
            lag += 0.3 * (now - due - lag)
            due = now
            self._table.beat(now, max(lag, self._loop_lag(now)))
            self._recall_driven(now - _LOOP_PATIENCE)
            recursion.restore()
            for execution in list(self._running.values()):
                if execution.deadline is not None and now >= execution.deadline:
                    execution.time_out()

    def _loop_lag(self, now: float) -> float:
        """Return for how long the event loop has owed its sign of life, in seconds; an idle one is left alone."""
        if (asked := self._loop_asked) is not None:
            return now - asked
        if self._running or self._driven:
            self._loop_asked = now
            self._loop.call_soon_threadsafe(self._loop_turns)
        return 0.0

    def _loop_turns(self) -> None:
        self._loop_asked = None

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop of async tasks."""
        return self._loop

    def _heed_lease(self, now: float) -> None:
        """End when the dispatcher has not vouched for us in time: another worker may be about to run our jobs."""
        ends = self._table.lease_ends
        if ends and now > ends:
            self._table.end_by_lease(ends)
            logger.error("the dispatcher's lease has run out: ending")
            # Only briefly, since the jobs still run; but after the group is killed nothing can be written.
            output.finish(_LEASE_WORDS, streams=False)
            kill_own_group()
            exit_now(75)

    def _cut_off(self) -> None:
        """End when outcomes cannot be sent any more: the dispatcher is gone, or a task has closed its process's descriptors."""
        self._table.end_cut_off()
        exit_now(74)

    # --- slots --------------------

    def doing(self, thread: str) -> str:
        """Tell which job the slot of the thread of this name executes; '' for none."""
        prefix, _, slot = thread.rpartition("-")
        if prefix != "jobq-slot" or (started := self._table.at(int(slot))) is None:
            return ""
        execution = self._running.get(started.id)
        task = execution.job.task if execution is not None else "?"
        return f"job {started.id}, task {task}, for {monotonic() - started.since:.1f} s"

    def _serve_slot(self, slot: int) -> None:
        tracing.keep()
        take, execute = self._stock.take, self._executor.execute
        while True:
            given = take(slot)
            began = monotonic()
            if (execution := self._start(slot, given, began)) is not None:
                self._end(slot, execution, execute(execution, began), began)

    def _start(self, slot: int, given: Given, now: float) -> Execution | None:
        """Start a job in `slot`, unless it was taken back."""
        serial, worker, job = given
        # A machine that was suspended wakes here, with jobs in stock that others have run meanwhile, before the pulse has had
        # its turn.
        self._heed_lease(now)
        deadline = None if job.timeout is None else now + job.timeout
        if not self._table.start(slot, serial, job.id, job.claims, now=now, deadline=deadline):
            # Said all the same: where a newer job was started before this one was looked at, the dispatcher cannot tell.
            self._put(unstarted(job), now, now)
            return None
        execution = self._running[job.id] = Execution(job=job, worker=worker, deadline=deadline)
        return execution

    def _end(self, slot: int, execution: Execution, outcome: Outcome, began: float) -> None:
        # Before anything else is called.
        recursion.restore()
        # Idle before the outcome is out: a crash between the two can only repeat the job, never blame it.
        self._table.clear(slot)
        self._running.pop(execution.job.id, None)
        self._put(outcome, began, monotonic())

    def _put(self, outcome: Outcome, began: float, now: float) -> None:
        left = self._outbox.put(outcome, began, now, last=not self._stock)
        # Looked at only now: a thread that was on its way a moment ago may have flushed before this outcome was there.
        if left and not self._stock.called:
            self._outbox.call()

    # --- jobs on the event loop --------------------

    def _drive(self, driven: list[tuple[int, Given]]) -> None:
        """Have the event loop begin these jobs, each in its slot."""
        now = monotonic()
        self._driven.extend((now, slot, given) for slot, given in driven)
        if not self._beginning:
            self._beginning = True
            self._loop.call_soon_threadsafe(self._begin_driven)

    def _begin_driven(self) -> None:
        recursion.restore()
        if (driven := self._next_driven()) is not None:
            _, slot, given = driven
            try:
                self._begin(slot, given)
            except BaseException:
                # The loop would only log it, and the slot be lost.
                self._fail("a runner's event loop failed")
        self._beginning = False
        if self._driven:
            # After that one's first step: should it not let the loop turn, what follows can still be given back.
            self._beginning = True
            self._loop.call_soon(self._begin_driven)

    def _recall_driven(self, before: float) -> None:
        """Give back what the event loop was to begin `before` this time and has not: a coroutine holds it up."""
        while self._driven and self._driven[0][0] < before and (driven := self._next_driven()) is not None:
            now, (_, slot, given) = monotonic(), driven
            self._put(unstarted(given[2]), now, now)
            if (after := self._stock.after(slot)) is not None:
                self._drive([(slot, after)])

    def _next_driven(self) -> tuple[float, int, Given] | None:
        try:
            return self._driven.popleft()
        except IndexError:
            return None

    def _begin(self, slot: int, given: Given | None) -> None:
        """Begin this job in `slot`, or the next one that was not taken back, until the slot is not the loop's any more."""
        while given is not None:
            began = monotonic()
            if (execution := self._start(slot, given, began)) is not None:
                coroutine = self._executor.execute_async(execution, began)
                # Not by the loop's task factory, which may be a job's.
                task = asyncio.Task(coroutine, loop=self._loop, context=Context())
                task.add_done_callback(partial(self._ended, slot, execution, began))
                execution.interruptible(partial(self._loop.call_soon_threadsafe, task.cancel))
                return
            given = self._stock.after(slot)

    def _ended(self, slot: int, execution: Execution, began: float, task: asyncio.Task[Outcome]) -> None:
        try:
            execution.settled()
            # One that was cancelled before its first step has never come to a result.
            outcome = self._executor.cancelled(execution, began) if task.cancelled() else task.result()
            self._end(slot, execution, outcome, began)
            self._begin(slot, self._stock.after(slot))
        except BaseException:
            # The loop would only log it, and the slot be lost.
            self._fail("a runner's event loop failed")

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
            task = asyncio.Task(guarded(), loop=self._loop)
            task.add_done_callback(never_begun)
            execution.interruptible(lambda: self._loop.call_soon_threadsafe(task.cancel))

        # In the slot's context, where current_job() is set.
        self._loop.call_soon_threadsafe(start, context=copy_context())
        try:
            return ended.result()
        finally:
            execution.settled()
            coroutine.close()

    # --- the socket --------------------

    def _read(self) -> None:
        stream = self._connection.makefile("rb", buffering=1 << 18)
        while True:
            try:
                prefix = stream.read(frames.LENGTH_SIZE)
                body = stream.read(frames.length(prefix)) if len(prefix) == frames.LENGTH_SIZE else None
            except ConnectionError:
                # A dispatcher that was killed with outcomes of ours unread.
                kill_own_group()
                exit_now(0)
            except OSError:
                # A task has closed it.
                self._cut_off()
                return
            if body is None:
                if prefix or self._running:
                    # At once: others may run these jobs soon.
                    kill_own_group()
                    exit_now(0)
                self._loop.leave()
                sleep(LEAVE_WITHIN)
                exit_now(0)
            match frames.decode_to_runner(body):
                case Run(first, worker, jobs):
                    self._stock.put((serial, worker, job) for serial, job in enumerate(jobs, first))
                case CancelJobs(ids, stopping):
                    for job_id in ids:
                        if (execution := self._running.get(job_id)) is not None:
                            execution.cancel(stopping=stopping)


def main() -> None:
    """Entry point of the process."""
    spec = msgspec.json.decode(os.environ.pop("JOBQ_RUNNER"), type=Spec)
    # Threads of ours must not wait for the reader of the log: the pulse would stop, and what has ended would not be told.
    logs.configure(format=spec.log_format, level=spec.log_level, waits=False)
    output.defer_logging("jobq", "jobq.runner", "jobq.worker", "asyncio")
    disarm()
    if die_with_parent(spec.alive_fd):
        exit_now(0)
    connection = socket.socket(fileno=spec.socket_fd)
    runner = Runner(connection, SlotTable(spec.slots_fd, spec.concurrency), spec)
    stacks.install(f"jobq runner {os.getpid()}", lambda: runner.loop, job=runner.doing, relay=spec.stacks_fd)
    stacks.let_through()
    exit_now(runner.run())


if __name__ == "__main__":
    main()
