"""Rows that the database refuses to change.

They are found by halving their batch, set aside, and tried again at growing intervals. A trigger, a
constraint added later or a damaged row makes a statement about thousands of rows fail because of
one row. That row is found in a few tries, and the others are changed. A deferred constraint or its
trigger is checked at the end of each try. There its error can be attributed to the rows of that
try.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

import psycopg
from psycopg import AsyncConnection

from jobq._worker.database import statement_deadline
from jobq._worker.database_errors import ErrorKind, classify
from jobq.retry import Backoff

Key = TypeVar("Key", int, str, tuple[str, str])
Result = TypeVar("Result")

# Maximum number of rows refused in one run. With more rows, the cause is not a single row.
MOST_AT_ONCE = 20
# Maximum number of rows left out, because their ids are sent with each batch.
MOST = 1_000
# Seconds until a row is tried again.
_AGAIN = Backoff(base=60, cap=300)
# Number of consecutive batches that lack locks, time or resources before one row is suspected.
_PATIENCE = 3
# Maximum seconds for a statement about a part of a batch.
PART_SECONDS = 6.0


class Incomplete(Exception):
    """Refusals for single rows, tables or days, as text; the other work is done."""


@dataclass(frozen=True, slots=True)
class Refused(Generic[Key]):
    """A row that the database refuses to change, with the error."""

    key: Key
    error: psycopg.Error


async def checked(connection: AsyncConnection[Any]) -> None:
    """Check deferred constraints now.

    At the end of the transaction their errors would undo all of its work. Call this in a
    transaction of the worker's own, at the end of a savepoint: constraints stay deferred only if
    the savepoint is rolled back.
    """
    await connection.execute("SET CONSTRAINTS ALL IMMEDIATE")


async def attempted(connection: AsyncConnection[Any], change: Callable[[], Awaitable[Result]]) -> Result:
    """Call `change` in a savepoint, including deferred checks; return its result.

    Raises psycopg.Error.
    """
    async with connection.transaction():
        result = await change()
        await checked(connection)
    return result


async def change_in_parts(
    connection: AsyncConnection[Any],
    keys: list[Key],
    change: Callable[[list[Key]], Awaitable[Result]],
    *,
    seconds: float,
) -> tuple[list[Result], list[Refused[Key]]]:
    """Call `change` with parts of `keys`, halved after each error.

    The server ends each statement after `seconds`, so that one slow row does not cost the time of
    the whole batch at each halving. After `MOST_AT_ONCE` refused keys the remaining keys are not
    tried.

    Returns:
        The results of the calls, and the refused keys with their errors.

    Raises:
        psycopg.Error: The connection is lost.
    """
    results: list[Result] = []
    refused: list[Refused[Key]] = []
    parts = [keys]
    while parts and len(refused) < MOST_AT_ONCE:
        if not (part := parts.pop()):
            continue
        try:
            async with statement_deadline(connection, seconds):
                result = await attempted(connection, partial(change, part))
        except psycopg.Error as error:
            if classify(error, connection) is ErrorKind.CONNECTION:
                raise
            if len(part) > 1:
                middle = len(part) // 2
                parts += [part[middle:], part[:middle]]
            else:
                refused.append(Refused(part[0], error))
        else:
            results.append(result)
    return results, refused


@dataclass(slots=True)
class _Row:
    error: str
    due: float = 0.0
    tries: int = 0


class SetAside(Generic[Key]):
    """The rows that one maintenance task leaves out, as far as this worker knows.

    Args:
        patience: Number of consecutive failures for lack of locks, time or resources before one row
            is suspected.
        seconds: Maximum seconds for each statement about a part of a batch.
    """

    def __init__(self, patience: int = _PATIENCE, seconds: float = PART_SECONDS) -> None:
        self._seconds = seconds
        self._rows: dict[Key, _Row] = {}
        self._failures = 0
        self._patience = patience

    def keys(self) -> list[Key]:
        """Return the rows to leave out now."""
        now = time.monotonic()
        return [key for key, row in self._rows.items() if now < row.due]

    async def change(
        self, connection: AsyncConnection[Any], keys: list[Key], change: Callable[[list[Key]], Awaitable[Result]]
    ) -> list[Result]:
        """Call `change` with `keys`, which are locked, or with parts of them; return the results.

        See `change_whole`.
        """

        async def all_keys() -> list[Key]:
            return keys

        return await self.change_whole(connection, partial(change, keys), all_keys, change) if keys else []

    async def change_whole(
        self,
        connection: AsyncConnection[Any],
        whole: Callable[[], Awaitable[Result]],
        keys: Callable[[], Awaitable[list[Key]]],
        change: Callable[[list[Key]], Awaitable[Result]],
    ) -> list[Result]:
        """Call `whole`. If it is refused, call `change` with parts of the result of `keys`.

        The caller has opened a transaction.

        Returns:
            The results of the calls.

        Raises:
            psycopg.Error: The connection is lost; or locks, time or resources have been lacking
                fewer than `patience` times in a row; or more rows are refused than may be left out.
        """
        try:
            results = [await attempted(connection, whole)]
        except psycopg.Error as error:
            kind = classify(error, connection)
            if kind is ErrorKind.CONNECTION:
                raise
            self._failures += 1
            if kind is ErrorKind.TRANSIENT and self._failures < self._patience:
                raise
            results, refused = await change_in_parts(connection, await keys(), change, seconds=self._seconds)
            for row in refused:
                self.leave_out(row)
            if len(self._rows) > MOST or (not results and len(refused) == MOST_AT_ONCE):
                raise
        self._failures = 0
        return results

    def report(self, done: str, name: str) -> str:
        """Return the report `done` of a pass over all rows.

        `name` is the word for a row. Raises Incomplete if rows are left out.
        """
        if refused := self.refused(name):
            raise Incomplete(f"{done}; refused: {refused}")
        return done

    def refused(self, name: str) -> str:
        """Return which rows were left out of a pass over all rows, and why; "" if none were.

        `name` is the word for a row.
        """
        # Rows that were not left out and not refused again have been changed or deleted.
        now = time.monotonic()
        self._rows = {key: row for key, row in self._rows.items() if now < row.due}
        some = [f"{name} {_told(key)}: {row.error}" for key, row in sorted(self._rows.items())[:5]]
        return "; ".join(some) + (f", and {len(self._rows) - 5:,} more" if len(self._rows) > 5 else "")

    def leave_out(self, refused: Refused[Key]) -> None:
        """Leave this row out for a while, longer each time."""
        row = self._rows.setdefault(refused.key, _Row(""))
        row.error = str(refused.error).strip().partition("\n")[0]
        row.tries += 1
        row.due = time.monotonic() + _AGAIN.longest(min(row.tries, 20))


def _told(key: int | str | tuple[str, str]) -> str:
    return "/".join(key) if isinstance(key, tuple) else str(key)
