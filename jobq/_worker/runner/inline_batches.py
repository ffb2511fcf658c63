"""Batches where jobs run one call at a time, without a runner's threads."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast
from uuid import UUID

from jobq._worker.ipc.messages import Job
from jobq._worker.runner.batch_execution import BatchExecution
from jobq._worker.runner.batch_queue import BatchQueue, BatchTicket, QueuedItem
from jobq._worker.runner.batch_slots import settings_of
from jobq._worker.runner.execution import Execution
from jobq._worker.runner.local_queue import QueuedJob
from jobq.task import BaseTask


class InlineBatches:
    """Makes executions of jobs. The length is the number of jobs that wait for their batch."""

    def __init__(self, tasks: Mapping[str, BaseTask[..., Any]], worker: UUID) -> None:
        self._worker = worker
        # No time passes here: a batch is ready when it is full, or when `rest` is called.
        self._settings = {name: each._replace(linger=math.inf) for name, each in settings_of(tasks).items()}
        self._queue = BatchQueue(self._settings)
        self._waiting = 0

    def __len__(self) -> int:
        return self._waiting

    def add(self, jobs: list[Job]) -> list[Execution]:
        """Return the executions to run now: those of other tasks, and full batches."""
        alone = [Execution(job=job, worker=self._worker) for job in jobs if job.task not in self._settings]
        items = [QueuedItem(0, 0, self._worker, job, 0.0) for job in jobs if job.task in self._settings]
        self._waiting += len(items)
        return alone + self._batches(self._queue.put(items))

    def rest(self) -> list[Execution]:
        """Return the executions of the jobs that wait."""
        return self._batches(self._queue.expire(math.inf)[0])

    def _batches(self, tickets: list[QueuedJob]) -> list[Execution]:
        found: list[Execution] = []
        for _, _, ticket in tickets:
            jobs = [item.job for item in self._queue.take(cast(BatchTicket, ticket).key)]
            self._waiting -= len(jobs)
            found.append(BatchExecution(job=jobs[0], jobs=jobs, worker=self._worker))
        return found
