"""Workflows in schemas whose names need quotes, or are as long as names may be."""

from __future__ import annotations

from collections.abc import Sequence

import psycopg
import pytest

from jobq import JobQ, WorkflowRun, migrate
from jobq._worker.inline import drain


@pytest.mark.parametrize("schema", ["other_jobs", "Select", "x" * 48])
def test_a_run_in_another_schema(empty_database_url: str, schema: str) -> None:
    """Its sequences, its locks and its functions are those of the schema: there is no other one."""
    migrate.upgrade(empty_database_url, schema)
    q = JobQ(empty_database_url, schema=schema)

    @q.task
    def number(value: int) -> int:
        return value

    @q.task
    def total(parts: Sequence[int]) -> int:
        return sum(parts)

    try:
        with psycopg.connect(empty_database_url, autocommit=True) as connection:
            runs: list[WorkflowRun[int]] = []
            for _ in range(2):
                with q.workflow("sum", key="one") as wf:
                    end = total.node(number.map([1, 2, 3]).after(number.node(0)).results)
                runs.append(wf.enqueue(connection, end))
            assert [run.created for run in runs] == [True, False]
            drain(q, connection)
            assert runs[0].result(timeout=0) == 6
            with q.workflow("late") as wf:
                number.options(delay=3600).node(1)
            late = wf.enqueue(connection)
            assert late.cancel()
            assert late.state() == "cancelled"
    finally:
        q.close()
