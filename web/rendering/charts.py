"""Lines and bars as numbers for SVG: what a chart is without JavaScript, and the small ones that stay so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

WIDTH = 100.0
HEIGHT = 24.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A polyline's points, and the path of the area below it; empty when there is nothing above zero."""

    points: str
    area: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Bars:
    """Paths of stacked bars, one for each row of values, and the count that the top stands for."""

    paths: list[str]
    top: int


def spark(values: Sequence[int | float | None], *, height: float = HEIGHT) -> Line:
    """Return `values` as a small line over the whole width, zero at the bottom; None is taken for zero."""
    numbers = [float(value or 0) for value in values]
    top = max(numbers, default=0.0)
    if top <= 0 or len(numbers) < 2:
        return Line(points="", area="")
    points = _points(numbers, top, height)
    return Line(points=points, area=f"M0,{height} L{points.replace(' ', ' L')} L{WIDTH:g},{height} Z")


def lines(rows: Sequence[Sequence[float | None]], *, height: float) -> tuple[list[list[str]], float]:
    """Return each row as polylines, broken where a value is None, over one common scale; and its top."""
    top = max((value for row in rows for value in row if value is not None), default=0.0)
    if top <= 0:
        return [[] for _ in rows], 0.0
    return [[_points(part, top, height, start, len(row)) for start, part in _parts(row)] for row in rows], top


def bars(rows: Sequence[Sequence[int]], *, height: float) -> Bars:
    """Return `rows` stacked in their order; whatever is not zero is to be seen."""
    columns = list(zip(*rows, strict=True))
    top = nice(max((sum(column) for column in columns), default=0))
    step = WIDTH / max(len(columns), 1)
    paths = [[] for _ in rows]  # type: list[list[str]]
    for n, column in enumerate(columns):
        below = height
        for row, value in enumerate(column):
            if not value:
                continue
            # One failure among thousands must still be seen.
            tall = max(value / top * height, height * 0.02)
            below = max(below - tall, 0.0)
            paths[row].append(
                f"M{n * step + step * 0.12:.2f},{below:.2f}h{step * 0.76:.2f}v{tall:.2f}h-{step * 0.76:.2f}z"
            )
    return Bars(paths=["".join(path) for path in paths], top=top)


def nice(number: int) -> int:
    """Return the next of 5, 10, 20, 50, 100, …"""
    size = 1
    while True:
        for step in (1, 2, 5):
            if step * size >= max(number, 5):
                return step * size
        size *= 10


def _points(values: Sequence[float], top: float, height: float, start: int = 0, of: int | None = None) -> str:
    last = max((of or len(values)) - 1, 1)
    # A line at the very edge would lose half its width.
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
