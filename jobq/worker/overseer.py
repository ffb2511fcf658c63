"""Looking after a worker's runners: timeouts, memory, age, and whether they react. What is found is acted on at once."""

from __future__ import annotations

import logging
import math

from jobq.worker.children import Child
from jobq.worker.frames import Job
from jobq.worker.options import WorkerOptions
from jobq.worker.slots import Started

logger = logging.getLogger("jobq.worker")

# A prefetched job that has not started within this time goes back, for another worker to take.
RECALL_AFTER = 1.0
# A runner that does not react at this many looks, ten a second, gets a stand-in. Looks, not seconds: when the whole machine
# has paused, it is not for the runner to have run meanwhile.
STUCK_LOOKS = 10
# Seconds that a stand-in stays when it is not needed any more: what holds an interpreter once does so again.
STAND_BY = 10.0
# Seconds without a look after which this process itself did not run: the machine was paused, or far too busy.
PAUSE = 1.0
# A runner whose allowance of jobs is used up to this share gets a successor, so that none is missing when it goes.
_SUCCESSOR_AT = 0.8
# A runner that reacts, owes an outcome and sends nothing for this many looks, ten a second, cannot send.
MUTE_LOOKS = 100
# How far above `max_rss_mb` a runner is killed rather than left to end its jobs.
_TOO_LARGE = 1.5


class Overseer:
    """Looks at runners, one at a time, and does to them what the worker's options ask for."""

    def __init__(self, options: WorkerOptions) -> None:
        self._options = options
        self._needed_at = 0.0
        """When there were last no more runners than wanted."""
        self._waiting = 0
        """How many runners stay for the jobs beside one that is over its timeout."""
        self._looked_at = math.inf
        self._resumed_at = -math.inf
        """When this process last ran again after a pause: the runners could not have done earlier what was due meanwhile."""

    def begin(self, children: list[Child], now: float) -> None:
        """A round of looks at these runners begins."""
        if now - self._looked_at > PAUSE:
            self._resumed_at = now
        self._looked_at = now
        self._waiting = sum(child.kill_at is not None and child.killed_for is None for child in children)

    def look(self, child: Child, now: float) -> list[Job]:
        """Look after one runner; return the jobs that it will not start any more."""
        if child.killed_for is not None:
            return []
        child.feel(now)
        started = child.started()
        back = child.revoked(now)
        self._end_if_due(child, now, started)
        if not child.imported or child.killed_for is not None:
            # While it imports, its jobs wait for it: no other runner would take them.
            return back
        if child.listen(started) > MUTE_LOOKS:
            child.mute = True
            child.kill("it did not tell how its jobs had ended")
            return back
        self._age(child)
        if len(child.jobs) > len(started):
            patience = RECALL_AFTER if child.ready else 0.0
            if any(now - held.since > patience for held in child.unstarted()):
                child.revoke(now)
        if child.retiring is not None and not child.jobs:
            child.dismiss(child.retiring)
        return back

    def _end_if_due(self, child: Child, now: float, started: list[Started]) -> None:
        grace = self._options.timeout_grace
        resumed = self._resumed_at
        if over := sum(slot.deadline is not None and now > max(slot.deadline, resumed) + grace for slot in started):
            self._end_overdue(child, now, beside=len(started) - over)
        elif not child.imported and now - child.born > self._options.import_timeout and now - resumed > PAUSE:
            child.kill(f"it had not imported the application after {self._options.import_timeout:g} s")
        elif (limit := self._options.max_rss_mb) is not None:
            rss = child.rss / 2**20
            if rss > limit * _TOO_LARGE:
                child.to_blame = True
                child.kill(f"it used {rss:.0f} MiB, far above max_rss_mb={limit}")
            elif rss > limit and child.worn is None:
                child.worn = f"it used {rss:.0f} MiB, above max_rss_mb={limit}"

    def _end_overdue(self, child: Child, now: float, *, beside: int) -> None:
        """End a runner for its jobs that do not react to their timeout: when the jobs beside them have ended, or had time to.

        It gets no more jobs meanwhile, and has a successor. At most as many are kept so as there are runners otherwise.
        """
        stuck = child.pulseless_looks > STUCK_LOOKS
        if child.kill_at is None and beside and not stuck and self._waiting < self._options.processes:
            child.kill_at = now + self._options.bystander_grace
            self._waiting += 1
            child.retiring = child.retiring or "a job passed its timeout"
            if now < child.kill_at:
                logger.warning(
                    "a job does not react to its timeout: its runner is ended after the jobs beside it",
                    extra={"pid": child.pid, "beside": beside, "at_most": self._options.bystander_grace},
                )
        if child.kill_at is None or not beside or stuck or now >= child.kill_at:
            child.kill("a job passed its timeout")

    def _age(self, child: Child) -> None:
        limit = self._options.max_jobs_per_runner
        if limit is None:
            return
        if child.given >= limit:
            child.worn = child.worn or f"it has run its {limit} jobs"
            # Those that may still come back reduce `given`, so the last word is spoken when all have ended.
            if not child.jobs:
                child.retiring = child.retiring or child.worn
        elif child.worn is None and child.given >= limit * _SUCCESSOR_AT:
            child.worn = f"it will soon have run its {limit} jobs"

    def is_stuck(self, child: Child) -> bool:
        """Tell whether a runner has not reacted for so long that another should stand in for it."""
        return child.pulseless_looks > STUCK_LOOKS and child.killed_for is None

    def relieve(self, children: list[Child], wanted: int, now: float) -> None:
        """Retire worn runners whose successors are ready, and stand-ins that have not been needed for a while."""
        fresh = [child for child in children if child.ready and child.worn is None]
        if len(fresh) >= wanted:
            for child in children:
                if child.worn is not None and child.retiring is None:
                    child.retiring = child.worn
        if len(fresh) <= wanted:
            self._needed_at = now
        elif now - self._needed_at > STAND_BY:
            for child in sorted(fresh, key=lambda child: len(child.jobs))[: len(fresh) - wanted]:
                child.retiring = "its help is no longer needed"
