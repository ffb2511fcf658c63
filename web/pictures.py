"""What the two pictures show, as numbers for the templates to draw: the last hour, and one job's life."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime

from jobq.queries import JobDetail, Throughput

WIDTH = 1000.0
HEIGHT = 100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One minute: heights of its two parts, from the bottom, and what it says when pointed at."""

    x: float
    width: float
    good: float
    bad: float
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Hour:
    """The bars, and the count that the picture's top stands for."""

    bars: list[Bar]
    top: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A part of a job's life. `kind` is ``wait``, ``run`` or an outcome."""

    kind: str
    label: str
    start: datetime
    end: datetime
    x: float = 0.0
    width: float = 0.0

    @property
    def seconds(self) -> float:
        """How long it lasted."""
        return (self.end - self.start).total_seconds()


def hour(throughput: Throughput) -> Hour:
    """Return the last hour as bars."""
    top = _nice(max(minute.total for minute in throughput.minutes))
    step = WIDTH / len(throughput.minutes)
    bars = []
    for n, minute in enumerate(throughput.minutes):
        bad, good = minute.failed, minute.total - minute.failed
        when = "this minute" if minute.minutes_ago == 0 else f"{minute.minutes_ago} min ago"
        bars.append(
            Bar(
                x=round(n * step + step * 0.1, 2),
                width=round(step * 0.8, 2),
                good=round(good / top * HEIGHT, 2),
                # One failure among thousands must still be seen.
                bad=round(max(bad / top * HEIGHT, 2.0), 2) if bad else 0.0,
                title=f"{when}: {minute.total:,} finished, {bad:,} failed",
            )
        )
    return Hour(bars=bars, top=top)


def timeline(job: JobDetail) -> list[Span]:
    """Return a job's life as spans of waiting and running, oldest first, laid out on `WIDTH`."""
    spans: list[Span] = []
    cursor = job.created_at
    current = job.started_at
    for attempt in job.attempts:
        start = max(attempt.started_at or attempt.finished_at, cursor)
        if current == attempt.started_at:
            current = None
        _add(spans, "wait", "waited", cursor, start)
        _add(spans, attempt.outcome, f"attempt {attempt.attempt}: {attempt.outcome}", start, attempt.finished_at)
        cursor = max(cursor, attempt.finished_at)
    end = job.finished_at or job.read_at
    if current is not None and current >= cursor and job.state in ("running", "succeeded", "cancelled", "failed"):
        _add(spans, "wait", "waited", cursor, current)
        kind = "run" if job.state == "running" else job.state
        _add(spans, kind, f"attempt {job.attempt}: {job.state}", current, end)
    else:
        _add(spans, "wait", "waited" if job.finished_at else "waiting since", cursor, end)
    return _lay_out(spans)


def _add(spans: list[Span], kind: str, label: str, start: datetime, end: datetime) -> None:
    # A wait of less than a millisecond is only the gap between two clock readings.
    if kind != "wait" or (end - start).total_seconds() >= 0.001:
        spans.append(Span(kind=kind, label=label, start=start, end=max(start, end)))


def _lay_out(spans: list[Span]) -> list[Span]:
    # By the square root of the time: a run of 20 ms after an hour's wait is still to be seen, and lengths
    # still compare.
    weights = [max(math.sqrt(span.seconds), 0.02) for span in spans]
    floor = sum(weights) * 0.012
    weights = [max(weight, floor) for weight in weights]
    total = sum(weights) or 1.0
    laid, x = [], 0.0
    for span, weight in zip(spans, weights, strict=True):
        width = weight / total * WIDTH
        laid.append(
            Span(kind=span.kind, label=span.label, start=span.start, end=span.end, x=round(x, 2), width=round(width, 2))
        )
        x += width
    return laid


def _nice(number: int) -> int:
    """Return the next of 5, 10, 20, 50, 100, …"""
    size = 1
    while True:
        for step in (1, 2, 5):
            if step * size >= max(number, 5):
                return step * size
        size *= 10
