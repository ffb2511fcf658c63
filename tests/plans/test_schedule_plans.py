"""The scheduler's statements, with 20,000 schedules (one a customer) and 200,000 ticks: what is due is found by its index."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from tests.plans.explain import MODES, explain, kinds, rows_read
from tests.support.rows import ALL_TICKS
from tests.support.servers import postgres

Conn = psycopg.Connection[Any]

_FILL = """
INSERT INTO jobq.schedule (name, task, cron, next_at)
SELECT 's' || n, 't', '0 7 * * *', now() + (n - 3) * interval '1 second' FROM generate_series(1, 20000) AS n;
UPDATE jobq.schedule SET paused_at = now(), next_at = '2020-01-01' WHERE name LIKE '%7';
UPDATE jobq.schedule SET withdrawn_at = now(), source = 'code', next_at = '2020-01-01' WHERE name LIKE '%8';
INSERT INTO jobq.schedule_tick (schedule, tick, job_id, inserted_at)
SELECT 's' || n % 1000, now() - n * interval '1 minute', n, now() - n * interval '1 minute'
FROM generate_series(1, 200000) AS n;
INSERT INTO jobq.worker (id, lock_key, pid, slots, host, version)
SELECT gen_random_uuid(), 1, 1, 1, 'h', '0' FROM generate_series(1, 20);
"""


@pytest.fixture(scope="module")
def full(server: postgres.Server, template: str) -> Iterator[Conn]:
    """A connection to a filled database."""
    with postgres.database(server, template) as url:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(_FILL.encode())
            connection.execute("ANALYZE")
        with psycopg.connect(url, prepare_threshold=0) as connection:
            yield connection


@pytest.mark.parametrize("mode", MODES)
def test_what_is_due_is_found_by_its_index(full: Conn, mode: str) -> None:
    nodes = explain(full, mode, "schedule_due", {"now": None, "skip": []})
    assert "Index Scan on schedule" in kinds(nodes)
    assert "Sort" not in kinds(nodes)
    assert nodes[0]["Actual Rows"] == 1
    assert rows_read(nodes, "schedule") <= 3


@pytest.mark.parametrize("mode", MODES)
def test_when_the_next_is_due_is_read_at_the_indexs_beginning(full: Conn, mode: str) -> None:
    nodes = explain(full, mode, "schedule_next", {"skip": ["s1"]})
    assert "Index Scan on schedule" in kinds(nodes)
    assert rows_read(nodes, "schedule") <= 3


@pytest.mark.parametrize("mode", MODES)
def test_ticks_are_inserted_by_the_keys(full: Conn, mode: str) -> None:
    ticks = [f"2030-01-01T0{n}:00:00+00:00" for n in range(3)]
    nodes = explain(full, mode, "schedule_insert_jobs", {"name": "s5", "ticks": ticks, "next_at": "2030-01-02"})
    assert not {"Seq Scan on schedule", "Seq Scan on schedule_tick"} & kinds(nodes)
    assert rows_read(nodes, "schedule") <= 2
    assert rows_read(nodes, "schedule_tick") == 0


@pytest.mark.parametrize("mode", MODES)
def test_old_ticks_are_found_by_their_time(full: Conn, mode: str) -> None:
    nodes = explain(full, mode, "schedule_ticks_expire", {"keep": timedelta(days=7), "batch": 100, **ALL_TICKS})
    found = kinds(nodes)
    assert "Seq Scan on schedule_tick" not in found
    assert {"Index Scan on schedule_tick", "Tid Scan on schedule_tick"} <= found
    assert rows_read(nodes, "schedule_tick") <= 200


@pytest.mark.parametrize("mode", MODES)
def test_old_ticks_to_be_deleted_in_parts_are_found_by_their_time(full: Conn, mode: str) -> None:
    nodes = explain(full, mode, "schedule_ticks_old", {"keep": timedelta(days=7), "batch": 100})
    assert kinds(nodes) == {"Limit", "Index Scan on schedule_tick"}
    assert rows_read(nodes, "schedule_tick") <= 101


@pytest.mark.parametrize("mode", MODES)
def test_a_page_of_schedules_and_the_last_ticks_of_one_are_read_by_the_keys(full: Conn, mode: str) -> None:
    nodes = explain(full, mode, "schedules", {"after": "s15", "name": None, "limit": 100})
    assert rows_read(nodes, "schedule") <= 101
    nodes = explain(full, mode, "schedule_last_ticks", {"name": "s5", "limit": 20})
    assert "Seq Scan on schedule_tick" not in kinds(nodes)
    assert rows_read(nodes, "schedule_tick") <= 21
