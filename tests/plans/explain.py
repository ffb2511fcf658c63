"""EXPLAIN for tests: a statement's plan as a tree, with a plan made for the values and with the generic one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import psycopg

from jobq.sql import statement

MODES = ("force_custom_plan", "force_generic_plan")


def explain(
    connection: psycopg.Connection[Any], mode: str, name: str, parameters: dict[str, Any], schema: str = "jobq"
) -> list[dict[str, Any]]:
    """Execute the statement, roll it back, and return every node of its plan."""
    connection.rollback()
    connection.execute(f"SET LOCAL plan_cache_mode = {mode}".encode())
    query = b"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + statement(name, schema).query
    # Prepared, or `plan_cache_mode` would mean nothing.
    row = connection.execute(query, parameters, prepare=True).fetchone()
    connection.rollback()
    assert row is not None
    plan = row[0] if isinstance(row[0], list) else json.loads(row[0])
    return list(_nodes(plan[0]["Plan"]))


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
    total = 0
    for node in nodes:
        if node.get("Relation Name") == relation and node["Node Type"].endswith("Scan"):
            read = node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
            total += round(read * node["Actual Loops"])
    return total
