"""Liveness of a runner: whether it reacts, and whether it reports jobs that have ended.

The dispatcher judges this from outside, by shared memory. It counts checks instead of seconds,
because a time in which the dispatcher itself did not run says nothing about the runner.
"""

from __future__ import annotations

import time

from jobq._worker.ipc.slot_table import SlotTable, Started
from jobq._worker.runners.held_jobs import HeldJobs

# A runner whose pulse is older than this many seconds does not react: a task holds its interpreter,
# or the runner is stopped. The pulse comes every 50 ms. On a busy machine it may also be late, and
# then the runner's jobs are taken back needlessly.
UNRESPONSIVE_AFTER = 0.5
# A runner is slow if its pulse lags by this many seconds (a task computes in Python), or if the
# pulse is this late. Other runners then come first.
SLOW_LAG = 0.003
LATE = 0.12
# A runner that does not react at more than this many checks (ten a second) gets a stand-in.
STUCK_CHECKS = 10


class Liveness:
    """Liveness of the runner that shares `table` and holds the jobs `held`."""

    def __init__(self, table: SlotTable, held: HeldJobs) -> None:
        self._table = table
        self._held = held
        self.unresponsive_since: float | None = None
        """Since when the runner does not react, in time.monotonic() seconds; None if it reacts."""
        self.unresponsive_checks = 0
        """Number of consecutive checks at which the runner did not react."""
        self.silent_checks = 0
        """Number of consecutive checks at which it reacted and owed an outcome, but sent nothing."""
        self._received = -1

    @property
    def slow(self) -> bool:
        """Whether the runner's threads wait long before they run."""
        at, lag = self._table.pulse
        return lag > SLOW_LAG or time.monotonic() - at > LATE

    @property
    def stuck(self) -> bool:
        """Whether the runner has been unresponsive for so long that it needs a stand-in."""
        return self.unresponsive_checks > STUCK_CHECKS

    def check_heartbeat(self, now: float, *, imported: bool) -> None:
        """Note whether the runner reacts.

        Before it has `imported` the application, it has no pulse.
        """
        at, _ = self._table.pulse
        if not imported or now - at < UNRESPONSIVE_AFTER:
            self.unresponsive_since, self.unresponsive_checks = None, 0
            return
        self.unresponsive_checks += 1
        if self.unresponsive_since is None:
            self.unresponsive_since = now

    def check_reports(self, started: list[Started], received: int) -> None:
        """Note whether the runner reports the jobs that have ended.

        Args:
            started: The jobs being executed.
            received: Total bytes received from the runner.
        """
        before, self._received = self._received, received
        # Usually all held jobs are running. Then nothing else has to be read.
        if received != before or len(self._held.by_id) <= len(started) or not self._held.owes_outcome(started):
            self.silent_checks = 0
        elif self.unresponsive_since is None:
            self.silent_checks += 1
