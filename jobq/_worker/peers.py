"""What a worker reads with each heartbeat: the other workers, and data that concerns it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

# Seconds that the server's clock and ours may drift apart between two checks. A heartbeat is
# assumed to be that much younger.
CLOCK_TOLERANCE = 0.1


@dataclass(frozen=True, slots=True)
class Peers:
    """Rows of worker_peers.sql, read between `asked` and `answered` in time.monotonic() seconds."""

    rows: list[tuple[Any, ...]]
    asked: float
    answered: float

    @property
    def clock(self) -> float:
        """The server's clock, in seconds."""
        return float(self.rows[-1][4]) if self.rows else 0.0

    def steady_since(self, before: Peers) -> bool:
        """Return whether the server's clock has run like ours since `before`.

        The duration of an answer proves nothing.
        """
        passed = self.clock - before.clock
        least, most = self.asked - before.answered, self.answered - before.asked
        return least - CLOCK_TOLERANCE < passed < most + CLOCK_TOLERANCE


@dataclass(frozen=True, slots=True, kw_only=True)
class HeartbeatReply:
    """The replies to a heartbeat; None: the reply could not be read."""

    cancelled: list[int] | None = None
    """Ids of our jobs that an operator wants to stop."""
    queues: tuple[list[str], str | None] | None = None
    """The paused queues, and when the rules of any queue last changed, only for comparison."""
    wake: tuple[int, bool] | None = None
    """The notify mode, a `policy.NotifyMode`, and whether a worker is the lead poller."""
    peers: Peers | None = None
    """The workers, for `Lease.watch`."""
