"""The pool behind submit_async: bounded, rid of the dead, and done with its event loop whenever that ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest

from jobq import DatabaseUnavailable, JobQ


@pytest.fixture
async def q(database_url: str) -> AsyncIterator[JobQ]:
    app = JobQ(database_url, pool_size=1, connect_timeout=0.3)
    yield app
    await app.aclose()


async def backend(q: JobQ) -> Any:
    async with q.connection_async() as connection:
        row = await (await connection.execute("SELECT pg_backend_pid()")).fetchone()
    assert row is not None
    return row[0]


async def test_a_connection_is_used_again_and_replaced_when_it_has_died(q: JobQ, conn: psycopg.Connection[Any]) -> None:
    first = await backend(q)
    assert await backend(q) == first
    conn.execute("SELECT pg_terminate_backend(%s, 5000)", (first,))
    assert await backend(q) != first


async def test_no_more_than_pool_size(q: JobQ) -> None:
    async with q.connection_async():
        with pytest.raises(DatabaseUnavailable, match="all 1 of jobq's pool are in use"):
            await backend(q)
    assert await backend(q)


async def test_a_connection_lent_is_free_again_after_an_error(q: JobQ) -> None:
    first = await backend(q)
    with pytest.raises(psycopg.errors.DivisionByZero):
        async with q.connection_async() as connection:
            await connection.execute("SELECT 1/0")
    assert await backend(q) == first


async def test_why_none_can_be_made() -> None:
    nowhere = JobQ("postgresql://me:secret@127.0.0.1:1/none", connect_timeout=0.3)
    with pytest.raises(DatabaseUnavailable, match=r"(?s)no connection within 0.3 s to .*\*\*\*.*refused"):
        await backend(nowhere)


def test_an_event_loop_ends_while_connections_are_being_made(database_url: str) -> None:
    """Wherever its connecting stood: nothing is left that could keep the loop."""
    app = JobQ(database_url, pool_size=8)

    async def begin(steps: int) -> None:
        connecting = [asyncio.ensure_future(backend(app)) for _ in range(8)]
        for _ in range(steps):
            await asyncio.sleep(0)
        assert len(connecting) == 8

    for steps in range(40):
        asyncio.run(asyncio.wait_for(begin(steps), 20))
    asyncio.run(backend(app))
