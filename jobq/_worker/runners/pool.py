"""All runners of a worker behind one interface.

The pool sends jobs to the runners, passes on their reports, supervises them, and ends them.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable
from uuid import UUID

from jobq._worker.faults.problems import Problems
from jobq._worker.faults.quarantine import Quarantine
from jobq._worker.health import stacks
from jobq._worker.ipc import unexecuted
from jobq._worker.ipc.messages import (
    AlreadyCommitted,
    Failure,
    FromRunner,
    ImportFailed,
    Job,
    Outcomes,
    Progress,
    RunnerReady,
    StartFailed,
    Success,
    WorkerStarted,
)
from jobq._worker.lease import wait_or
from jobq._worker.options import WorkerOptions
from jobq._worker.preload.launcher import RunnerTemplate
from jobq._worker.processes.spawned_process import SpawnedProcess
from jobq._worker.runners import crash_policy
from jobq._worker.runners.application_info import ApplicationInfo
from jobq._worker.runners.batch_distribution import BatchDistribution
from jobq._worker.runners.distribution import distribute
from jobq._worker.runners.exits import RunnerExits
from jobq._worker.runners.isolated import Isolation
from jobq._worker.runners.process import RunnerProcess
from jobq._worker.runners.receiver import OutcomeReceiver
from jobq._worker.runners.runner_set import RunnerSet
from jobq._worker.runners.scaling import RunnerScaler
from jobq._worker.runners.starter import RunnerStarter
from jobq._worker.runners.supervisor import RunnerSupervisor
from jobq._worker.runners.worker_start import WorkerStart
from jobq.errors import AppImportError

# Lease deadline sent to the runners while there is no lease that could end.
NO_LEASE = 0.0


class RunnerPool(RunnerSet):
    """The ordinary runners, stand-ins for stuck runners, and isolated runners.

    The number of ordinary runners is the option `processes`. The pool runs in the dispatcher's
    event loop.
    """

    def __init__(
        self,
        options: WorkerOptions,
        *,
        on_success: Callable[[list[Success]], None],
        on_setback: Callable[[Failure], None],
        on_recorded: Callable[[AlreadyCommitted], None],
        on_progress: Callable[[Progress], None],
        on_ready: Callable[[], None],
        on_quarantine: Callable[[str, int], object] = lambda task, deaths: None,
        problems: Problems | None = None,
    ) -> None:
        """Create a pool without runners; `start` starts them.

        Args:
            options: The worker's options.
            on_success: Receives successes in batches.
            on_setback: Receives every execution that ended without success.
            on_recorded: Receives outcomes that the runner has committed itself.
            on_progress: Receives progress reports of running jobs.
            on_ready: Called when a runner has become ready, or when more jobs can be accepted.
            on_quarantine: Called when a task enters or leaves quarantine; see `Quarantine`.
            problems: Where problems with the application are recorded; by default a new object.
        """
        self._on_setback = on_setback
        self._on_progress = on_progress
        self._on_ready = on_ready
        self._quarantine = Quarantine(on_quarantine)
        self._worker_start = WorkerStart()
        self._template = RunnerTemplate(options) if options.preload else None
        starter = RunnerStarter(
            options,
            self._worker_start,
            on_message=self._on_message,
            on_exit=self._on_exit,
            launch=SpawnedProcess.start if self._template is None else self._template.launch,
        )
        super().__init__(
            options,
            ApplicationInfo(options.app, problems or Problems()),
            Isolation(options.isolated, options.max_jobs_per_runner, starter.start_isolated, self._quarantine),
        )
        self._outcomes = OutcomeReceiver(
            self._quarantine, on_success=on_success, on_setback=on_setback, on_recorded=on_recorded
        )
        self._supervisor = RunnerSupervisor(options)
        self._filling = BatchDistribution()
        self._scaler = RunnerScaler(self, starter.start_runner)
        self._exits = RunnerExits(options, self, self._quarantine, on_setback)
        self.changed = asyncio.Event()
        """Set when a runner became ready or ended, or when the application's import failed."""

    @property
    def deaths(self) -> Counter[str]:
        """Number of unexpected runner deaths by reason: ``crashed``, or ``killed`` by the worker."""
        return self._exits.deaths

    async def start(self) -> None:
        """Start the runners and wait until one is ready.

        Raises:
            AppImportError: The application cannot be imported, or in drain mode, it cannot start.
        """
        self._scaler.ensure_count()
        while not self.ready:
            if self.application.import_failure is not None:
                raise AppImportError(self.application.import_failure)
            if self.application.start_failure is not None and self._options.drain:
                # A worker in drain mode does not wait until the start succeeds.
                raise AppImportError(self.application.start_failure)
            self.changed.clear()
            await wait_or(self.changed, 0.1)
            self.supervise(NO_LEASE)

    # --- jobs in, outcomes out --------------------

    def give(self, jobs: Iterable[Job], worker: UUID) -> None:
        """Send jobs to the runners.

        The least loaded runner comes first. Runners that react slowly come last.

        Args:
            jobs: The jobs to send.
            worker: Id of the worker that claimed the jobs.
        """
        now = time.monotonic()
        known = self.runnable(jobs)
        others = self.isolation.pick(known, worker, now, self.application.isolated, self.held_again(known))
        ready = [runner for runner in self.ordinary if runner.ready]
        most, batches = self._options.max_jobs_per_runner, self.application.batches
        left: list[Job] = []
        if batches:
            self.mix.saw(others, batches)
            shares, left, others = self._filling.distribute(others, ready, most, batches, now)
            for runner, share in shares:
                runner.send(share, worker, now, batches)
        shares, more = distribute(others, ready, most)
        for runner, share in shares:
            runner.send(share, worker, now, batches)
        left += more
        for job in left:
            self._on_setback(unexecuted.unstarted(job))
        for job in self.isolation.surplus():
            self._send_back_unserved(job)

    def runnable(self, jobs: Iterable[Job]) -> list[Job]:
        """Return the jobs whose tasks the application has; refuse the others."""
        known, facts = [], self.application.facts
        for job in jobs:
            if job.task in facts:
                known.append(job)
            else:
                # Do not send the job to a runner: all its slots may be taken for a long time, while
                # another worker may be able to run the job.
                self._on_setback(unexecuted.unknown(job, facts))
        return known

    def _send_back_unserved(self, job: Job) -> None:
        suspect = self.isolation.suspects(job, self.application.isolated)
        self._on_setback(crash_policy.unserved(job, suspect=suspect))

    def _on_message(self, runner: RunnerProcess, message: FromRunner) -> None:
        match message:
            case Outcomes():
                self._outcomes.receive(runner, message)
                self.isolation.freed(runner, time.monotonic())
            case Progress():
                self._on_progress(message)
            case WorkerStarted():
                for ready, hello in self._worker_start.succeeded():
                    self._begin(ready, hello)
            case RunnerReady():
                runner.imported = True
                for ready, hello in self._worker_start.ready(runner, message):
                    self._begin(ready, hello)
            case ImportFailed() | StartFailed():
                self.application.failed(message)

    def _begin(self, runner: RunnerProcess, hello: RunnerReady) -> None:
        """Accept jobs for `runner` from now on."""
        runner.on_ready(time.monotonic())
        self.application.imported(hello)
        self.failed_starts = 0
        self.changed.set()
        self._on_ready()

    def _on_exit(self, runner: RunnerProcess, status: int) -> None:
        self._worker_start.ended(runner)
        self._exits.on_exit(runner, status)
        self.changed.set()
        self._scaler.ensure_count()

    # --- watching --------------------

    def supervise(self, lease_until: float) -> None:
        """Check all runners. The pool's owner calls this several times a second.

        Each check costs one read of shared memory per runner.

        Args:
            lease_until: Deadline from the worker's lease, in time.monotonic() seconds. At that time
                the runners must have ended.
        """
        now, slots, room = time.monotonic(), self.slots, self.room(0)
        self._supervisor.begin(self.runners, now)
        for runner in self.runners:
            runner.extend_deadline(lease_until, now)
            for job in self._supervisor.look(runner, now):
                self._on_setback(unexecuted.unstarted(job))
        self._quarantine.tend(now)
        for job in self.isolation.tend(now):
            self._send_back_unserved(job)
        for job in self.starts.overdue(now, self.startable):
            if self.isolation.takes(job, self.application.isolated):
                self._send_back_unserved(job)
            else:
                self._on_setback(unexecuted.unstarted(job))
        self._supervisor.drain_surplus(self.ordinary, self.wanted, now)
        self._scaler.ensure_count()
        # Do not start the template while the first runners import: it would delay them.
        if self._template is not None and self.ready and not self._scaler.stopped:
            self._template.tend(now)
        if self.slots > slots or self.room(0) > room:
            self._on_ready()

    def dump_stacks(self) -> None:
        """Make every runner print its stacks, one runner after the other."""
        loop = asyncio.get_running_loop()
        for place, runner in enumerate(self.runners, 1):
            loop.call_later(place * stacks.FORWARD_AFTER, runner.dump_stacks)

    # --- stopping --------------------

    def give_back(self) -> None:
        """Take back the jobs that have not started, for other workers.

        The runners stay, and running jobs continue.
        """
        now = time.monotonic()
        for runner in self.runners:
            runner.held.revoke(now)
        self._send_back_waiting()

    def _send_back_waiting(self, ids: set[int] | None = None) -> None:
        """Give back the jobs that no runner holds yet; if `ids` is set, only these jobs."""
        for job in self.isolation.withdraw(ids) + self.starts.withdraw(ids):
            self._on_setback(unexecuted.unstarted(job))

    def drain(self) -> None:
        """Prepare the stop of the worker: take back unstarted jobs and let running jobs end."""
        self._scaler.stopped = True
        self.give_back()
        for runner in self.runners:
            # A runner without jobs can end before the jobs of other runners have ended.
            runner.draining = runner.draining or crash_policy.STOPPING
            if not runner.imported:
                runner.kill(crash_policy.STOPPING, of_worker=True)
            elif runner.jobs:
                runner.begin_to_drain()

    def cancel(self, ids: list[int]) -> None:
        """Stop these jobs, as an operator has requested."""
        self._send_back_waiting(set(ids))
        for runner in self.runners:
            if mine := [job_id for job_id in ids if job_id in runner.jobs]:
                runner.cancel(mine)

    def cancel_all(self) -> None:
        """Ask every running job to end, because the worker stops."""
        for runner in self.runners:
            runner.cancel(list(runner.jobs), stopping=True)

    def kill_all(self, reason: str) -> None:
        """End every runner that holds jobs at once.

        The jobs go to `on_setback` when the end of their runner is noticed.
        """
        self._send_back_waiting()
        for runner in self.runners:
            if runner.jobs:
                runner.kill(reason, of_worker=True)

    def end_all(self) -> None:
        """End every runner at once, including runners that are ending in good order."""
        for runner in self.runners:
            runner.kill(crash_policy.STOPPING, of_worker=True)

    async def close(self, *, at_once: bool = False) -> None:
        """End all runners, in good order unless `at_once`, and wait until they have ended."""
        await self._scaler.close()
        try:
            await asyncio.gather(*(runner.stop(at_once=at_once) for runner in self.runners), self._exits.close())
        finally:
            if self._template is not None:
                await self._template.close()
