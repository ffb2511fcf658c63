"""A change as a script.

A script is a generator that yields statements and gets rows, for every connection kind.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any, TypeAlias, TypeVar

from jobq._postgres.adapters import AsyncExecutor, Executor, Rows
from jobq._postgres.server_errors import not_encodable
from jobq._postgres.sql import statement

T = TypeVar("T")

Script: TypeAlias = Generator[tuple[str, Mapping[str, Any]], Rows, T]
"""Yields the name of a statement of `jobq._postgres.sql` and its parameters.

It is sent the rows, and returns the result.
"""


def run_script(executor: Executor, schema: str, script: Script[T]) -> T:
    """Run `script` as one transaction: inside the connection's open transaction, if it has one."""
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


async def run_script_async(executor: AsyncExecutor, schema: str, script: Script[T]) -> T:
    """Run `script`, like `run_script`."""
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
    """Return `rows` with text instead of bytes, which client_encoding SQL_ASCII gives."""
    return [tuple(value.decode() if isinstance(value, bytes) else value for value in row) for row in rows]
