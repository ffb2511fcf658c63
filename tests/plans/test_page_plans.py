"""The status page's statements, with 100,000 jobs live and in history: none reads a large table whole."""

from __future__ import annotations

import inspect
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pkgutil import walk_packages
from typing import Any

import psycopg
import pytest
from psycopg import sql

from jobq import operations, queries
from jobq._app import lookups
from jobq._postgres.sql import statement, statement_files
from jobq._worker.maintenance import rollup, rollup_statements
from jobq.filters import JobFilter
from jobq.operations import selection
from jobq.queries import recent_history
from tests.plans import test_flow_plans, test_workflow_read_plans
from tests.plans.filled import explain, explain_generic, large_seq_scans
from tests.support.servers import postgres

Conn = psycopg.Connection[Any]

_FILL = """
INSERT INTO jobq.job (task, queue, priority, run_at, state, worker_id, parked_at, parked_claims, args)
SELECT 'task' || n % 7, 'queue' || n % 20, n % 3, now() + (n % 4 - 2) * interval '1 hour',
       CASE WHEN n % 1000 = 0 THEN 'running' WHEN n % 500 = 1 THEN 'parked' ELSE 'ready' END,
       CASE WHEN n % 1000 = 0 THEN gen_random_uuid() END, CASE WHEN n % 500 = 1 THEN now() END,
       CASE WHEN n % 500 = 1 THEN 0 END, jsonb_build_object('n', n)
FROM generate_series(1, 100000) AS n;
INSERT INTO jobq.job_history (id, claims, attempt, max_attempts, priority, crashes, queue, task, state, run_at,
                              created_at, started_at, finished_at, args, headers)
SELECT nextval('jobq.job_id_seq'), 1, 1, 10, 5, 0, 'queue' || n % 20, 'task' || n % 7,
       CASE WHEN n % 10 > 2 THEN 'succeeded' WHEN n % 10 = 2 THEN 'cancelled' ELSE 'failed' END,
       now(), now(), now(),
       -- In one day's partition, at any time of day: partitions are days of UTC.
       now() + (n - 100000) / 100000.0 * least(interval '50 minutes', now() - date_trunc('day', now(), 'UTC')),
       jsonb_build_object('n', n), '{}'
FROM generate_series(1, 100000) AS n;
INSERT INTO jobq.job_attempt (job_id, claims, attempt, outcome)
SELECT n, 1, 1, 'error' FROM generate_series(1, 50000) AS n;
INSERT INTO jobq.rollup_queue (span, at, queue, succeeded, ready, waits, runs)
SELECT 60, at, queue, 5, 5, array_fill(1, ARRAY[28]), array_fill(1, ARRAY[28])
FROM generate_series(date_trunc('minute', now()) - interval '26 hours', now() - interval '1 minute', interval '1 minute') AS at,
     (SELECT '' UNION ALL SELECT 'queue' || n FROM generate_series(1, 20) AS n) AS name (queue);
INSERT INTO jobq.rollup_task (span, at, task, succeeded, waits, runs)
SELECT span, at, 'task' || substr(queue, 6), succeeded, waits, runs FROM jobq.rollup_queue WHERE queue <> '';
INSERT INTO jobq.audit (actor, action, target) SELECT 'ann', 'retry', '{}' FROM generate_series(1, 50000);
INSERT INTO jobq.operation (up_to, action, filter, actor)
SELECT 1, 'retry', 'state:failed', 'ann' FROM generate_series(1, 50000);
INSERT INTO jobq.operation_batch (operation_id, n, done, refused)
SELECT n % 100, n / 100, '{1}', '{}' FROM generate_series(100, 50000) AS n;
"""


@pytest.fixture(scope="module")
def full(server: postgres.Server, template: str) -> Iterator[Conn]:
    """A connection to a filled database, analysed and never vacuumed: pages of a busy table are not marked all-visible."""
    with (
        postgres.database(server, template) as url,
        psycopg.connect(url, autocommit=True, options="-c max_parallel_workers_per_gather=0") as connection,
    ):
        connection.execute(_FILL)
        connection.execute("ANALYZE")
        yield connection


SCHEDULE: dict[str, Any] = {
    "name": "s", "task": "t", "args": "{}", "queue": "default", "priority": 5, "max_attempts": 10, "timeout": None,
    "headers": "{}", "group_key": None, "key": None, "expires_in": None,
    "cron": "@daily", "every": None, "timezone": "UTC", "missed": "last", "max_missed": 100,
    "tick_argument": None, "next_at": "2030-01-01", "made_by": "ann", "actor": "ann", "reason": None, "after": None,
    "limit": 100,
}  # fmt: skip
OPERATION: dict[str, Any] = {
    "id": 42, "up_to": 1, "action": "retry", "filter": "state:failed", "options": "{}", "actor": "ann", "role": None,
    "address": None, "expected": 3, "counted": 3, "rate": 2.5, "reason": "why", "state": "paused", "error": None,
    "after": 7, "done": 3, "refused": 0, "refusals": "{}",
}  # fmt: skip
FEW = {"ids": list(range(1, 1000, 37)), "channel": "jobq", "error": "cancelled"}
SERIES = {"since": str(datetime.now(UTC) - timedelta(hours=1)), "queue": "", "task": None}
STATEMENTS: list[tuple[str, dict[str, Any], int]] = [
    # name, parameters, most pages it may touch
    ("queues", {"bound": 10_001, "budget": 50_000}, 140_000),
    ("queue_names", {}, 2_000),
    ("overview_counts", {"bound": 10_001, "succeeded": True}, 25_000),
    ("search_running", {"worker": None, "limit": 5_001}, 2_000),
    ("search_lane", {"queue": "queue3", "limit": 5_001}, 6_000),
    ("export_rows", {"ids": list(range(1, 200_001, 997))}, 4_000),
    ("suggest_tasks", {}, 1_000),
    ("suggest_args", {}, 400),
    ("max_id_below", {"before": 150_000}, 200),
    ("job_detail", {"id": 42}, 200),
    ("job_detail", {"id": 150_000}, 200),
    ("job_report", {"id": 42}, 200),
    ("job_report", {"id": 150_000}, 200),
    ("job_attempts", {"id": 42}, 100),
    ("audit_log", {"before": 40_000, "limit": 50, "actor": None, "action": None}, 100),
    ("job_states", FEW, 3_000),
    ("retry_finished", {"ids": list(range(100_001, 101_001, 37))}, 10_000),
    ("make_due", FEW, 3_000),
    ("cancel_idle", FEW, 3_000),
    ("cancel_running", FEW, 3_000),
    ("queue_known", {"queue": "nosuch"}, 40_000),
    ("snooze", FEW | {"seconds": 60.0, "until": None}, 4_000),
    ("move", FEW | {"queue": "elsewhere", "priority": None}, 4_000),
    ("delete_live", FEW, 4_000),
    ("delete_finished", {"ids": list(range(100_001, 101_001, 37))}, 10_000),
    ("operation_insert", OPERATION, 20),
    ("operation_counted", OPERATION, 20),
    ("operation_start", OPERATION, 20),
    ("operation_turn", OPERATION, 20),
    ("operation_progress", OPERATION, 20),
    ("operation_batch_write", OPERATION | {"done": [1, 2], "refused": "{}"}, 20),
    ("operation_lock", OPERATION, 10),
    ("operation_try_lock", OPERATION, 10),
    ("operation_get", OPERATION, 10),
    ("operations", {"before": 40_000, "limit": 50}, 100),
    ("operations_running", {}, 100),
    ("operation_batches", {"id": 42, "after": 30, "limit": 20}, 40),
    ("schedules", SCHEDULE, 20),
    ("schedule_last_ticks", SCHEDULE, 10),
    ("schedule_lock", SCHEDULE, 10),
    ("schedule_set", SCHEDULE, 20),
    ("schedule_pause", SCHEDULE, 10),
    ("schedule_resume", SCHEDULE, 10),
    ("schedule_run", SCHEDULE, 20),
    ("schedule_remove", SCHEDULE, 10),
    ("next_id_above", {"after": 50_000}, 200),
    ("throughput_last_hour", {}, 400),
    ("series", SERIES | {"span": 60}, 400),
    ("series", SERIES | {"span": 60, "queue": "queue3"}, 400),
    ("series", SERIES | {"span": 60, "task": "task3"}, 400),
    ("sparklines", {"since": str(datetime.now(UTC) - timedelta(hours=1))}, 400),
    ("failures", {"reach": 10_000}, 20_000),
    ("failure_texts", {"since": int(time.time() - 60) * 1_000_000, "until": 2**50, "limit": 10_000}, 20_000),
    ("failure_jobs", {"ids": list(range(100_001, 101_001, 20))}, 4_000),
    ("queue_info", {"queue": "queue3", "bound": 10_001}, 40_000),
    ("queue_next", {"queue": "queue3", "bound": 2_000}, 8_000),
    ("jobs_ahead", {"queue": "queue3", "priority": 2, "run_at": str(datetime.now(UTC)), "id": 1, "bound": 10_001}, 20_000),
    ("rollup_depth", {"bound": 500}, 40_000),
    ("due_tasks", {"queue": None, "budget": 2_000}, 20_000),
    ("due_tasks", {"queue": "queue3", "budget": 2_000}, 8_000),
    ("stranded", {"bound": 10_001, "seconds": 120.0}, 12_000),
    ("failing", {"bound": 10_001}, 12_000),
    ("parked_tasks", {"bound": 10_000}, 1_000),
    ("parked_workers", {"task": "task3", "refused": "old"}, 20),
    ("rollup_begin", {}, 20),
]  # fmt: skip


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


def test_every_statement_of_queries_and_operations_is_held_to_its_plan() -> None:
    exempt = {
        "workers",
        "maintenance_tasks",
        "history_tails",
        "audit_write",
        "pause_queue",
        "resume_queue",
        "request_worker_state",
        "clock",
    }
    # Of these a part depends on the filter: test_search_plans.py holds them to their plans.
    exempt |= {"search_window", "search_page", "search_ids", "finished_window", "finished_page"}
    # Catalogues and the server's memory; a column's name.
    exempt |= {
        "progress",
        "finished_estimates",
        "system_server",
        "system_holders",
        "system_tables",
        "system_index",
        "succeeded_pages",
    }
    # What the maintenance task writes is small; how it reads history, and that it reads its end, is below.
    exempt |= {"rollup_parts", "rollup_marks", "rollup_prune", "rollup_depths", "rollup_write", "rollup_fold"}
    # Where one of them is refused, the same is read once more.
    exempt |= {"rollup_names"}
    # Those of durable jobs: test_step_plans.py, test_step_read_plans.py; a call of a function.
    exempt |= {"job_steps", "job_waits", "run_waits", "send_signal", "steps_load", "steps_unfinished"}
    named: set[str] = set()
    packages = (operations, queries)
    parts = [import_module(part.name) for of in packages for part in walk_packages(of.__path__, f"{of.__name__}.")]
    for module in (*parts, rollup, rollup_statements, lookups):
        named |= set(re.findall(r'"([a-z]+(?:_[a-z]+)*)"', inspect.getsource(module)))
    # test_results.py holds it to its plan.
    exempt |= {"job_result"}
    # A function of the server's, and no table.
    exempt |= {"queue_lock", "notify_queue", "notify_all_queues", "sleep_briefly"}
    # Function calls, the plans of which are the tests' of workflows; and one run's state.
    exempt |= {
        "workflow_cancel",
        "workflow_retry",
        "workflow_retry_from",
        "workflow_resume",
        "workflow_status",
        "workflow_undo",
    }
    files = {name for name in named if _exists(name)}
    of_workers = {"group_ready_candidates", "count_claimed", "limited_due", "rules_differ"}
    planned = (*STATEMENTS, *test_flow_plans.STATEMENTS, *test_workflow_read_plans.STATEMENTS)
    assert files - exempt == {name.partition(":")[0] for name, _, _ in planned} - of_workers


def _exists(name: str) -> bool:
    return name in statement_files()


def test_the_last_hour_reads_the_end_of_history_only(full: Conn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent_history, "_TAIL_PAGES", 500)
    seen: list[bytes] = []

    class Spy(psycopg.Cursor[Any]):
        def execute(self, query: Any, *args: Any, **options: Any) -> Any:
            seen.append(query.as_bytes(self) if hasattr(query, "as_bytes") else query)
            return super().execute(query, *args, **options)

    full.cursor_factory = Spy
    try:
        with full.transaction(force_rollback=True):
            # As where no worker keeps rollups.
            full.execute("DELETE FROM jobq.rollup_queue")
            found = queries.throughput(full, "jobq")
    finally:
        full.cursor_factory = psycopg.Cursor
    assert found.since is not None
    (query,) = [
        query for query in seen if isinstance(query, bytes) and b"job_history" in query and b"UNION ALL" in query
    ]
    plan = explain(full, query.replace(b"%", b"%%"), {})
    tails = [node for node in plan if node.get("Relation Name", "").startswith("job_history_succeeded_")]
    assert {node["Node Type"] for node in tails} == {"Tid Range Scan"}


@pytest.mark.parametrize(
    "text",
    ["state:failed", "state:ready queue:queue3", "state:failed,cancelled task:task* error:boom", "args.n:77 age:>1s"],
)
def test_a_bulk_operation_reads_windows_of_ids(full: Conn, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Counting and a batch, for any filter: no statement touches more than the jobs of one window."""
    monkeypatch.setattr(selection, "WINDOW", 2_000)
    seen: list[tuple[bytes, Any]] = []

    class Spy(psycopg.Cursor[Any]):
        def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
            seen.append((query.as_bytes(self) if isinstance(query, sql.Composed) else query, params))
            return super().execute(query, params, **options)

    at = full.execute("SELECT now() + interval '1 day'").fetchone()
    assert at is not None
    full.cursor_factory = Spy
    try:
        wanted = selection.JobSelection(jobs=JobFilter.parse(text), at=at[0], up_to=200_000)
        selection.next_jobs(full, "jobq", wanted, after=39_000, limit=500, seconds=0)
        selection.next_jobs(full, "jobq", wanted, after=150_000, limit=500, seconds=0)
    finally:
        full.cursor_factory = psycopg.Cursor
    windows = [(query, params) for query, params in seen if params and "last" in params]
    assert windows
    for query, params in windows:
        with full.transaction(force_rollback=True):
            plan = explain(full, query, params)
        assert large_seq_scans(full, plan) == []
        assert plan[0].get("Shared Hit Blocks", 0) + plan[0].get("Shared Read Blocks", 0) <= 6_000


def test_the_rollup_reads_the_end_of_a_days_partition_only(full: Conn) -> None:
    """Also where it goes through the parent, which is all that the worker's role may read."""
    until = datetime.now(UTC).replace(second=0, microsecond=0)
    since = until - timedelta(minutes=3)
    if since.day != until.day:
        until = since + timedelta(minutes=1)
    day = since.replace(hour=0, minute=0)
    parts = [
        rollup_statements.Part(name=state, state=state, day=day, pages=pages, before=0)
        for state, pages in (("succeeded", 50_000), ("failed", 10))
    ]
    stretches = rollup_statements.plan(parts, since, until)
    assert len(stretches) > 100
    query = rollup_statements.counting("jobq", stretches, since, until).as_bytes(full)
    with full.transaction(force_rollback=True):
        plan = explain(full, query.replace(b"%", b"%%"), {})
    history = [node for node in plan if node.get("Relation Name", "").startswith("job_history")]
    assert len(history) == len(stretches)
    # Of those that did not succeed, of which there may be few, the order of finishing has an index, too.
    assert {node["Node Type"] for node in history} <= {"Tid Range Scan", "Bitmap Heap Scan"}
    assert {node["Node Type"] for node in history if "succeeded" in node["Relation Name"]} == {"Tid Range Scan"}
    assert {node["Relation Name"] for node in history} <= {
        f"job_history_{state}_{since:%Y%m%d}" for state in ("succeeded", "failed")
    }
