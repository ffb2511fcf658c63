"""A change as a script: it says which statements to run, and is told the rows; one serves every kind of connection."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any, TypeAlias, TypeVar

from jobq.connections import AsyncExecutor, Executor, Rows
from jobq.refusals import not_encodable
from jobq.sql import statement

T = TypeVar("T")

Script: TypeAlias = Generator[tuple[str, Mapping[str, Any]], Rows, T]
"""Yields the name of a statement of `jobq.sql` that returns rows, and its parameters; is sent the rows; returns the outcome."""


def play(executor: Executor, schema: str, script: Script[T]) -> T:
    """Run `script` as one transaction: a part of the connection's own, if that has one."""
    with executor.together():
        try:
            name, params = next(script)
            while True:
                name, params = script.send(_decoded(executor.execute(statement(name, schema), params)))
        except StopIteration as end:
            found: T = end.value
            return found
        except UnicodeEncodeError as error:
            raise not_encodable(error) from None


async def play_async(executor: AsyncExecutor, schema: str, script: Script[T]) -> T:
    """Run `script` like `play`."""
    async with executor.together():
        try:
            name, params = next(script)
            while True:
                name, params = script.send(_decoded(await executor.execute(statement(name, schema), params)))
        except StopIteration as end:
            found: T = end.value
            return found
        except UnicodeEncodeError as error:
            raise not_encodable(error) from None


def _decoded(rows: Rows) -> Rows:
    """Return `rows` with text where a session whose client_encoding is SQL_ASCII gives bytes."""
    return [tuple(value.decode() if isinstance(value, bytes) else value for value in row) for row in rows]
