"""A workflow as it is inserted: its nodes and joins, which refer to each other by their places."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Any

from jobq._core import json_text
from jobq._core.graphs.references import Reference, default_of, kind_of, node_of, path_of
from jobq.errors import MiddlewareError, WorkflowError
from jobq.job import JobOptions, NewJob
from jobq.workflow import BaseNode, Many, Workflow

# References that need the success of their node. The others need its end.
_NEEDS_SUCCESS = frozenset({"result", "results"})
# A join is made for each distinct set of parents: the place of each, and whether it must succeed.
_Parents = frozenset[tuple[int, bool]]


def jobs_of(workflow: Workflow) -> list[NewJob]:
    """Return the nodes as middleware sees them: jobs with null for each reference, without the items of maps."""
    return [NewJob.checked(node._options, json.dumps(node._args)) for node in workflow.nodes]


def parameters(workflow: Workflow, jobs: Sequence[NewJob] | None = None) -> dict[str, Any]:
    """Return the parameters of ``enqueue_workflow``. Raises WorkflowError for a graph that cannot run.

    Middleware may have changed the options of `jobs`, one a node. Raises MiddlewareError if it has
    changed what a node cannot change.
    """
    sets = _ParentSets()
    parents = [sets.of(node) for node in workflow.nodes]
    _check_cycles(workflow, parents)
    joins = _Joins()
    options = [node._options for node in workflow.nodes] if jobs is None else list(map(_changed, workflow.nodes, jobs))
    rows = [_row(node, of_node) for node, of_node in zip(workflow.nodes, options, strict=True)]
    for row, of_node in zip(rows, parents, strict=True):
        if of_node:
            row["join"] = joins.of(of_node)
    ends = set(range(len(rows))) - {number for of_node in sets for number, _ in of_node}
    joins.of(frozenset((number, True) for number in ends), kind="end")
    for number, node in enumerate(workflow.nodes):
        rows[number]["feeds"] = joins.feeds(number)
        if isinstance(node, Many):
            rows[number]["members_join"] = joins.of_map(number)
    return {
        "name": workflow.name,
        "key": workflow.key,
        "on_failure": workflow.on_failure,
        "deadline": workflow.deadline,
        "nodes": json_text.ascii_only(json.dumps(rows)),
        "joins": json.dumps(joins.rows),
        "with_nodes": jobs is not None,
    }


class _ParentSets:
    """The distinct sets of parents of a workflow's nodes.

    Nodes with equal sets get the same object, and each set is computed once: its cost is not that of
    all dependencies, which may be millions.
    """

    def __init__(self) -> None:
        self._by_source: dict[tuple[_Parents, tuple[int, ...]], _Parents] = {}
        """By the nodes that a node refers to, and the tuples that `after` was called with."""
        self._sets: dict[_Parents, _Parents] = {}

    def __iter__(self) -> Iterator[_Parents]:
        return iter(self._sets)

    def of(self, node: BaseNode) -> _Parents:
        """Return the places of a node's parents, and whether each must succeed."""
        found = _referred(node)
        source = frozenset(found.items()), tuple(map(id, node._after))
        if (known := self._by_source.get(source)) is not None:
            return known
        for parents in node._after:
            for parent in parents:
                found[parent._number] = True
        distinct = frozenset(found.items())
        self._by_source[source] = self._sets.setdefault(distinct, distinct)
        return self._by_source[source]


class _Joins:
    """The joins of a workflow, one for each distinct set of parents."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self._places: dict[_Parents, int] = {}
        self._fed: dict[int, list[int]] = {}

    def of(self, parents: _Parents, kind: str = "nodes") -> int:
        if kind == "nodes" and (place := self._places.get(parents)) is not None:
            return place
        place = len(self.rows)
        self.rows.append({"kind": kind, "parents": len(parents)})
        if kind == "nodes":
            self._places[parents] = place
        for number, must_succeed in parents:
            # From 1, because a sign says whether a failure counts.
            self._fed.setdefault(number, []).append(place + 1 if must_succeed else -place - 1)
        return place

    def of_map(self, number: int) -> int:
        self.rows.append({"kind": "map", "parents": 0, "node": number})
        return len(self.rows) - 1

    def feeds(self, number: int) -> list[int]:
        return self._fed[number]


def _referred(node: BaseNode) -> dict[int, bool]:
    """Return the places of the nodes that a node refers to, and whether each must succeed."""
    found: dict[int, bool] = {}
    for reference in node._references():
        number = node_of(reference)._number
        found[number] = found.get(number, False) or kind_of(reference) in _NEEDS_SUCCESS
    return found


def _check_cycles(workflow: Workflow, parents: Sequence[_Parents]) -> None:
    # A set of parents is a vertex of its own, between them and the nodes that wait for them.
    vertices = {of_node: ~place for place, of_node in enumerate(dict.fromkeys(parents))}
    graph: dict[int, Iterable[int]] = {number: (vertices[of_node],) for number, of_node in enumerate(parents)}
    graph |= {vertex: [number for number, _ in of_node] for of_node, vertex in vertices.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        cycle = [number for number in error.args[1][1:] if number >= 0]
        names = " → ".join(workflow.nodes[number].label for number in (cycle[-1], *cycle))
        raise WorkflowError(
            f"workflow {workflow.name!r} has a cycle: {names}: remove one of these dependencies"
        ) from None


def _changed(node: BaseNode, job: NewJob) -> JobOptions:
    """Return the options that middleware has passed on. Raises MiddlewareError."""
    if job.options is not node._options and job.options.run_at is not None:
        raise MiddlewareError(
            f"middleware gave node {node.label!r} run_at={job.options.run_at}: a node starts when its parents have ended: "
            "use delay=…"
        )
    if job.args_json != json.dumps(node._args):
        raise MiddlewareError(
            f"middleware has changed the arguments of node {node.label!r}: they are checked already; change headers or options"
        )
    return job.options


def _row(node: BaseNode, options: JobOptions) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": node.label,
        "kind": "map" if isinstance(node, Many) else "task",
        "args": node._args,
        **_columns(options),
    }
    if node._inputs:
        row["inputs"] = [{"at": list(map(str, one.place)), **_reference(one.reference)} for one in node._inputs]
    if node._condition is not None:
        row["condition"] = _reference(node._condition)
    if node._undo is not None:
        undo, parameter = node._undo
        row["undo"] = {"parameter": parameter, **_columns(undo)}
    if isinstance(node, Many):
        row["item_parameter"] = node._parameter
        row["min_success"] = node._min_success
        if isinstance(node._items, Reference):
            row["items_of"] = _reference(node._items)
        else:
            row["items"] = node._items
    return row


def _columns(options: JobOptions) -> dict[str, Any]:
    found: dict[str, Any] = {
        "task": options.task,
        "queue": options.queue,
        "priority": options.priority,
        "max_attempts": options.max_attempts,
    }
    optional: Iterable[tuple[str, Any]] = (
        ("delay", options.delay),
        ("timeout", options.timeout),
        ("group_key", options.group),
        ("expires_in", options.expires_in),
        ("headers", dict(options.headers) or None),
    )
    return found | {name: value for name, value in optional if value is not None}


def _reference(reference: Reference) -> dict[str, Any]:
    row: dict[str, Any] = {"node": node_of(reference)._number, "of": kind_of(reference)}
    if path_of(reference):
        row["path"] = node_of(reference).json_path(reference)
    if kind_of(reference) == "optional":
        row["default"] = default_of(reference)
    return row
