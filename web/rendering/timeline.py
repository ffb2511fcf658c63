"""The timeline of a job: spans of waiting and running, and their positions on a scaled time
axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from jobq.queries import JobDetail
from jobq.web.rendering import formatting

# A span is cut short if it is more than this many times as long as all other spans together.
_CUT_RATIO = 12.0
_MAX_CUTS = 6
# In percent of the width.
_CUT_WIDTH = 7.0
_LEAST_WIDTH = 0.35
_LABEL_APART = 8.0
_MINOR_APART = 22.0
_END_APART = 11.0
STEPS = (
    *(size * step for size in (0.001, 0.01, 0.1) for step in (1, 2, 5)),
    1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400, 172_800, 604_800,
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A part of the timeline. `kind` is ``due`` (not due yet), ``wait``, ``run`` or an outcome."""

    kind: str
    label: str
    start: datetime
    end: datetime

    @property
    def seconds(self) -> float:
        """The duration in seconds."""
        return (self.end - self.start).total_seconds()

    @property
    def idle(self) -> bool:
        """Whether the job did not run in this span."""
        return self.kind in ("due", "wait")


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A drawn span; `x` and `width` in percent of the whole. `cut`: drawn shorter than to scale,
    and marked.
    """

    span: Span
    x: float
    width: float
    cut: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """A mark on the axis. The labels of `minor` ticks are hidden on narrow screens."""

    x: float
    label: str
    minor: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """A drawn timeline. `now`: the position of the present, if a part lies in the future."""

    spans: list[Span]
    pieces: list[Piece]
    ticks: list[Tick]
    now: float | None

    @property
    def cut(self) -> bool:
        """Whether some span was cut short."""
        return any(piece.cut for piece in self.pieces)


def timeline(job: JobDetail, *, suspended: bool = False) -> Timeline:
    """Return the timeline of `job`, from its creation to its end, to now, or to the time it is
    due.

    `suspended`: a durable job, which goes on when it is woken and not when it is due.
    """
    spans = _spans(job, suspended)
    pieces, ticks = _draw(spans)
    now = None
    ahead = [piece for piece in pieces if piece.span.end > job.read_at]
    if ahead and job.finished_at is None and ahead[0].span.kind == "due":
        part = (job.read_at - ahead[0].span.start).total_seconds() / (ahead[0].span.seconds or 1)
        now = round(ahead[0].x + ahead[0].width * min(max(part, 0.0), 1.0), 2)
    return Timeline(spans=spans, pieces=pieces, ticks=ticks, now=now)


def _spans(job: JobDetail, suspended: bool) -> list[Span]:
    spans: list[Span] = []
    cursor, current, due = job.created_at, job.started_at, None
    if not job.attempts and job.run_at > job.created_at:
        due = job.run_at
    for attempt in job.attempts:
        start = max(attempt.started_at or attempt.finished_at, cursor)
        if current == attempt.started_at:
            current = None
        _idle(spans, cursor, start, due)
        spans.append(
            _span(attempt.outcome, f"attempt {attempt.attempt}: {attempt.outcome}", start, attempt.finished_at)
        )
        cursor, due = max(cursor, attempt.finished_at), attempt.retry_at
    if current is not None and current >= cursor and job.state in ("running", "succeeded", "cancelled", "failed"):
        _idle(spans, cursor, current, due)
        kind = "run" if job.state == "running" else job.state
        spans.append(_span(kind, f"attempt {job.attempt}: {job.state}", current, job.finished_at or job.read_at))
    elif job.finished_at is None:
        until = max(job.read_at, job.run_at) if job.state == "scheduled" and not suspended else job.read_at
        _idle(spans, cursor, until, job.run_at if job.run_at > cursor and not suspended else None)
    else:
        _idle(spans, cursor, job.finished_at, due)
    return spans


def _idle(spans: list[Span], start: datetime, end: datetime, due: datetime | None) -> None:
    # Less than a millisecond is the gap between two clock readings.
    if (end - start).total_seconds() < 0.001:
        return
    ready = min(max(due, start), end) if due is not None else start
    if (ready - start).total_seconds() >= 0.001:
        spans.append(_span("due", "backed off" if spans else "not due yet", start, ready))
    if (end - ready).total_seconds() >= 0.001:
        spans.append(_span("wait", "waited", ready, end))


def _span(kind: str, label: str, start: datetime, end: datetime) -> Span:
    return Span(kind=kind, label=label, start=start, end=max(start, end))


def _cuts(spans: Sequence[Span]) -> set[int]:
    left = set(range(len(spans)))
    for n in sorted(left, key=lambda n: -spans[n].seconds)[:_MAX_CUTS]:
        others = left - {n}
        whole = sum(spans[other].seconds for other in others)
        # Cut only if the rest contains an attempt, not only waiting.
        if whole <= 0 or whole >= spans[n].seconds / _CUT_RATIO or all(spans[other].idle for other in others):
            break
        left = others
    return set(range(len(spans))) - left


def _draw(spans: Sequence[Span]) -> tuple[list[Piece], list[Tick]]:
    lengths = [span.seconds for span in spans]
    cuts = _cuts(spans)
    linear = sum(length for n, length in enumerate(lengths) if n not in cuts) or 0.001
    scale = (100.0 - _CUT_WIDTH * len(cuts)) / linear
    step = next((step for step in STEPS if step * scale >= _LABEL_APART), None) or linear / 4
    pieces: list[Piece] = []
    places: list[tuple[float, float]] = [(0.0, 0.0)]
    x = passed = 0.0
    for n, span in enumerate(spans):
        width = _CUT_WIDTH if n in cuts else lengths[n] * scale
        drawn = max(width, 0.0 if span.idle else _LEAST_WIDTH)
        pieces.append(Piece(span=span, x=round(min(x, 100.0 - drawn), 2), width=round(drawn, 2), cut=n in cuts))
        if n not in cuts:
            first = int(passed / step) + 1
            places += [
                (x + (k * step - passed) * scale, k * step)
                for k in range(first, first + 40)
                if k * step <= passed + lengths[n]
            ]
        x, passed = x + width, passed + lengths[n]
        if n in cuts:
            places.append((x, passed))
    return pieces, _ticks([*places, (100.0, passed)])


def _ticks(places: Sequence[tuple[float, float]]) -> list[Tick]:
    # The label of the end has precedence.
    end, ticks = places[-1], []  # type: tuple[float, float], list[Tick]
    label_at = major_at = -100.0
    for x, passed in places[:-1]:
        if x - label_at < _LABEL_APART or end[0] - x < _END_APART:
            continue
        minor = x - major_at < _MINOR_APART or end[0] - x < _MINOR_APART + _END_APART
        ticks.append(Tick(x=round(x, 2), label=elapsed(passed), minor=minor))
        label_at = x
        if not minor:
            major_at = x
    return [*ticks, Tick(x=100.0, label=elapsed(end[1]), minor=False)]


def elapsed(seconds: float) -> str:
    """Return the label of a tick: the time since the beginning of the axis."""
    # On an axis, 60 s are 1 min.
    if seconds in (60, 3600):
        return "+1 min" if seconds == 60 else "+1 h"
    return f"+{formatting.duration(seconds)}" if seconds else "0"
