"""The statements about parked jobs read what they are about, whatever else is in the table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest

from jobq import migrate
from tests.plans.explain import MODES, explain, kinds, rows_read
from tests.support.servers import postgres

WORKER = UUID("00000000-0000-0000-0000-000000000001")
# Of this worker's tasks only the first has parked jobs.
KNOWN: dict[str, Any] = {"tasks": [f"task{n}" for n in range(20)], "signatures": [f"s{n}" for n in range(20)]}


@pytest.fixture(scope="module")
def database(server: postgres.Server) -> Iterator[str]:
    """100,000 ready jobs, 50,000 parked ones of a task that no worker has, and 1,000 of one that this worker has."""
    with postgres.database(server) as url:
        migrate.upgrade(url)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("ALTER TABLE jobq.job SET (autovacuum_enabled = off)")
            connection.execute("INSERT INTO jobq.job (task) SELECT 'task0' FROM generate_series(1, 100000)")
            connection.execute(
                "INSERT INTO jobq.job (task, priority, state, claims, parked_at, parked_claims, parked_signature) "
                "SELECT CASE WHEN n % 51 = 0 THEN 'task0' ELSE 'nobody' END, n % 10, 'parked', 1, now(), 1, 'old' "
                "FROM generate_series(1, 51000) AS n"
            )
            connection.execute(
                "INSERT INTO jobq.job (task, state, worker_id, claims, attempt, started_at) "
                "SELECT 'task0', 'running', %s, 1, 1, now() FROM generate_series(1, 200)",
                (WORKER,),
            )
            connection.execute("ANALYZE jobq.job")
        yield url


@pytest.fixture
def conn(database: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database) as connection:
        yield connection


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("name", "params", "rows"),
    [
        ("parked_known", {"tasks": KNOWN["tasks"]}, 100),
        ("claim_parked", {**KNOWN, "queues": None, "without": [], "want": 100, "worker": WORKER}, 2_000),
        ("parked_due", {**KNOWN, "queues": None, "channel": "jobq"}, 6_000),
        ("parked_heads", {**KNOWN, "queues": None, "refused": [1, 2], "want": 50}, 2_000),
        ("parked_due_heads", {**KNOWN, "queues": None, "refused": [1, 2], "want": 50}, 6_000),
        (
            "claim_parked:one",
            {**KNOWN, "queues": None, "without": [], "want": 1, "worker": WORKER, "only": 1},
            2_000,
        ),
        ("parked_due:one", {**KNOWN, "queues": None, "channel": "jobq", "only": 1}, 6_000),
    ],
)
def test_what_a_worker_asks(
    conn: psycopg.Connection[Any], mode: str, name: str, params: dict[str, Any], rows: int
) -> None:
    nodes = explain(conn, mode, name, params)
    assert "Seq Scan on job" not in kinds(nodes)
    assert rows_read(nodes, "job") <= rows


@pytest.mark.parametrize("mode", MODES)
def test_park(conn: psycopg.Connection[Any], mode: str) -> None:
    found = conn.execute(
        "SELECT id, (extract(epoch FROM started_at) * 1000000)::bigint FROM jobq.job WHERE worker_id = %s "
        "ORDER BY id LIMIT 100",
        (WORKER,),
    ).fetchall()
    ids = [row[0] for row in found]
    params = {
        "ids": ids, "claims": [1] * 100, "started": [row[1] for row in found], "kinds": ["parameters"] * 100,
        "signatures": ["old"] * 100, "reasons": ["no"] * 100, "worker": WORKER, "patience": 3600.0, "channel": "jobq",
    }  # fmt: skip
    nodes = explain(conn, mode, "park", params)
    assert "Seq Scan on job" not in kinds(nodes)
    assert rows_read(nodes, "job") <= 2_000


@pytest.mark.parametrize("mode", MODES)
def test_parked_jobs_that_fail(conn: psycopg.Connection[Any], mode: str) -> None:
    nodes = explain(conn, mode, "parked_overdue", {"patience": 3600.0, "batch": 100, "aside": [1, 2, 3]})
    assert "Seq Scan on job" not in kinds(nodes)
    assert rows_read(nodes, "job") <= 60_000, "parked jobs only"
    nodes = explain(conn, mode, "parked_fail", {"ids": list(range(100_001, 100_101))})
    assert "Seq Scan on job" not in kinds(nodes)
    assert rows_read(nodes, "job") <= 100


@pytest.mark.parametrize("mode", MODES)
def test_what_a_page_asks_of_one_parked_job_reads_the_workers_only(conn: psycopg.Connection[Any], mode: str) -> None:
    nodes = explain(conn, mode, "parked_workers", {"task": "task0", "refused": "old"})
    assert {node["Relation Name"] for node in nodes if "Relation Name" in node} == {"worker"}
