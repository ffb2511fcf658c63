"""Ends of workflows' nodes without a worker: the real statements, on connections of the test's own."""

from __future__ import annotations

import json
from collections.abc import Generator, Sequence
from functools import lru_cache
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import tuple_row

from jobq._postgres.script import Script
from jobq._postgres.sql import includes, statement
from jobq._worker.workflows.inline import EVERYTHING
from jobq.operations import workflows as operations
from jobq.operations.audit import Actor, AuditRecord

Conn = psycopg.Connection[Any]

# As the statements of the worker that end jobs (transitions/*.sql), but for whose the jobs are.
_END = """
WITH finished AS (
    DELETE FROM {schema}.job AS job
    WHERE id = ANY(%(ids)s)
    RETURNING
        --include finished_columns
        , job.attempt, job.crashes, job.worker_id, job.started_at, %(state)s::text AS state, clock_timestamp() AS finished_at,
        %(result)s::text::jsonb AS result, %(error)s::text AS error
)
--include finish jobs=finished
SELECT id FROM finished
"""
NOTE = AuditRecord("retry_workflow", Actor("test"), None)


def run(connection: Conn, name: str, **parameters: Any) -> list[tuple[Any, ...]]:
    """Run a statement of jobq; `workflow_step` with all that is left."""
    if name == "workflow_step":
        parameters = EVERYTHING
    with connection.cursor(row_factory=tuple_row) as cursor:
        return cursor.execute(statement(name, "jobq").query, parameters).fetchall()


@lru_cache
def _end_query() -> bytes:
    return sql.SQL(includes.expand(_END)).format(schema=sql.Identifier("jobq")).as_bytes(None)


def end(connection: Conn, ids: Sequence[int], state: str = "succeeded", result: Any = None) -> list[int]:
    """End jobs as a worker does; return the ids of those that existed."""
    values = {
        "ids": list(ids),
        "state": state,
        "result": json.dumps(result),
        "error": None if state == "succeeded" else state,
    }
    with connection.cursor(row_factory=tuple_row) as cursor:
        return [row[0] for row in cursor.execute(_end_query(), values).fetchall()]


def redrive(connection: Conn, ids: Sequence[int]) -> list[int]:
    """Put dead jobs back, as an operator does; return the ids of those that were put back."""
    return [row[0] for row in run(connection, "retry_finished", ids=list(ids)) if row[3] is None]


def fold(connection: Conn) -> int:
    """Call workflow_step until it has nothing left to do, at most 1,000 times; return the number of calls."""
    for calls in range(1000):
        if not run(connection, "workflow_step")[0][0]:
            return calls
    raise AssertionError("workflow_step finds something to do again and again")


def play(connection: Conn, script: Script[Any]) -> Any:
    """Run an operation's statements one after the other."""
    for _ in (steps := Stepped(connection, script)):
        pass
    return steps.result


class Stepped:
    """An operation's statements, one at each step."""

    def __init__(self, connection: Conn, script: Script[Any]) -> None:
        self.result: Any = None
        self._steps = self._play(connection, script)

    def __iter__(self) -> Generator[str]:
        return self._steps

    def _play(self, connection: Conn, script: Script[Any]) -> Generator[str]:
        try:
            name, parameters = next(script)
            while True:
                rows = run(connection, name, **parameters)
                yield name
                name, parameters = script.send(rows)
        except StopIteration as ended:
            self.result = ended.value


def cancel(connection: Conn, run_id: int) -> operations.RunChange | None:
    """Cancel a run: one round."""
    return play(connection, operations.cancel("jobq", run_id, None, reason="not wanted"))  # type: ignore[no-any-return]


def retry(connection: Conn, run_id: int) -> operations.RunChange | None:
    """Retry a run: one round."""
    return play(connection, operations.retry(run_id, NOTE))  # type: ignore[no-any-return]


def retry_from(connection: Conn, run_id: int, node: str | None) -> operations.RunChange | None:
    """Let a node and what is downstream of it run again; None: all nodes."""
    return play(connection, operations.retry_from(run_id, node, NOTE))  # type: ignore[no-any-return]
