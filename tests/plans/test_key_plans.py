"""The plans of what starts jobs with keys and of what deletes keys: by index, whatever the tables hold."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from tests.plans.explain import MODES, explain

WORKER = uuid4()
PLANNER = (
    "SET LOCAL enable_seqscan = off",
    "SET LOCAL enable_hashjoin = off",
    "SET LOCAL enable_mergejoin = off",
)


@pytest.fixture
def full(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    """100 claimed jobs whose keys hold until they start, among 20,000 others, and 30,000 keys, a third of them expired."""
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "INSERT INTO jobq.job (task, state, worker_id, claims, attempt, started_at, key, key_holds, key_until_started)"
            " SELECT 't', CASE WHEN n <= 100 THEN 'running' ELSE 'ready' END, CASE WHEN n <= 100 THEN %s::uuid END, 1, 1,"
            " CASE WHEN n <= 100 THEN now() END,"
            " 'k' || n, 'until_started', true FROM generate_series(1, 20000) AS n",
            [WORKER],
        )
        connection.execute("INSERT INTO jobq.job_key (key, job_id, holds) SELECT key, id, key_holds FROM jobq.job")
        connection.execute(
            "INSERT INTO jobq.job_key (key, job_id, holds, expires_at)"
            " SELECT 'p' || n, n, 'period', now() + (n - 3000) * interval '1 s' FROM generate_series(1, 10000) AS n"
        )
        connection.commit()
        connection.autocommit = True
        connection.execute("ANALYZE jobq.job")
        connection.execute("ANALYZE jobq.job_key")
        connection.autocommit = False
        yield connection


def scans(nodes: list[dict[str, Any]]) -> set[str]:
    return {f"{node['Node Type']} on {node.get('Relation Name')}" for node in nodes if "Scan" in node["Node Type"]}


def indexes(nodes: list[dict[str, Any]]) -> set[str]:
    return {node["Index Name"] for node in nodes if "Index Name" in node}


def read(nodes: list[dict[str, Any]], table: str) -> int:
    return int(nodes[0]["Fetched"].get(table, 0))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["start_jobs", "unclaim_locked"])
def test_starts(full: psycopg.Connection[Any], mode: str, name: str) -> None:
    rows = full.execute(
        "SELECT id, (extract(epoch FROM started_at) * 1000000)::bigint FROM jobq.job WHERE state = 'running' ORDER BY id"
    ).fetchall()
    parameters: dict[str, Any] = {
        "worker": WORKER,
        "ids": [id for id, _ in rows],
        "claims": [1] * 100,
        "started": [started for _, started in rows],
    }
    if name == "unclaim_locked":
        parameters |= {"delay": 1.0, "let_go": True}
    nodes = explain(full, mode, name, parameters, before=PLANNER)
    assert not {"Seq Scan on job", "Seq Scan on job_key"} & scans(nodes)
    assert indexes(nodes) == {"job_pkey", "job_key_pkey"}
    assert read(nodes, "job") <= 300
    assert read(nodes, "job_key") <= 100


@pytest.mark.parametrize("mode", MODES)
def test_keys_expire(full: psycopg.Connection[Any], mode: str) -> None:
    nodes = explain(full, mode, "keys_expired", {"since": "-infinity", "batch": 1000, "aside": [7]}, before=PLANNER)
    assert not {"Seq Scan on job_key"} & scans(nodes)
    assert "Sort" not in {node["Node Type"] for node in nodes}
    assert indexes(nodes) == {"job_key_expires_at_idx"}
    assert read(nodes, "job_key") <= 1001
    due = {"keys": [f"p{n}" for n in range(1, 1001)], "job_ids": list(range(1, 1001))}
    nodes = explain(full, mode, "keys_expire", due, before=PLANNER)
    assert not {"Seq Scan on job_key"} & scans(nodes)
    assert indexes(nodes) == {"job_key_pkey"}
    assert read(nodes, "job_key") <= 1000


@pytest.mark.parametrize("mode", MODES)
def test_keys_expire_when_there_are_none(full: psycopg.Connection[Any], mode: str) -> None:
    """Every five minutes, whatever keys are held."""
    full.execute("DELETE FROM jobq.job_key WHERE expires_at <= now()")
    full.commit()
    full.autocommit = True
    full.execute("VACUUM jobq.job_key")
    full.autocommit = False
    nodes = explain(full, mode, "keys_expired", {"since": "-infinity", "batch": 1000, "aside": []}, before=PLANNER)
    assert not {"Seq Scan on job_key"} & scans(nodes)
    assert sum(node.get("Actual Rows", 0) for node in nodes if node.get("Relation Name") == "job_key") == 0
