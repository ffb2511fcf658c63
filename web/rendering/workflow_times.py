"""When the nodes of a run, or the steps of a job, waited and ran: bars on one time axis, and the critical path."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from jobq.queries import JobDetail, NodeInfo, WorkflowInfo
from jobq.web.rendering import formatting
from jobq.web.rendering.timeline import STEPS, elapsed

_MOST_TICKS = 4
# In percent of the axis: what is shorter is drawn this long, to be seen at all.
_LEAST = 0.4
# In percent: closer to the end of the axis, the label of a tick would cover that of the end.
_END_APART = 34.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """The time from the insert of a run or a job to its end, or to now. `ticks`: position in percent, label."""

    start: datetime
    end: datetime
    ticks: list[tuple[float, str]]

    @property
    def seconds(self) -> float:
        """The length of the axis in seconds."""
        return (self.end - self.start).total_seconds()


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A part of the time of a node or a step. `kind` is ``wait`` (for parents), ``queue``, ``run`` or its end state.

    `x` and `width` in percent of the axis.
    """

    kind: str
    label: str
    seconds: float
    x: float
    width: float


def axis(of: WorkflowInfo | JobDetail, start: datetime | None = None) -> Axis:
    """Return the time axis of a run, or of a job: from its insert, or from `start`, to its end, or to now."""
    start = start or of.created_at
    end = max(of.finished_at or of.read_at, start)
    seconds = (end - start).total_seconds() or 0.001
    step = next((step for step in STEPS if seconds / step <= _MOST_TICKS), seconds / _MOST_TICKS)
    places = [(n * step, n * step / seconds * 100) for n in range(int(seconds / step) + 1)]
    ticks = [(round(x, 2), elapsed(at)) for at, x in places if x < 100 - _END_APART]
    return Axis(start=start, end=end, ticks=[*ticks, (100.0, elapsed(seconds))])


def spans(node: NodeInfo, on: Axis) -> list[Span]:
    """Return what a node did when: it waited for its parents, was queued, ran."""
    end = node.finished_at or on.end
    started = node.started_at
    released = node.released_at or started or end
    if started is None and node.job_id is None and node.finished_at is not None:
        # It ended without having been started.
        released = end
    released = min(max(released, on.start), end)
    began = end if started is None else min(max(started, released), end)
    found = [("wait", "waited for its parents", on.start, released), ("queue", "queued", released, began)]
    if started is not None:
        found.append((node.state if node.finished_at else "run", "ran", began, end))
    return [span(*one, on) for one in found if (one[3] - one[2]).total_seconds() >= 0.001 or one[1] == "ran"]


def describe(parts: Sequence[Span]) -> str:
    """Return the spans of a node in words."""
    return ", ".join(f"{part.label} {formatting.duration(part.seconds)}" for part in parts) or "no time"


def totals(nodes: Sequence[NodeInfo], on: Axis) -> dict[str, float]:
    """Return how many seconds `nodes` ran and were queued together: ``run``, ``queue``."""
    found = {"run": 0.0, "queue": 0.0}
    for node in nodes:
        for part in spans(node, on):
            if part.kind != "wait":
                found["queue" if part.kind == "queue" else "run"] += part.seconds
    return found


def critical_path(nodes: Sequence[NodeInfo], now: datetime) -> list[int]:
    """Return the numbers of the nodes that the run's end depended on, first to last.

    From the node that ended last, it leads to the parent that ended last, and so on. If nodes are
    under way, it begins at the one that was ready first.
    """
    by_number = {node.number: node for node in nodes}
    moving = [node for node in nodes if node.finished_at is None and node.released_at is not None]
    ended = [node for node in nodes if node.finished_at is not None and node.started_at is not None]
    if moving:
        last = min(moving, key=lambda node: (node.released_at or now, node.number))
    elif ended:
        last = max(ended, key=lambda node: (node.finished_at or now, node.number))
    else:
        return []
    path = [last.number]
    while True:
        above = [
            parent
            for number in by_number[path[-1]].parents
            if (parent := by_number.get(number)) is not None and parent.finished_at and parent.started_at
        ]
        if not above or len(path) > len(nodes):
            return path[::-1]
        path.append(max(above, key=lambda node: (node.finished_at or now, node.number)).number)


def span(kind: str, label: str, start: datetime, end: datetime, on: Axis) -> Span:
    """Return a span from `start` to `end`, at its place on the axis `on`."""
    whole = on.seconds or 0.001
    seconds = (end - start).total_seconds()
    width = min(max(seconds / whole * 100, _LEAST), 100.0)
    x = min((start - on.start).total_seconds() / whole * 100, 100.0 - width)
    return Span(kind=kind, label=label, seconds=seconds, x=round(x, 2), width=round(width, 2))
