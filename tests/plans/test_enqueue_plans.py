"""Enqueueing reads no table, whatever is in it."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from jobq import JobQ
from jobq._postgres import enqueue
from jobq.job import NewJob
from tests.plans.explain import MODES, explain, kinds

TABLES = ("job", "job_key", "job_history", "queue")


@pytest.fixture
def filled(conn: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    """A bulk load that has not been analysed."""
    conn.execute("INSERT INTO jobq.job (task) SELECT 't' FROM generate_series(1, 20000)")
    conn.execute(
        "INSERT INTO jobq.job_key (key, scope, job_id, holds)"
        " SELECT n::text, 'noop', n, 'until_finished' FROM generate_series(1, 20000) AS n"
    )
    conn.commit()
    return conn


@pytest.fixture
def jobs() -> list[NewJob]:
    app = JobQ()

    @app.task
    def noop(i: int) -> None: ...

    return [noop.job(n) for n in range(500)]


@pytest.fixture
def mixed(jobs: list[NewJob]) -> list[NewJob]:
    app = JobQ()

    @app.task
    def other(i: int) -> None: ...

    return [
        *jobs,
        *(other.options(queue=f"q{n}", priority=n % 10, delay=n, headers={"n": n}).job(n) for n in range(500)),
    ]


def planned(connection: psycopg.Connection[Any], mode: str, name: str, parameters: dict[str, Any]) -> set[str]:
    """Return the nodes of the plan, which has read no row of any table and no index."""
    nodes = explain(connection, mode, name, parameters)
    assert all(nodes[0]["Fetched"].get(table, 0) == 0 for table in TABLES)
    assert not any("Index Name" in node for node in nodes)
    # The ids are numbered in a step of its own.
    return kinds(nodes) - {"Subquery Scan"}


@pytest.mark.parametrize("mode", MODES)
def test_one(filled: psycopg.Connection[Any], jobs: list[NewJob], mode: str) -> None:
    assert planned(filled, mode, "enqueue_one", enqueue._one(jobs[:1])) == {"ModifyTable on job", "Result"}


@pytest.mark.parametrize("mode", MODES)
def test_many_alike(filled: psycopg.Connection[Any], jobs: list[NewJob], mode: str) -> None:
    shared = enqueue._shared(enqueue._distinct(jobs))
    assert planned(filled, mode, "enqueue", enqueue._columns(jobs, shared)) == {"ModifyTable on job", "Function Scan"}


@pytest.mark.parametrize("mode", MODES)
def test_many_of_different_kinds(filled: psycopg.Connection[Any], mixed: list[NewJob], mode: str) -> None:
    shared = enqueue._shared(enqueue._distinct(mixed))
    assert shared.keys() == {"run_at", "max_attempts", "timeout", "group_key", "expires_in"}
    assert planned(filled, mode, "enqueue", enqueue._columns(mixed, shared)) == {"ModifyTable on job", "Function Scan"}


@pytest.mark.parametrize("mode", MODES)
def test_one_keyed(filled: psycopg.Connection[Any], mode: str) -> None:
    """By a function: its statements do not show, but what they have read does."""
    app = JobQ()

    @app.task
    def noop(i: int) -> None: ...

    new = enqueue._one([noop.options(key="new").job(1)])
    assert planned(filled, mode, "enqueue_one_keyed", new) == {"Function Scan"}
    held = enqueue._one([noop.options(key="7").job(1)])
    nodes = explain(filled, mode, "enqueue_one_keyed", held)
    assert nodes[0]["Fetched"]["job_key"] <= 3
