"""Runs of workflows: lists, and one run with its nodes.

A run may have 100,000 nodes, and a map a million items, so what is read has bounds: nodes are
listed and counted up to a limit, and a map's items are not read at all, because its join counts
them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from psycopg import Connection

from jobq._core.validation import check_choice, check_int
from jobq._postgres.statements import fetch
from jobq.filters import MAX_ID
from jobq.queries.page_limit import check_limit
from jobq.queries.reasons.workflows import failed_nodes, parents_of, reasons

WORKFLOW_STATES = ("running", "blocked", "succeeded", "failed", "cancelled")
MAX_LISTED_NODES = 100_000
# Nodes counted by one list, shared by its runs; and by the read of one run.
_BUDGET = 20_000
# Joins and nodes of one run in a list that are looked at, to know whether it is blocked.
_REACH = 10_000
# A list of running or blocked runs looks at this many running runs: so many by one statement.
_MOST_RUNS = 10_000
_WINDOW = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowInfo:
    """One run. `state`: running, blocked, succeeded, failed or cancelled.

    ``blocked``: a node has failed, the run's rule is ``hold``, and nothing moves until an operator
    retries or cancels it. In a list, this is looked for among the first 10,000 nodes of a run.
    """

    id: int
    name: str
    key: str | None
    state: str
    reason: str | None
    """Why it was cancelled. For one run (`get_workflow`) also which nodes have failed."""
    on_failure: str
    """``hold``, ``cancel`` or ``continue``."""
    created_at: datetime
    finished_at: datetime | None
    deadline_at: datetime | None
    cancel_requested_at: datetime | None
    """When it was cancelled. Until it has ended, its running jobs are asked to stop."""
    parent_job_id: int | None = None
    """The durable job whose child it is; None: it is no child."""
    undo_id: int | None = None
    """The run that undoes it, or has undone it; None: there is none."""
    undoes_id: int | None = None
    """The run that this one undoes; None: it undoes none."""
    nodes: int
    """Number of nodes. A map is one node."""
    ended: int
    """Number of nodes that have ended, in any state: of all, or of the first `counted_to`."""
    failed: int
    """Number of nodes that failed, expired, or were deleted or cancelled one by one: of all, or of the first `counted_to`."""
    counted_to: int | None
    """If the run has too many nodes to count: how many of them were looked at. None: all."""
    read_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeInfo:
    """One node of a run. `number` is its place in the run, from 1.

    `state`: if it has ended, ``succeeded``, ``failed``, ``cancelled``, ``expired``, ``deleted``,
    ``upstream_failed`` or ``skipped``. Else the state of its job (``ready``, ``scheduled``,
    ``running``, ``parked``, or ``waiting`` for the turn of its group), or ``waiting`` for its
    parents: then `job_id` is None. A map is ``running`` while it has items.
    """

    number: int
    id: int
    name: str
    kind: str
    """``task`` or ``map``."""
    task: str
    queue: str
    state: str
    parents: tuple[int, ...]
    """Numbers of the nodes that it needs, of those that are listed."""
    any_end: tuple[int, ...]
    """Those of `parents` whose failure does not matter: it runs however they end."""
    job_id: int | None
    """The job of a task that has started; None for a map."""
    items: int | None
    """Number of a map's items; None for a task, and while it is not known."""
    items_ended: int
    items_failed: int
    released_at: datetime | None
    """When its parents had ended, so that it could start."""
    started_at: datetime | None
    finished_at: datetime | None
    error: str | None
    """Why it did not succeed: the first 2,000 characters."""
    why: str | None
    """What it waits for or does, in words; None if it has ended."""
    undo: str | None = None
    """The task that undoes it, if the run fails or is cancelled; None: nothing does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowDetail:
    """One run and its first nodes, in the order in which they were made."""

    run: WorkflowInfo
    nodes: list[NodeInfo] = field(default_factory=list)

    @property
    def left_out(self) -> int:
        """Number of nodes that are not listed."""
        return self.run.nodes - len(self.nodes)


def workflows(
    conn: Connection[Any],
    schema: str,
    *,
    name: str | None = None,
    state: str | None = None,
    before: int | None = None,
    limit: int = 50,
) -> list[WorkflowInfo]:
    """Return runs, newest first by id.

    Args:
        conn: a psycopg connection.
        schema: the schema of jobq's tables.
        name: only runs of this workflow.
        state: one of WORKFLOW_STATES. For ``running`` and ``blocked``, at most the newest 10,000
            running runs below `before` are looked at.
        before: only runs with a lower id: the last id of a page continues the list.
        limit: most runs, 1 to 1,000.

    Raises:
        InvalidOption: `state` or `limit` is out of range.
    """
    check_limit(limit)
    if state is not None:
        check_choice("state", state, WORKFLOW_STATES)
    before = MAX_ID if before is None else check_int("before", before, 0, MAX_ID)
    values = {"name": name, "state": state, "before": before, "limit": limit}
    if state == "blocked":
        return _blocked(conn, schema, values)
    variant = {(False, False): "", (True, False): ":named", (False, True): ":stated", (True, True): ":both"}
    statement = "workflow_list" + variant[name is not None, state is not None]
    found: list[WorkflowInfo] = []
    for _ in range(max(_MOST_RUNS // limit, 1)):
        page = _infos(conn, schema, statement, values)
        found += [run for run in page if state is None or run.state == state]
        if len(found) >= limit or len(page) < limit:
            break
        values["before"] = page[-1].id
    return found[:limit]


def get_workflow(
    conn: Connection[Any], schema: str, id: int, *, limit: int = 2000, explain: int = 10
) -> WorkflowDetail | None:
    """Return one run with its first nodes, or None. It runs several statements.

    Args:
        conn: a psycopg connection.
        schema: the schema of jobq's tables.
        id: the run.
        limit: most nodes, 1 to 100,000.
        explain: for how many jobs that have not ended `NodeInfo.why` names the exact obstacle, as
            `why_waiting` does, at some milliseconds each. The others' says their state.

    Raises:
        InvalidOption: `limit` is out of range.
    """
    check_int("limit", limit, 1, MAX_LISTED_NODES)
    if not 0 <= id <= MAX_ID:
        return None
    values = {"ids": [id], "before": MAX_ID, "limit": 1, "reach": MAX_LISTED_NODES * 2, "counted": _BUDGET}
    runs = _infos(conn, schema, "workflow_list:some", values)
    if not runs:
        return None
    rows = fetch(conn, schema, "workflow_nodes", {"id": id, "limit": limit})
    parents, any_end = parents_of(rows)
    whys = reasons(conn, schema, id, rows, parents, explain=explain)
    nodes = [
        NodeInfo(
            parents=parents[row["number"]],
            any_end=any_end[row["number"]],
            why=whys.get(row["number"]),
            items_ended=row["items_ended"] or 0,
            items_failed=row["items_failed"] or 0,
            **{name: row[name] for name in _NODE_COLUMNS},
        )
        for row in rows
    ]
    run = runs[0]
    if run.state in ("blocked", "failed") and run.reason is None:
        run = replace(run, reason=failed_nodes(rows))
    return WorkflowDetail(run=run, nodes=nodes)


def workflow_names(conn: Connection[Any], schema: str) -> list[str]:
    """Return the names of workflows that have runs, at most 1,000."""
    return [row["name"] for row in fetch(conn, schema, "workflow_names", {})]


_NODE_COLUMNS = (
    "number", "id", "name", "kind", "task", "queue", "state", "job_id", "items", "released_at", "started_at",
    "finished_at", "error", "undo",
)  # fmt: skip


def _infos(conn: Connection[Any], schema: str, statement: str, values: dict[str, Any]) -> list[WorkflowInfo]:
    counted = max(_BUDGET // values["limit"], 100)
    found = []
    for row in fetch(conn, schema, statement, {"reach": _REACH, "counted": counted, **values}):
        bound = values.get("counted", counted)
        is_counted = row["nodes"] <= bound
        if row.pop("is_blocked"):
            row["state"] = "blocked"
        found.append(WorkflowInfo(**row, counted_to=None if is_counted else bound))
    return found


def _blocked(conn: Connection[Any], schema: str, values: dict[str, Any]) -> list[WorkflowInfo]:
    found: list[WorkflowInfo] = []
    before = values["before"]
    for _ in range(_MOST_RUNS // _WINDOW):
        window = {"name": values["name"], "before": before, "window": _WINDOW, "reach": _REACH}
        [row] = fetch(conn, schema, "workflow_held", window)
        for start in range(0, len(row["ids"]), values["limit"]):
            some = {**values, "before": before, "ids": row["ids"][start : start + values["limit"]]}
            found += [run for run in _infos(conn, schema, "workflow_list:some", some) if run.state == "blocked"]
            if len(found) >= values["limit"]:
                return found[: values["limit"]]
        if row["floor"] is None:
            break
        before = row["floor"]
    return found
