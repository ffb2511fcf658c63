"""The slots of a runner whose jobs the event loop executes."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine
from contextvars import Context
from functools import partial
from time import monotonic
from typing import Any, NoReturn, Protocol, cast

from jobq._worker.runner.batch_execution import BatchExecution
from jobq._worker.runner.batch_executor import BatchExecutor
from jobq._worker.runner.batch_slots import BatchSlots
from jobq._worker.runner.event_loop import JobLoop
from jobq._worker.runner.execution import Execution
from jobq._worker.runner.executor import Outcome
from jobq._worker.runner.interpreter import recursion
from jobq._worker.runner.interpreter.forks import Over
from jobq._worker.runner.local_queue import QueuedJob


class SlotRunner(Protocol):
    """The methods of a runner that these slots need."""

    executor: BatchExecutor
    batches: BatchSlots

    def start(self, slot: int, given: QueuedJob, now: float) -> Execution | None: ...

    def end(self, slot: int, execution: Execution, outcome: Outcome, began: float) -> None: ...

    def after(self, slot: int) -> QueuedJob | None: ...

    def give_back(self, given: QueuedJob) -> None: ...

    def fail(self, what: str) -> NoReturn: ...


class LoopSlots:
    """Begins jobs on the event loop, one at a time. The object is true while jobs wait to begin."""

    def __init__(self, loop: JobLoop, runner: SlotRunner) -> None:
        self._loop = loop
        self._runner = runner
        self._waiting: deque[tuple[float, int, QueuedJob]] = deque()
        """Jobs that the event loop is to begin: waiting since when, slot, and job."""
        self._beginning = False
        """Whether the event loop is about to begin the first of them."""

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def begin(self, driven: list[tuple[int, QueuedJob]]) -> None:
        """Make the event loop begin these jobs, each in its slot. Called from any thread."""
        now = monotonic()
        self._waiting.extend((now, slot, given) for slot, given in driven)
        if not self._beginning:
            self._beginning = True
            self._loop.call_soon_threadsafe(self._begin_first)

    def recall(self, before: float) -> None:
        """Give back jobs that have waited since `before`, because a coroutine blocks the loop."""
        while self._waiting and self._waiting[0][0] < before and (driven := self._first()) is not None:
            _, slot, given = driven
            self._runner.give_back(given)
            if (after := self._runner.after(slot)) is not None:
                self.begin([(slot, after)])

    def abandon(self) -> None:
        """In a forked process: begin no more jobs."""
        self._waiting = cast(Any, Over())

    def _begin_first(self) -> None:
        recursion.restore()
        if (driven := self._first()) is not None:
            _, slot, given = driven
            try:
                self._begin(slot, given)
            except BaseException:
                # The loop would only log the error, and the slot would be lost.
                self._runner.fail("a runner's event loop failed")
        self._beginning = False
        if self._waiting:
            # Begin the next job after the first step of this one. If this one blocks the loop, the
            # next jobs can still be given back.
            self._beginning = True
            self._loop.call_soon(self._begin_first)

    def _first(self) -> tuple[float, int, QueuedJob] | None:
        try:
            return self._waiting.popleft()
        except IndexError:
            return None

    def _begin(self, slot: int, given: QueuedJob | None) -> None:
        """Begin this job in `slot`.

        If the job was taken back, continue with the next one, until the slot no longer belongs to
        the event loop.
        """
        runner = self._runner
        while given is not None:
            began = monotonic()
            if not given[0]:
                if (batch := runner.batches.begin(slot, given, began)) is not None:
                    self._run(runner.executor.execute_batch_async(batch, began), slot, batch, began)
                    return
            elif (execution := runner.start(slot, given, began)) is not None:
                execution.durable = runner.executor.tasks[execution.job.task].durable
                self._run(runner.executor.execute_async(execution, began), slot, execution, began)
                return
            given = runner.after(slot)

    def _run(self, coroutine: Coroutine[Any, Any, Any], slot: int, execution: Execution, began: float) -> None:
        # Do not use the loop's task factory, which may belong to a job.
        task = asyncio.Task(coroutine, loop=self._loop, context=Context())
        task.add_done_callback(partial(self._ended, slot, execution, began))
        execution.interruptible(partial(self._loop.call_soon_threadsafe, task.cancel))

    def _ended(self, slot: int, execution: Execution, began: float, task: asyncio.Task[Any]) -> None:
        runner = self._runner
        try:
            execution.settled()
            # A task that was cancelled before its first step has no result.
            lost = task.cancelled()
            if isinstance(execution, BatchExecution):
                outcomes = runner.executor.cancelled_batch(execution, began) if lost else task.result()
                runner.batches.end(slot, execution, outcomes, began)
            else:
                outcome = runner.executor.cancelled(execution, began) if lost else task.result()
                runner.end(slot, execution, outcome, began)
            self._begin(slot, runner.after(slot))
        except BaseException:
            # The loop would only log the error, and the slot would be lost.
            runner.fail("a runner's event loop failed")
