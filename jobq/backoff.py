"""How long to wait before trying again."""

from __future__ import annotations

import random
from dataclasses import dataclass

from jobq.errors import InvalidOption


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """How long a job waits for its next attempt: exponential, capped, with full jitter.

    After attempt n the wait is drawn evenly from 0 to ``min(cap, base * 2 ** (n - 1))`` seconds, so that jobs that
    failed together do not come back together.
    """

    base: float = 2.0
    """Longest wait after the first attempt, in seconds. Smaller retries sooner, and hits a sick service harder."""
    cap: float = 3600.0
    """Longest wait after any attempt, in seconds."""

    def __post_init__(self) -> None:
        if not 0 < self.base <= self.cap or not self.cap <= 365 * 86400:
            raise InvalidOption(
                f"Backoff(base={self.base!r}, cap={self.cap!r}): give seconds, 0 < base <= cap <= one year"
            )

    def longest(self, attempt: int) -> float:
        """Return the most seconds to wait after attempt number `attempt` (1 is the first)."""
        # The exponent is bounded: 2.0 ** 1024 overflows.
        return min(self.cap, self.base * 2.0 ** min(max(attempt, 1) - 1, 60))

    def delay(self, attempt: int) -> float:
        """Draw how many seconds to wait after attempt number `attempt` (1 is the first)."""
        return random.uniform(0, self.longest(attempt))
