"""Reception of outcomes from runners.

An outcome is passed on only if the runner holds the execution, and only once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable

from jobq._worker.faults.quarantine import Quarantine
from jobq._worker.ipc.messages import AlreadyCommitted, Failure, Outcomes, Success
from jobq._worker.runners.process import RunnerProcess

logger = logging.getLogger("jobq.worker")


class OutcomeReceiver:
    """Passes outcomes on; successes in batches."""

    def __init__(
        self,
        quarantine: Quarantine,
        *,
        on_success: Callable[[list[Success]], None],
        on_setback: Callable[[Failure], None],
        on_recorded: Callable[[AlreadyCommitted], None],
    ) -> None:
        self._quarantine = quarantine
        self._on_success = on_success
        self._on_setback = on_setback
        self._on_recorded = on_recorded

    def receive(self, runner: RunnerProcess, outcomes: Outcomes) -> None:
        """Pass on the outcomes reported by `runner`, which then no longer holds these jobs."""
        successes, setbacks, recorded = outcomes.successes, outcomes.setbacks, outcomes.recorded
        if self._quarantine:
            ids = [each.id for each in successes] + [each.id for each in setbacks] + [each.id for each in recorded]
            self._quarantine.heard(runner.jobs[each].job.task for each in ids if each in runner.jobs)
        if (successes or recorded) and logger.isEnabledFor(logging.DEBUG):
            _log_successes(runner, [*successes, *(record for record in recorded if record.accepted)])
        held = runner.held
        if succeeded := held.take(successes):
            self._on_success(succeeded)
        if setbacks:
            for setback in held.take([held.add_job_info(setback) for setback in setbacks]):
                self._on_setback(setback)
        if recorded:
            for record in held.take(recorded):
                self._on_recorded(record)


def _log_successes(runner: RunnerProcess, successes: Iterable[Success | AlreadyCommitted]) -> None:
    now = time.monotonic()
    for success in successes:
        if (held := runner.jobs.get(success.id)) is not None:
            job = held.job
            extra = {"job": job.id, "task": job.task, "queue": job.queue, "attempt": job.attempt}
            seconds = success.seconds if isinstance(success, Success) else now - held.since
            logger.debug("job succeeded", extra={**extra, "seconds": round(seconds, 3)})
