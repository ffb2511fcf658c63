"""What groups, limits and rates cost: a claim of a limited queue reads little more than it claims, whatever is blocked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from jobq import migrate
from tests.plans.explain import MODES, explain, kinds, rows_read
from tests.support.checks import some
from tests.support.rows import ALL_GROUPS
from tests.support.servers import postgres

BLOCKED = 200_000
GROUPS = 2_000


@pytest.fixture(scope="module")
def full_database(server: postgres.Server) -> Iterator[str]:
    """200,000 jobs blocked in one group, 2,000 groups with one due, 50,000 for later, 500 running; never analysed."""
    with postgres.database(server) as url:
        migrate.upgrade(url)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("INSERT INTO jobq.queue (name, group_mode) VALUES ('mail', 'ordered'), ('fair', 'fair')")
            connection.execute("INSERT INTO jobq.queue (name, max_running) VALUES ('limited', 1000)")
            for queue in ("mail", "fair"):
                for query in (
                    f"SELECT 't', '{queue}', 'blocked', now() FROM generate_series(1, {BLOCKED}) AS n",
                    f"SELECT 't', '{queue}', 'g' || n, now() FROM generate_series(1, {GROUPS}) AS n",
                    f"SELECT 't', '{queue}', 'later', now() + n * interval '1 hour' FROM generate_series(1, 25000) AS n",
                ):
                    connection.execute(f"INSERT INTO jobq.job (task, queue, group_key, run_at) {query}".encode())
            connection.execute(
                "INSERT INTO jobq.job (task, queue, priority) SELECT 't', 'limited', n % 10 FROM generate_series(1, 50000) AS n"
            )
            # The heads of the blocked groups run, and so do some of the limited ones.
            connection.execute(
                "UPDATE jobq.job SET state = 'running', limited = true WHERE id IN "
                "(SELECT min(id) FROM jobq.job WHERE group_key = 'blocked' GROUP BY queue) "
                "OR id IN (SELECT id FROM jobq.job WHERE queue = 'limited' ORDER BY id LIMIT 500)"
            )
        yield url


@pytest.fixture
def full(full_database: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(full_database) as connection:
        yield connection


def inner_plans(connection: psycopg.Connection[Any], mode: str, queue: str, want: int) -> list[dict[str, Any]]:
    """Return every node of every plan inside claim_limited, as auto_explain logs them, and roll the claim back."""
    connection.rollback()
    plans: list[str] = []
    connection.add_notice_handler(lambda notice: plans.append(notice.message_primary or ""))
    for setting in (
        "LOAD 'auto_explain'",
        "SET LOCAL auto_explain.log_min_duration = 0",
        "SET LOCAL auto_explain.log_analyze = on",
        "SET LOCAL auto_explain.log_format = json",
        "SET LOCAL auto_explain.log_nested_statements = on",
        "SET LOCAL client_min_messages = log",
        f"SET LOCAL plan_cache_mode = {mode}",
        *(f"SET LOCAL enable_{name} = off" for name in ("seqscan", "hashjoin", "mergejoin")),
    ):
        connection.execute(setting.encode())
    connection.execute("SELECT count(*) FROM jobq.claim_limited(gen_random_uuid(), %s, %s)", (queue, want))
    connection.rollback()
    found: list[dict[str, Any]] = []

    def walk(node: dict[str, Any]) -> None:
        found.append(node)
        for child in node.get("Plans", []):
            walk(child)

    for text in plans:
        if "plan:" in text:
            walk(json.loads(text[text.index("{") :])["Plan"])
    assert found
    return found


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("queue", ["mail", "fair", "limited"])
def test_a_claim_reads_about_as_many_jobs_as_it_claims(full: psycopg.Connection[Any], mode: str, queue: str) -> None:
    nodes = inner_plans(full, mode, queue, 50)
    read = {
        node["Index Name"]: 0
        for node in nodes
        if node["Node Type"] in ("Index Scan", "Index Only Scan", "Bitmap Index Scan")
    }
    total = 0
    for node in some(nodes):
        if node["Node Type"].endswith("Scan") and node.get("Relation Name") == "job":
            assert node["Node Type"] != "Seq Scan", node
            total += round((node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"])
    # The running ones that count against a limit, and a few looks at each job and each of the 64 groups whose turns are taken.
    assert total <= (500 if queue == "limited" else 0) + 8 * 64 + 8 * 50, read
    assert "job_claim_idx" in read
    if queue == "mail":
        assert {"job_permit_idx", "job_waiting_idx", "group_ready_idx"} <= set(read)
    if queue == "fair":
        assert {"job_waiting_due_idx", "group_ready_idx"} <= set(read)
    # These would be read with the dead entries of all that ran since a vacuum.
    assert "job_limited_idx" not in read


@pytest.mark.parametrize("mode", MODES)
def test_the_sweep_reads_one_entry_of_each_group(full: psycopg.Connection[Any], mode: str) -> None:
    nodes = explain(
        full,
        mode,
        "group_ready_repair",
        {"most": 100, "after_queue": "", "after_group": "", "channel": "jobq", **ALL_GROUPS},
        before=("SET LOCAL enable_seqscan = off", "SET LOCAL enable_mergejoin = off"),
    )
    assert not {kind for kind in kinds(nodes) if kind in ("Seq Scan on job",)}
    # Its head by id and by time, and the probe for one that runs.
    assert rows_read(nodes, "job") <= 4 * 100 + 600


@pytest.mark.parametrize("mode", MODES)
def test_a_look_at_all_limited_queues_reads_an_entry_of_each_queue_that_has_something(
    full: psycopg.Connection[Any], mode: str
) -> None:
    off = tuple(f"SET LOCAL enable_{name} = off" for name in ("seqscan", "hashjoin", "mergejoin"))
    nodes = explain(full, mode, "limited_due", {"capped": []}, before=off)
    assert "Seq Scan on job" not in kinds(nodes)
    assert {"group_ready_idx", "job_claim_idx"} <= {node["Index Name"] for node in nodes if "Index Name" in node}
    # Two queues with turns, ten lanes, and the ends of both.
    assert rows_read(nodes, "job") <= 12
    assert rows_read(nodes, "group_ready") <= 4


@pytest.mark.parametrize("mode", MODES)
def test_what_runs_is_read_by_its_ids_and_above_a_number(full: psycopg.Connection[Any], mode: str) -> None:
    """Without any statistics, and never by the index that would be read with all its dead entries."""
    with full.transaction(force_rollback=True):
        full.execute("UPDATE jobq.job SET permit = 7 WHERE state = 'running'")
        row = full.execute(
            "SELECT array_agg(id) FROM jobq.job WHERE queue = 'limited' AND state = 'running'"
        ).fetchone()
        assert row is not None
        ids = row[0]
        found = full.execute(
            "SELECT cardinality(ids) FROM jobq.limited_running('limited', %s, 7, true)", (ids,)
        ).fetchone()
        assert found == (500,)
        found = full.execute("SELECT cardinality(ids) FROM jobq.limited_running('limited', '{}', 7, true)").fetchone()
        assert found == (0,)
        found = full.execute("SELECT cardinality(ids) FROM jobq.limited_running('limited', '{}', -1, true)").fetchone()
        assert found == (500,)
