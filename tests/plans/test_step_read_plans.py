"""The reads of durable jobs, with 100,000 steps and 60,000 signals: each reads the rows of one job or run, no table whole."""

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
LONG, RUN = 50_001, 1

# 9,000 jobs with ten steps each; one with 10,000 of which the last five wait; a run of 1,000 nodes that wait for
# signals; and the runs of children.
_FILL = f"""
INSERT INTO jobq.job (id, task, queue, args, run_at)
SELECT n, 'task', 'default', '{{}}', now() + interval '1 day' FROM generate_series(1, 9000) AS n;
INSERT INTO jobq.job (id, task, queue, args, run_at, claims)
VALUES ({LONG}, 'task', 'default', '{{}}', now() + interval '1 day', 1);
INSERT INTO jobq.job_step (job_id, kind, name, args_hash, number, place, state, attempt, started_at, finished_at, args, result)
SELECT job, 'run', 'step' || n, 'hash', 0, n, 'done', 1, now(), now(), '{{"n": 1}}', '"result"'
FROM generate_series(1, 9000) AS job, generate_series(1, 10) AS n;
INSERT INTO jobq.job_step (job_id, kind, name, args_hash, number, place, state, attempt, started_at, finished_at, args, result)
SELECT {LONG}, 'run', 'step', n::text, 0, n, 'done', 1, now(), now(), '{{"n": 1}}', to_jsonb(repeat('x', 500))
FROM generate_series(1, 9995) AS n;
INSERT INTO jobq.job_step (job_id, kind, name, args_hash, number, place, state, attempt, started_at, child_id)
SELECT {LONG}, CASE WHEN n = 1 THEN 'signal' ELSE 'child' END, 'last', 'hash', n, 9995 + n, 'waiting', 1, now(),
       CASE WHEN n > 1 THEN n END
FROM generate_series(1, 5) AS n;
INSERT INTO jobq.workflow (name, nodes, parent_job_id) SELECT 'child', 1, {LONG} FROM generate_series(1, 20000);
INSERT INTO jobq.workflow_node (id, workflow_id, number, name, kind, task, queue, feeds, args, headers)
SELECT 100000 + n, n, 1, 'node', 'task', 'task', 'default', '{{1}}', '{{}}', '{{}}' FROM generate_series(1, 20000) AS n;
INSERT INTO jobq.workflow_node (id, workflow_id, number, name, kind, task, queue, feeds, args, headers)
SELECT 200000 + n, {RUN}, 1 + n, 'node' || n, 'task', 'task', 'default', '{{1}}', '{{}}', '{{}}'
FROM generate_series(1, 1000) AS n;
INSERT INTO jobq.job (id, node_id, node_item, task, queue, args, run_at)
SELECT id, id, 0, 'task', 'default', '{{}}', now() + interval '1 day'
FROM jobq.workflow_node WHERE workflow_id = {RUN} AND number > 1;
INSERT INTO jobq.job_step (job_id, kind, name, args_hash, number, place, state, attempt, started_at, workflow_id)
SELECT 200000 + n, 'signal', 'approval', 'hash', 0, 1, 'waiting', 1, now(), {RUN} FROM generate_series(1, 1000) AS n;
INSERT INTO jobq.job_signal (job_id, name, payload, sent_by) SELECT n % 9000 + 1, 'approval', '1', 'ann'
FROM generate_series(1, 40000) AS n;
INSERT INTO jobq.job_signal (job_id, name, payload) SELECT {LONG}, 'other', '1' FROM generate_series(1, 1000) AS n;
INSERT INTO jobq.job_signal (workflow_id, name, payload) SELECT n % 20000 + 1, 'other', '1' FROM generate_series(1, 20000) AS n;
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


STATEMENTS: list[tuple[str, dict[str, Any], int]] = [
    # name, parameters, most pages it may touch
    ("job_steps", {"id": 77, "limit": 200, "bytes": 10_000}, 100),
    ("job_steps", {"id": LONG, "limit": 200, "bytes": 10_000}, 30_000),
    ("job_waits", {"id": LONG, "limit": 100}, 15_000),
    ("job_waits", {"id": 77, "limit": 100}, 100),
    ("signals:job", {"id": LONG, "limit": 100, "bytes": 10_000}, 150),
    ("signals:run", {"id": RUN, "limit": 100, "bytes": 10_000}, 150),
    ("run_waits", {"id": RUN, "limit": 1000}, 20_000),
    ("run_waits", {"id": 500, "limit": 1000}, 100),
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


def test_the_newest_steps_and_all_waits_of_a_long_job(full: Conn) -> None:
    found = queries.job_steps(full, "jobq", LONG, limit=7)
    assert ([step.place for step in found.steps], found.total) == (list(range(9_994, 10_001)), 10_000)
    waits = queries.job_waits(full, "jobq", LONG)
    assert [wait.child_job for wait in waits.waits] == [None, 100_002, 100_003, 100_004, 100_005]
    assert waits.signals == ["last"]
    assert len(queries.run_waits(full, "jobq", RUN)) == 1000
