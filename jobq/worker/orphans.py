"""Putting back the jobs of workers that are long gone: all at once, or without those that the database refuses to change."""

from __future__ import annotations

import logging
from typing import Any

import psycopg
from psycopg import AsyncConnection

from jobq.worker.database import fetch
from jobq.worker.errors import ErrorKind, classify
from jobq.worker.setaside import change_in_parts

logger = logging.getLogger("jobq.worker")


async def release_orphans(connection: AsyncConnection[Any], schema: str) -> str:
    """Put orphans back, or end those whose cancellation was asked for; return a report, which names those that are refused.

    Called in a transaction.
    """
    try:
        async with connection.transaction():
            [(released, ended, _)] = await fetch(connection, schema, "release_orphans", only=None, channel=schema)
    except psycopg.Error as error:
        if classify(error, connection) is ErrorKind.CONNECTION:
            raise
        return await _in_parts(connection, schema)
    return _report(released, ended)


async def _in_parts(connection: AsyncConnection[Any], schema: str) -> str:
    async def release(jobs: list[int]) -> tuple[int, int]:
        [(back, over, _)] = await fetch(connection, schema, "release_orphans", only=jobs, channel=schema)
        return back, over

    orphans = [job for (job,) in await fetch(connection, schema, "orphans")]
    results, refused = await change_in_parts(connection, orphans, release)
    for row in refused:
        logger.warning("an orphaned job cannot be put back", extra={"job": row.key, "error": str(row.error).strip()})
    report = _report(sum(back for back, _ in results), sum(over for _, over in results))
    return report + (f"; refused: {', '.join(str(row.key) for row in refused)}" if refused else "")


def _report(released: int, ended: int) -> str:
    return f"{released} jobs released" + (f", {ended} cancelled" if ended else "")
