"""EXPLAIN for tests: a statement's plan as a tree, with a plan made for the values and with the generic one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, LiteralString

import psycopg

from jobq._postgres.sql import statement

MODES = ("force_custom_plan", "force_generic_plan")


def explain(
    connection: psycopg.Connection[Any],
    mode: str,
    name: str,
    parameters: dict[str, Any],
    schema: str = "jobq",
    *,
    before: Sequence[LiteralString] = (),
) -> list[dict[str, Any]]:
    """Execute the statement, after those of `before`, roll it all back, and return every node of its plan."""
    connection.rollback()
    for earlier in before:
        connection.execute(earlier)
    connection.execute(f"SET LOCAL plan_cache_mode = {mode}".encode())
    query = b"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + statement(name, schema).query
    counted = _counts(connection, schema)
    # Prepared, or `plan_cache_mode` would mean nothing.
    row = connection.execute(query, parameters, prepare=True).fetchone()
    counts = _counts(connection, schema)
    connection.rollback()
    assert row is not None
    plan = row[0] if isinstance(row[0], list) else json.loads(row[0])
    nodes = list(_nodes(plan[0]["Plan"]))
    nodes[0]["Fetched"] = {relation: count - counted[relation] for relation, count in counts.items()}
    return nodes


def _counts(connection: psycopg.Connection[Any], schema: str) -> dict[str, int]:
    """Return how many rows this session has read from each table that was never vacuumed, by the server's own count.

    From others an index-only scan takes rows without reading the table, which is not counted.
    """
    rows = connection.execute(
        "SELECT pg_class.relname, seq_tup_read + coalesce(idx_tup_fetch, 0) FROM pg_stat_xact_user_tables "
        "JOIN pg_class ON pg_class.oid = relid WHERE schemaname = %s AND relallvisible = 0",
        (schema,),
    )
    return dict(rows.fetchall())


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", []):
        yield from _nodes(child)


def kinds(nodes: list[dict[str, Any]]) -> set[str]:
    """Return the node types, a relation's scan with the relation's name."""
    return {
        f"{node['Node Type']} on {node['Relation Name']}" if "Relation Name" in node else node["Node Type"]
        for node in nodes
    }


def rows_read(nodes: list[dict[str, Any]], relation: str) -> int:
    """Return how many rows were read from `relation`, those that a filter threw away included."""
    scans = [node for node in nodes if node.get("Relation Name") == relation and node["Node Type"].endswith("Scan")]
    total: int = sum(
        round((node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]) for node in scans
    )
    # Before version 18 EXPLAIN rounds the average over a node's loops to whole rows: 100 rows in 13 loops are shown as
    # 8 each. The server counts exactly, though only what this process has read.
    looped = any(node["Actual Loops"] > 1 for node in scans)
    if not looped or relation not in nodes[0]["Fetched"] or any(node["Parallel Aware"] for node in scans):
        return total
    fetched: int = nodes[0]["Fetched"][relation]
    return fetched
