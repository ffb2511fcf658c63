"""``jobq workflows list|show|why|cancel|retry|undo|signal|export``."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from jobq.cli import output
from jobq.cli.exits import Exit
from jobq.cli.options import database_options, json_option, reason_option, yes_option
from jobq.cli.session import actor, current

if TYPE_CHECKING:
    import psycopg

    from jobq.queries import NodeInfo, WorkflowDetail, WorkflowInfo

_ID = click.IntRange(0, 2**63 - 1)
_STATES = ("running", "blocked", "succeeded", "failed", "cancelled")
_MOST = 100_000
# Nodes that `why` names for a whole run.
_LINES = 20


@click.group(short_help="List, show, cancel, retry, undo and signal runs of workflows.")
def workflows() -> None:
    """List, show, cancel, retry, undo and signal runs of workflows."""


@workflows.command("list")
@database_options
@click.option("--name", metavar="NAME", show_envvar=True, help="Only runs of this workflow.")
@click.option(
    "--state",
    type=click.Choice(_STATES),
    show_envvar=True,
    help="Only runs in this state (default: all). `blocked`: a node has failed, and the rest waits for you.",
)
@click.option(
    "--limit", type=click.IntRange(1, 1000), default=50, show_default=True, show_envvar=True, help="Most runs to list."
)
@click.option(
    "--before", metavar="ID", type=_ID, show_envvar=True, help="Only runs with a lower id (default: the newest run)."
)
@json_option
def list_(*, name: str | None, state: str | None, limit: int, before: int | None, as_json: bool) -> None:
    """List runs of workflows, newest first."""
    from jobq import queries

    session = current()
    with session.connect() as connection:
        found = queries.workflows(connection, session.schema, name=name, state=state, before=before, limit=limit)
    following = found[-1].id if len(found) == limit else None
    if as_json:
        output.print_json({"workflows": found, "next_before": following})
        return
    output.print_table(
        ("id", "workflow", "state", "ended", "failed", "key", "created", "took", "reason"),
        (
            (
                run.id, run.name, _state(run), _ended(run), run.failed or "", output.one_line(run.key, 40),
                run.created_at, _took(run), output.one_line(run.reason),
            )
            for run in found
        ),
        empty="no runs of workflows",
        right=("id", "ended", "failed"),
    )  # fmt: skip
    if following is not None:
        output.note(f"perhaps more runs: --before {following}")


@workflows.command()
@click.argument("id", type=_ID)
@database_options
@click.option(
    "--limit",
    type=click.IntRange(1, _MOST),
    default=200,
    show_default=True,
    show_envvar=True,
    help="Most nodes to show.",
)
@json_option
def show(*, id: int, limit: int, as_json: bool) -> None:
    """Show one run with its nodes as a tree: their states, jobs and errors, and what they wait for.

    A node with several parents stands below the last of them.
    """
    from jobq.cli.workflows.graph import as_tree

    detail = _read(id, limit)
    if as_json:
        output.print_json({"workflow": detail.run, "nodes": detail.nodes, "left_out": detail.left_out})
        return
    run = detail.run
    parent = run.parent_job_id
    fields: dict[str, object] = {
        "run": run.id,
        "workflow": run.name,
        "parent": None if parent is None else f"job {parent}",
        "undoes": None if run.undoes_id is None else f"run {run.undoes_id}",
        "undone by": None if run.undo_id is None else f"run {run.undo_id}",
        "state": _state(run),
        "reason": run.reason,
        "nodes": f"{_ended(run)} ended" + (f", {run.failed:,} failed" if run.failed else ""),
        "key": run.key,
        "on failure": run.on_failure,
        "created": run.created_at,
        "finished": run.finished_at,
        "took": _took(run),
        "deadline": run.deadline_at,
    }
    output.print_fields({name: value for name, value in fields.items() if value not in (None, "")})
    click.echo()
    output.print_table(
        ("#", "node", "task", "state", "job", "items", "took", "what it waits for, or its error"),
        (
            (
                node.number, f"{lines}{output.line(node.name)}", node.task, node.state, node.job_id, _items(node),
                _node_took(node), output.one_line(node.error or node.why, 120),
            )
            for lines, node in as_tree(detail.nodes)
        ),
        empty="no nodes",
        right=("#", "job", "items"),
    )  # fmt: skip
    if detail.left_out:
        output.note(f"{output.plural(detail.left_out, 'more node')}: --limit {min(run.nodes, _MOST)}")


@workflows.command()
@click.argument("id", type=_ID)
@click.argument("node", required=False)
@database_options
@json_option
def why(*, id: int, node: str | None, as_json: bool) -> None:
    """Say why a run, or one NODE of it (its name or its number), has not ended."""
    session = current()
    with session.connect() as connection:
        detail = _detail(connection, id, _MOST, explain=0 if node is not None else _LINES)
        told = _moving(detail) if node is None else [_explained(connection, _found(detail, node))]
    if as_json:
        output.print_json(
            {
                "workflow": detail.run,
                "nodes": [{"node": each.name, "state": each.state, "why": said} for each, said in told],
            }
        )
        return
    if node is None:
        run = detail.run
        click.echo(output.line(f"run {run.id} of workflow {run.name} is {_state(run)}" + _because(run)))
    for each, said in told[:_LINES]:
        click.echo(output.line(f"{each.name}: {said}"))
    if len(told) > _LINES:
        output.note(f"and {output.plural(len(told) - _LINES, 'more node')}")


@workflows.command()
@click.argument("id", type=_ID)
@database_options
@reason_option
@yes_option
@json_option
def cancel(*, id: int, reason: str | None, yes: bool, as_json: bool) -> None:
    """Cancel a run: none of its nodes starts after that, and its running jobs are asked to stop."""
    _change("cancel", id, reason, yes, as_json)


@workflows.command()
@click.argument("id", type=_ID)
@database_options
@click.option(
    "--failed",
    "only_failed",
    is_flag=True,
    show_envvar=True,
    help="Jobs that failed, expired or were cancelled run again (the default). What succeeded keeps its result.",
)
@click.option(
    "--from",
    "from_node",
    metavar="NODE",
    show_envvar=True,
    help="This node (its name or its number) and everything downstream of it run again, even if they succeeded.",
)
@click.option("--all", "all_nodes", is_flag=True, show_envvar=True, help="Every node runs again.")
@reason_option
@yes_option
@json_option
def retry(
    *, id: int, only_failed: bool, from_node: str | None, all_nodes: bool, reason: str | None, yes: bool, as_json: bool
) -> None:
    """Let a run go on, even if it has ended.

    Jobs that failed run again, and nodes that did not run because of them wait for their parents again.
    With --from or --all, a durable node begins from its start: its steps are dropped, and its children
    are cancelled. If a node that would run again has a running job, nothing is done.
    """
    if only_failed + (from_node is not None) + all_nodes > 1:
        raise click.UsageError("pass one of --failed, --from and --all")
    _change("retry", id, reason, yes, as_json, from_node=from_node, all_nodes=all_nodes)


@workflows.command()
@click.argument("id", type=_ID)
@database_options
@reason_option
@yes_option
@json_option
def undo(*, id: int, reason: str | None, yes: bool, as_json: bool) -> None:
    """Undo a run that has ended: call the undo tasks of its nodes that succeeded, the last to end first.

    A run that fails or is cancelled is undone without this command. The jobs belong to a run of their own.
    """
    _change("undo", id, reason, yes, as_json)


@workflows.command()
@click.argument("id", type=_ID)
@click.argument("name")
@click.argument("payload", required=False)
@database_options
@reason_option
@json_option
def signal(*, id: int, name: str, payload: str | None, reason: str | None, as_json: bool) -> None:
    """Send the signal NAME to a run: the first of its durable jobs that waits for this name takes it.

    PAYLOAD is JSON (default: null); - reads it from standard input. `why` says what the jobs wait for.
    """
    from jobq.cli.signal import send

    send(name, payload, reason, as_json, run=id)


@workflows.command()
@click.argument("id", type=_ID)
@database_options
@click.option("--dot", is_flag=True, show_envvar=True, help="For Graphviz (the default).")
@click.option("--mermaid", is_flag=True, show_envvar=True, help="As a Mermaid flowchart, for Markdown documents.")
@json_option
def export(*, id: int, dot: bool, mermaid: bool, as_json: bool) -> None:
    """Print the graph of a run with the states of its nodes: at most 100,000 nodes, without arguments or results."""
    from jobq.cli.workflows.graph import as_dot, as_mermaid

    if dot + mermaid + as_json > 1:
        raise click.UsageError("pass one of --dot, --mermaid and --json")
    detail = _read(id, _MOST, explain=0)
    if as_json:
        output.print_json({"workflow": detail.run, "nodes": detail.nodes})
    else:
        click.echo(output.safe(as_mermaid(detail) if mermaid else as_dot(detail)))


def _read(id: int, limit: int, explain: int = 10) -> WorkflowDetail:
    session = current()
    with session.connect() as connection:
        return _detail(connection, id, limit, explain)


def _detail(connection: psycopg.Connection[Any], id: int, limit: int, explain: int) -> WorkflowDetail:
    from jobq import queries
    from jobq.errors import WorkflowNotFound

    found = queries.get_workflow(connection, current().schema, id, limit=limit, explain=explain)
    if found is None:
        raise WorkflowNotFound(f"workflow run {id}: there is none with this id, or retention has removed it")
    return found


def _found(detail: WorkflowDetail, wanted: str) -> NodeInfo:
    for node in detail.nodes:
        if node.name == wanted or str(node.number) == wanted:
            return node
    raise click.UsageError(
        f"workflow run {detail.run.id} has no node {output.line(wanted)!r}: see `jobq workflows show {detail.run.id}`"
    )


def _explained(connection: psycopg.Connection[Any], node: NodeInfo) -> tuple[NodeInfo, str]:
    from jobq.errors import JobNotFound
    from jobq.queries import get_job, why_waiting

    if node.finished_at is not None:
        said = f"It has ended: {node.state}" + (f" ({output.one_line(node.error, 200)})." if node.error else ".")
        return node, said
    exact = None
    if node.job_id is not None:
        with suppress(JobNotFound):  # it has ended since, and retention has removed it
            exact = why_waiting(connection, current().schema, get_job(connection, current().schema, node.job_id))
    return node, exact or node.why or "It has just ended."


def _moving(detail: WorkflowDetail) -> list[tuple[NodeInfo, str]]:
    """Return the nodes on which the others wait: those with jobs, and those that wait for nodes that failed."""
    unfinished = {node.number for node in detail.nodes if node.finished_at is None}
    return [
        (node, node.why) for node in detail.nodes if node.why is not None and not unfinished.intersection(node.parents)
    ]


def _change(
    verb: str,
    id: int,
    reason: str | None,
    yes: bool,
    as_json: bool,
    *,
    from_node: str | None = None,
    all_nodes: bool = False,
) -> None:
    from jobq import operations
    from jobq.cli.workflows.told import tell

    session = current()
    # Autocommit: each round is a transaction.
    with session.connect(autocommit=True) as connection:
        run = _detail(connection, id, 1, 0).run
        output.confirm(
            output.line(
                f"{verb.capitalize()} run {id} of workflow {run.name}, {_state(run)}, {_ended(run)} nodes ended"
                f"{', all its nodes' if all_nodes else '' if from_node is None else f', from node {from_node} on'}?"
            ),
            yes=yes,
        )
        if verb == "cancel":
            done = operations.cancel_workflow(connection, session.schema, id, actor=actor(), reason=reason)
        elif verb == "undo":
            done = operations.undo_workflow(connection, session.schema, id, actor=actor(), reason=reason)
        else:
            done = operations.retry_workflow(
                connection,
                session.schema,
                id,
                actor=actor(),
                reason=reason,
                from_node=from_node,
                all_nodes=all_nodes,
            )
    if as_json:
        told: dict[str, object] = {"workflow": id, "done": done.done, "jobs": done.jobs, "refused": done.refused}
        told |= {"nodes": done.nodes} if all_nodes or from_node is not None else {}
        output.print_json(told | ({"undo_run": done.undo_run} if verb == "undo" else {}))
    else:
        tell(verb, run, done)
    if not done.done or done.refused:
        click.get_current_context().exit(Exit.NOT_DONE)


def _state(run: WorkflowInfo) -> str:
    return run.state + (", asked to cancel" if run.cancel_requested_at and run.finished_at is None else "")


def _because(run: WorkflowInfo) -> str:
    return f": {output.one_line(run.reason, 400)}" if run.reason else ""


def _ended(run: WorkflowInfo) -> str:
    least = "at least " if run.counted_to is not None and run.finished_at is None else ""
    return f"{least}{run.ended:,} of {run.nodes:,}"


def _took(run: WorkflowInfo) -> str:
    return output.duration(((run.finished_at or run.read_at) - run.created_at).total_seconds(), rough=True)


def _node_took(node: NodeInfo) -> str:
    if node.started_at is None or node.finished_at is None:
        return ""
    return output.duration((node.finished_at - node.started_at).total_seconds())


def _items(node: NodeInfo) -> str:
    if node.items is None:
        return ""
    failed = f", {node.items_failed:,} failed" if node.items_failed else ""
    return f"{node.items_ended:,} of {node.items:,}{failed}"
