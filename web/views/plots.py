"""The three charts on Overview and Queue, for templates/jobq/shared/charts.html, and the same
numbers as JSON.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from flask import Response, abort, request

from jobq import queries
from jobq.queries import Series
from jobq.web.context import current_page
from jobq.web.rendering import charts
from jobq.web.routes import Route

_HOURS = (1, 24, 168)
_HEIGHT = 100.0
_EACH = {60: "a minute", 600: "in 10 min", 3600: "an hour"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of the table: a span of time."""

    at: datetime
    counts: tuple[int | None, ...]
    seconds: tuple[float | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """A series as charts, and as table rows, newest first. `latency_top` and `depth_top` are the
    values at the charts' upper edges.
    """

    good: list[int]
    bad: list[int]
    bars: charts.Bars
    each: str
    latency: list[tuple[str, list[str]]]
    latency_top: float
    depth: list[str]
    depth_top: int | None
    rows: list[Row]


def plot(series: Series | None) -> Plot | None:
    """Return `series` as the templates draw it; None for None."""
    if series is None:
        return None
    bad = [number or 0 for number in series.failed]
    good = [
        sum(number or 0 for number in numbers)
        for numbers in zip(series.succeeded, series.cancelled, series.expired, strict=True)
    ]
    latency, latency_top = charts.lines([series.wait_p50, series.wait_p95, series.run_p95], height=_HEIGHT)
    depth, _ = charts.lines([series.ready], height=_HEIGHT)
    known = [number for number in series.ready if number is not None]
    counts = zip(series.succeeded, series.failed, series.cancelled, series.expired, series.ready, strict=True)
    seconds = zip(
        series.wait_p50, series.wait_p95, series.wait_p99, series.run_p50, series.run_p95, series.run_p99, strict=True
    )
    rows = [
        Row(at=datetime.fromtimestamp(at, UTC), counts=of_counts, seconds=of_seconds)
        for at, of_counts, of_seconds in zip(series.at, counts, seconds, strict=True)
    ]
    return Plot(
        good=good,
        bad=bad,
        bars=charts.bars([good, bad], height=_HEIGHT),
        each=_EACH.get(series.span, ""),
        latency=list(zip(("l-low", "l-mid", "l-high"), latency, strict=True)),
        latency_top=latency_top,
        depth=depth[0],
        depth_top=max(known, default=None),
        rows=rows[::-1],
    )


def hours() -> int:
    """Return the hours that the charts cover, from the address; abort with 400 for an unsupported
    number.
    """
    text = request.args.get("hours", "1")
    if text not in map(str, _HOURS):
        abort(400, f"hours={text[:50]!r}: expected 1, 24 or 168.")
    return int(text)


def series() -> Response:
    """Return the data of the charts as JSON."""
    page = current_page()
    back = hours()
    queue = request.args.get("queue") or None
    if queue is not None and ("\x00" in queue or len(queue) > 200):
        abort(400, "queue: expected at most 200 characters, none of them NUL.")
    with page.database.read() as reader:
        found = reader.require(queries.series, hours=back, queue=queue)
    return Response(json.dumps(asdict(found)), mimetype="application/json")


ROUTES = [Route("/series", "GET", series, needs="view")]
