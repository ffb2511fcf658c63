"""Putting back the jobs of workers that are long gone: all at once, or without those that the database refuses to change."""

from __future__ import annotations

import logging
from typing import Any

import psycopg
from psycopg import AsyncConnection

from jobq.worker.database import fetch
from jobq.worker.errors import ErrorKind, classify

logger = logging.getLogger("jobq.worker")

# Jobs that may be refused in one go: the rest is tried the next time.
_MOST_REFUSED = 20


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
    released = ended = 0
    refused: list[int] = []
    parts = [[job for (job,) in await fetch(connection, schema, "orphans")]]
    while parts and len(refused) < _MOST_REFUSED:
        if not (part := parts.pop()):
            continue
        try:
            async with connection.transaction():
                [(back, over, _)] = await fetch(connection, schema, "release_orphans", only=part, channel=schema)
        except psycopg.Error as error:
            if classify(error, connection) is ErrorKind.CONNECTION:
                raise
            if len(part) > 1:
                middle = len(part) // 2
                parts += [part[middle:], part[:middle]]
                continue
            refused.append(part[0])
            logger.warning("an orphaned job cannot be put back", extra={"job": part[0], "error": str(error).strip()})
        else:
            released, ended = released + back, ended + over
    return _report(released, ended) + (f"; refused: {', '.join(map(str, refused))}" if refused else "")


def _report(released: int, ended: int) -> str:
    return f"{released} jobs released" + (f", {ended} cancelled" if ended else "")
