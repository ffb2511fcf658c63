"""Rows that the database refuses to change: found by halving their batch, set aside, and tried again ever more rarely.

A trigger, a constraint that came later or a damaged row makes a statement about thousands of rows fail for the sake of one.
That one is found in a few tries, and the others are changed. What such a rule has put off to the end of the transaction (a
deferred constraint or its trigger) is asked at the end of each try, where it can be charged to the rows of that try.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

import psycopg
from psycopg import AsyncConnection

from jobq.backoff import Backoff
from jobq.worker.database import limited
from jobq.worker.errors import ErrorKind, classify
from jobq.worker.partitions import Incomplete

Key = TypeVar("Key", int, str, tuple[str, str])
Result = TypeVar("Result")

# Rows that may be refused in one go: with more, it is no matter of single rows.
MOST_AT_ONCE = 20
# As many are left out at most: their ids are sent with each batch.
MOST = 1_000
# Seconds until a row is tried again.
_AGAIN = Backoff(base=60, cap=300)
# Batches in a row that lack locks, time or resources, before one row is suspected to be the reason.
_PATIENCE = 3
# Seconds that a statement about a part of a batch may take.
PART_SECONDS = 6.0


@dataclass(frozen=True, slots=True)
class Refused(Generic[Key]):
    """A row, and why the database does not let it be changed."""

    key: Key
    error: psycopg.Error


async def checked(connection: AsyncConnection[Any]) -> None:
    """Ask now what constraints would ask at the end of the transaction, whose errors would cost all that was done in it.

    In a transaction of the worker's own, at the end of a savepoint: what is deferred stays so only if that is rolled back.
    """
    await connection.execute("SET CONSTRAINTS ALL IMMEDIATE")


async def attempted(connection: AsyncConnection[Any], change: Callable[[], Awaitable[Result]]) -> Result:
    """Call `change` in a savepoint, what is deferred included; return what it returned. Raises psycopg.Error."""
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
    """Call `change` with parts of `keys`, half as large after each error; return what it returned, and what it was refused for.

    The server ends each statement after `seconds`: one slow row must not cost as long at each halving as all may take.
    After `MOST_AT_ONCE` refused keys the rest is left alone. Raises psycopg.Error when the connection is lost.
    """
    results: list[Result] = []
    refused: list[Refused[Key]] = []
    parts = [keys]
    while parts and len(refused) < MOST_AT_ONCE:
        if not (part := parts.pop()):
            continue
        try:
            async with limited(connection, seconds):
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
    """The rows that one chore leaves out, of this worker's knowledge.

    `patience`: how often in a row locks, time or resources may be lacking before one row is suspected to be the reason.
    `seconds`: what each statement may take then.
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
        """Call `change` with `keys`, which are locked, or with parts of them; return what it returned. As `change_whole`."""

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
        """Call `whole`, or when that is refused `change` with parts of what `keys` returns; return what they returned.

        Called in a transaction. Raises psycopg.Error when the connection is lost, when locks, time or resources are lacking for
        the first times in a row, and when more rows are refused than may be left out.
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
        """Return the report `done` of a look at all rows. Raises Incomplete when rows, each a `name`, are left out."""
        if refused := self.refused(name):
            raise Incomplete(f"{done}; refused: {refused}")
        return done

    def refused(self, name: str) -> str:
        """Return which rows, each a `name`, were left out of a look at all of them, and why; "": none."""
        # Those that were not left out and not refused again are changed, or gone.
        now = time.monotonic()
        self._rows = {key: row for key, row in self._rows.items() if now < row.due}
        some = [f"{name} {_told(key)}: {row.error}" for key, row in sorted(self._rows.items())[:5]]
        return "; ".join(some) + (f", and {len(self._rows) - 5:,} more" if len(self._rows) > 5 else "")

    def leave_out(self, refused: Refused[Key]) -> None:
        """Leave this row out for a while, each time for longer."""
        row = self._rows.setdefault(refused.key, _Row(""))
        row.error = str(refused.error).strip().partition("\n")[0]
        row.tries += 1
        row.due = time.monotonic() + _AGAIN.longest(min(row.tries, 20))


def _told(key: int | str | tuple[str, str]) -> str:
    return "/".join(key) if isinstance(key, tuple) else str(key)
