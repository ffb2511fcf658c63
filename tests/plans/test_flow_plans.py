"""Statements about limits, rates and groups, with 200,000 jobs that wait for their groups' turn beside as many plain ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from jobq._postgres.sql import statement
from tests.plans.filled import explain, explain_generic, large_seq_scans
from tests.support.servers import postgres

Conn = psycopg.Connection[Any]

# Two queues with rules: `many` has 2,500 groups of 40 jobs and more, `one` has one group of 100,000.
_FILL = """
SET session_replication_role = replica;
INSERT INTO jobq.job (task, queue, priority, run_at, state, group_key)
SELECT 'task', 'many', 5, now() + (n % 4 - 2) * interval '1 hour', 'waiting', 'group' || n % 2500
FROM generate_series(1, 100000) AS n;
INSERT INTO jobq.job (task, queue, state, group_key)
SELECT 'task', 'one', 'waiting', 'tenant' FROM generate_series(1, 100000) AS n;
INSERT INTO jobq.job (task, queue) SELECT 'task', 'plain' || n % 20 FROM generate_series(1, 200000) AS n;
INSERT INTO jobq.job (task, queue, state, worker_id, group_key, limited)
SELECT 'task', CASE n % 3 WHEN 0 THEN 'many' WHEN 1 THEN 'one' ELSE 'plain1' END, 'running', gen_random_uuid(),
       'group' || n, n % 3 = 0
FROM generate_series(1, 600) AS n;
INSERT INTO jobq.group_ready (queue, group_key, due_at)
SELECT 'many', 'group' || n % 2500, now() + (n % 4 - 2) * interval '1 hour' FROM generate_series(1, 50000) AS n;
INSERT INTO jobq.rate_state (queue, group_key, max_running, paid_until)
SELECT CASE n % 10 WHEN 0 THEN 'many' ELSE 'other' || n END, 'group' || n, CASE WHEN n % 100 = 0 THEN 3 END,
       now() + (n % 4 - 2) * interval '1 hour'
FROM generate_series(1, 40000) AS n;
INSERT INTO jobq.queue (name, group_mode) SELECT 'other' || n, 'fair' FROM generate_series(1, 20000) AS n;
INSERT INTO jobq.queue (name, group_mode, max_running) VALUES ('many', 'fair', 100), ('one', 'ordered', 5);
SET session_replication_role = origin;
"""


@pytest.fixture(scope="module")
def full(server: postgres.Server, template: str) -> Iterator[Conn]:
    """A connection to a filled database, analysed and never vacuumed."""
    with (
        postgres.database(server, template) as url,
        psycopg.connect(url, autocommit=True, options="-c max_parallel_workers_per_gather=0") as connection,
    ):
        connection.execute(_FILL)
        connection.execute("ANALYZE")
        yield connection


SET: dict[str, Any] = {
    "queue": "many", "max_running": 5, "rate_jobs": 5, "rate_seconds": 1.0, "rate_burst": 1, "group_mode": "fair",
    "group_limit": 5, "group_retry": None, "group_rate_jobs": None, "group_rate_seconds": None, "group_rate_burst": None,
}  # fmt: skip
STATEMENTS: list[tuple[str, dict[str, Any], int]] = [
    # name, parameters, most pages it may touch
    ("queue_settings", {"queue": "many"}, 10),
    ("queue_configure", SET, 40),
    ("queue_touch", {"queue": "many"}, 40),
    ("count_running", {"queue": "one"}, 6_000),
    ("count_claimed", {"worker": "00000000-0000-4000-8000-000000000000", "queues": ["one", "many"]}, 20),
    ("rate_rescale", {"queue": "many", "factor": 0.5, "most": 5.0}, 20),
    ("rate_rescale_groups", {"queue": "many", "factor": 0.5, "most": 5.0}, 120_000),
    ("group_limit_clear_all", {"queue": "many"}, 30_000),
    ("group_heads_forget", {"queue": "many"}, 30_000),
    ("group_limit_get", {"queue": "many", "group": "group100"}, 10),
    ("group_limit_set", {"queue": "many", "group": "group100", "limit": 7}, 40),
    ("group_limit_clear", {"queue": "many", "group": "group100"}, 40),
    # For each of 2,500 groups a descent of the index, and a row put into the table and the index of turns.
    ("group_ready_all", {"queue": "many"}, 40_000),
    ("group_ready_all", {"queue": "one"}, 40),
    # A descent of the index for each of 100 groups.
    ("group_ready_candidates", {"after_queue": "", "after_group": "", "most": 100}, 1_000),
    ("group_ready_one", {"queue": "one", "group": "tenant"}, 40),
    ("rules_differ", {"queues": ["many"], "modes": ["fair"], "limits": [3], "retries": [None]}, 10),
    ("limited_due", {"capped": []}, 1_000),
    ("queue_groups", {"queue": "many", "bound": 2_001, "budget": 50_000, "most": 10}, 90_000),
    ("queue_groups", {"queue": "one", "bound": 2_001, "budget": 50_000, "most": 10}, 12_000),
    ("queues", {"bound": 10_001, "budget": 50_000}, 120_000),
    ("queue_info", {"queue": "many", "bound": 10_001}, 40_000),
    ("overview_counts", {"bound": 10_001, "succeeded": True}, 30_000),
    ("queue_ready_groups", {"queue": "many", "bound": 10_001}, 12_000),
    ("queue_limits", {"queue": "many", "most": 51}, 20_000),
    ("job_blockers", {"queue": "many", "group": "group100", "id": 50_000, "bound": 10_001}, 12_000),
    ("job_blockers", {"queue": "one", "group": "tenant", "id": 199_000, "bound": 10_001}, 12_000),
    ("search_waiting", {"queue": "many", "limit": 5_001}, 12_000),
    ("search_group", {"queue": "one", "group": "tenant", "limit": 5_001}, 6_000),
    ("suggest_groups", {}, 4_000),
    ("job_blockers", {"queue": "plain1", "group": None, "id": 250_000, "bound": 10_001}, 2_000),
]


@pytest.mark.parametrize("generic", [False, True], ids=["custom", "generic"])
@pytest.mark.parametrize(("name", "params", "pages"), STATEMENTS)
def test_no_large_table_is_read_whole(full: Conn, name: str, params: dict[str, Any], pages: int, generic: bool) -> None:
    query = statement(name, "jobq").query
    with full.transaction(force_rollback=True):
        plan = (explain_generic if generic else explain)(full, query, params)
    full.execute("DEALLOCATE ALL")
    # It shows all queues that have a row.
    allowed = {"queue"} if name == "queues" else set()
    assert set(large_seq_scans(full, plan)) <= allowed
    touched = plan[0].get("Shared Hit Blocks", 0) + plan[0].get("Shared Read Blocks", 0)
    assert touched <= pages


@pytest.mark.parametrize("generic", [False, True], ids=["custom", "generic"])
@pytest.mark.parametrize("name", ["group_ready_all", "group_ready_one"])
def test_turns_are_given_in_the_order_of_the_index(full: Conn, name: str, generic: bool) -> None:
    query = statement(name, "jobq").query
    with full.transaction(force_rollback=True):
        plan = (explain_generic if generic else explain)(full, query, {"queue": "many", "group": "group7"})
    full.execute("DEALLOCATE ALL")
    assert {node["Node Type"] for node in plan}.isdisjoint({"Sort", "Incremental Sort", "Bitmap Heap Scan"})
    used = {node["Index Name"] for node in plan if "Index Name" in node}
    assert used <= {"job_waiting_idx", "job_waiting_due_idx"}


@pytest.mark.parametrize("generic", [False, True], ids=["custom", "generic"])
def test_running_jobs_are_found_by_the_index_of_running_ones(full: Conn, generic: bool) -> None:
    query = statement("count_running", "jobq").query
    with full.transaction(force_rollback=True):
        plan = (explain_generic if generic else explain)(full, query, {"queue": "one"})
    full.execute("DEALLOCATE ALL")
    assert {node["Index Name"] for node in plan if "Index Name" in node} == {"job_running_idx", "job_pkey"}
