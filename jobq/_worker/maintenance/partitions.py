"""The daily partitions of history and attempts.

They are created ahead of time, and dropped when old, one by one.

If one table and day is refused, the others are still created and dropped. Each call is a separate
transaction, so no lock on a table is held longer than its own partition needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import psycopg
from psycopg import AsyncConnection, sql

from jobq._worker.database import fetch
from jobq._worker.faults.set_aside import Incomplete

__all__ = ["PARENTS", "Incomplete", "drop_partitions", "make_partitions"]

PARENTS = ("job_history_succeeded", "job_history_failed", "job_history_cancelled", "job_history_expired", "job_attempt")


async def make_partitions(connection: AsyncConnection[Any], schema: str, days_ahead: int) -> int:
    """Create missing partitions; return their number.

    After all possible partitions are created, raises Incomplete with the database's errors for the
    others. Raises psycopg.Error if the connection is lost.
    """
    missing = await fetch(
        connection, schema, "partitions_missing", schema_name=schema, parents=list(PARENTS), days_ahead=days_ahead
    )
    query = sql.SQL("SELECT {}.make_partition(%s, %s::date)").format(sql.Identifier(schema))
    made, problems = 0, []
    for parent, day in missing:
        try:
            [(name,)] = await (await connection.execute(query, (parent, day))).fetchall()
        except psycopg.Error as error:
            if connection.closed:
                raise
            problems.append(f"{parent} of {day}: {str(error).strip().partition(chr(10))[0]}")
        else:
            made += name is not None
    if problems:
        raise Incomplete("; ".join(problems)[:1000])
    return made


async def drop_partitions(
    connection: AsyncConnection[Any], schema: str, keep: Mapping[str, timedelta]
) -> tuple[int, list[str]]:
    """Drop partitions whose rows are all older than `keep`.

    Return their number and the refusals.
    """
    query = sql.SQL("SELECT {}.drop_partitions(%s, %s, 1)").format(sql.Identifier(schema))
    dropped, problems = 0, dict[str, None]()

    def warned(diagnostic: psycopg.errors.Diagnostic) -> None:
        problems[diagnostic.message_primary or ""] = None

    connection.add_notice_handler(warned)
    try:
        for parent, kept in keep.items():
            while True:
                try:
                    rows = await (await connection.execute(query, (parent, kept))).fetchall()
                except psycopg.Error as error:
                    if connection.closed:
                        raise
                    problems[f"{parent}: {str(error).strip().partition(chr(10))[0]}"] = None
                    break
                dropped += len(rows)
                if not rows:
                    break
    finally:
        connection.remove_notice_handler(warned)
    return dropped, list(problems)
