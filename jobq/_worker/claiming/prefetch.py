"""How many jobs to hold: no slot should wait for the database, no job behind a long one.

While one claim is under way, about `rate x round trip` jobs finish, and as many wait to be handed
out. Twice that number, beyond the jobs that the slots execute, keeps the slots busy. Three times
that number lets the figure grow until the limit is the runners and not the round trips. If jobs are
long, the product is below one, and nothing is prefetched.
"""

from __future__ import annotations

# Two of the longest batches: one is being executed while the other is being claimed.
MAX_PREFETCH = 1000
# A batch may be fetched before a slot is idle if one becomes idle within this many seconds. It is well
# below the time after which jobs that have not started go back.
SOON = 0.5
_MEMORY = 0.25  # seconds over which the rate is smoothed


class PrefetchEstimator:
    """Measures completions and round trips. All times are in seconds of one monotonic clock."""

    def __init__(self) -> None:
        self._rate = 0.0
        self._round_trip = 0.002
        self._since: float | None = None

    def measured(self, now: float, finished: int, round_trip: float) -> None:
        """Record `finished` jobs since the last call, and the `round_trip` of a claim."""
        self._round_trip += 0.3 * (min(round_trip, 0.25) - self._round_trip)
        if self._since is None:
            self._since = now
            return
        elapsed = max(now - self._since, 1e-4)
        self._since = now
        weight = min(1.0, elapsed / _MEMORY)
        # The rate grows fast and shrinks slowly: a burst must not need many round trips to reach
        # full speed.
        current = finished / elapsed
        self._rate = current if current > self._rate and finished > 1 else self._rate + weight * (current - self._rate)

    def soon(self) -> float:
        """Return how many jobs end in the next `SOON` seconds, at the present rate."""
        return self._rate * SOON

    def prefetch(self) -> int:
        """Return how many jobs to hold beyond those that are being executed."""
        return min(MAX_PREFETCH, int(3 * self._rate * self._round_trip))
