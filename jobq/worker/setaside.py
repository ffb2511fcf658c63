"""Rows that the database refuses to change: found by halving their batch, set aside, and tried again ever more rarely.

A trigger, a constraint that came later or a damaged row makes a statement about thousands of rows fail for the sake of one.
That one is found in a few tries, and the others are changed.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import psycopg
from psycopg import AsyncConnection

from jobq.backoff import Backoff
from jobq.worker.errors import ErrorKind, classify
from jobq.worker.partitions import Incomplete

Key = TypeVar("Key", int, str)
Result = TypeVar("Result")

# Rows that may be refused in one go: with more, it is no matter of single rows.
MOST_AT_ONCE = 20
# As many are left out at most: their ids are sent with each batch.
MOST = 1_000
# Seconds until a row is tried again.
_AGAIN = Backoff(base=60, cap=300)
# Batches in a row that lack locks, time or resources, before one row is suspected to be the reason.
_PATIENCE = 3


@dataclass(frozen=True, slots=True)
class Refused(Generic[Key]):
    """A row, and why the database does not let it be changed."""

    key: Key
    error: psycopg.Error


async def change_in_parts(
    connection: AsyncConnection[Any], keys: list[Key], change: Callable[[list[Key]], Awaitable[Result]]
) -> tuple[list[Result], list[Refused[Key]]]:
    """Call `change` with parts of `keys`, half as large after each error; return what it returned, and what it was refused for.

    After `MOST_AT_ONCE` refused keys the rest is left alone. Raises psycopg.Error when the connection is lost.
    """
    results: list[Result] = []
    refused: list[Refused[Key]] = []
    parts = [keys]
    while parts and len(refused) < MOST_AT_ONCE:
        if not (part := parts.pop()):
            continue
        try:
            async with connection.transaction():
                result = await change(part)
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
    """The rows that one chore leaves out, of this worker's knowledge."""

    def __init__(self) -> None:
        self._rows: dict[Key, _Row] = {}
        self._failures = 0

    def keys(self) -> list[Key]:
        """Return the rows to leave out now."""
        now = time.monotonic()
        return [key for key, row in self._rows.items() if now < row.due]

    async def change(
        self, connection: AsyncConnection[Any], keys: list[Key], change: Callable[[list[Key]], Awaitable[int]]
    ) -> int:
        """Call `change` with `keys`, which are locked, or with parts of them; return how many rows it has changed.

        Called in a transaction. Raises psycopg.Error when the connection is lost, when locks, time or resources are lacking for
        the first times in a row, and when more rows are refused than may be left out.
        """
        if not keys:
            return 0
        try:
            async with connection.transaction():
                changed = await change(keys)
        except psycopg.Error as error:
            kind = classify(error, connection)
            if kind is ErrorKind.CONNECTION:
                raise
            self._failures += 1
            if kind is ErrorKind.TRANSIENT and self._failures < _PATIENCE:
                raise
            parts, refused = await change_in_parts(connection, keys, change)
            for row in refused:
                self._leave_out(row)
            changed = sum(parts)
            if len(self._rows) > MOST or (not changed and len(refused) == MOST_AT_ONCE):
                raise
        self._failures = 0
        return changed

    def report(self, done: str, name: str) -> str:
        """Return the report `done` of a look at all rows. Raises Incomplete when rows, each a `name`, are left out."""
        # Those that were not left out and not refused again are changed, or gone.
        now = time.monotonic()
        self._rows = {key: row for key, row in self._rows.items() if now < row.due}
        if not self._rows:
            return done
        some = [f"{name} {key}: {row.error}" for key, row in sorted(self._rows.items())[:5]]
        more = f", and {len(self._rows) - 5:,} more" if len(self._rows) > 5 else ""
        raise Incomplete(f"{done}; refused: {'; '.join(some)}{more}")

    def _leave_out(self, refused: Refused[Key]) -> None:
        row = self._rows.setdefault(refused.key, _Row(""))
        row.error = str(refused.error).strip().partition("\n")[0]
        row.tries += 1
        row.due = time.monotonic() + _AGAIN.longest(min(row.tries, 20))
