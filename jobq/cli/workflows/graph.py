"""A run's nodes as a graph: as a tree for tables, and as text for Graphviz and Mermaid."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jobq.queries import NodeInfo, WorkflowDetail

# Levels of a tree that are indented; deeper nodes stand at this level.
_DEEPEST = 12

_COLORS = {
    "succeeded": "#cfead2",
    "running": "#cfe0f7",
    "ready": "#e8eefc",
    "scheduled": "#e8eefc",
    "failed": "#f6c9c9",
    "expired": "#f6c9c9",
    "deleted": "#f6c9c9",
    "upstream_failed": "#f9e3c8",
    "cancelled": "#e6e6e6",
    "skipped": "#e6e6e6",
}
_OTHER = "#ffffff"


def as_tree(nodes: Sequence[NodeInfo]) -> Iterator[tuple[str, NodeInfo]]:
    """Yield each node after one of its parents, with the lines of a tree to print before its name.

    A node with several parents stands below the last of them. The only child of a node stands below
    it without indentation, so a long chain stays narrow.
    """
    by_number = {node.number: node for node in nodes}
    children: dict[int | None, list[NodeInfo]] = {}
    for node in nodes:
        above = max((number for number in node.parents if number in by_number), default=None)
        children.setdefault(above, []).append(node)
    # Not recursive: a chain may have more nodes than Python has room on its stack.
    left = [(node, "", "", 0) for node in reversed(children.get(None, []))]
    while left:
        node, prefix, below, level = left.pop()
        yield prefix, node
        own = children.get(node.number, [])
        if len(own) == 1 or level >= _DEEPEST:
            left += [(child, below, below, level) for child in reversed(own)]
            continue
        for place, child in enumerate(reversed(own)):
            branch, further = ("└─ ", "   ") if place == 0 else ("├─ ", "│  ")
            left.append((child, below + branch, below + further, level + 1))


def as_dot(detail: WorkflowDetail) -> str:
    """Return the graph for Graphviz: ``jobq workflows export 12 --dot | dot -Tsvg``."""
    lines = [f"digraph {_quoted(f'{detail.run.name} {detail.run.id}')} {{"]
    lines.append('  rankdir=LR; node [shape=box, style="rounded,filled", fontname="sans-serif"];')
    for part, nodes in _parts(detail.nodes):
        indent = "  "
        if part:
            lines.append(f"  subgraph {_quoted('cluster ' + part)} {{ label={_quoted(part)};")
            indent = "    "
        for node in nodes:
            color = _COLORS.get(node.state, _OTHER)
            lines.append(f'{indent}n{node.number} [label={_quoted(_label(node))}, fillcolor="{color}"];')
        if part:
            lines.append("  }")
    for parent, child, any_end in _edges(detail.nodes):
        lines.append(f"  n{parent} -> n{child}{' [style=dashed]' if any_end else ''};")
    return "\n".join([*lines, "}"])


def as_mermaid(detail: WorkflowDetail) -> str:
    """Return the graph as a Mermaid flowchart."""
    lines = ["flowchart LR"]
    for place, (part, nodes) in enumerate(_parts(detail.nodes)):
        if part:
            lines.append(f"  subgraph part{place} [{_mermaid_text(part)}]")
        for node in nodes:
            # A map is drawn as a stack.
            opening, closing = ("[[", "]]") if node.kind == "map" else ("[", "]")
            lines.append(f"  n{node.number}{opening}{_mermaid_text(_label(node))}{closing}:::{node.state}")
        if part:
            lines.append("  end")
    for parent, child, any_end in _edges(detail.nodes):
        lines.append(f"  n{parent} {'-.->' if any_end else '-->'} n{child}")
    states = sorted({node.state for node in detail.nodes})
    return "\n".join([*lines, *(f"  classDef {state} fill:{_COLORS.get(state, _OTHER)}" for state in states)])


def _label(node: NodeInfo) -> str:
    items = f" × {node.items:,}" if node.items is not None else " × ?" if node.kind == "map" else ""
    return f"{node.name}{items}\n{node.state}"


def _parts(nodes: Sequence[NodeInfo]) -> Iterator[tuple[str, list[NodeInfo]]]:
    """Yield the parts (``workflow.part``) with their nodes; '' is the part of the others."""
    found: dict[str, list[NodeInfo]] = {}
    for node in nodes:
        found.setdefault(node.name.rpartition("/")[0], []).append(node)
    yield from found.items()


def _edges(nodes: Sequence[NodeInfo]) -> Iterator[tuple[int, int, bool]]:
    for node in nodes:
        tolerant = set(node.any_end)
        for parent in node.parents:
            yield parent, node.number, parent in tolerant


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _mermaid_text(text: str) -> str:
    escaped = text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;").replace(">", "&gt;")
    return '"' + escaped.replace("\n", "<br/>") + '"'
