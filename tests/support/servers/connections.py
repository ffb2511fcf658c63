"""Every kind of connection that a caller may bring."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import psycopg
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from sqlalchemy.pool import NullPool

SYNC = ["psycopg", "core", "session", "scoped session"]
ASYNC = ["psycopg", "core", "session", "scoped session"]


@contextmanager
def opened(kind: str, url: str, level: str = "READ COMMITTED") -> Iterator[Any]:
    """Open a connection of `kind` in a transaction that was not begun by hand; close it without commit."""
    if kind == "psycopg":
        plain = psycopg.connect(url, autocommit=level == "AUTOCOMMIT")
        if level != "AUTOCOMMIT":
            plain.isolation_level = psycopg.IsolationLevel[level.replace(" ", "_")]
        try:
            yield plain
        finally:
            plain.close()
        return
    engine = create_engine(alchemy(url), poolclass=NullPool, isolation_level=level)
    if kind == "core":
        with engine.connect() as connection:
            yield connection
    elif kind == "session":
        with Session(engine) as session:
            yield session
    else:
        scoped = scoped_session(sessionmaker(engine))
        try:
            yield scoped
        finally:
            scoped.remove()
    engine.dispose()


@asynccontextmanager
async def opened_async(kind: str, url: str, level: str = "READ COMMITTED") -> AsyncIterator[Any]:
    if kind == "psycopg":
        plain = await psycopg.AsyncConnection.connect(url, autocommit=level == "AUTOCOMMIT")
        if level != "AUTOCOMMIT":
            await plain.set_isolation_level(psycopg.IsolationLevel[level.replace(" ", "_")])
        try:
            yield plain
        finally:
            await plain.close()
        return
    engine = create_async_engine(alchemy(url), poolclass=NullPool, isolation_level=level)
    if kind == "core":
        async with engine.connect() as connection:
            yield connection
    elif kind == "session":
        async with AsyncSession(engine) as session:
            yield session
    else:
        scoped = async_scoped_session(async_sessionmaker(engine), scopefunc=asyncio.current_task)
        try:
            yield scoped
        finally:
            await scoped.remove()
    await engine.dispose()


def alchemy(url: str) -> str:
    return url.replace("postgresql://", "postgresql+psycopg://")


def run(connection: Any, statement: str) -> None:
    connection.execute(statement if isinstance(connection, psycopg.Connection) else text(statement))
