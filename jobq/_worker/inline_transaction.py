"""Run jobs inside a transaction of the caller, for tests that roll it back at the end.

The statements are the usual ones, but nothing is committed. Each execution is a savepoint, so a
failed statement in a task does not end the caller's transaction.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from jobq._worker.ipc.messages import Failure, Success
from jobq._worker.runner.execution import Execution
from jobq._worker.runner.executor import Before, succeeded
from jobq.errors import NotTransactional

if TYPE_CHECKING:
    import sqlalchemy
    from sqlalchemy.orm import Session

_MAKE_DUE = sql.SQL(
    "UPDATE {}.job SET run_at = now() WHERE state IN ('ready', 'waiting') AND run_at > now() AND run_at <= clock_timestamp()"
)


class Within:
    """A caller's transaction.

    `alchemy`: its SQLAlchemy connection; None: it has a psycopg connection.
    """

    def __init__(self, connection: psycopg.Connection[Any], alchemy: sqlalchemy.Connection | None) -> None:
        self.connection = connection
        self._alchemy = alchemy

    def make_due(self, cursor: psycopg.Cursor[Any], schema: str) -> None:
        """Make jobs claimable that are due by the clock."""
        cursor.execute(_MAKE_DUE.format(sql.Identifier(schema)))

    @contextmanager
    def guarded(self, connection: psycopg.Connection[Any]) -> Iterator[None]:
        """Keep the transaction usable: if a statement in the block fails, undo the block."""
        connection.execute("SAVEPOINT jobq_execution")
        yield
        if connection.info.transaction_status is TransactionStatus.INERROR:
            connection.execute("ROLLBACK TO SAVEPOINT jobq_execution")
        connection.execute("RELEASE SAVEPOINT jobq_execution")

    def begin(self, execution: Execution, *, is_async: bool) -> _Savepoint:
        """Begin the transaction of a transactional task: a savepoint."""
        return _Savepoint(self.connection, self._alchemy, execution, is_async=is_async)

    def close(self) -> None:
        """Do nothing: the transaction belongs to the caller."""


class _Savepoint:
    """The transaction of one execution; see `jobq._worker.runner.executor.Transaction`."""

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        alchemy: sqlalchemy.Connection | None,
        execution: Execution,
        *,
        is_async: bool,
    ) -> None:
        self._connection = connection
        self._alchemy = alchemy
        self._execution = execution
        self._is_async = is_async
        self._session: Session | None = None
        self._stack = ExitStack()
        # psycopg refuses commit() and rollback() inside such a block.
        self._stack.enter_context(connection.transaction())

    @property
    def connection(self) -> psycopg.Connection[Any]:
        self._refuse_async("connection")
        return self._connection

    @property
    def session(self) -> Session:
        self._refuse_async("session")
        if self._session is None:
            if self._alchemy is None:
                raise NotTransactional(
                    "current_job().session: this test's transaction is one of psycopg's; give jobq.on(…) a SQLAlchemy "
                    "Connection or Session"
                )
            from sqlalchemy.orm import Session

            self._session = Session(self._alchemy, join_transaction_mode="create_savepoint")
        return self._session

    @property
    def async_connection(self) -> psycopg.AsyncConnection[Any]:
        self._refuse("async_connection")

    @property
    def async_session(self) -> Any:
        self._refuse("async_session")

    def _refuse_async(self, wanted: str) -> None:
        if self._is_async:
            self._refuse(wanted)

    def _refuse(self, wanted: str) -> NoReturn:
        raise NotTransactional(
            f"current_job().{wanted}: a transactional async task needs a connection of its own, which cannot see into this "
            "test's transaction: test it with the fixture jobq alone, without jobq.on(…)"
        )

    def succeed(
        self, result: bytes | None, seconds: float, unstored: str | None = None, before: Before | None = None
    ) -> Success | Failure:
        job = self._execution.job
        if before is not None:
            before(self._fetch)
        if self._session is not None:
            self._session.commit()  # its savepoint
            self._session.close()
        if self._connection.info.transaction_status is TransactionStatus.INERROR:
            raise psycopg.errors.InFailedSqlTransaction(
                "a statement failed and the task went on: wrap what may fail in connection.transaction()"
            )
        self._stack.close()
        return succeeded(job, result, unstored, seconds)

    def _fetch(self, query: bytes, parameters: dict[str, Any]) -> Any:
        with psycopg.Cursor(self._connection, row_factory=tuple_row) as cursor:
            return cursor.execute(query, parameters).fetchone()

    def abandon(self) -> None:
        if self._session is not None:
            self._session.close()
        self._stack.__exit__(psycopg.Rollback, psycopg.Rollback(), None)
