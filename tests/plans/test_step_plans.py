"""What runs durable tasks, with 100,000 jobs that wait, their steps and their signals, and a job of 100,000 steps.

No table is read whole, and the rows that are read and sorted are bounded: on a worker's planner settings, and on those of
an ordinary connection for what tasks and producers execute, with plans made for the values and with generic ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest

from jobq._postgres.sql import statement
from jobq.steps import rows
from jobq.steps.kinds import NO_ARGS
from jobq.steps.store import Holder, NewStep, StepKey
from tests.plans.explain import MODES, explain, kinds
from tests.plans.test_workflow_plans import WORKER, plans
from tests.support.servers import postgres

Conn = psycopg.Connection[Any]
WORKER_ID = UUID(int=7)
TABLES = ("job", "job_step", "job_signal", "job_wakeup", "workflow", "workflow_node", "workflow_result")
# Jobs 1 to 100,000 wait, each for a signal of the name `go`, and have taken one before; a tenth are nodes of a run. LONG has
# 100,000 steps and runs, and so do the jobs after it, which have none.
LONG = 200_000
_FILL = f"""
INSERT INTO jobq.workflow (id, name, nodes, state, finished_at)
SELECT n, 'child', 1, 'succeeded', now() FROM generate_series(1, 20000) AS n;
INSERT INTO jobq.workflow (id, name, nodes) VALUES (30000, 'waits', 10000);
INSERT INTO jobq.workflow_node (id, workflow_id, number, name, kind, task, queue, feeds, args, headers, max_attempts, priority)
SELECT 500000 + n, n, 1, 'child', 'task', 'task', 'default', '{{}}', '{{}}', '{{}}', 3, 5 FROM generate_series(1, 20000) AS n;
INSERT INTO jobq.workflow_node (id, workflow_id, number, name, kind, task, queue, feeds, args, headers, max_attempts, priority)
SELECT n * 10, 30000, n, 'node' || n, 'task', 'task', 'default', '{{}}', '{{}}', '{{}}', 3, 5
FROM generate_series(1, 10000) AS n;
ALTER TABLE jobq.workflow_result DISABLE TRIGGER ALL;
INSERT INTO jobq.workflow_result (node_id, job_id, item, state, finished_at)
SELECT 500000 + n, 500000 + n, 0, 'succeeded', now() FROM generate_series(1, 20000) AS n;
ALTER TABLE jobq.workflow_result ENABLE TRIGGER ALL;
INSERT INTO jobq.job (id, task, queue, run_at, node_id)
SELECT n, 'task', 'default', now() + interval '7 days', CASE WHEN n % 10 = 0 THEN n END FROM generate_series(1, 100000) AS n;
INSERT INTO jobq.job (id, task, queue, state, claims, worker_id, started_at)
SELECT {LONG} + n, 'task', 'default', 'running', 3, '{WORKER_ID}', to_timestamp(1000) FROM generate_series(0, 999) AS n;
INSERT INTO jobq.job_step (job_id, kind, name, args_hash, number, place, state, started_at, attempt, workflow_id)
SELECT n, 'signal', 'go', '{NO_ARGS}', 0, 1, 'waiting', now(), 1, CASE WHEN n % 10 = 0 THEN 30000 END
FROM generate_series(1, 100000) AS n;
INSERT INTO jobq.job_step (job_id, kind, name, args_hash, number, place, state, started_at, attempt, result)
SELECT {LONG}, 'run', 'work', n::text, 0, n, 'done', now(), 1, '1' FROM generate_series(1, 100000) AS n;
INSERT INTO jobq.job_signal (job_id, name, payload, taken_at, taken_by)
SELECT n, 'before', '1', now(), n FROM generate_series(1, 100000) AS n;
INSERT INTO jobq.job_signal (job_id, name, payload) SELECT n, 'go', '1' FROM generate_series(1, 500) AS n;
INSERT INTO jobq.job_signal (workflow_id, name, payload) SELECT 30000, 'go', '1' FROM generate_series(1, 5) AS n;
INSERT INTO jobq.job_wakeup (job_id) SELECT n FROM generate_series(1, 2000) AS n;
SELECT setval('jobq.job_id_seq', 1000000), setval('jobq.workflow_id_seq', 1000000);
"""


@pytest.fixture(scope="module", params=["analysed", "empty_before"])
def full_database(request: pytest.FixtureRequest, server: postgres.Server, template: str) -> Iterator[str]:
    """Filled, with statistics of what is there, or with those of empty tables."""
    with postgres.database(server, template) as url:
        with psycopg.connect(url, autocommit=True) as connection:
            for table in TABLES:
                connection.execute(f"ALTER TABLE jobq.{table} SET (autovacuum_enabled = off)".encode())
            connection.execute("ANALYZE")
            connection.execute(_FILL.encode())
            if request.param == "analysed":
                connection.execute("ANALYZE")
        yield url


@pytest.fixture
def full(full_database: str) -> Iterator[Conn]:
    with psycopg.connect(full_database) as connection:
        yield connection


def holder(n: int) -> Holder:
    return Holder(LONG + n, 3, WORKER_ID, 1_000_000_000, 1)


def step(name: str, number: int = 0, **more: Any) -> NewStep:
    return NewStep(key=StepKey("run", name, NO_ARGS, number), place=number + 1, state="done", result="1", **more)


def wait(n: int, name: str = "go") -> dict[str, Any]:
    return rows.wait_parameters(holder(n), StepKey("signal", name, NO_ARGS, 0), 1, None)


WAKE = {"most": 500, "left_out": list(range(5)), "channel": "jobq"}
STATEMENTS: list[tuple[str, dict[str, Any], set[str], int]] = [
    # name, parameters, indexes, most rows
    ("steps_load", {"ids": [*range(1, 100), LONG + 1]}, {"job_step_pkey", "job_pkey"}, 220),
    ("steps_write", rows.write_parameters([(holder(n), step("new")) for n in range(500)]), {"job_pkey"}, 600),
    # All were stored before.
    (
        "steps_write",
        rows.write_parameters(
            [
                (holder(0), NewStep(key=StepKey("run", "work", str(n), 0), place=n, state="done", result="1"))
                for n in range(1, 501)
            ]
        ),
        {"job_pkey", "job_step_pkey"},
        1_600,
    ),
    ("steps_commit", rows.commit_parameters(holder(0), [step("new", 0), step("new", 1)]), {"job_pkey"}, 10),
    ("steps_undone", rows.holder_parameters(holder(1)), {"job_pkey", "job_step_pkey"}, 10),
    ("step_restart", {**rows.holder_parameters(holder(1)), "args": "{}"}, {"job_pkey", "job_step_pkey"}, 10),
    ("step_wait", wait(1), {"job_pkey", "job_step_pkey", "job_signal_job_idx"}, 20),
    ("step_child", {"id": 700}, {"workflow_pkey", "workflow_node_number_idx", "workflow_result_pkey"}, 10),
    # Each of the rows has its job, its step and its signals: one of `before`, one of `go`, and those of the run.
    (
        "wake_waiting",
        {**WAKE, "only": None},
        {"job_wakeup_pkey", "job_step_pkey", "job_pkey", "job_signal_job_idx"},
        6_000,
    ),
    ("wake_waiting", {**WAKE, "only": [7, 8, 9]}, {"job_wakeup_pkey", "job_step_pkey", "job_pkey"}, 2_100),
    ("wakeups_left", {"most": 500, "left_out": [1, 2]}, {"job_wakeup_pkey"}, 510),
]
BY_WORKERS = ("steps_undone", "step_restart", "steps_load", "steps_write", "step_wait", "wake_waiting", "wakeups_left")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("name", "parameters", "indexes", "most"), STATEMENTS)
def test_statements(full: Conn, name: str, parameters: dict[str, Any], indexes: set[str], most: int, mode: str) -> None:
    before: list[Any] = WORKER if name in BY_WORKERS else []
    nodes = explain(full, mode, name, parameters, before=before)
    assert not {f"Seq Scan on {table}" for table in TABLES} & kinds(nodes)
    # Of one batch, or of one job's signals.
    sorts = [node["Actual Rows"] for node in nodes if node["Node Type"] == "Sort"]
    assert max(sorts, default=0) <= 500
    assert indexes <= {node.get("Index Name") for node in nodes}
    assert sum(nodes[0]["Fetched"][table] for table in TABLES) <= most


def test_a_wake_of_a_run_reads_the_steps_that_wait_for_it(full: Conn) -> None:
    """All 10,000 nodes of the run wait for a signal to it: each is made due, since any may take it."""
    before: list[Any] = [
        *WORKER,
        "DELETE FROM jobq.job_wakeup",
        "INSERT INTO jobq.job_wakeup (workflow_id) VALUES (30000)",
    ]
    nodes = explain(full, MODES[1], "wake_waiting", {**WAKE, "only": None}, before=before)
    assert not {f"Seq Scan on {table}" for table in TABLES} & kinds(nodes)
    assert "job_step_workflow_idx" in {node.get("Index Name") for node in nodes}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("target", ["job", "node", "ended", "run"])
def test_a_signal_is_sent_by_index(full: Conn, target: str, mode: str) -> None:
    """By an ordinary connection: a producer's."""
    parameters = {
        "job": {"job": 5, "node": 500_007, "ended": 77_777_777, "run": None}[target],
        "run": 30_000 if target == "run" else None,
        "name": "go",
        "payload": "1",
        "by": None,
    }
    nodes = plans(full, [f"SET LOCAL plan_cache_mode = {mode}"], statement("send_signal", "jobq").query, [], parameters)
    assert not {f"Seq Scan on {table}" for table in TABLES} & kinds(nodes)
    read = [node["Actual Rows"] * node["Actual Loops"] for node in nodes if node["Node Type"].endswith("Scan")]
    assert sum(read) <= 20
