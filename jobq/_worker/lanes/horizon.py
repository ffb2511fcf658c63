"""The time before which no job can appear any more, from the snapshots of claims.

A job's run_at is never earlier than the moment of its insert. Once all transactions have ended that
had begun to write before some moment, nothing can appear below that moment.
"""

from __future__ import annotations

from collections import deque

# A job takes its run_at from the clock just before its transaction gets the id by which we see it.
# The difference is microseconds, or any time for which the machine pauses between two instructions.
_MARGIN = 100_000
_SAMPLES = 128


def next_transaction(above: int, given: int) -> int:
    """Return the next transaction id.

    Args:
        above: The snapshot's xmax.
        given: age('3'::xid): the lower 32 bits of the next id, less 3.
    """
    return above + ((given + 3 - above) & 0xFFFFFFFF)


class VisibilityHorizon:
    """Remembers bounds of snapshots. Knows the run_at below which no job can appear any more."""

    def __init__(self) -> None:
        self.floor = 0
        """In microseconds. 0: nothing is known."""
        self._samples: deque[tuple[int, int]] = deque()
        """(next id, time), oldest first.

        Transactions that began to write later have this id or more.
        """
        self._apart = 0
        """Least microseconds between two samples. It grows while a transaction keeps writing."""
        self._last = 0

    def saw(self, at: int, xmin: int, following: int) -> None:
        """Record a snapshot.

        Args:
            at: Time of the database just before the snapshot, in microseconds.
            xmin: The snapshot's lower bound.
            following: The next transaction id.
        """
        samples = self._samples
        if at < self._last:
            # The database's clock was set back: new jobs have earlier times than the known bound.
            samples.clear()
            self.floor = 0
        self._last = at
        if following <= xmin:
            # No transaction was writing.
            samples.clear()
            self.floor = max(self.floor, at - _MARGIN)
            return
        while samples and samples[0][0] <= xmin:
            self.floor = max(self.floor, samples.popleft()[1] - _MARGIN)
        if not samples:
            self._apart = 0
        elif samples[-1][0] == following:
            samples.pop()
        if not samples or at - samples[-1][1] >= self._apart:
            samples.append((following, at))
        if len(samples) > _SAMPLES:
            self._apart = max(1000, 2 * self._apart)
            self._samples = deque(sample for place, sample in enumerate(samples) if place % 2 == 0)
