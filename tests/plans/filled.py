"""EXPLAIN over filled tables: the plan for the values, and the one that Postgres makes once for all."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg

Conn = psycopg.Connection[Any]


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


def explain(conn: Conn, query: bytes, params: dict[str, Any]) -> list[dict[str, Any]]:
    cursor = psycopg.ClientCursor(conn)
    row = cursor.execute(b"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + query, params).fetchone()
    assert row is not None
    return list(nodes(row[0][0]["Plan"]))


def large_seq_scans(conn: Conn, plan: list[dict[str, Any]]) -> list[str]:
    """The sequential scans of jobq's big tables that have more than a page."""
    small = {row[0] for row in conn.execute(
        "SELECT relname FROM pg_class WHERE relkind = 'r' AND pg_relation_size(oid) <= 8192").fetchall()}  # fmt: skip
    return [
        node["Relation Name"] for node in plan if node["Node Type"] == "Seq Scan" and node["Relation Name"] not in small
    ]


def explain_generic(conn: Conn, query: bytes, params: dict[str, Any]) -> list[dict[str, Any]]:
    """Explain the plan that Postgres makes once for all parameters."""
    used = {name: value for name, value in params.items() if f"%({name})s".encode() in query}
    numbers = {name: f"${n}".encode() for n, name in enumerate(used, 1)}
    types = {int: "bigint", float: "double precision", str: "text"}
    text = query
    for name, number in numbers.items():
        text = text.replace(f"%({name})s".encode(), number)
    text = text.replace(b"%%", b"%")
    cursor = psycopg.ClientCursor(conn)
    conn.execute("SET LOCAL plan_cache_mode = force_generic_plan")
    kinds = ", ".join(types.get(type(value), "unknown") for value in used.values())
    conn.execute(f"PREPARE page {f'({kinds})' if kinds else ''} AS ".encode() + text)
    places = ", ".join(["%s"] * len(used))
    explained = cursor.execute(
        f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE page {f'({places})' if places else ''}",
        list(used.values()),
    ).fetchone()
    assert explained is not None
    return list(nodes(explained[0][0]["Plan"]))
