"""A database that is none, for unit tests of loops: it answers statements by their names. Promises are tested on Postgres."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import psycopg
import pytest

from jobq._postgres.sql import statement
from jobq._worker import database
from jobq._worker.database import Connection, Database
from jobq._worker.timeouts import HOT
from jobq.settings import Settings

Rows = Sequence[tuple[Any, ...]]
Answer = Rows | BaseException | Callable[[Sequence[Any]], Rows]


class FakeConnection:
    """Executes nothing, and remembers the names of the statements."""

    closed = broken = pooled = False
    server_pid = 1
    since: float | None = None
    waiting_for: str | None = None
    terms = HOT

    def __init__(self, of: FakeDatabase) -> None:
        self._of = of

    def answer(self, query: bytes, values: Sequence[Any]) -> Rows:
        name = next(name for name in self._of.answers if statement(name, "jobq").raw == query)
        self._of.asked.append(name)
        answer = self._of.answers[name]
        if isinstance(answer, BaseException):
            self.closed = isinstance(answer, psycopg.OperationalError) and answer.sqlstate is None
            raise answer
        return answer(values) if callable(answer) else answer

    async def close(self) -> None:
        self.closed = True


class FakeCursor:
    description = ()

    def __init__(self, connection: FakeConnection, row_factory: object) -> None:
        self._connection = connection
        self._rows: Rows = ()

    async def execute(self, query: bytes, values: Sequence[Any]) -> FakeCursor:
        self._rows = self._connection.answer(query, values)
        return self

    async def fetchall(self) -> list[tuple[Any, ...]]:
        return list(self._rows)


class FakeDatabase(Database):
    """Connects to nothing. `answers` may be changed at any time: rows, an error to raise, or a function of the parameters."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, answers: dict[str, Answer]) -> None:
        super().__init__(Settings(database_url="postgresql://nowhere"))
        monkeypatch.setattr(database, "AsyncRawCursor", FakeCursor)
        self.answers = answers
        self.asked: list[str] = []
        """The names of all statements, in their order."""
        self.made: list[str] = []
        """The purposes of all connections that were made."""
        self.refuses: psycopg.Error | None = None
        """What each connection fails with; None: none does."""

    async def connect(self, purpose: str, *_: Any, **__: Any) -> Connection:
        if self.refuses is not None:
            raise self.refuses
        self.made.append(purpose)
        return cast("Connection", FakeConnection(self))
