"""From measured times to figures. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

Figures = dict[str, float]


def percentile(values: Iterable[float], share: float) -> float:
    """Return the value at or below which `share` percent of `values` are: a value that was measured (nearest rank).

    Raises ValueError for no values, and for a share outside 0 to 100.
    """
    ordered = sorted(values)
    if not ordered:
        raise ValueError("values is empty: there is no percentile of nothing")
    if not 0 <= share <= 100:
        raise ValueError(f"share={share}: give 0 to 100")
    return ordered[max(0, math.ceil(len(ordered) * share / 100) - 1)]


def spread(values: Sequence[float], name: str, unit: str = "ms", factor: float = 1000.0) -> Figures:
    """Return the p50, p95 and p99 of `values`, named and in the unit that `factor` makes of them."""
    return {f"{name}_p{share}_{unit}": percentile(values, share) * factor for share in (50, 95, 99)}


def fifths(starts: Iterable[float]) -> list[float]:
    """Return how many jobs a second were started in each fifth of the jobs, first to last.

    Raises ValueError for fewer than ten starts: a rate needs an interval.
    """
    ordered = sorted(starts)
    if len(ordered) < 10:
        raise ValueError(f"{len(ordered)} starts: fifths want ten or more")
    bounds = [round(step * (len(ordered) - 1) / 5) for step in range(6)]
    return [(upper - lower) / max(ordered[upper] - ordered[lower], 1e-9) for lower, upper in pairwise(bounds)]


def rate(starts: Iterable[float], most: int | None = None) -> float:
    """Return starts a second from the first to the last of them, or to the one numbered `most`. Raises ValueError."""
    ordered = sorted(starts)[:most]
    if len(ordered) < 2:
        raise ValueError(f"{len(ordered)} starts: a rate wants two or more")
    return (len(ordered) - 1) / max(ordered[-1] - ordered[0], 1e-9)


def overlap(clients: Sequence[Sequence[float]]) -> tuple[float, int]:
    """Return the seconds in which all clients were calling, and the calls that were begun in them.

    `clients`: when each call of each began. Clients start at different times, so that a sum of their rates would count what
    was never done at the same time. 0 seconds when they did not overlap.
    """
    if not clients or not all(clients):
        return 0.0, 0
    begin, end = max(min(calls) for calls in clients), min(max(calls) for calls in clients)
    if end <= begin:
        return 0.0, 0
    return end - begin, sum(begin <= call < end for calls in clients for call in calls)


def medians(rounds: Iterable[Mapping[str, Any]]) -> Figures:
    """Return the median of each figure over the rounds that have it."""
    listed = list(rounds)
    names = dict.fromkeys(name for figures in listed for name in figures)
    return {
        name: statistics.median(figures[name] for figures in listed if figures.get(name) is not None)
        for name in names
        if any(figures.get(name) is not None for figures in listed)
    }
