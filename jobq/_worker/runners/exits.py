"""Handling of the end of a runner: its jobs are judged and handed back, and its resources released."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable

from jobq._worker.faults.quarantine import Quarantine
from jobq._worker.ipc.messages import Failure
from jobq._worker.options import WorkerOptions
from jobq._worker.runners import crash_policy
from jobq._worker.runners.crash_policy import RunnerExit
from jobq._worker.runners.process import RunnerProcess
from jobq._worker.runners.runner_set import RunnerSet

logger = logging.getLogger("jobq.worker")


class RunnerExits:
    """Removes ended runners from `runners`.

    `on_setback` receives a failure for each job that such a runner held.
    """

    def __init__(
        self,
        options: WorkerOptions,
        runners: RunnerSet,
        quarantine: Quarantine,
        on_setback: Callable[[Failure], None],
    ) -> None:
        self._options = options
        self._runners = runners
        self._quarantine = quarantine
        self._on_setback = on_setback
        self._closing: set[asyncio.Task[None]] = set()
        self.deaths: Counter[str] = Counter()
        """Number of unexpected runner deaths by reason: ``crashed``, or ``killed`` by the worker."""

    def on_exit(self, runner: RunnerProcess, status: int) -> None:
        """Judge the jobs of `runner`, which ended with exit status `status`; remove the runner."""
        now = time.monotonic()
        _explain_lease_end(runner, now)
        end = exit_of(runner, status, now)
        verdict = crash_policy.judge(
            end,
            self._runners.application.facts,
            max_crashes=self._options.max_crashes,
            timeout_grace=self._options.timeout_grace,
        )
        for setback in verdict.setbacks:
            self._on_setback(runner.held.add_job_info(setback))
        self._quarantine.judged(verdict.guilty, verdict.suspected, now)
        runner.jobs.clear()
        self._forget(runner, now)
        self._log(runner, end)
        closing = asyncio.ensure_future(runner.closed())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    def _forget(self, runner: RunnerProcess, now: float) -> None:
        if runner in self._runners.ordinary:
            self._runners.ordinary.remove(runner)
        else:
            self._runners.isolation.on_exit(runner, now)
        if not runner.dismissed:
            self.deaths["crashed" if runner.killed_for is None else "killed"] += 1
        if not runner.imported:
            self._runners.failed_starts += 1

    def _log(self, runner: RunnerProcess, end: RunnerExit) -> None:
        level = logging.ERROR if runner.killed_for is None else logging.WARNING
        before = "" if runner.imported else f" before it had imported {self._options.app!r}"
        logger.log(
            logging.INFO if runner.dismissed else level,
            f"a runner {end.how}{before}",
            extra={"pid": runner.pid, "started": len(end.running)},
        )

    async def close(self) -> None:
        """Wait until the resources of all ended runners are released."""
        await asyncio.gather(*self._closing)


def exit_of(runner: RunnerProcess, status: int, now: float) -> RunnerExit:
    """Return the facts by which the jobs of `runner`, which has ended, are judged."""
    return RunnerExit(
        status=status,
        at=now,
        held=list(runner.jobs.values()),
        running=runner.held.running(),
        unstarted=frozenset(held.job.id for held in runner.held.unstarted()),
        killed_for=runner.killed_for,
        of_worker=runner.of_worker,
        dismissed=runner.dismissed,
        to_blame=runner.to_blame,
        cannot_report=runner.cannot_report,
        cut_off=runner.table.ended_cut_off,
    )


def _explain_lease_end(runner: RunnerProcess, now: float) -> None:
    """If a runner ended itself because it considered its lease expired, record that reason."""
    if not runner.table.ended_by_lease:
        return
    if runner.killed_for is None and runner.table.taken_for_over > now:
        # A task has changed its clock (`time.monotonic`). If the worker were blamed, this would
        # happen again and again.
        runner.killed_for, runner.to_blame = "it took its lease for over, which was not", True
    else:
        runner.killed_for, runner.of_worker = runner.killed_for or "its lease was over", True
