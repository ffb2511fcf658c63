"""Many nodes after the same many nodes: one join, and no work for each of the dependencies."""

from __future__ import annotations

import json
import sys
from types import FrameType
from typing import Any

from jobq import JobQ, NodeOutcome, Workflow
from jobq._app.workflow_rows import parameters
from tests.apps import workflows as apps

q = apps.q
LAYERS = 4


def layers(width: int) -> Workflow:
    """Layers of `width` nodes, each after all nodes of the one before it."""
    with q.workflow("layers") as wf:
        before: list[Any] = []
        for _ in range(LAYERS):
            before = [apps.noop.node().after(*before) for _ in range(width)]
    return wf


def lines_of(width: int) -> int:
    """How many lines of Python it takes to build such a workflow and its rows; each turn of a loop is one at least."""
    count = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    layers(1)  # what is made once for each task
    earlier = sys.gettrace()
    sys.settrace(trace)
    try:
        parameters(layers(width))
    finally:
        sys.settrace(earlier)
    return count


def test_the_work_grows_with_the_nodes_and_not_with_the_dependencies() -> None:
    small, large = lines_of(20), lines_of(80)
    assert small > LAYERS * 20
    # Four times as many nodes, sixteen times as many dependencies.
    assert large < 4.5 * small


def test_equal_parents_are_one_join_however_they_were_given() -> None:
    with q.workflow("equal") as wf:
        one, two, three = (apps.number.node(n) for n in range(3))
        apps.noop.node().after(one, two, three)
        apps.noop.node().after(three, two, one)
        apps.noop.node().after(one).after(two, three)
        apps.noop.node().after(one, two, one).after(three, one)
        apps.add.node(one.result, two.result).after(three)
        apps.noop.node().after(one, two)
    rows = parameters(wf)
    joins, nodes = json.loads(rows["joins"]), json.loads(rows["nodes"])
    assert joins == [{"kind": "nodes", "parents": 3}, {"kind": "nodes", "parents": 2}, {"kind": "end", "parents": 6}]
    assert [node.get("join") for node in nodes] == [None] * 3 + [0] * 5 + [1]
    assert [sorted(node["feeds"]) for node in nodes] == [[1, 2], [1, 2], [1]] + [[3]] * 6


def test_a_parent_whose_failure_does_not_count_is_another_set() -> None:
    own = JobQ()

    @own.task
    def number(value: int) -> int:
        return value

    @own.task
    def told(outcome: NodeOutcome[int] | None = None) -> None: ...

    with own.workflow("either") as wf:
        one, two = number.node(1), number.node(2)
        told.node().after(one, two)
        told.node(one.outcome).after(two)
    nodes = json.loads(parameters(wf)["nodes"])
    assert [node.get("join") for node in nodes] == [None, None, 0, 1]
    assert nodes[0]["feeds"] == [1, -2]
    assert nodes[1]["feeds"] == [1, 2]
