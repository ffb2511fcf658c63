"""Durations as counts in buckets that double from 1 ms to 18.6 h. Histograms can be added.

Percentiles are computed from the sum.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

# Upper bounds in seconds of all buckets except the last, which is open. The first bucket holds
# durations below 1 ms.
BOUNDS = tuple(0.001 * 2.0**n for n in range(27))
BUCKETS = len(BOUNDS) + 1


def percentile(counts: Sequence[int], share: float) -> float | None:
    """Return the duration in seconds below which `share` (0 to 1) of the counts lie.

    None: there are no counts. Durations are assumed to be spread evenly within a bucket, so the
    true value is at most twice as long, or half. For the last bucket, the result is its lower
    bound: "at least 18.6 h".
    """
    total = sum(counts)
    if total <= 0:
        return None
    wanted = share * total
    passed = 0
    for n, count in enumerate(counts):
        if count > 0 and passed + count >= wanted:
            if n >= len(BOUNDS):
                break
            lower = BOUNDS[n - 1] if n else 0.0
            return lower + (BOUNDS[n] - lower) * (wanted - passed) / count
        passed += count
    return BOUNDS[-1]


def total(histograms: Iterable[Sequence[int]]) -> list[int]:
    """Return the sum, bucket by bucket.

    A histogram whose length is not BUCKETS counts as far as it goes.
    """
    summed = [0] * BUCKETS
    for counts in histograms:
        for n, count in enumerate(counts[:BUCKETS]):
            summed[n] += count
    return summed
