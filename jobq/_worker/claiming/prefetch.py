"""How many jobs to hold: enough that no slot waits for the database, few enough that none waits behind a long one.

While one claim is on its way, about `rate x round trip` jobs finish, and as many wait to be handed out: twice that, beyond
what the slots execute, keeps the slots busy, and three times lets the figure grow until the runners, not the round trips, are
the limit. When jobs are long the product is below one, and nothing is prefetched.
"""

from __future__ import annotations

# Two of the longest batches: one that is being executed while the other is being claimed.
MAX_PREFETCH = 1000
_MEMORY = 0.25  # seconds over which the rate is smoothed


class Pace:
    """Measures completions and round trips; all times are in seconds of one monotonic clock."""

    def __init__(self) -> None:
        self._rate = 0.0
        self._round_trip = 0.002
        self._since: float | None = None

    def measured(self, now: float, finished: int, round_trip: float) -> None:
        """Take note that `finished` jobs have ended since the last call, and that a claim took `round_trip`."""
        self._round_trip += 0.3 * (min(round_trip, 0.25) - self._round_trip)
        if self._since is None:
            self._since = now
            return
        elapsed = max(now - self._since, 1e-4)
        self._since = now
        weight = min(1.0, elapsed / _MEMORY)
        # Quick to grow, slow to shrink: a burst must not need many round trips to come up to speed.
        current = finished / elapsed
        self._rate = current if current > self._rate and finished > 1 else self._rate + weight * (current - self._rate)

    def prefetch(self) -> int:
        """Return how many jobs to hold beyond those being executed."""
        return min(MAX_PREFETCH, int(3 * self._rate * self._round_trip))
