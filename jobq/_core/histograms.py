"""Durations as counts in buckets that double from 1 ms to 18.6 h: they add up, and percentiles come of the sum."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

# Upper bounds in seconds of all buckets but the last, which is open; the first holds what took less than 1 ms.
BOUNDS = tuple(0.001 * 2.0**n for n in range(27))
BUCKETS = len(BOUNDS) + 1


def percentile(counts: Sequence[int], share: float) -> float | None:
    """Return the duration in seconds below which `share` (0 to 1) of the counted lie; None when nothing was counted.

    Within a bucket durations are taken to be spread evenly, so the true value is within the bucket: at most twice as long, or
    half. In the last bucket it is that bucket's lower bound: "at least 18.6 h".
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
    """Return the sum, bucket by bucket. Those of a length other than BUCKETS, an empty one too, count for what they have."""
    summed = [0] * BUCKETS
    for counts in histograms:
        for n, count in enumerate(counts[:BUCKETS]):
            summed[n] += count
    return summed
