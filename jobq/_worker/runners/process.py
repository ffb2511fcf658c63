"""The dispatcher's side of a runner: the jobs that it holds, its liveness, and its end."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from uuid import UUID

from jobq._worker.health.memory import resident
from jobq._worker.ipc import messages
from jobq._worker.ipc.messages import CancelJobs, Draining, FromRunner, Job, Run, TaskInfo
from jobq._worker.ipc.runner_config import KILL_AFTER, RunnerConfig
from jobq._worker.ipc.slot_table import SlotTable, Started
from jobq._worker.processes.spawned_process import SpawnedProcess
from jobq._worker.runners.channel import Launch, RunnerChannel
from jobq._worker.runners.held_jobs import HeldJobs
from jobq._worker.runners.liveness import Liveness

logger = logging.getLogger("jobq.worker")

# Seconds for a runner to end after it has closed its socket, if it was not asked to end in good
# order.
_END_AFTER_CLOSING = 5.0
# Seconds before the end of a runner that could not be started is reported. Another start would most
# likely fail as well.
_START_FAILED = 1.0


class RunnerProcess:
    """One runner.

    `on_message` receives its messages, `on_exit` its exit status. Both are called in the
    dispatcher's event loop.
    """

    def __init__(
        self,
        config: RunnerConfig,
        *,
        on_message: Callable[[RunnerProcess, FromRunner], None],
        on_exit: Callable[[RunnerProcess, int], None],
        launch: Launch = SpawnedProcess.start,
    ) -> None:
        self.born = time.monotonic()
        self.slots = config.concurrency
        """Number of jobs that the runner can execute at the same time."""
        self.table = SlotTable.create(config.concurrency)
        self.held = HeldJobs(self.table, self.born)
        self.jobs = self.held.by_id
        """The held jobs by job id."""
        self.liveness = Liveness(self.table, self.held)
        self.imported = False
        """Whether the runner has imported the application, and its start functions have returned."""
        self.accepted = False
        """Whether the runner may get jobs: the worker has started, too."""
        self.has_lease = True
        """Whether a valid lease allows the runner to begin jobs."""
        self.needs_replacement: str | None = None
        """Why a successor is needed; the runner continues until the successor is ready."""
        self.draining: str | None = None
        """Why the runner gets no more jobs; it ends when its last job has ended."""
        self.kill_at: float | None = None
        """When to kill the runner for a job past its timeout, unless its other jobs end earlier."""
        self.killed_for: str | None = None
        """Why the dispatcher ended the runner; None if the dispatcher did not."""
        self.of_worker = False
        """Whether the reason concerns the worker, and not this runner or its jobs."""
        self.dismissed = False
        """Whether the runner was ended in good order, which is no death to count."""
        self.to_blame = False
        """Whether the runner was killed because of something that its running jobs must have done."""
        self.cannot_report = False
        """Whether the runner was killed because it could no longer report how its jobs had ended."""
        self._on_exit = on_exit
        self._channel = RunnerChannel(
            config, self.table.fd, on_message=partial(on_message, self), on_fault=self._on_bad_frame, launch=launch
        )
        self._life: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """Process id; None before the process has started."""
        return self._channel.pid

    @property
    def ready(self) -> bool:
        """Whether the runner accepts jobs and reacts."""
        return (
            self.accepted
            and self.has_lease
            and self.killed_for is None
            and self.draining is None
            and self.liveness.unresponsive_since is None
        )

    @property
    def load(self) -> int:
        """Number of slots that the held jobs take, for the choice of the runner that gets the next jobs.

        A runner that reacts slowly counts as one whose slots are full: it comes after runners with free slots.
        """
        return self.held.load + (self.slots if self.liveness.slow else 0)

    @property
    def rss(self) -> int:
        """Resident memory in bytes; 0 if there is no process."""
        return 0 if self.pid is None else resident(self.pid)

    @property
    def received(self) -> int:
        """Total bytes received from the runner; -1 before its socket is connected."""
        return self._channel.received

    # --- its life --------------------

    def open(self) -> None:
        """Begin to start the process and to listen to it. Messages sent meanwhile are kept for it."""
        self._life = asyncio.create_task(self._live(), name="runner")

    async def _live(self) -> None:
        channel = self._channel
        try:
            await channel.open()
        except Exception as error:
            # OSError is not enough: a machine without room for another thread raises RuntimeError.
            # If the end of a runner stays unnoticed, the runner keeps its jobs and its place
            # permanently. A process that has started ends when its socket is closed.
            logger.error("no runner can be started", extra={"error": str(error) or type(error).__name__})
            self.kill("it could not be started")
            await asyncio.sleep(_START_FAILED)
            await channel.wait_ended()
            self._on_exit(self, os.EX_OSERR)
            return
        await channel.wait_closed()
        if not await channel.ends_within(KILL_AFTER if self.dismissed else _END_AFTER_CLOSING):
            self.to_blame = self.cannot_report = self.to_blame or not self.dismissed
            self.kill("it closed its socket and did not end")
        status = await channel.wait_ended()
        if channel.ended_for is not None and self.killed_for is None:
            self.killed_for, self.of_worker = channel.ended_for, True
        # First receive every outcome that was sent. Only then are the other jobs judged.
        await channel.finish(at_once=self.killed_for is not None and not self.dismissed)
        self._on_exit(self, status)

    def _on_bad_frame(self, error: Exception) -> None:
        # User code can write to any descriptor of its process, including the socket to the
        # dispatcher.
        logger.error("a runner sent an invalid frame", exc_info=error, extra={"pid": self.pid})
        self.to_blame = True
        self.kill("it sent an invalid frame")

    def on_ready(self, now: float) -> None:
        """Note that the runner may get jobs. The jobs sent before start to wait only at `now`."""
        self.imported = self.accepted = True
        self.held.restart_waiting(now)

    # --- its jobs --------------------

    def send(self, jobs: list[Job], worker: UUID, now: float, batches: Mapping[str, TaskInfo] | None = None) -> None:
        """Send `jobs`, claimed in the name of `worker`; see `HeldJobs.assign`."""
        first = self.held.assign(jobs, now, batches)
        for batch in messages.batches(jobs, _job_size):
            self._channel.send(Run(first, worker, batch, self.held.marks(batch)))
            first += len(batch)

    def cancel(self, ids: list[int], *, stopping: bool = False) -> None:
        """Ask running jobs to stop. `stopping`: the reason is that the worker stops."""
        self._channel.send(CancelJobs(ids, stopping))

    def begin_to_drain(self) -> None:
        """Tell the runner that the worker begins to shut down."""
        self._channel.send(Draining())

    def started(self) -> list[Started]:
        """Return the jobs and batches being executed, as the slot table says."""
        return self.table.started()

    # --- its end --------------------

    def extend_deadline(self, until: float, now: float) -> None:
        """Let the runner live until `until`, in time.monotonic() seconds; 0.0: there is no lease.

        If that time has passed, a runner with jobs must end. A runner without jobs does not end,
        but gets no jobs until there is a lease again. Otherwise this runner and all its successors
        would end for as long as the database is unreachable.
        """
        self.has_lease = until == 0.0 or until > now
        if not self.dismissed:
            self.table.lease_ends = until if self.has_lease or self.jobs else 0.0

    def kill(self, reason: str, *, of_worker: bool = False) -> None:
        """End the runner and the programs that it has started at once.

        Its jobs are judged when its end is noticed.

        Args:
            reason: Why the runner is ended.
            of_worker: Whether the reason is something other than an action of one of its jobs.
        """
        if self.killed_for is None:
            self.killed_for, self.of_worker = reason, of_worker
        self._channel.kill()

    def dismiss(self, reason: str) -> None:
        """End the runner in good order. It must hold no jobs."""
        self.dismissed = True
        self.killed_for = self.killed_for or reason
        # It runs no job, and its stop functions may take longer than the lease.
        self.table.lease_ends = 0.0
        self._channel.hang_up()

    def dump_stacks(self) -> None:
        """Make the runner print its stacks to standard error."""
        self._channel.dump_stacks()

    async def closed(self) -> None:
        """Wait until the process has ended and `on_exit` was called; release its resources."""
        if self._life is not None:
            await self._life
        self.table.close()
        self._channel.close()

    async def stop(self, *, at_once: bool) -> None:
        """Stop the runner and wait for its end.

        If it is idle, closing the socket ends it in good order. With `at_once`, it is killed.
        """
        # A runner with jobs may hold its interpreter, and then live on after the worker's lock is
        # free.
        if self._channel.connected and not at_once and not self.jobs:
            self.dismiss("the worker stops")
        else:
            self.kill("the worker stops", of_worker=True)
        await self.closed()


def _job_size(job: Job) -> int:
    return len(job.args) + len(job.headers)
