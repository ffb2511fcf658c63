"""Why a node of a run has not ended, in words, from the rows of ``workflow_nodes``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from psycopg import Connection

from jobq._core.durations import roughly
from jobq._core.text import one_line, plural
from jobq.errors import JobNotFound
from jobq.queries.jobs import get_job
from jobq.queries.reasons.explain import why_waiting
from jobq.queries.reasons.steps import signal_wait
from jobq.queries.steps import run_waits
from jobq.queries.values.steps import RunWait

Row = dict[str, Any]
Parents = dict[int, tuple[int, ...]]

# States of an end that other nodes may wait for, if the run holds.
_FAILED = ("failed", "cancelled", "expired", "deleted", "upstream_failed")
# How a message says that a node has ended in this state.
_ENDED = {"deleted": "was deleted", "cancelled": "was cancelled", "upstream_failed": "was not run"}
_ERROR = 120


def parents_of(rows: Sequence[Row]) -> tuple[Parents, Parents]:
    """Return the numbers of each node's parents, and of those whose failure does not matter."""
    by_join: dict[int, list[int]] = {}
    tolerant: dict[int, list[int]] = {}
    for row in rows:
        for feed in row["feeds"]:
            by_join.setdefault(abs(feed), []).append(row["number"])
            if feed < 0:
                tolerant.setdefault(-feed, []).append(row["number"])
    # One tuple for all nodes with the same parents: a thousand nodes may share a thousand.
    all_parents = {join: tuple(numbers) for join, numbers in by_join.items()}
    any_end = {join: tuple(numbers) for join, numbers in tolerant.items()}
    return (
        {row["number"]: all_parents.get(row["join_id"], ()) for row in rows},
        {row["number"]: any_end.get(row["join_id"], ()) for row in rows},
    )


def reasons(
    conn: Connection[Any], schema: str, run_id: int, rows: Sequence[Row], parents: Parents, *, explain: int
) -> dict[int, str]:
    """Return the words for each node that has not ended; the jobs of `explain` nodes are looked up.

    Those of the others that wait for a signal say so, too, because one statement finds them all.
    """
    by_number = {row["number"]: row for row in rows}
    by_id = {row["id"]: row for row in rows}
    found = {}
    signals: dict[int, RunWait] | None = None
    for row in rows:
        if row["finished_at"] is not None:
            continue
        if row["job_id"] is not None:
            said = None
            if explain > 0:
                explain -= 1
                said = _explained(conn, schema, row["job_id"])
            elif row["state"] == "scheduled":
                if signals is None:
                    signals = {wait.job_id: wait for wait in run_waits(conn, schema, run_id)}
                said = _signal(signals.get(row["job_id"]), row)
            found[row["number"]] = said or _job(row)
        elif row["kind"] == "map" and row["state"] == "running":
            found[row["number"]] = _map(row)
        else:
            some = [by_number[number] for number in parents[row["number"]]]
            found[row["number"]] = _waiting(row, some, by_id)
    return found


def failed_nodes(rows: Sequence[Row]) -> str | None:
    """Return which of these nodes failed, in the order of their ends; None if none did."""
    failed = [row for row in rows if row["state"] in ("failed", "expired", "deleted", "cancelled")]
    if not failed:
        return None
    failed.sort(key=lambda row: row["finished_at"])
    said = "; ".join(
        f"node '{row['name']}' {_ended(row)}" + (f": {one_line(row['error'], _ERROR)}" if row["error"] else "")
        for row in failed[:3]
    )
    return said + (f"; and {len(failed) - 3:,} more" if len(failed) > 3 else "")


def _explained(conn: Connection[Any], schema: str, job_id: int) -> str | None:
    try:
        return why_waiting(conn, schema, get_job(conn, schema, job_id))
    except JobNotFound:
        # It ended and was removed after the nodes were read.
        return None


def _signal(wait: RunWait | None, row: Row) -> str | None:
    if wait is None:
        return None
    return f"It {signal_wait(wait.name, wait.wake_at, wait.is_over, row['now'])}."


def _job(row: Row) -> str:
    now = row["now"]
    match row["state"]:
        case "running" if row["started_at"] is not None:
            return f"It has been running for {roughly((now - row['started_at']).total_seconds())}."
        case "scheduled":
            return f"It is due in {roughly((row['run_at'] - now).total_seconds())}."
        case "waiting":
            return "It waits for its group's turn."
        case "parked":
            return "It is parked: no worker has code that can run it."
        case _:
            return f"It has been queued for {roughly((now - row['run_at']).total_seconds())}."


def _map(row: Row) -> str:
    said = f"{row['items_ended']:,} of {plural(row['items'], 'item')} have ended"
    if row["items_failed"]:
        said += f", {row['items_failed']:,} of them without success"
    if row["items_inserted"] is not None:
        said += f"; {row['items_inserted']:,} jobs are inserted so far"
    return said + "."


def _waiting(row: Row, parents: Sequence[Row], by_id: dict[int, Row]) -> str:
    unfinished = [parent for parent in parents if parent["finished_at"] is None]
    if row["parents_remaining"] > 0:
        said = _condition(row, unfinished, by_id)
        if said is None:
            said = _for_parents(unfinished, row["parents_remaining"])
        return said + "."
    if row["parents_failed"]:
        failed = [p for p in parents if p["state"] in _FAILED]
        if not failed:
            return "It waits for nodes that have failed: retry them."
        first = failed[0]
        ago = roughly((row["now"] - first["finished_at"]).total_seconds())
        said = f"It waits for '{first['name']}', which {_ended(first)} {ago} ago"
        if len(failed) > 1:
            return f"{said}, and for {len(failed) - 1:,} more that did not succeed: retry them."
        # A deleted job has no retry of its own: that of the run inserts it again.
        return f"{said}: retry {'the run' if first['state'] == 'deleted' else 'it'}."
    return "All that it waits for has ended: a worker is about to start it."


def _condition(row: Row, unfinished: Sequence[Row], by_id: dict[int, Row]) -> str | None:
    """Return the words if its condition is all that it waits for."""
    if row["condition"] is None or row["parents_remaining"] != 1:
        return None
    condition = json.loads(row["condition"])
    node = by_id.get(condition["node"])
    if node is None or unfinished != [node]:
        return None
    path = ".".join((node["name"], str(condition["of"]), *map(str, condition.get("path", ()))))
    return f"Its condition {path} is not known yet: '{node['name']}' is {node['state']}"


def _for_parents(unfinished: Sequence[Row], remaining: int) -> str:
    if not unfinished:
        return f"It waits for {plural(remaining, 'node')}"
    # What moves says more than what waits in turn.
    order = {"running": 0, "ready": 1, "scheduled": 2, "parked": 3}
    first = min(unfinished, key=lambda parent: order.get(parent["state"], 4))
    more = max(remaining, len(unfinished)) - 1
    said = f"It waits for '{first['name']}' ({first['state']})"
    return said + (f" and {more:,} more" if more else "")


def _ended(row: Row) -> str:
    state: str = row["state"]
    return _ENDED.get(state, state)
