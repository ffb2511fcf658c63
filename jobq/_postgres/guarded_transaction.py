"""The connections of transactional tasks, in a transaction that the task must not end.

`commit` is refused, and `rollback` is recorded. Each connection object belongs to one job, on the
connection that the slot keeps (`jobq._worker.runner.task_connection`). It is closed when the job has ended. So a
thread or coroutine that the task has left behind cannot write into the transaction of the next job.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NoReturn

import psycopg
from psycopg import generators
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus, PGconn, TransactionStatus
from psycopg.rows import TupleRow

from jobq.errors import TransactionEnded

if TYPE_CHECKING:
    from psycopg import pq
    from psycopg.abc import PQGen

# Replaces the libpq connection of a job that has ended.
CLOSED = PGconn.connect_start(b"host=/")
CLOSED.finish()

Undone = Literal["failed", "ended"]


class GuardedTransaction:
    """The common extension of both connection classes: only jobq may end the transaction."""

    info: psycopg.ConnectionInfo
    undone: Undone | None = None
    """Whether and why the transaction was rolled back during the task.

    ``failed``: after a failed statement. ``ended``: without one.
    """
    adopting = False
    """Whether SQLAlchemy is inspecting the connection.

    It rolls back afterwards, which must not happen.
    """

    def _refuse(self) -> NoReturn:
        raise TransactionEnded(
            "the transaction of a transactional task is committed by jobq, together with the job's success: remove this "
            "commit(), or use connection.transaction() or session.begin_nested() for a part of it"
        )

    def _note_rollback(self) -> bool:
        """Note that the task rolls back; return whether it may."""
        if self.adopting:
            return False
        match self.info.transaction_status:
            case TransactionStatus.INTRANS | TransactionStatus.ACTIVE:
                self.undone = self.undone or "ended"
            case TransactionStatus.INERROR:
                self.undone = self.undone or "failed"
        return True


class TaskConnection(GuardedTransaction, psycopg.Connection[TupleRow]):
    """The connection of a transactional ``def`` task."""

    def commit(self) -> None:
        """Refuse to commit. Raises TransactionEnded."""
        self._refuse()

    def rollback(self) -> None:
        """Roll back; the job can no longer succeed."""
        if self._note_rollback():
            super().rollback()


class AsyncTaskConnection(GuardedTransaction, psycopg.AsyncConnection[TupleRow]):
    """The connection of a transactional ``async def`` task."""

    async def commit(self) -> None:
        """Refuse to commit. Raises TransactionEnded."""
        self._refuse()

    async def rollback(self) -> None:
        """Roll back; the job can no longer succeed."""
        if self._note_rollback():
            await super().rollback()


def execute_several(pgconn: pq.abc.PGconn, query: bytes) -> PQGen[None]:
    """Execute several statements in one message.

    psycopg itself would begin a transaction before them.
    """
    pgconn.send_query(query)
    for result in (yield from generators.execute(pgconn)):
        if result.status == ExecStatus.FATAL_ERROR:
            raise error_from_result(result)
