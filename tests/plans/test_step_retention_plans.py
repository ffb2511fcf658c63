"""Retention of steps and signals, and operators' changes of durable jobs, with 100,000 steps: no table is read whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest

from jobq._worker.timeouts import MAINTENANCE
from tests.plans.explain import MODES, explain, kinds, rows_read
from tests.support.checks import some
from tests.support.servers import postgres

Conn = psycopg.Connection[Any]
WORKER = UUID(int=7)
TABLES = ("job", "job_history", "job_attempt", "job_step", "job_signal", "workflow", "workflow_node")

# 20,000 jobs with five steps each. Jobs 1 to 4,000 are live, and have the oldest steps; job 1 runs. The others have ended
# 50 to 0 days ago, and jobs 19,999 and 20,000 are gone.
_FILL = f"""
SELECT jobq.make_partitions(1);
SELECT jobq.make_partition('job_history_failed', (now() - n * interval '1 day')::date, 1) FROM generate_series(1, 50) AS n;
INSERT INTO jobq.job (id, task, state, worker_id, started_at, claims, attempt)
SELECT n, 'task', CASE n WHEN 1 THEN 'running' ELSE 'ready' END, CASE n WHEN 1 THEN '{WORKER}'::uuid END,
       CASE n WHEN 1 THEN to_timestamp(1) END, CASE n WHEN 1 THEN 1 ELSE 0 END, CASE n WHEN 1 THEN 1 ELSE 0 END
FROM generate_series(1, 4000) AS n;
INSERT INTO jobq.job_history (
    id, task, queue, state, attempt, max_attempts, priority, claims, crashes, created_at, run_at, args, headers, finished_at)
SELECT n, 'task', 'default', 'failed', 1, 1, 5, 1, 0, now(), now(), '{{}}', '{{}}', now() - (20000 - n) * interval '4 minutes'
FROM generate_series(4001, 19998) AS n;
INSERT INTO jobq.job_step (job_id, started_at, finished_at, place, number, attempt, kind, name, args_hash, state, error)
SELECT n, now() - interval '1000 days' + n * interval '1 second', now(), step, 0, 1, 'run', 'step' || step, 'x',
       CASE step WHEN 5 THEN 'failed' ELSE 'done' END, CASE step WHEN 5 THEN '{{"ended_job": true}}'::jsonb END
FROM generate_series(1, 20000) AS n, generate_series(1, 5) AS step;
INSERT INTO jobq.job_signal (job_id, name, payload, sent_at)
SELECT n, 'name', 'null', now() - interval '1000 days' + n * interval '1 second' FROM generate_series(1, 20000) AS n;
"""


@pytest.fixture(scope="module", params=["analysed", "empty_before"])
def full_database(request: pytest.FixtureRequest, server: postgres.Server, template: str) -> Iterator[str]:
    """Filled, with statistics of what is there, or with those of empty tables."""
    with postgres.database(server, template) as url:
        with psycopg.connect(url, autocommit=True) as connection:
            for table in ("job", "job_step", "job_signal"):
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


def whole(nodes: list[dict[str, Any]]) -> set[str]:
    """The sequential scans that read more than a page, and sorts of more than a batch."""
    return {
        f"{node['Node Type']} {node.get('Relation Name', '')}"
        for node in nodes
        if (node["Node Type"] == "Seq Scan" and node["Actual Rows"] + node.get("Rows Removed by Filter", 0) > 200)
        or (node["Node Type"] == "Sort" and node["Actual Rows"] > 1_000)
    }


def indexes(nodes: list[dict[str, Any]]) -> set[str]:
    return {node["Index Name"] for node in nodes if "Index Name" in node}


KEEP = {"keep": "7 days", "most": 1000, "aside": [5, 6]}
HOLDER = {"id": 1, "claims": 1, "worker": WORKER, "started": 1_000_000}
KEYS = {"kinds": ["run"], "names": ["step5"], "hashes": ["x"], "numbers": [0]}
RETENTION: dict[str, tuple[str, dict[str, Any], set[str], int, int]] = {
    # statement, parameters, indexes, most rows of job_step or job_signal, and of job_history
    "live jobs": ("steps_old", {"after": "-infinity", "after_job": 0, **KEEP}, {"job_step_age_idx", "job_pkey"}, 1_000, 0),
    "ended jobs": (
        "steps_old", {"after": "now", "after_job": 0, **KEEP}, {"job_step_age_idx", "job_pkey"}, 1_000, 250,
    ),
    "at the end": ("steps_old", {"after": "2100-01-01", "after_job": 0, **KEEP}, {"job_step_age_idx"}, 0, 0),
    "removal": ("steps_prune", {"ids": [19_999, 20_000], "most": 5000}, {"job_step_pkey"}, 20, 0),
    "signals": ("signals_old", {"after": "-infinity", "after_id": 0, **KEEP}, {"job_signal_age_idx", "job_pkey"}, 1_000, 0),
    "removal of signals": ("signals_prune", {"ids": [19_999, 20_000]}, {"job_signal_pkey"}, 4, 0),
    "unfinished jobs": ("steps_unfinished", {"after": 3_900, "most": 200}, {"job_step_pkey", "job_pkey"}, 200, 0),
    "failed steps": ("steps_run_again", {**HOLDER, **KEYS, "at_once": False}, {"job_step_pkey", "job_pkey"}, 10, 0),
    "failed steps at once": ("steps_run_again", {**HOLDER, **KEYS, "at_once": True}, {"job_step_pkey", "job_pkey"}, 10, 0),
}  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", RETENTION)
def test_retention(full: Conn, case: str, mode: str) -> None:
    name, parameters, wanted, most, most_history = RETENTION[case]
    settings = [
        f"SET LOCAL {key} = {value}" for key, value in MAINTENANCE.settings().items() if key.startswith("enable")
    ]
    if parameters.get("after") == "now":
        # The last jobs of which some have gone.
        [(at,)] = full.execute("SELECT started_at::text FROM jobq.job_step WHERE job_id = 19800 LIMIT 1").fetchall()
        parameters = {**parameters, "after": at}
    found = explain(full, mode, name, parameters, before=[*settings, "SET LOCAL enable_sort = off"])
    assert whole(found) == set()
    assert wanted <= indexes(found)
    assert rows_read(found, "job_step") + rows_read(found, "job_signal") <= most
    history = [node for node in found if str(node.get("Relation Name", "")).startswith("job_history")]
    assert sum(round(node["Actual Rows"] * node["Actual Loops"]) for node in history) <= most_history
    assert all("job_history" not in kind or "Index" in kind or "Bitmap" in kind for kind in some(kinds(found)))


IDS = {"ids": list(range(19_000, 19_100))}
OPERATORS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "delete_live": ({"ids": list(range(3_000, 3_100)), "channel": "jobq"}, {"job_step_pkey", "job_signal_job_idx"}),
    "delete_finished": (IDS, {"job_step_pkey", "job_signal_job_idx"}),
    "retry_finished": (IDS, {"job_step_pkey"}),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", OPERATORS)
def test_operators_changes(full: Conn, name: str, mode: str) -> None:
    parameters, wanted = OPERATORS[name]
    found = explain(full, mode, name, parameters)
    assert {each for each in whole(found) if "job_step" in each or "job_signal" in each} == set()
    assert wanted <= indexes(found)
    assert rows_read(found, "job_step") <= 1_500
