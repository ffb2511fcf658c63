"""Workflows: the list of runs, one run with its graph and its nodes, and the forms that cancel or
retry one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from flask import abort
from werkzeug.wrappers import Response

from jobq import operations, queries
from jobq.errors import JobBusy
from jobq.queries import NodeInfo
from jobq.web import forms
from jobq.web.context import current_page, int_arg, text_arg
from jobq.web.forms import redirect_with_note
from jobq.web.rendering import step_table, workflow_times
from jobq.web.rendering.workflow_graph import graph
from jobq.web.routes import Route

_PAGE = 50
_NODES_PAGE = 50
# The most nodes of a run that the page reads, and counts, draws and lists.
MAX_NODES = 5_000
# Jobs whose exact obstacle is looked up, at some milliseconds each.
_EXPLAINED = 5
_MAX_NAMES = 200
_SIGNALS = 100
# Of a node, in the order of the tabs.
_NODE_STATES = (
    "failed", "running", "ready", "scheduled", "parked", "waiting", "succeeded", "cancelled", "expired", "deleted",
    "upstream_failed", "skipped",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePage:
    """The nodes of a run that its table shows: `rows`, of `number` in `state` (None: all).

    `earlier` and `later` are the first numbers of the neighbouring pages; None: there is none.
    """

    rows: list[NodeInfo]
    state: str | None
    number: int
    first: int
    earlier: int | None
    later: int | None


def workflows() -> str:
    """List the runs of workflows, newest first."""
    page = current_page()
    name, state, before = text_arg("name"), _state(queries.WORKFLOW_STATES), int_arg("before", None)
    with page.database.read() as reader:
        # Not as options of the reader, whose `name` is that of the query.
        found = reader(
            partial(queries.workflows, name=name, state=state, before=before, limit=_PAGE + 1), name="workflows"
        )
        names = reader(queries.workflow_names, default=[])
        now = reader.now()
    if found is None:
        return page.render("unavailable.html", title="Workflows", now=now)
    return page.render(
        "workflows.html",
        runs=found[:_PAGE],
        more=found[_PAGE - 1].id if len(found) > _PAGE else None,
        before=before,
        name=name,
        names=names[:_MAX_NAMES],
        wanted_state=state,
        states=queries.WORKFLOW_STATES,
        now=now,
    )


def workflow(id: int) -> str:
    """Show one run: its graph, and its nodes with their times."""
    page = current_page()
    first, state = int_arg("from", None) or 1, _state(_NODE_STATES)
    with page.database.read() as reader:
        found = reader(queries.get_workflow, id, limit=MAX_NODES, explain=_EXPLAINED, name="workflow")
        waits = [] if found is None or found.run.finished_at else reader(queries.run_waits, id, default=[])
        signals = [] if found is None else reader(queries.run_signals, id, limit=_SIGNALS, default=[])
        now = reader.now()
    if found is None:
        if not reader.missing:
            abort(404, f"There is no workflow run {id}, or it has been deleted.")
        return page.render("unavailable.html", title=f"Workflow run {id}", now=now)
    states = Counter(node.state for node in found.nodes)
    nodes = _node_page(found.nodes, state, first)
    axis = workflow_times.axis(found.run)
    critical = workflow_times.critical_path(found.nodes, now)
    marked = set(critical)
    return page.render(
        "workflow.html",
        run=found.run,
        waits=_by_signal(waits),
        signals=step_table.signal_rows(signals, page.redact),
        most_signals=_SIGNALS,
        left_out=found.left_out,
        nodes=nodes,
        states=[(name, states[name]) for name in _NODE_STATES if name in states or name == state],
        graph=graph(found.nodes, critical),
        row_link=_row_links(found.nodes, nodes),
        axis=axis,
        spans={node.number: workflow_times.spans(node, axis) for node in nodes.rows},
        describe=workflow_times.describe,
        critical=marked,
        can_undo=_can_undo(found),
        on_path=workflow_times.totals([node for node in found.nodes if node.number in marked], axis),
        now=now,
    )


def _can_undo(found: queries.WorkflowDetail) -> bool:
    return found.run.finished_at is not None and found.run.undo_id is None and any(node.undo for node in found.nodes)


def _by_signal(waits: list[queries.RunWait]) -> dict[str, list[queries.RunWait]]:
    """Return who waits for a signal that was not sent, by the signals' names."""
    found: dict[str, list[queries.RunWait]] = {}
    for wait in waits:
        if not wait.is_over:
            found.setdefault(wait.name, []).append(wait)
    return found


def _node_page(nodes: list[NodeInfo], state: str | None, first: int) -> NodePage:
    fit = [node for node in nodes if state is None or node.state == state]
    # The numbers are in order. A page begins at any number, because links lead to a node's page.
    at = next((place for place, node in enumerate(fit) if node.number >= first), len(fit))
    following = at + _NODES_PAGE
    return NodePage(
        rows=fit[at:following],
        state=state,
        number=len(fit),
        first=at + 1,
        earlier=fit[max(at - _NODES_PAGE, 0)].number if at > 0 else None,
        later=fit[following].number if following < len(fit) else None,
    )


def _row_links(nodes: list[NodeInfo], shown: NodePage) -> Callable[[int], str]:
    """Return a function that returns the address of a node's row, by its number."""
    here = {node.number for node in shown.rows}
    places = {node.number: place for place, node in enumerate(nodes)}

    def link(number: int) -> str:
        # Relative, because there are hundreds.
        start = nodes[places[number] // _NODES_PAGE * _NODES_PAGE].number
        return f"#node-{number}" if number in here else f"?from={start}#node-{number}"

    return link


def workflow_cancel(id: int) -> Response:
    """Cancel a run: no more of its nodes start, and its running jobs are asked to stop."""
    changed = _change(id, operations.cancel_workflow)
    if changed is None or changed.done:
        return _redirect(id, changed, "The run is cancelled. Its running jobs are asked to stop.")
    return _redirect(id, changed, "Nothing changed: the run has ended.")


def workflow_retry(id: int) -> Response:
    """Retry a run: what failed, a node and everything after it, or all nodes."""
    what, node = forms.text("what") or "failed", forms.text("node")
    if what not in ("failed", "from", "all"):
        abort(400, f"what={what[:50]!r}: expected failed, from or all.")
    if what == "from" and node is None:
        abort(400, "node: expected the name or the number of the node from which the run is retried.")
    changed = _change(
        id,
        partial(operations.retry_workflow, from_node=node if what == "from" else None, all_nodes=what == "all"),
    )
    if changed is not None and not changed.done:
        why = "the run has succeeded, or is being cancelled and has running jobs"
        return _redirect(id, changed, f"Nothing changed: {'; '.join(changed.refused[:3]) or why}.")
    if changed is not None and what != "failed":
        return _redirect(id, changed, f"The run goes on. Nodes that run again: {changed.nodes:,}.")
    said = "" if changed is None else f"The run goes on. Jobs that are due again: {changed.jobs:,}."
    if changed is not None and changed.refused:
        said += f" Refused: {len(changed.refused):,} ({changed.refused[0]})."
    return _redirect(id, changed, said)


def workflow_undo(id: int) -> Response:
    """Undo a run that has ended, by a run of its own."""
    changed = _change(id, operations.undo_workflow)
    if changed is None or changed.done:
        return _redirect(id, changed, f"Run {changed.undo_run if changed else ''} undoes this one.")
    return _redirect(id, changed, f"Nothing changed: {'; '.join(changed.refused)}.")


def _change(id: int, change: Callable[..., operations.RunChange]) -> operations.RunChange | None:
    """Return what was done; None: some jobs were locked by others."""
    page = current_page()
    with page.database.write() as conn:
        try:
            return change(conn, page.settings.schema, id, actor=page.actor(), reason=forms.text("reason"))
        except JobBusy:
            # Caught here, so that what was changed is committed.
            return None


def _redirect(id: int, changed: operations.RunChange | None, said: str) -> Response:
    if changed is None:
        said = "Some of the run's jobs are locked by others and unchanged. The rest is changed. Try again for those."
    return redirect_with_note("workflow", said, id=id)


def _state(states: tuple[str, ...]) -> str | None:
    value = text_arg("state")
    if value is not None and value not in states:
        abort(400, f"state={value[:50]!r}: expected one of {', '.join(states)}.")
    return value


ROUTES = [
    Route("/workflows", "GET", workflows, needs="view"),
    Route("/workflows/<int:id>", "GET", workflow, needs="view"),
    Route("/workflows/<int:id>/cancel", "POST", workflow_cancel, needs="cancel"),
    Route("/workflows/<int:id>/retry", "POST", workflow_retry, needs="retry"),
    Route("/workflows/<int:id>/undo", "POST", workflow_undo, needs="retry"),
]
