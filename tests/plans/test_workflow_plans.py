"""What runs workflows, with 20,000 runs, a run of 100,000 nodes and a map of 100,000 items: no table is read whole.

The functions' statements are looked at as auto_explain logs them: on a worker's planner settings and on those of an ordinary
connection (a task's, an operator's), with plans made for the values and with generic ones, and whatever the statistics say.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from jobq._postgres.sql import statement
from jobq._worker.timeouts import HOT
from jobq._worker.workflows.inline import EVERYTHING
from tests.plans.explain import MODES
from tests.support.servers import postgres

Conn = psycopg.Connection[Any]
MAP, WIDE = 30_001, 30_002

# Runs of two nodes, the second of which waits for the first. Those with even numbers run, with a job of the first node;
# the others have ended long ago. MAP: half of its 100,000 items have ended. WIDE: half of its 100,000 nodes have ended.
_FILL = f"""
INSERT INTO jobq.workflow (id, name, nodes, state, finished_at)
SELECT n, 'pair', 2, CASE n % 4 WHEN 1 THEN 'succeeded' WHEN 3 THEN 'failed' ELSE 'running' END,
       CASE WHEN n % 2 = 1 THEN now() - interval '1000 days' END
FROM generate_series(1, 20000) AS n;
INSERT INTO jobq.workflow (id, name, nodes) VALUES ({MAP}, 'map', 1), ({WIDE}, 'wide', 100000);
INSERT INTO jobq.workflow_node (id, workflow_id, join_id, number, name, kind, task, queue, feeds, args, headers,
                                max_attempts, priority)
SELECT n * 2 - 1 + second, n, CASE WHEN second = 1 THEN n * 2 END, second + 1, 'node' || second, 'task', 'task', 'default',
       ARRAY[n * 2 + second], '{{}}', '{{}}', 3, 5
FROM generate_series(1, 20000) AS n, generate_series(0, 1) AS second;
INSERT INTO jobq.workflow_join (id, workflow_id, kind, parents, remaining, released_at)
SELECT n * 2 + second, n, CASE second WHEN 0 THEN 'nodes' ELSE 'end' END, 1, n % 2 - 1 + 1, CASE WHEN n % 2 = 1 THEN now() END
FROM generate_series(1, 20000) AS n, generate_series(0, 1) AS second;
UPDATE jobq.workflow_join SET remaining = 1 - remaining;
INSERT INTO jobq.workflow_node (id, workflow_id, number, members_join_id, name, kind, task, queue, feeds, args, headers, items,
                                item_parameter, max_attempts, priority)
SELECT 100001, {MAP}, 1, 100001, 'map', 'map', 'task', 'default', '{{100002}}', '{{}}', '{{}}', jsonb_agg(n), 'n', 3, 5
FROM generate_series(1, 100000) AS n;
INSERT INTO jobq.workflow_join (id, workflow_id, node_id, kind, parents, remaining)
VALUES (100001, {MAP}, 100001, 'map', 100000, 50000), (100002, {MAP}, NULL, 'end', 1, 1),
       (300001, {WIDE}, NULL, 'end', 100000, 50000);
INSERT INTO jobq.workflow_node (id, workflow_id, number, name, kind, task, queue, feeds, args, headers)
SELECT 200000 + n, {WIDE}, n, 'node' || n, 'task', 'task', 'default', '{{300001}}', '{{}}', '{{}}'
FROM generate_series(1, 100000) AS n;
ALTER TABLE jobq.workflow_result DISABLE TRIGGER ALL;
INSERT INTO jobq.workflow_result (node_id, job_id, item, state, finished_at)
SELECT id, id, 0, 'succeeded', now() FROM jobq.workflow_node
WHERE workflow_id <= 20000 AND workflow_id % 2 = 1 OR workflow_id = {WIDE} AND number <= 50000;
INSERT INTO jobq.workflow_result (node_id, job_id, item, state, finished_at, result)
SELECT 100001, 400000 + n, n, CASE WHEN n % 100 = 0 THEN 'failed' ELSE 'succeeded' END, now(), '1'
FROM generate_series(0, 49999) AS n;
ALTER TABLE jobq.workflow_result ENABLE TRIGGER ALL;
INSERT INTO jobq.job (id, node_id, node_item, task, queue)
SELECT id, id, 0, task, queue FROM jobq.workflow_node
WHERE join_id IS NULL AND kind = 'task'
  AND (workflow_id <= 20000 AND workflow_id % 2 = 0 OR workflow_id = {WIDE} AND number > 50000);
INSERT INTO jobq.job (id, node_id, node_item, task) SELECT 400000 + n, 100001, n, 'task'
FROM generate_series(50000, 99999) AS n;
SELECT setval('jobq.job_id_seq', 1000000), setval('jobq.workflow_id_seq', 1000000),
       setval('jobq.workflow_join_id_seq', 1000000);
"""

# Ends of jobs, by what the statements that end jobs insert.
_END = (
    "INSERT INTO jobq.workflow_result (node_id, item, job_id, state, finished_at)"
    " SELECT node_id, node_item, id, '{state}', now() FROM jobq.job WHERE id = ANY (ARRAY(SELECT generate_series({ids})))"
)
ACTIONS: dict[str, tuple[str, list[str], int]] = {
    # What is done, what before it, and how many rows of tables it may read.
    "ends_of_first_nodes": (_END.format(state="succeeded", ids="3, 400, 4"), [], 3_000),
    "ends_of_items": (_END.format(state="succeeded", ids="450000, 450099"), [], 1_000),
    "failures_of_items": (_END.format(state="failed", ids="450000, 450099"), [], 1_500),
    "ends_of_a_wide_run": (_END.format(state="succeeded", ids="250001, 250100"), [], 1_000),
    "the_last_item": (
        _END.format(state="succeeded", ids="450000, 450000"),
        ["UPDATE jobq.workflow_join SET remaining = 1 WHERE id = 100001"],
        40,
    ),
    "a_retry_of_jobs": (
        "DELETE FROM jobq.workflow_result WHERE node_id = 100001 AND item = ANY ('{100,200,300,400}')",
        [],
        100,
    ),
    "step:arrivals": (
        "SELECT jobq.workflow_step()",
        [
            "INSERT INTO jobq.workflow_arrival (join_id, ends, failed, skipped)"
            " SELECT n * 4, 1, 0, 0 FROM generate_series(1, 1000) AS n",
        ],
        8_000,
    ),
    "step:expand": (
        "SELECT jobq.workflow_step()",
        ["INSERT INTO jobq.workflow_turn (kind, subject_id, from_item) VALUES ('expand', 100001, 5000)"],
        40,
    ),
    "start:map": ("SELECT * FROM jobq.workflow_start('{100001}')", [], 40),
    "start:tasks": ("SELECT * FROM jobq.workflow_start(ARRAY(SELECT generate_series(4, 400, 4)))", [], 500),
    "feeds": (
        "SELECT * FROM jobq.workflow_feeds(ARRAY(SELECT generate_series(1::bigint, 1000)), array_fill(0, ARRAY[1000]),"
        " array_fill('succeeded'::text, ARRAY[1000]))",
        [],
        1_100,
    ),
    "value": ('SELECT jobq.workflow_value(\'{"node": 100001, "of": "result"}\')', [], 5),
    "prune:small": ("SELECT jobq.workflow_prune(ARRAY(SELECT generate_series(1::bigint, 199, 2)), 5000)", [], 5_000),
    "prune:large": (
        f"SELECT jobq.workflow_prune('{{{WIDE}}}', 5000)",
        [f"UPDATE jobq.workflow SET state = 'failed', finished_at = now() WHERE id = {WIDE}"],
        40_000,
    ),
    "cancel": ("SELECT jobq.workflow_cancel(2, 'failed', 'because')", [], 60),
    "retry": ("SELECT jobq.workflow_retry(3)", [], 60),
    "retry:from": ("SELECT * FROM jobq.workflow_retry_from(3, 'node0')", [], 100),
    "undo": (
        "SELECT * FROM jobq.workflow_undo(1)",
        [
            "UPDATE jobq.workflow_node SET undo = jsonb_build_object('name', 'undo', 'task', 't', 'queue', 'q',"
            " 'priority', 5, 'max_attempts', 3, 'args', '{}'::jsonb, 'parameter', 'value') WHERE workflow_id = 1"
        ],
        100,
    ),
    "enqueue": (
        "SELECT jobq.enqueue_workflow('w', 'k', 'hold', 60,"
        " (SELECT jsonb_agg(jsonb_build_object('name', n, 'kind', 'task', 'args', '{}'::jsonb, 'task', 't', 'queue', 'default',"
        " 'priority', 5, 'max_attempts', 3, 'feeds', '[1]'::jsonb)) FROM generate_series(1, 50) AS n),"
        ' \'[{"kind": "end", "parents": 50}]\')',
        [],
        400,
    ),
}
WORKFLOW_TABLES = {f"workflow{suffix}" for suffix in ("", "_node", "_join", "_arrival", "_turn", "_result")} | {"job"}
WORKER = [f"SET LOCAL {name} = {value}" for name, value in HOT.settings().items() if name.startswith("enable_")]


@pytest.fixture(scope="module", params=["analysed", "empty_before"])
def statistics(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def full_database(statistics: str, server: postgres.Server, template: str) -> Iterator[str]:
    """Filled, with statistics of what is there, or with those of empty tables."""
    with postgres.database(server, template) as url:
        with psycopg.connect(url, autocommit=True) as connection:
            for table in sorted(WORKFLOW_TABLES):
                connection.execute(f"ALTER TABLE jobq.{table} SET (autovacuum_enabled = off)".encode())
            connection.execute("ANALYZE")
            connection.execute(_FILL.encode())
            if statistics == "analysed":
                connection.execute("ANALYZE")
        yield url


@pytest.fixture
def full(full_database: str) -> Iterator[Conn]:
    with psycopg.connect(full_database) as connection:
        yield connection


def plans(
    connection: Conn, settings: list[str], action: bytes, before: list[str], params: Any = None
) -> list[dict[str, Any]]:
    """Run `action`, and return every node of every plan of it and of what it calls, as auto_explain logs them."""
    texts: list[str] = []
    connection.rollback()
    for each in before:
        connection.execute(each.encode())
    connection.add_notice_handler(lambda notice: texts.append(notice.message_primary or ""))
    for setting in (
        "LOAD 'auto_explain'",
        "SET LOCAL auto_explain.log_min_duration = 0",
        "SET LOCAL auto_explain.log_analyze = on",
        "SET LOCAL auto_explain.log_timing = off",
        "SET LOCAL auto_explain.log_format = json",
        "SET LOCAL auto_explain.log_nested_statements = on",
        "SET LOCAL client_min_messages = log",
        *settings,
    ):
        connection.execute(setting.encode())
    connection.execute(action, params, prepare=True)
    connection.rollback()
    found: list[dict[str, Any]] = []

    def walk(node: dict[str, Any], query: str) -> None:
        found.append({**node, "Query": query})
        for child in node.get("Plans", []):
            walk(child, query)

    for text in texts:
        if "plan:" in text:
            logged = json.loads(text[text.index("{") :])
            walk(logged["Plan"], logged["Query Text"])
    assert found
    return found


def rows_read(nodes: list[dict[str, Any]]) -> int:
    """Return how many rows of jobq's tables the scans have read, those that filters threw away included."""
    return sum(
        round((node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"])
        for node in nodes
        if node.get("Relation Name") in WORKFLOW_TABLES and node["Node Type"].endswith("Scan")
    )


def whole(nodes: list[dict[str, Any]]) -> list[str]:
    """The sequential scans of tables that had more than a page, with their statements."""
    return [
        f"{node['Relation Name']}: {node['Query']}"
        for node in nodes
        if node["Node Type"] == "Seq Scan"
        and node["Relation Name"] in WORKFLOW_TABLES - {"workflow_turn", "workflow_arrival"}
        and node["Actual Rows"] + node.get("Rows Removed by Filter", 0) > 1_000
    ]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("settings", [WORKER, []], ids=["worker", "ordinary"])
@pytest.mark.parametrize("name", ACTIONS)
def test_functions(full: Conn, name: str, settings: list[str], mode: str) -> None:
    action, before, most = ACTIONS[name]
    nodes = plans(full, [*settings, f"SET LOCAL plan_cache_mode = {mode}"], action.encode(), before)
    assert whole(nodes) == []
    assert rows_read(nodes) <= most


# A thousand pairs whose first nodes have jobs.
_PAIRS = """
INSERT INTO jobq.workflow (name, nodes) SELECT 'pair', 2 FROM generate_series(1, 1000);
INSERT INTO jobq.workflow_join (id, workflow_id, kind, parents, remaining)
SELECT n * 2 + second, n, CASE second WHEN 0 THEN 'nodes' ELSE 'end' END, 1, 1
FROM generate_series(1, 1000) AS n, generate_series(0, 1) AS second;
INSERT INTO jobq.workflow_node (id, workflow_id, join_id, number, name, kind, task, queue, feeds, args, headers,
                                max_attempts, priority)
SELECT n + 1000 * second, n, CASE WHEN second = 1 THEN n * 2 END, second + 1, 'node' || second, 'task', 'task', 'default',
       ARRAY[n * 2 + second], '{}', '{}', 3, 5
FROM generate_series(1, 1000) AS n, generate_series(0, 1) AS second;
INSERT INTO jobq.job (id, node_id, node_item, task, queue)
SELECT id, id, 0, task, queue FROM jobq.workflow_node WHERE id <= 1000;
ANALYZE jobq.job, jobq.workflow, jobq.workflow_join, jobq.workflow_node, jobq.workflow_result;
SELECT setval('jobq.job_id_seq', 100000);
"""


def test_plans_of_a_session_that_began_with_empty_tables(server: postgres.Server, template: str) -> None:
    """A worker's first end makes the plans that it keeps: its hundredth still reads only what it needs."""
    settings = [*WORKER, "SET LOCAL plan_cache_mode = force_generic_plan"]
    with postgres.database(server, template) as url, psycopg.connect(url) as connection:
        connection.execute(_PAIRS.encode())
        connection.commit()
        for setting in settings:
            connection.execute(setting.replace("LOCAL ", "").encode())
        for first in range(1, 900, 100):
            connection.execute(_END.format(state="succeeded", ids=f"{first}, {first + 99}").encode())
            connection.commit()
        nodes = plans(connection, settings, _END.format(state="succeeded", ids="901, 1000").encode(), [])
    assert whole(nodes) == []
    # 100 ends: their joins, runs, nodes, children, and no result but their own.
    assert rows_read([node for node in nodes if node.get("Relation Name") == "workflow_result"]) <= 100
    assert rows_read(nodes) <= 2_000


STATEMENTS: list[tuple[str, dict[str, Any], set[str], int]] = [
    # name, parameters, indexes, most rows
    ("map_count", {"node": 100_001, "failures": False}, {"workflow_result_pkey"}, 50_000),
    (
        "map_results",
        {"node": 100_001, "from_item": 40_000, "most": 1000, "failures": False},
        {"workflow_result_pkey"},
        1_020,
    ),
    ("map_results", {"node": 100_001, "from_item": 0, "most": 1000, "failures": True}, {"workflow_result_pkey"}, 1_000),
    ("workflow_failures", {"id": MAP}, {"workflow_node_number_idx", "workflow_result_failed_idx"}, 501),
    ("workflow_node_result", {"id": WIDE, "number": 7}, {"workflow_node_number_idx", "workflow_result_pkey"}, 2),
    ("workflow_status", {"id": WIDE}, {"workflow_pkey"}, 10),
    ("workflow_resume", {"id": WIDE}, {"workflow_join_workflow_idx"}, 5),
    ("workflow_turn_done", {"id": WIDE}, set(), 5),
    ("workflow_step", EVERYTHING, {"workflow_deadline_idx"}, 10),
    ("workflow_left", {"joins_left_out": [], "turns_left_out": []}, set(), 300),
    ("workflow_cancel", {"id": 2, "as_state": "failed", "reason": "r", "if_due": False}, {"job_node_idx"}, 60),
    ("workflow_retry", {"id": 3}, set(), 60),
    ("workflow_undo", {"id": 3}, set(), 60),
    ("workflow_retry_from", {"id": 3, "from_node": "node0"}, set(), 60),
    ("workflow_prune", {"ids": [1, 3, 5], "most": 100}, {"workflow_result_pkey"}, 200),
    (
        "workflows_old",
        {"most": 100, "aside": [1, 3], "keep_succeeded": "7 days", "keep_others": "90 days"},
        {"workflow_finished_idx"},
        350,
    ),
    (
        "workflows_stuck",
        {"after_run": 100, "most": 100},
        {"workflow_join_workflow_idx", "workflow_node_number_idx", "job_node_idx"},
        3_000,
    ),
]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("settings", [WORKER, []], ids=["worker", "ordinary"])
@pytest.mark.parametrize(("name", "parameters", "indexes", "most"), STATEMENTS)
def test_statements(
    full: Conn,
    statistics: str,
    name: str,
    parameters: dict[str, Any],
    indexes: set[str],
    most: int,
    settings: list[str],
    mode: str,
) -> None:
    query = statement(name, "jobq").query
    if name in ("workflows_old", "workflows_stuck"):
        # As in _worker/maintenance/workflow_runs.py.
        settings = [*WORKER, "SET LOCAL enable_sort = off"]
    nodes = plans(full, [*settings, f"SET LOCAL plan_cache_mode = {mode}"], query, [], parameters)
    if name == "map_count":
        # The map has 50,000 of 120,000 results: reading them all is a good plan for a connection that may.
        assert rows_read(nodes) <= 120_000
        return
    assert whole(nodes) == []
    if name == "map_results" and statistics == "empty_before":
        # All of the map's results are read and sorted, until the table is analysed.
        most = 50_000
    assert indexes <= {node.get("Index Name") for node in nodes}
    assert rows_read(nodes) <= most


def test_enqueue_workflow_is_one_call(full: Conn) -> None:
    """The statement; what the function does is above."""
    parameters = {
        "name": "w", "key": None, "on_failure": "hold", "deadline": None, "nodes": "[]", "joins": "[]", "with_nodes": True,
    }  # fmt: skip
    nodes = plans(full, [], statement("enqueue_workflow", "jobq").query, [], parameters)
    assert whole(nodes) == []
