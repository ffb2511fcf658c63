"""Transactional tasks that leave a thread or a coroutine behind, which goes on writing."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import psycopg
from sqlalchemy import text

from jobq import current_job
from tests.apps.transfers import effect, effect_async, q

_refusals: list[Exception] = []
"""What late writes raised."""
_kept: list[asyncio.Task[None]] = []


def _keep_writing(write: Any) -> None:
    for _ in range(200):
        time.sleep(0.01)
        try:
            write()
        except Exception as error:
            _refusals.append(error)


@q.task(transactional=True, max_attempts=1)
def leave_writer(how: str, fails: bool) -> None:
    """Leave a thread behind that goes on writing by what it has of the job's transaction."""
    job = current_job()
    parameters = {"job": job.id, "attempt": job.attempt, "note": "late"}
    query = "INSERT INTO effect (job, attempt, note) VALUES (%(job)s, %(attempt)s, %(note)s)"
    connection, session = job.connection, job.session
    cursor = connection.cursor()
    insert = text("INSERT INTO effect (job, attempt, note) VALUES (:job, :attempt, :note)")
    session.execute(text("SELECT 1"))
    ways: dict[str, Any] = {
        "connection": lambda: connection.execute(query, parameters),
        "cursor": lambda: cursor.execute(query, parameters),
        "block": lambda: _in_block(connection, query, parameters),
        "session": lambda: session.execute(insert, parameters),
        "job": lambda: job.connection.execute(query, parameters),
    }
    threading.Thread(target=_keep_writing, args=(ways[how],), daemon=True).start()
    if fails:
        raise ValueError(how)


def _in_block(connection: psycopg.Connection[Any], query: Any, parameters: dict[str, Any]) -> None:
    with connection.transaction():
        connection.execute(query, parameters)


@q.task(transactional=True, max_attempts=1)
async def leave_writer_async(how: str, fails: bool) -> None:
    job = current_job()
    parameters = {"job": job.id, "attempt": job.attempt, "note": "late"}
    connection, session = job.async_connection, job.async_session
    await session.execute(text("SELECT 1"))

    async def keep_writing() -> None:
        for _ in range(200):
            await asyncio.sleep(0.01)
            try:
                if how == "connection":
                    await connection.execute(
                        "INSERT INTO effect (job, attempt, note) VALUES (%(job)s, %(attempt)s, %(note)s)", parameters
                    )
                else:
                    await session.execute(
                        text("INSERT INTO effect (job, attempt, note) VALUES (:job, :attempt, :note)"), parameters
                    )
            except Exception as error:
                _refusals.append(error)

    _kept.append(asyncio.create_task(keep_writing()))
    if fails:
        raise ValueError(how)


@q.task(transactional=True, max_attempts=1)
def act_slowly() -> int:
    """Return how often a writer that was left behind was refused meanwhile."""
    effect("before")
    until = time.monotonic() + 10
    refused = len(_refusals)
    while len(_refusals) < refused + 20 and time.monotonic() < until:
        time.sleep(0.01)
    effect("after")
    return len(_refusals) - refused


@q.task(transactional=True, max_attempts=1)
async def act_slowly_async() -> int:
    await effect_async("before")
    until = time.monotonic() + 10
    refused = len(_refusals)
    while len(_refusals) < refused + 20 and time.monotonic() < until:  # noqa: ASYNC110 - for a coroutine of an earlier job
        await asyncio.sleep(0.01)
    await effect_async("after")
    return len(_refusals) - refused
