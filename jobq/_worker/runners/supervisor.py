"""Supervision of a worker's runners: timeouts, memory, age, and liveness.

The supervisor acts on each finding at once.
"""

from __future__ import annotations

import logging
import math

from jobq._worker.ipc.messages import Job
from jobq._worker.ipc.slot_table import Started
from jobq._worker.options import WorkerOptions
from jobq._worker.runners.process import RunnerProcess

logger = logging.getLogger("jobq.worker")

# A prefetched job that has not started within this many seconds goes back, for another worker.
RECALL_AFTER = 1.0
# Seconds that a stand-in stays when it is no longer needed: a task that held an interpreter once is
# likely to do so again.
STAND_BY = 10.0
# If there was no check for this many seconds, this process itself did not run: the machine was
# paused or far too busy.
PAUSE = 1.0
# When a runner has used this share of its allowance of jobs, it gets a successor. So the successor
# is ready when the runner ends.
_SUCCESSOR_AT = 0.8
# A runner that reacts and owes an outcome, but sends nothing during this many checks (ten a
# second), cannot send.
SILENT_CHECKS = 100
# A runner above this multiple of `max_rss_mb` is killed instead of being left to end its jobs.
_TOO_LARGE = 1.5


class RunnerSupervisor:
    """Checks runners one at a time and applies the worker's options to them."""

    def __init__(self, options: WorkerOptions) -> None:
        self._options = options
        self._needed_at = 0.0
        """When the number of runners last did not exceed the wanted number."""
        self._waiting = 0
        """Number of runners kept for other jobs although one of their jobs is past its timeout."""
        self._looked_at = math.inf
        self._resumed_at = -math.inf
        """When this process last resumed after a pause.

        The runners could not do earlier what was due during the pause.
        """

    def begin(self, runners: list[RunnerProcess], now: float) -> None:
        """Begin a round of checks of these runners."""
        if now - self._looked_at > PAUSE:
            self._resumed_at = now
        self._looked_at = now
        self._waiting = sum(runner.kill_at is not None and runner.killed_for is None for runner in runners)

    def look(self, runner: RunnerProcess, now: float) -> list[Job]:
        """Check one runner; return the jobs that it will not start any more."""
        if runner.killed_for is not None:
            return []
        runner.liveness.check_heartbeat(now, imported=runner.imported)
        started = runner.started()
        back = runner.held.take_revoked(now)
        self._end_if_due(runner, now, started)
        if not runner.imported or runner.killed_for is not None:
            # While the runner imports, its jobs wait for it: no other runner would take them.
            return back
        runner.liveness.check_reports(started, runner.received)
        if runner.liveness.silent_checks > SILENT_CHECKS:
            runner.cannot_report = True
            runner.kill("it did not tell how its jobs had ended")
            return back
        self._age(runner)
        if len(runner.jobs) > len(started):
            patience = RECALL_AFTER if runner.ready else 0.0
            if any(now - held.since > patience + held.linger for held in runner.held.unstarted()):
                runner.held.revoke(now)
        if runner.draining is not None and not runner.jobs:
            runner.dismiss(runner.draining)
        return back

    def _end_if_due(self, runner: RunnerProcess, now: float, started: list[Started]) -> None:
        grace = self._options.timeout_grace
        resumed = self._resumed_at
        if over := sum(slot.deadline is not None and now > max(slot.deadline, resumed) + grace for slot in started):
            self._end_overdue(runner, now, beside=len(started) - over)
        elif not runner.imported and now - runner.born > self._options.import_timeout and now - resumed > PAUSE:
            runner.kill(f"it had not imported the application after {self._options.import_timeout:g} s")
        elif (limit := self._options.max_rss_mb) is not None:
            rss = runner.rss / 2**20
            if rss > limit * _TOO_LARGE:
                runner.to_blame = True
                runner.kill(f"it used {rss:.0f} MiB, far above max_rss_mb={limit}")
            elif rss > limit and runner.needs_replacement is None:
                runner.needs_replacement = f"it used {rss:.0f} MiB, above max_rss_mb={limit}"

    def _end_overdue(self, runner: RunnerProcess, now: float, *, beside: int) -> None:
        """End a runner whose jobs do not react to their timeout.

        The runner ends when its other jobs have ended, or when they had time to end. Meanwhile it
        gets no more jobs and has a successor. At most as many runners are kept in this way as there
        are runners otherwise.
        """
        stuck = runner.liveness.stuck
        if runner.kill_at is None and beside and not stuck and self._waiting < self._options.processes:
            runner.kill_at = now + self._options.bystander_grace
            self._waiting += 1
            runner.draining = runner.draining or "a job passed its timeout"
            if now < runner.kill_at:
                logger.warning(
                    "a job does not react to its timeout: its runner is ended after the jobs beside it",
                    extra={"pid": runner.pid, "beside": beside, "at_most": self._options.bystander_grace},
                )
        if runner.kill_at is None or not beside or stuck or now >= runner.kill_at:
            runner.kill("a job passed its timeout")

    def _age(self, runner: RunnerProcess) -> None:
        limit = self._options.max_jobs_per_runner
        if limit is None:
            return
        if runner.held.given >= limit:
            runner.needs_replacement = runner.needs_replacement or f"it has run its {limit} jobs"
            # Jobs that come back reduce `given`. So the decision is made only when all jobs have
            # ended.
            if not runner.jobs:
                runner.draining = runner.draining or runner.needs_replacement
        elif runner.needs_replacement is None and runner.held.given >= limit * _SUCCESSOR_AT:
            runner.needs_replacement = f"it will soon have run its {limit} jobs"

    def drain_surplus(self, runners: list[RunnerProcess], wanted: int, now: float) -> None:
        """Drain replaced runners whose successors are ready, and stand-ins no longer needed."""
        fresh = [runner for runner in runners if runner.ready and runner.needs_replacement is None]
        if len(fresh) >= wanted:
            for runner in runners:
                if runner.needs_replacement is not None and runner.draining is None:
                    runner.draining = runner.needs_replacement
        if len(fresh) <= wanted:
            self._needed_at = now
        elif now - self._needed_at > STAND_BY:
            for runner in sorted(fresh, key=lambda runner: len(runner.jobs))[: len(fresh) - wanted]:
                runner.draining = "its help is no longer needed"
