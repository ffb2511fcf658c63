"""The drawing of a workflow's run: boxes in layers, from left to right, and the lines between them.

A box is a node, or a part of the workflow (the names before a ``/``) if the run has more nodes than
can be drawn. A box is one layer to the right of the last of its parents. Within a layer, boxes are
ordered by the mean of their parents' places, and lie as close to it as the others allow.

Kept here, and not done by a library in the browser: the page has to work without JavaScript.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice, pairwise

from jobq.queries import NodeInfo
from jobq.web.rendering import formatting
from jobq.web.rendering.layers import Line, lay_out

MAX_BOXES = 500
# With parents in common, hundreds of boxes can have tens of thousands of lines.
MAX_LINES = 2_500

WIDTH, HEIGHT = 176, 42
_GAP, _ROW, _MARGIN, _STACK = 48, 54, 6, 4
_LABEL, _TITLE = 22, 40
# The state of a part is the first of these that one of its nodes has.
_FOLDED_STATES = (
    "failed", "running", "parked", "ready", "scheduled", "waiting", "expired", "deleted", "upstream_failed", "cancelled",
    "succeeded", "skipped",
)  # fmt: skip
_BAD = frozenset({"failed", "expired", "deleted", "upstream_failed"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A drawn node, or a drawn part with its `nodes`; `x` and `y` of its upper left corner.

    `number` is that of the node, or of the part's first one. `done`: the share of a map's items, or
    of a part's nodes, that have ended; None for a single job. `title`: the name, if the label does
    not have the whole of it.
    """

    number: int
    label: str
    title: str | None
    state: str
    kind: str
    detail: str
    done: float | None
    critical: bool
    x: int
    y: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """The whole drawing, in pixels. `lines` and `critical_lines` are paths.

    `folded`: parts are drawn as one box each. `hidden`: the nodes that are not drawn.
    """

    width: int
    height: int
    boxes: list[Box]
    lines: str
    critical_lines: str
    folded: bool
    hidden: int
    missing_lines: int


def graph(nodes: Sequence[NodeInfo], critical: Sequence[int] = ()) -> Graph:
    """Return the drawing of `nodes`; `critical`: the numbers of the nodes on the critical path, in
    its order.
    """
    groups, hidden = _groups(nodes)
    place_of = {node.number: place for place, members in enumerate(groups.values()) for node in members}
    # Nodes with the same parents share one tuple, which may be as long as the run.
    drawn = {
        id(node.parents): {place_of[parent] for parent in node.parents if parent in place_of}
        for node in {id(node.parents): node for node in nodes}.values()
    }
    parents = [
        sorted(set[int]().union(*(drawn[id(node.parents)] for node in members)) - {place})
        for place, members in enumerate(groups.values())
    ]
    layout = lay_out(parents)
    path = [place_of[number] for number in critical if number in place_of]
    strong_pairs = set(pairwise(path))
    lines: list[str] = []
    strong: list[str] = []
    for line in layout.lines[:MAX_LINES]:
        marked = any((parent, child) in strong_pairs for parent in line.parents for child in line.children)
        (strong if marked else lines).append(_path(line))
    return Graph(
        width=max(layout.layers * (WIDTH + _GAP) - _GAP, 0) + 2 * _MARGIN,
        height=max(round((layout.height - 1) * _ROW), 0) + HEIGHT + 2 * _MARGIN + _STACK,
        boxes=[
            _box(name, members, place in path, *layout.places[place])
            for place, (name, members) in enumerate(groups.items())
        ],
        lines="".join(lines),
        critical_lines="".join(strong),
        folded=any(_is_part(name, members) for name, members in groups.items()),
        hidden=hidden,
        missing_lines=max(len(layout.lines) - MAX_LINES, 0),
    )


def _groups(nodes: Sequence[NodeInfo]) -> tuple[dict[str, list[NodeInfo]], int]:
    """Return the nodes of each box by the box's name, and the number of nodes without one.

    The name of a part ends with a slash.
    """
    if len(nodes) <= MAX_BOXES:
        return {node.name: [node] for node in nodes}, 0
    # The finest parts that fit.
    for depth in range(max(node.name.count("/") for node in nodes), 0, -1):
        groups = _fold(nodes, depth)
        if len(groups) <= MAX_BOXES:
            return groups, 0
    groups = _fold(nodes, 1)
    kept = dict(islice(groups.items(), MAX_BOXES))
    return kept, len(nodes) - sum(map(len, kept.values()))


def _fold(nodes: Sequence[NodeInfo], depth: int) -> dict[str, list[NodeInfo]]:
    groups: dict[str, list[NodeInfo]] = defaultdict(list)
    for node in nodes:
        *parts, _ = node.name.split("/")
        groups["/".join(parts[:depth]) + "/" if parts else node.name].append(node)
    return groups


def _is_part(name: str, members: Sequence[NodeInfo]) -> bool:
    return len(members) > 1 or name != members[0].name


def _box(name: str, members: Sequence[NodeInfo], critical: bool, layer: int, row: float) -> Box:
    first = members[0]
    done: float | None = None
    if _is_part(name, members):
        states = {node.state for node in members}
        state = next((state for state in _FOLDED_STATES if state in states), first.state)
        ended = sum(node.finished_at is not None for node in members)
        failed = sum(node.state in _BAD for node in members)
        kind, done = "part", ended / len(members)
        detail = _counted(ended, len(members), failed, " nodes")
    else:
        state, kind, detail = first.state, first.kind, ""
        if first.kind == "map" and first.items is not None:
            done = first.items_ended / first.items if first.items else 1.0
            detail = _counted(first.items_ended, first.items, first.items_failed, "")
        elif first.started_at is not None and first.finished_at is not None:
            detail = formatting.duration((first.finished_at - first.started_at).total_seconds(), rough=True)
    words = state.replace("_", " ")
    detail = f"{words} · {detail}" if detail else words
    label = formatting.middle(name, _LABEL)
    return Box(
        number=first.number,
        label=label,
        title=None if label == name else f"{formatting.middle(name, _TITLE)}: {detail}",
        state=state,
        kind=kind,
        detail=detail,
        done=done,
        critical=critical,
        x=_left(layer),
        y=_y(row),
    )


def _counted(ended: int, total: int, failed: int, of: str) -> str:
    return f"{ended:,}/{total:,}{of}" + (f", {failed:,} failed" if failed else "")


def _path(line: Line) -> str:
    (layer, center), *others = line.points
    left, y = _left(layer), _y(center)
    # A junction lies in the gap before its layer.
    x = left - _GAP // 2 if line.from_junction else left + WIDTH
    path = f"M{x} {y}"
    for n, (layer, center) in enumerate(others, 1):
        left, to_y = _left(layer), _y(center)
        to_x = left - _GAP // 2 if line.to_junction and n == len(others) else left
        middle = (x + to_x) // 2
        path += f"H{to_x}" if to_y == y else f"C{middle} {y} {middle} {to_y} {to_x} {to_y}"
        x, y = to_x, to_y
        if n < len(others):
            # Through the layer, in the place that was kept free for it.
            x = left + WIDTH
            path += f"H{x}"
    return path


def _left(layer: int) -> int:
    return _MARGIN + layer * (WIDTH + _GAP)


def _y(rows: float) -> int:
    return _MARGIN + round(rows * _ROW)
