"""The reads of workflows, with 30,000 runs and one run of 20,000 nodes: each reads what it returns, and no table whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from jobq import queries
from jobq._postgres.sql import statement
from tests.plans.filled import explain, explain_generic, large_seq_scans
from tests.support.servers import postgres

Conn = psycopg.Connection[Any]
WIDE = 30_001

# Runs of two nodes, the second of which waits for the first; every 100th is held by a failure. The last one has 20,000 nodes,
# half of them ended, and a job of each of the others.
_FILL = f"""
INSERT INTO jobq.workflow (name, nodes, state, finished_at)
SELECT 'name' || n % 30, 2, state, CASE WHEN state <> 'running' THEN now() END
FROM (SELECT n, CASE WHEN n % 50 = 0 THEN 'running' WHEN n % 20 = 1 THEN 'failed' ELSE 'succeeded' END AS state
      FROM generate_series(1, 30000) AS n) AS made;
INSERT INTO jobq.workflow (name, nodes) VALUES ('wide', 20000);
INSERT INTO jobq.workflow_node (id, workflow_id, join_id, number, name, kind, task, queue, feeds, args, headers)
SELECT n * 2 - 1 + second, n, CASE WHEN second = 1 THEN n * 2 END, second + 1, 'node' || second, 'task', 'task', 'default',
       ARRAY[n * 2 + second], '{{}}', '{{}}'
FROM generate_series(1, 30000) AS n, generate_series(0, 1) AS second;
INSERT INTO jobq.workflow_node (id, workflow_id, number, name, kind, task, queue, feeds, args, headers)
SELECT 100000 + n, {WIDE}, n, 'node' || n, 'task', 'task', 'default', '{{200000}}', '{{}}', '{{}}'
FROM generate_series(1, 20000) AS n;
INSERT INTO jobq.workflow_join (id, workflow_id, kind, parents, remaining, failed)
SELECT n * 2 + second, n, CASE second WHEN 0 THEN 'nodes' ELSE 'end' END, 1, CASE WHEN n % 50 = 0 THEN second ELSE 0 END,
       CASE WHEN n % 100 = 0 THEN 1 - second ELSE 0 END
FROM generate_series(1, 30000) AS n, generate_series(0, 1) AS second;
UPDATE jobq.workflow_join SET released_at = now() WHERE workflow_id % 50 <> 0;
INSERT INTO jobq.workflow_join (id, workflow_id, kind, parents, remaining) VALUES (200000, {WIDE}, 'end', 20000, 10000);
ALTER TABLE jobq.workflow_result DISABLE TRIGGER ALL;
INSERT INTO jobq.workflow_result (node_id, job_id, item, state, finished_at)
SELECT id, id, 0, CASE WHEN workflow_id % 100 = 0 THEN 'failed' ELSE 'succeeded' END, now()
FROM jobq.workflow_node
WHERE workflow_id <= 30000 AND (workflow_id % 50 <> 0 OR number = 1) OR workflow_id = {WIDE} AND number % 2 = 0;
ALTER TABLE jobq.workflow_result ENABLE TRIGGER ALL;
INSERT INTO jobq.job (id, node_id, node_item, task, queue, args)
SELECT id, id, 0, task, queue, '{{}}' FROM jobq.workflow_node WHERE workflow_id = {WIDE} AND number % 2 = 1;
INSERT INTO jobq.job (task, queue, args) SELECT 'task', 'default', '{{}}' FROM generate_series(1, 20000);
"""


@pytest.fixture(scope="module")
def full(server: postgres.Server, template: str) -> Iterator[Conn]:
    """A connection to a filled database, analysed and never vacuumed."""
    with (
        postgres.database(server, template) as url,
        psycopg.connect(url, autocommit=True, options="-c max_parallel_workers_per_gather=0") as connection,
    ):
        connection.execute(_FILL.encode())
        connection.execute("ANALYZE")
        yield connection


LIST: dict[str, Any] = {
    "before": 2**62, "limit": 50, "reach": 10_000, "counted": 400, "name": "name7", "state": "failed",
    "ids": [5, 100, 12_000, WIDE],
}  # fmt: skip
STATEMENTS: list[tuple[str, dict[str, Any], int]] = [
    # name, parameters, most pages it may touch
    ("workflow_list", LIST, 6_000),
    ("workflow_list:named", LIST, 2_500),
    ("workflow_list:stated", LIST, 2_500),
    ("workflow_list:both", LIST, 5_000),
    ("workflow_list:some", LIST, 6_000),
    ("workflow_held", {"before": 2**62, "window": 500, "reach": 10_000, "name": None}, 6_000),
    ("workflow_nodes", {"id": WIDE, "limit": 2_000}, 40_000),
    ("workflow_nodes", {"id": 12_000, "limit": 2_000}, 100),
    ("workflow_names", {}, 300),
]


@pytest.mark.parametrize("generic", [False, True], ids=["custom", "generic"])
@pytest.mark.parametrize(("name", "params", "pages"), STATEMENTS)
def test_no_large_table_is_read_whole(full: Conn, name: str, params: dict[str, Any], pages: int, generic: bool) -> None:
    query = statement(name, "jobq").query
    with full.transaction(force_rollback=True):
        plan = (explain_generic if generic else explain)(full, query, params)
    full.execute("DEALLOCATE ALL")
    assert large_seq_scans(full, plan) == []
    touched = plan[0].get("Shared Hit Blocks", 0) + plan[0].get("Shared Read Blocks", 0)
    assert touched <= pages


def test_a_list_of_blocked_runs_finds_all_of_them(full: Conn) -> None:
    found = queries.workflows(full, "jobq", state="blocked", limit=1000)
    assert [run.id for run in found] == list(range(30_000, 0, -100))
    assert {run.state for run in found} == {"blocked"}
    assert [run.id for run in queries.workflows(full, "jobq", state="running", limit=3)] == [WIDE, 29_950, 29_850]
    named = queries.workflows(full, "jobq", state="blocked", name="name20", before=30_000, limit=2)
    assert [run.id for run in named] == [29_900, 29_600]


def test_a_wide_run_is_counted_up_to_a_bound(full: Conn) -> None:
    [run] = queries.workflows(full, "jobq", name="wide")
    assert (run.nodes, run.counted_to, run.ended, run.failed) == (20_000, 400, 200, 0)
    detail = queries.get_workflow(full, "jobq", WIDE, limit=10)
    assert detail is not None
    assert (detail.run.counted_to, detail.run.ended, detail.left_out) == (None, 10_000, 19_990)
