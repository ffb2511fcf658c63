"""The batches of eager mode: jobs of a batch task that are enqueued by one call run in one call."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING
from uuid import uuid4

from jobq._worker.runner.batch_execution import BatchExecution
from jobq._worker.runner.batch_executor import BatchExecutor
from jobq._worker.runner.executor import Outcome
from jobq._worker.runner.inline_batches import InlineBatches
from jobq.testing.eager_job import EagerJob

if TYPE_CHECKING:
    from jobq._worker.runner.execution import Execution
    from jobq.app import JobQ


class EagerBatches:
    """Runs jobs of batch tasks in batches, until no attempt follows.

    `jobs` are all jobs of the `eager` block by their ids, which count from 1. `begin` and `end` note the
    beginning and the end of an attempt. `end` returns whether another attempt follows. `open_resources`
    returns an outcome if a resource cannot be created. `refuse` returns the outcome of another execution for
    the reason for which that of a job was refused.
    """

    def __init__(
        self,
        jobs: list[EagerJob],
        app: JobQ,
        executor: BatchExecutor,
        *,
        begin: Callable[[EagerJob], Execution],
        end: Callable[[EagerJob, Outcome], bool],
        open_resources: Callable[[EagerJob, Execution, AsyncExitStack], Awaitable[Outcome | None]],
        refuse: Callable[[Execution, int], Outcome],
    ) -> None:
        self._jobs = jobs
        self._app = app
        self._executor = executor
        self._begin = begin
        self._end = end
        self._open_resources = open_resources
        self._refuse = refuse

    def takes(self, job: EagerJob) -> bool:
        """Return whether `job` is of a batch task."""
        return self._app.get_task(job.task).batch is not None

    def run(self, jobs: list[EagerJob]) -> None:
        """Run those of `jobs` that are ready: other jobs may have cancelled some of them."""
        while jobs:
            again: list[EagerJob] = []
            for batch in self._batches(jobs):
                again += self._ended(self._executor.execute_batch(batch, time.monotonic()))
            jobs = again

    async def run_async(self, jobs: list[EagerJob]) -> None:
        """Run `jobs` as `run` does; those of async tasks on the running event loop."""
        self.run([job for job in jobs if not self._app.get_task(job.task).is_async])
        jobs = [job for job in jobs if self._app.get_task(job.task).is_async]
        async with AsyncExitStack() as resources:
            while jobs:
                again: list[EagerJob] = []
                for batch in self._batches(jobs):
                    again += self._ended(await self._run_one(batch, resources))
                jobs = again

    async def _run_one(self, batch: BatchExecution, resources: AsyncExitStack) -> list[Outcome]:
        # All jobs of the batch need the same ones.
        if await self._open_resources(self._job(batch.job.id), batch, resources) is not None:
            return [self._refuse(batch.of(job), batch.job.id) for job in batch.jobs]
        running = self._executor.execute_batch_async(batch, time.monotonic())
        return await asyncio.create_task(running, context=contextvars.copy_context())

    def _batches(self, jobs: list[EagerJob]) -> list[BatchExecution]:
        """Begin those of `jobs` that are ready; return the batches that a worker would make of them."""
        batches = InlineBatches(self._app.tasks, uuid4())
        found = batches.add([self._begin(job).job for job in jobs if job.state == "ready"]) + batches.rest()
        return [batch for batch in found if isinstance(batch, BatchExecution)]

    def _ended(self, outcomes: list[Outcome]) -> list[EagerJob]:
        """Record the results of a batch; return the jobs that have another attempt."""
        again: list[EagerJob] = []
        errors: list[BaseException] = []
        for outcome in outcomes:
            job = self._job(outcome.id)
            try:
                if self._end(job, outcome):
                    again.append(job)
            except BaseException as error:  # with `propagate`: the other jobs have ended as well
                errors.append(error)
        if errors:
            raise errors[0]
        return again

    def _job(self, job_id: int) -> EagerJob:
        return self._jobs[job_id - 1]
