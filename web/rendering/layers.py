"""Places for the boxes of a graph: layers by the longest path, rows that follow the parents."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean

# A line that passes layers keeps a place free in each. Above this number of places, lines run
# straight through.
_MAX_BENDS = 1_500
_SWEEPS = 2
# Rows that fit without scrolling.
_TALL = 10
# The height of a place and the distance of its line from its upper edge, both in rows. A box does
# not fill its row, so a line has half of the gap above it, too.
_BOX, _BEND = (1.0, 0.39), (0.4, 0.1)

_Join = tuple[tuple[int, ...], int]


@dataclass(slots=True)
class Line:
    """A line through `points`: a layer, and the distance from the top in rows.

    It connects each of `parents` with each of `children`. Boxes with the same parents share a
    junction before their layer, so that m parents and n boxes have m + n lines and not m * n.
    """

    points: list[tuple[int, float]]
    parents: Sequence[int]
    children: Sequence[int]
    from_junction: bool = False
    to_junction: bool = False


@dataclass(slots=True)
class Layout:
    """The layer and the row of each box, the number of layers, the height in rows, and the lines."""

    places: list[tuple[int, float]]
    layers: int
    height: float
    lines: list[Line] = field(default_factory=list[Line])


@dataclass(slots=True)
class _Item:
    """A box in its layer, or the place that a passing line keeps free there."""

    layer: int
    size: float = _BOX[0]
    half: float = _BOX[1]
    above: list[_Item] = field(default_factory=list["_Item"])
    below: list[_Item] = field(default_factory=list["_Item"])
    row: float = 0.0

    @property
    def center(self) -> float:
        """Where its line is."""
        return self.row + self.half


def lay_out(parents: Sequence[Sequence[int]]) -> Layout:
    """Return the places of boxes. `parents` has the parents of each box.

    If there is a cycle, as the folding of parts can make one, the lines back are left out.
    """
    layers = _layers(parents)
    items = [_Item(layer) for layer in layers]
    rows: list[list[_Item]] = [[] for _ in range(max(layers, default=-1) + 1)]
    for item in items:
        rows[item.layer].append(item)
    joins: dict[_Join, list[int]] = defaultdict(list)
    for child, of in enumerate(parents):
        if forward := tuple(parent for parent in of if layers[parent] < layers[child]):
            joins[forward, layers[child]].append(child)
    bends = sum(layer - layers[parent] - 1 for of, layer in joins for parent in of)
    lines: list[tuple[_Join, dict[int, list[_Item]]]] = []
    for join, children in joins.items():
        routes = {
            parent: _route(items[parent], [items[child] for child in children], bends <= _MAX_BENDS)
            for parent in join[0]
        }
        lines.append((join, routes))
        for route in routes.values():
            for item in route:
                rows[item.layer].append(item)
    _place(rows)
    return Layout(
        places=[(item.layer, item.row) for item in items],
        layers=len(rows),
        height=max((item.row + 1 for item in items), default=0.0),
        lines=[line for join, routes in lines for line in _lines(join, joins[join], items, routes)],
    )


def _layers(parents: Sequence[Sequence[int]]) -> list[int]:
    """Return the layer of each box: the number of boxes on the longest path to it."""
    children: dict[int, list[int]] = defaultdict(list)
    for child, of in enumerate(parents):
        for parent in of:
            children[parent].append(child)
    missing = [len(of) for of in parents]
    layers = [0] * len(parents)
    done = [False] * len(parents)
    # First the roots. What is left then are cycles: their first box is taken without its parents.
    for start in [*(box for box, of in enumerate(parents) if not of), *range(len(parents))]:
        ready = [] if done[start] else [start]
        while ready:
            box = ready.pop()
            done[box] = True
            for child in children[box]:
                if done[child]:
                    continue
                layers[child] = max(layers[child], layers[box] + 1)
                missing[child] -= 1
                if not missing[child]:
                    ready.append(child)
    return layers


def _route(parent: _Item, children: Sequence[_Item], keep_free: bool) -> list[_Item]:
    route = [_Item(layer, *_BEND) for layer in range(parent.layer + 1, children[0].layer)] if keep_free else []
    before = parent
    for item in route:
        before.below.append(item)
        item.above.append(before)
        before = item
    for child in children:
        before.below.append(child)
        child.above.append(before)
    return route


def _place(rows: Sequence[list[_Item]]) -> None:
    for row in rows:
        # The order stays after this: only distances change.
        wanted = {id(item): _mean(item.above, item) for item in row}
        if row is not rows[0]:
            row.sort(key=lambda item: wanted[id(item)])
        _settle(row, [wanted[id(item)] for item in row])
    for sweep in range(_SWEEPS):
        for row in reversed(rows):
            _settle(row, [_mean(item.below, item) for item in row])
        for row in rows if sweep < _SWEEPS - 1 else ():
            _settle(row, [_mean(item.above, item) for item in row])
    places = [item.row for row in rows for item in row]
    is_tall = max(places, default=0.0) - min(places, default=0.0) > _TALL
    for row in rows:
        # In a tall graph the first boxes would be far below the upper edge, out of sight.
        least = min(item.row for item in row) if is_tall else min(places)
        for item in row:
            item.row = round(item.row - least, 2)


def _mean(others: Sequence[_Item], item: _Item) -> float:
    return fmean([other.center for other in others]) if others else item.center


def _settle(row: Sequence[_Item], wanted: Sequence[float]) -> None:
    """Place one layer as close to the `wanted` centers as order and sizes allow (least squares)."""
    # Neighbours that would overlap are merged into a block, whose place is the mean of theirs.
    blocks: list[tuple[float, int]] = []
    offset = 0.0
    offsets: list[float] = []
    for item, center in zip(row, wanted, strict=True):
        offsets.append(offset)
        total, number = center - item.half - offset, 1
        while blocks and blocks[-1][0] / blocks[-1][1] >= total / number:
            before = blocks.pop()
            total, number = total + before[0], number + before[1]
        blocks.append((total, number))
        offset += item.size
    places = (total / number for total, number in blocks for _ in range(number))
    for item, place, offset in zip(row, places, offsets, strict=True):
        item.row = place + offset


def _lines(join: _Join, children: Sequence[int], items: Sequence[_Item], routes: dict[int, list[_Item]]) -> list[Line]:
    of, layer = join
    begins = {
        parent: [(item.layer, item.center) for item in (items[parent], *route)] for parent, route in routes.items()
    }
    ends = {child: (layer, items[child].center) for child in children}
    if len(of) * len(children) <= len(of) + len(children):
        return [Line([*begins[parent], ends[child]], [parent], [child]) for parent in of for child in children]
    middle = (layer, fmean([center for _, center in ends.values()]))
    into = [Line([*begins[parent], middle], [parent], children, to_junction=True) for parent in of]
    return into + [Line([middle, ends[child]], of, [child], from_junction=True) for child in children]
