"""The batches of a runner: they wait, start in a slot, and end with an outcome for each job."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Mapping
from time import monotonic
from typing import Any, cast
from uuid import UUID

from jobq._worker.ipc.messages import Job
from jobq._worker.ipc.slot_table import SlotTable
from jobq._worker.ipc.unexecuted import unstarted
from jobq._worker.runner.batch_execution import BatchExecution
from jobq._worker.runner.batch_executor import BatchExecutor
from jobq._worker.runner.batch_queue import BatchQueue, BatchSettings, BatchTicket, LingerThread, QueuedItem
from jobq._worker.runner.execution import Execution
from jobq._worker.runner.executor import Outcome
from jobq._worker.runner.exit import heed_lease
from jobq._worker.runner.interpreter import recursion
from jobq._worker.runner.interpreter.forks import Over
from jobq._worker.runner.local_queue import LocalQueue, QueuedJob
from jobq.task import BaseTask


class BatchSlots:
    """Starts and ends batches, in slots of the runner's threads or of its event loop.

    `running`: the runner's executions by job id; a batch is in it under its number below 0.
    `put`: reports an outcome, with the times of its beginning and end.
    """

    def __init__(
        self,
        table: SlotTable,
        stock: LocalQueue,
        executor: BatchExecutor,
        running: dict[int, Execution],
        *,
        put: Callable[[Outcome, float, float], object],
    ) -> None:
        self._table = table
        self._stock = stock
        self._running = running
        self._put = put
        self.executor = executor
        tasks = executor.tasks
        self._queue = BatchQueue(settings_of(tasks))
        self._linger = LingerThread(self._queue, stock.put)
        self._numbers = itertools.count(1)
        self._start_lock = threading.Lock()

    @property
    def linger(self) -> Callable[[], None]:
        """The work of the thread that ends the wait of batches that do not fill up."""
        return self._linger.serve

    def abandon(self) -> None:
        """In a forked process: start no more batches, and report nothing."""
        self._table = self._queue = self._linger = cast(Any, Over())

    def add(self, first: int, worker: UUID, jobs: list[Job], marks: list[int]) -> None:
        """Add jobs that have arrived. Those with a mark wait for a batch."""
        now = monotonic()
        plain: list[QueuedJob] = []
        items: list[QueuedItem] = []
        for serial, (job, mark) in enumerate(zip(jobs, marks, strict=True), first):
            if mark:
                items.append(QueuedItem(serial, mark, worker, job, now))
            else:
                plain.append((serial, worker, job))
        ready = self._queue.put(items)
        if plain or ready:
            self._stock.put(plain + ready)
        if items:
            self._linger.added(now)

    def begin(self, slot: int, given: QueuedJob, now: float) -> BatchExecution | None:
        """Start the batch of a ticket in `slot`, unless all of its jobs were taken back."""
        heed_lease(self._table, now)
        items = self._queue.take(cast(BatchTicket, given[2]).key)
        timeout = items[0].job.timeout
        deadline = None if timeout is None else now + timeout
        with self._start_lock:
            number = next(self._numbers)
            places = self._table.start_batch(
                slot, number, [(item.serial, item.mark) for item in items], now=now, deadline=deadline
            )
        if len(places) < len(items):
            started = set(places)
            self._report_unstarted(item.job for place, item in enumerate(items) if place not in started)
        if not places:
            return None
        execution = self._running[-number] = BatchExecution(
            job=items[places[0]].job,
            jobs=[items[place].job for place in places],
            worker=items[places[0]].worker,
            deadline=deadline,
            number=number,
        )
        return execution

    def end(self, slot: int, execution: BatchExecution, outcomes: list[Outcome], began: float) -> None:
        """Report the outcomes of a batch that has ended in `slot`."""
        recursion.restore()
        # As for any job: the slot is idle before the outcomes are sent.
        self._table.clear(slot)
        self._running.pop(-execution.number, None)
        now = monotonic()
        for outcome in outcomes:
            self._put(outcome, began, now)

    def serve(self, slot: int, given: QueuedJob, now: float) -> None:
        """Run the batch of a ticket to its end in this thread, which belongs to `slot`."""
        if (execution := self.begin(slot, given, now)) is not None:
            self.end(slot, execution, self.executor.execute_batch(execution, now), now)

    def give_back(self, given: QueuedJob) -> None:
        """Give back the jobs of a ticket, which have not started."""
        self._report_unstarted(item.job for item in self._queue.take(cast(BatchTicket, given[2]).key))

    def cancel(self, ids: Iterable[int], *, stopping: bool) -> None:
        """Ask the running batches to stop for these jobs."""
        wanted = set(ids)
        for execution in list(self._running.values()):
            if isinstance(execution, BatchExecution):
                execution.cancel_jobs(wanted, stopping=stopping)

    def _report_unstarted(self, jobs: Iterable[Job]) -> None:
        now = monotonic()
        for job in jobs:
            self._put(unstarted(job), now, now)


def settings_of(tasks: Mapping[str, BaseTask[..., Any]]) -> dict[str, BatchSettings]:
    """Return size and linger of each batch task among `tasks`."""
    return {name: BatchSettings(task.batch, task.linger) for name, task in tasks.items() if task.batch is not None}
