"""Rows put straight into the tables, for tests of what reads and steers them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

# For group_ready_repair.sql and schedule_ticks_expire.sql.
ALL_GROUPS: dict[str, Any] = {"among": None, "queues": [], "groups": []}
ALL_TICKS: dict[str, Any] = {"among": None, "schedules": [], "ticks": []}


def add_job(conn: psycopg.Connection[Any], *, schema: str = "jobq", **columns: Any) -> int:
    """Insert a live job and return its id. Columns have the table's defaults; `run_in` is in seconds from
    now.
    """
    columns.setdefault("task", "mail.send")
    run_in = columns.pop("run_in", None)
    return int(_insert(conn, schema, "job", columns, {"run_at": run_in}))


def add_finished(conn: psycopg.Connection[Any], state: str, *, schema: str = "jobq", **columns: Any) -> int:
    """Insert a finished job and return its id; it finished `ago` seconds ago (0)."""
    ago = columns.pop("ago", 0)
    if "id" not in columns:
        row = conn.execute("SELECT nextval(%s::regclass)", (f"{schema}.job_id_seq",)).fetchone()
        assert row is not None
        columns["id"] = row[0]
    defaults = {
        "task": "mail.send", "queue": "default", "state": state, "claims": 1, "attempt": 1,
        "max_attempts": 10, "priority": 5, "crashes": 0, "args": {}, "headers": {},
    }  # fmt: skip
    times = {name: -ago for name in ("run_at", "created_at", "started_at", "finished_at") if name not in columns}
    return int(_insert(conn, schema, "job_history", defaults | columns, times))


def add_attempt(conn: psycopg.Connection[Any], job_id: int, *, schema: str = "jobq", **columns: Any) -> None:
    """Insert an unsuccessful attempt of a job."""
    defaults = {"job_id": job_id, "claims": 1, "attempt": 1, "outcome": "error", "error_type": "ValueError"}
    times = {} if "started_at" in columns else {"started_at": -1.0}
    _insert(conn, schema, "job_attempt", defaults | columns, times, returning="job_id")


def add_worker(conn: psycopg.Connection[Any], *, schema: str = "jobq", **columns: Any) -> uuid.UUID:
    """Insert a worker whose last heartbeat was `ago` seconds ago (0), and return its id."""
    ago = columns.pop("ago", 0)
    worker = uuid.uuid4()
    defaults = {
        "id": worker, "lock_key": 1, "pid": 4242, "slots": 16, "state": "running", "host": "box",
        "version": "0.1.0",
    }  # fmt: skip
    _insert(conn, schema, "worker", defaults | columns, {"heartbeat_at": -ago})
    return worker


def _insert(
    conn: psycopg.Connection[Any],
    schema: str,
    table: str,
    columns: dict[str, Any],
    times: Mapping[str, float | None],
    returning: str = "id",
) -> Any:
    arrays = ("queues", "tasks")
    values: list[Any] = [
        Jsonb(value) if isinstance(value, dict | list) and name not in arrays else value
        for name, value in columns.items()
    ]
    names = [sql.Identifier(name) for name in columns]
    places: list[sql.Composable] = [sql.Placeholder()] * len(columns)
    for name, seconds in times.items():
        if seconds is not None:
            names.append(sql.Identifier(name))
            places.append(sql.SQL("clock_timestamp() + {} * interval '1 second'").format(sql.Literal(seconds)))
    query = sql.SQL("INSERT INTO {} ({}) VALUES ({}) RETURNING {}").format(
        sql.Identifier(schema, table),
        sql.SQL(", ").join(names),
        sql.SQL(", ").join(places),
        sql.Identifier(returning),
    )
    row = conn.execute(query, values).fetchone()
    assert row is not None
    return row[0]
