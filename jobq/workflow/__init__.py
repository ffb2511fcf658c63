"""Workflows: graphs of jobs, built in code and inserted in one statement.

`Workflow` is made by ``q.workflow(…)``. `Node` and `Many` are made by ``task.node(…)`` and
``task.map(…)`` inside its ``with`` block. `jobq.workflow.run` describes a run after its insert.

A chain: each node takes the result of the one before it::

    with q.workflow("page") as wf:
        page = fetch.node("example.org")
        words = count.node(page.result)
        store.node("example.org", words.result)

Side by side, and together again. A map is one node with a job for each item::

    with q.workflow("site") as wf:
        counts = count.map(["one two", "three"])
        total.node(counts.results)

Nodes that know how others ended, run on a condition, or come later::

    with q.workflow("order", on_failure="continue", deadline=3600) as wf:
        page = fetch.options(queue="web").node("example.org")
        words = count.node(page.result).named("words")
        told = report.node(words.outcome)
        store.node("example.org", words.result_or(0)).when(page.result).after(told)

`chain`, `group` and `chord` are Celery's names for the same (`jobq.workflow.canvas`).
"""

from __future__ import annotations

from jobq.workflow.builder import MAX_ITEMS, MAX_NODES, OnFailure, Part, Workflow
from jobq.workflow.canvas import Canvas, Partial, chain, chord, group
from jobq.workflow.making import make_map, make_node
from jobq.workflow.node import BaseNode, Many, Node, NodeOutcome, NodeState, NodeTask
from jobq.workflow.run import WorkflowRun, WorkflowState

__all__ = [
    "MAX_ITEMS",
    "MAX_NODES",
    "BaseNode",
    "Canvas",
    "Many",
    "Node",
    "NodeOutcome",
    "NodeState",
    "NodeTask",
    "OnFailure",
    "Part",
    "Partial",
    "Workflow",
    "WorkflowRun",
    "WorkflowState",
    "chain",
    "chord",
    "group",
    "make_map",
    "make_node",
]
