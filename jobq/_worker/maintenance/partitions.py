"""The daily partitions of history and attempts: made ahead of time, dropped when they are old, each by itself.

Whatever one table and day refuses, the others are made and dropped. Each call is a transaction of its own, so that no lock on a
table is held for longer than its own partition takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import psycopg
from psycopg import AsyncConnection, sql

from jobq.worker.database import fetch

PARENTS = ("job_history_succeeded", "job_history_failed", "job_history_cancelled", "job_history_expired", "job_attempt")


class Incomplete(Exception):
    """What one table or day refused, in words; the others are done."""


async def make_partitions(connection: AsyncConnection[Any], schema: str, days_ahead: int) -> int:
    """Make what is missing; return how many were made.

    Raises Incomplete, when all that can be made is made, with what the database said of each of the others, and psycopg.Error
    when the connection is lost.
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
    """Drop the partitions of which every row was kept for `keep` of its table; return how many, and what was refused."""
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
