"""Coordinates for SVG charts: the charts of a page without JavaScript, and the sparklines.

Kept beside uPlot, which draws the large charts in browsers with JavaScript: the page has to work
without.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

WIDTH = 100.0
HEIGHT = 24.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sparkline:
    """The points of a polyline, and the path of the area below it; empty if no value is above
    zero.
    """

    points: str
    area: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Bars:
    """Paths of stacked bars, one per row of values; `top` is the value at the upper edge."""

    paths: list[str]
    top: int


def spark(values: Sequence[int | float | None], *, height: float = HEIGHT) -> Sparkline:
    """Return `values` as a sparkline over the whole width, with zero at the bottom. None counts as
    zero.
    """
    numbers = [float(value or 0) for value in values]
    top = max(numbers, default=0.0)
    if top <= 0 or len(numbers) < 2:
        return Sparkline(points="", area="")
    points = _points(numbers, top, height)
    return Sparkline(points=points, area=f"M0,{height} L{points.replace(' ', ' L')} L{WIDTH:g},{height} Z")


def lines(rows: Sequence[Sequence[float | None]], *, height: float) -> tuple[list[list[str]], float]:
    """Return each row as polylines on one common scale, broken at None; and the value at the upper
    edge.
    """
    top = max((value for row in rows for value in row if value is not None), default=0.0)
    if top <= 0:
        return [[] for _ in rows], 0.0
    return [[_points(part, top, height, start, len(row)) for start, part in _parts(row)] for row in rows], top


def bars(rows: Sequence[Sequence[int]], *, height: float) -> Bars:
    """Return `rows` as stacked bars, in their order. Every value above zero is visible."""
    columns = list(zip(*rows, strict=True))
    top = nice(max((sum(column) for column in columns), default=0))
    step = WIDTH / max(len(columns), 1)
    paths = [[] for _ in rows]  # type: list[list[str]]
    for n, column in enumerate(columns):
        below = height
        for row, value in enumerate(column):
            if not value:
                continue
            # A minimum height: one failure among thousands must be visible.
            tall = max(value / top * height, height * 0.02)
            below = max(below - tall, 0.0)
            paths[row].append(
                f"M{n * step + step * 0.12:.2f},{below:.2f}h{step * 0.76:.2f}v{tall:.2f}h-{step * 0.76:.2f}z"
            )
    return Bars(paths=["".join(path) for path in paths], top=top)


def nice(number: int) -> int:
    """Return the smallest of 5, 10, 20, 50, 100, … that is at least `number`."""
    size = 1
    while True:
        for step in (1, 2, 5):
            if step * size >= max(number, 5):
                return step * size
        size *= 10


def _points(values: Sequence[float], top: float, height: float, start: int = 0, of: int | None = None) -> str:
    last = max((of or len(values)) - 1, 1)
    # A line at the very edge would lose half of its stroke width.
    return " ".join(
        f"{(start + n) / last * WIDTH:.2f},{height - 1 - value / top * (height - 2):.2f}"
        for n, value in enumerate(values)
    )


def _parts(row: Sequence[float | None]) -> list[tuple[int, list[float]]]:
    parts: list[tuple[int, list[float]]] = []
    part: list[float] = []
    for n, value in enumerate([*row, None]):
        if value is not None:
            part.append(value)
        elif part:
            parts.append((n - len(part), part))
            part = []
    return parts
