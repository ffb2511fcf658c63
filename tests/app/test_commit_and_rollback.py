"""1,000 transactions on each kind of connection, half of them rolled back, beside a running worker: exactly the jobs of
the committed ones run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import psycopg
import pytest
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from tests.apps import plain as apps
from tests.support.jobs import Jobs
from tests.support.waiting import wait_until
from tests.support.workers import WorkerProcess

TRANSACTIONS = 1000


class RolledBack(Exception):
    """Ends a transaction from within, as an application's error would."""


def commits(number: int) -> bool:
    return number % 2 == 0


def sqlalchemy_url(url: str) -> str:
    return url.replace("postgresql://", "postgresql+psycopg://", 1)


def by_psycopg(url: str) -> None:
    with psycopg.connect(url) as connection:
        for number in range(TRANSACTIONS):
            apps.record.enqueue(connection, str(number))
            connection.commit() if commits(number) else connection.rollback()


def by_sqlalchemy_connection(url: str) -> None:
    engine = create_engine(sqlalchemy_url(url))
    with engine.connect() as connection:
        for number in range(TRANSACTIONS):
            apps.record.enqueue(connection, str(number))
            connection.commit() if commits(number) else connection.rollback()
    engine.dispose()


def by_session(url: str) -> None:
    engine = create_engine(sqlalchemy_url(url))
    for number in range(TRANSACTIONS):
        try:
            with Session(engine) as session, session.begin():
                apps.record.enqueue(session, str(number))
                if not commits(number):
                    raise RolledBack
        except RolledBack:
            pass
    engine.dispose()


async def by_async_psycopg(url: str) -> None:
    async with await psycopg.AsyncConnection.connect(url) as connection:
        for number in range(TRANSACTIONS):
            await apps.record.enqueue_async(connection, str(number))
            await (connection.commit() if commits(number) else connection.rollback())


async def by_async_sqlalchemy_connection(url: str) -> None:
    engine = create_async_engine(sqlalchemy_url(url))
    async with engine.connect() as connection:
        for number in range(TRANSACTIONS):
            await apps.record.enqueue_async(connection, str(number))
            await (connection.commit() if commits(number) else connection.rollback())
    await engine.dispose()


async def by_async_session(url: str) -> None:
    engine = create_async_engine(sqlalchemy_url(url))
    for number in range(TRANSACTIONS):
        try:
            async with AsyncSession(engine) as session, session.begin():
                await apps.record.enqueue_async(session, str(number))
                if not commits(number):
                    raise RolledBack
        except RolledBack:
            pass
    await engine.dispose()


KINDS: list[Callable[[str], Awaitable[None] | None]] = [
    by_psycopg,
    by_sqlalchemy_connection,
    by_session,
    by_async_psycopg,
    by_async_sqlalchemy_connection,
    by_async_session,
]


@pytest.mark.parametrize("enqueue", KINDS, ids=[kind.__name__ for kind in KINDS])
async def test_exactly_the_committed_jobs_run(
    database_url: str, jobs: Jobs, worker: Callable[..., WorkerProcess], enqueue: Callable[[str], Any]
) -> None:
    running = worker("--processes", "1")
    pending = enqueue(database_url)
    if pending is not None:
        await pending
    expected = {str(number) for number in range(TRANSACTIONS) if commits(number)}
    wait_until(
        lambda: jobs.one("SELECT count(*) FROM jobq.job_history") >= len(expected),
        timeout=60,
        what="the committed jobs",
    )
    running.terminate()
    assert running.wait() == 0
    assert jobs.one("SELECT count(*) FROM jobq.job") == 0
    notes = [row["note"] for row in jobs.all("SELECT note FROM ran")]
    assert set(notes) == expected
    assert len(notes) == len(expected)
