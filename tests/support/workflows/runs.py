"""Workflow runs without a worker: their nodes start and end as a test says, at times of the past."""

from __future__ import annotations

import uuid
from typing import Any

import psycopg

from tests.support.workflows import node_ends

Conn = psycopg.Connection[Any]


def end_node(
    conn: Conn,
    run: int,
    name: str,
    state: str = "succeeded",
    *,
    item: int = 0,
    started: float = 0.0,
    ended: float = 0.0,
    result: Any = None,
    error: str | None = None,
) -> int:
    """End the live job of a node, or of an item of a map, and return its id.

    It ran from `started` to `ended` seconds ago.
    """
    job = _live(conn, run, name, item)
    assert node_ends.end(conn, [job], state, result) == [job]
    times = {"started": started, "ended": ended, "job": job, "error": error}
    for table, column in (("workflow_result", "job_id"), ("job_history", "id")):
        conn.execute(
            f"UPDATE jobq.{table} SET started_at = clock_timestamp() - %(started)s * interval '1 second',"
            " finished_at = clock_timestamp() - %(ended)s * interval '1 second', error = coalesce(%(error)s, error)"
            f" WHERE {column} = %(job)s",
            times,
        )
    return job


def start_node(
    conn: Conn, run: int, name: str, *, started: float, worker: uuid.UUID | None = None, item: int = 0
) -> int:
    """Let the live job of a node, or of an item, run since `started` seconds ago, and return its id."""
    job = _live(conn, run, name, item)
    conn.execute(
        "UPDATE jobq.job SET state = 'running', attempt = 1, claims = 1, worker_id = %s,"
        " started_at = clock_timestamp() - %s * interval '1 second' WHERE id = %s",
        (worker or uuid.uuid4(), started, job),
    )
    return job


def move_times(conn: Conn, run: int, seconds: float) -> None:
    """Let the run be inserted `seconds` ago, and each join be released when its last parent had ended."""
    conn.execute(
        "UPDATE jobq.workflow SET created_at = clock_timestamp() - %s * interval '1 second' WHERE id = %s",
        (seconds, run),
    )
    # The end of a map is that of its last item.
    conn.execute(
        "UPDATE jobq.workflow_result AS whole SET finished_at = over.at FROM ("
        "  SELECT node.id, max(result.finished_at) AS at FROM jobq.workflow_node AS node"
        "  JOIN jobq.workflow_result AS result ON result.node_id = node.id AND result.item >= 0"
        "  WHERE node.workflow_id = %s AND node.kind = 'map' GROUP BY node.id) AS over"
        " WHERE whole.node_id = over.id AND whole.item = -1",
        (run,),
    )
    conn.execute(
        "UPDATE jobq.workflow_join AS parents SET released_at = over.at FROM ("
        "  SELECT abs(feed) AS id, max(result.finished_at) AS at FROM jobq.workflow_node AS node"
        "  CROSS JOIN unnest(node.feeds) AS feed JOIN jobq.workflow_result AS result ON result.node_id = node.id"
        "  WHERE node.workflow_id = %s GROUP BY 1) AS over"
        " WHERE parents.id = over.id AND parents.released_at IS NOT NULL",
        (run,),
    )
    conn.execute(
        "UPDATE jobq.workflow AS run SET finished_at = ("
        "  SELECT max(result.finished_at) FROM jobq.workflow_node AS node"
        "  JOIN jobq.workflow_result AS result ON result.node_id = node.id WHERE node.workflow_id = run.id)"
        " WHERE run.id = %s AND finished_at IS NOT NULL",
        (run,),
    )


def _live(conn: Conn, run: int, name: str, item: int) -> int:
    row = conn.execute(
        "SELECT job.id FROM jobq.workflow_node AS node JOIN jobq.job AS job ON job.node_id = node.id"
        " WHERE node.workflow_id = %s AND node.name = %s AND job.node_item = %s",
        (run, name, item),
    ).fetchone()
    assert row is not None, f"node {name}, item {item} of run {run}, has no live job"
    return int(row[0])
