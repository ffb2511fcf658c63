"""Makes nodes of the workflow that is being built: what ``task.node(…)`` and ``task.map(…)`` call."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any

from jobq._core.graphs.node_arguments import Input, check_items, encode_items, template
from jobq._core.graphs.references import Reference, kind_of, node_of
from jobq._core.text import brief
from jobq.errors import WorkflowError
from jobq.job import JobOptions
from jobq.workflow.builder import MAX_ITEMS, MAX_NODES, Workflow, current_workflow
from jobq.workflow.node import BaseNode, Many, Node, NodeTask


def make_node(task: NodeTask, options: JobOptions, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Node[Any]:
    """Add a node to the workflow that is being built. Raises InvalidArguments and WorkflowError."""
    workflow = _ready(f"{task.name}.node", task, options)
    return Node(workflow, task, options, *_encoded(workflow, task, task.arguments.bind(args, kwargs)))


def make_map(
    task: NodeTask, options: JobOptions, items: object, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Many[Any]:
    """Add a map to the workflow that is being built. Raises InvalidArguments and WorkflowError."""
    workflow = _ready(f"{task.name}.map", task, options)
    if not task.arguments.names:
        raise WorkflowError(f"{task.name}.map: the task has no parameter for the items")
    parameter = task.arguments.names[0]
    found: Reference | list[Any]
    if isinstance(items, Reference):
        workflow._check_own(node_of(items), f"{task.name}.map")
        if kind_of(items) != "result":
            raise WorkflowError(
                f"{task.name}.map({items!r}): map over other.result or a part of it; else let a task return the list"
            )
        check_items(task.arguments, parameter, items)
        found = items
    else:
        found = encode_items(task.arguments, parameter, _listed(task, items), task.app.settings.max_args_bytes)
    given = task.arguments.bind((None, *args), kwargs)
    del given[parameter]
    return Many(workflow, task, options, *_encoded(workflow, task, given), items=found, parameter=parameter)


def _listed(task: NodeTask, items: object) -> list[Any]:
    if isinstance(items, (str, bytes)) or not isinstance(items, Iterable):
        hint = "; for its results, use a task that takes them" if isinstance(items, BaseNode) else ""
        raise WorkflowError(
            f"{task.name}.map({brief(items)}): expected an iterable of items, or a reference such as other.result{hint}"
        )
    listed = list(islice(items, MAX_ITEMS + 1))
    if len(listed) > MAX_ITEMS:
        raise WorkflowError(
            f"{task.name}.map: more than {MAX_ITEMS:,} items: a map has at most as many; use several maps"
        )
    return listed


def _ready(what: str, task: NodeTask, options: JobOptions) -> Workflow:
    workflow = current_workflow(what)
    workflow._check_open(what)
    if len(workflow.nodes) >= MAX_NODES:
        raise WorkflowError(
            f"{what}: workflow {workflow.name!r} has {MAX_NODES:,} nodes: use task.map(…) for many of a kind"
        )
    if task.app is not workflow._app:
        raise WorkflowError(f"{what}: the task belongs to another application than workflow {workflow.name!r}")
    if options.key is not None:
        raise WorkflowError(f"{what}: a node has no key of its own: give the workflow a key, q.workflow(…, key=…)")
    if options.run_at is not None:
        raise WorkflowError(f"{what}: run_at is a time, and a node starts when its parents have ended: use delay=…")
    return workflow


def _encoded(workflow: Workflow, task: NodeTask, given: dict[str, Any]) -> tuple[dict[str, Any], list[Input]]:
    values, inputs = template(task.arguments, given, task.app.settings.max_args_bytes)
    for one in inputs:
        workflow._check_own(node_of(one.reference), f"{task.name}: {one.place[0]}={one.reference!r}")
    return values, inputs
