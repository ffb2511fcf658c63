"""The transactions of transactional tasks.

A transaction is begun before the task, and then committed with the task's success or rolled back.
It belongs to one execution. Its connection belongs to one slot and one kind of task, and is kept
from job to job. Before each job, the session is reset to its state after connecting: settings,
roles, cursors, temporary tables, advisory locks, listening. Prepared statements stay; otherwise
each job would prepare them again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow

from jobq._postgres.sql import statement
from jobq._worker.ipc.messages import AlreadyCommitted
from jobq._worker.runner.execution import Execution
from jobq._worker.runner.executor import Before, Transaction
from jobq._worker.runner.task_connection import AsyncConnectionDriver, SyncConnectionDriver, TaskConnectionDriver
from jobq._worker.runner.verdict import CommitUnknown
from jobq.errors import NotTransactional, ResultError, TransactionEnded
from jobq.settings import Settings

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Session

# This is one message and one round trip. The session is reset in a separate transaction, so that a
# rollback of the task's transaction does not undo the reset, and a default of the previous task
# does not govern it. ack_in_task_transaction.sql recognizes this transaction by `jobq.execution`.
_BEGIN = sql.SQL(
    "BEGIN; SET SESSION AUTHORIZATION DEFAULT; RESET ALL; CLOSE ALL; UNLISTEN *; DISCARD TEMP; DISCARD SEQUENCES; "
    "SELECT pg_advisory_unlock_all(); COMMIT; "
    "BEGIN; SET LOCAL jobq.execution = {execution}; SET LOCAL application_name = {name}"
)
_IDLE_LIMIT = sql.SQL("; SET LOCAL idle_in_transaction_session_timeout = {limit}")
# Seconds that a session may idle beyond its job's timeout before the server ends it. Its runner
# should have ended it earlier.
_IDLE_GRACE = 5.0

_ENDED = (
    "the task ended its transaction by itself: leave the commit to jobq, which commits it with the job's success, and raise "
    "to roll back; for a part of it, use connection.transaction() or session.begin_nested()"
)
_FAILED = (
    "a statement failed and the task went on: its transaction can only be rolled back; wrap what may fail in "
    "connection.transaction() or session.begin_nested()"
)


class Transactions:
    """The transactions of one process. `run_coroutine` is the executor's."""

    def __init__(self, settings: Settings, run_coroutine: Callable[[Execution, Coroutine[Any, Any, Any]], Any]) -> None:
        self._settings = settings
        self._run_coroutine = run_coroutine
        self._slot = threading.local()

    def begin(self, execution: Execution, *, is_async: bool) -> Transaction:
        """Begin a transaction on this slot's connection; if the connection is broken, reconnect.

        Raises psycopg.Error.
        """
        link, fresh = self._link(is_async), False
        if isinstance(link, AsyncConnectionDriver):
            # Use a separate execution: cancelling the task's execution must not interrupt the work
            # around it.
            link.run = lambda coroutine: self._run_coroutine(
                Execution(job=execution.job, worker=execution.worker), coroutine
            )
        opening = _opening(execution)
        while True:
            if not link.usable:
                link.connect(self._settings)
                fresh = True
            try:
                link.begin(opening)
            except psycopg.Error:
                link.drop()
                # A kept connection may have died since its last use. A new connection has not.
                if fresh:
                    raise
            except BaseException:
                link.drop()
                raise
            else:
                return _Transaction(link, execution, self._settings.schema)

    def close(self) -> None:
        """Close the connections of this thread's slot."""
        for link in vars(self._slot).values():
            link.drop()

    def _link(self, is_async: bool) -> TaskConnectionDriver:
        kept: TaskConnectionDriver | None = getattr(self._slot, "asynchronous" if is_async else "synchronous", None)
        if kept is not None:
            return kept
        if is_async:
            self._slot.asynchronous = made = AsyncConnectionDriver()
            return made
        self._slot.synchronous = plain = SyncConnectionDriver()
        return plain


class _Transaction:
    """The transaction of one execution; see `jobq._worker.runner.executor.Transaction`."""

    def __init__(self, link: TaskConnectionDriver, execution: Execution, schema: str) -> None:
        self._link = link
        self._execution = execution
        self._over = False
        if isinstance(link, SyncConnectionDriver):
            # A thread that waits for the server is in a call into C, which TimedOut cannot
            # interrupt. (A coroutine is cancelled.)
            execution.at_timeout(link.cancel)
        self._success = statement("ack_in_task_transaction", schema)

    @property
    def connection(self) -> psycopg.Connection[TupleRow]:
        return self._synchronous("connection").lend()

    @property
    def session(self) -> Session:
        return self._synchronous("session").session

    @property
    def async_connection(self) -> psycopg.AsyncConnection[TupleRow]:
        return self._asynchronous("async_connection").lend()

    @property
    def async_session(self) -> AsyncSession:
        return self._asynchronous("async_session").session

    def _synchronous(self, wanted: str) -> SyncConnectionDriver:
        self._refuse_late(wanted)
        if isinstance(self._link, SyncConnectionDriver):
            return self._link
        raise NotTransactional(
            f"current_job().{wanted}: {self._execution.job.task!r} is an async task: use current_job().async_{wanted}"
        )

    def _refuse_late(self, wanted: str) -> None:
        if self._over:
            raise NotTransactional(f"current_job().{wanted}: the job has ended, and its transaction with it")

    def _asynchronous(self, wanted: str) -> AsyncConnectionDriver:
        self._refuse_late(wanted)
        if isinstance(self._link, AsyncConnectionDriver):
            return self._link
        raise NotTransactional(
            f"current_job().{wanted}: {self._execution.job.task!r} is a `def` task: use current_job()."
            f"{wanted.removeprefix('async_')}"
        )

    def succeed(
        self, result: bytes | None, seconds: float, unstored: str | None = None, before: Before | None = None
    ) -> AlreadyCommitted:
        job, link = self._execution.job, self._link
        self._end_use()
        link.flush()
        self._check()
        disturbed = self._execution.past_timeout()
        if before is not None:
            before(link.fetch)
        parameters = {
            "id": job.id,
            "claims": job.claims,
            "started": job.started,
            "worker": self._execution.worker,
            "execution": _name(self._execution),
            "seconds": seconds,
            "result": None if result is None else result.decode(),
            "error": unstored,
        }
        try:
            accepted, begun_for = link.fetch(self._success.query, parameters)
        except psycopg.DataError as error:
            raise ResultError(f"the job ran, but its result cannot be stored: {error}") from error
        if begun_for != parameters["execution"]:
            raise TransactionEnded(_ENDED)
        if not accepted:
            self.abandon()
            return AlreadyCommitted(job.id, job.claims, job.started, accepted=False)
        try:
            link.commit()
        except psycopg.Error as error:
            # If the connection is intact, this is the server's answer: a deferred constraint, or a
            # serialization failure.
            if link.usable:
                raise
            raise CommitUnknown(
                f"the connection was lost during COMMIT, which may or may not have happened: {str(error).strip()}"
            ) from error
        if disturbed:
            link.drop()
        else:
            self._leave(lambda: None)
        return AlreadyCommitted(job.id, job.claims, job.started, accepted=True, unstored=unstored)

    def _check(self) -> None:
        """Raise an error unless the transaction is still open and can be committed."""
        link = self._link
        if not link.usable:
            raise psycopg.OperationalError("the connection of the task's transaction was lost, or closed by the task")
        match link.status:
            case TransactionStatus.INTRANS if link.undone is None:
                return
            case TransactionStatus.INERROR:
                raise psycopg.errors.InFailedSqlTransaction(_FAILED)
            case TransactionStatus.ACTIVE:
                raise psycopg.ProgrammingError("a statement of the task's transaction is still under way")
        raise psycopg.errors.InFailedSqlTransaction(_FAILED) if link.undone == "failed" else TransactionEnded(_ENDED)

    def _end_use(self) -> None:
        """End the task's use of the connection.

        Later work in threads that the task has left behind does not belong to the job.
        """
        self._over = True
        self._link.take_back()

    def abandon(self) -> None:
        link = self._link
        self._end_use()
        # A cancellation that was sent may still arrive. It must not hit a statement of the next
        # job.
        undisturbed = not self._execution.past_timeout()
        if undisturbed and link.usable and link.status in (TransactionStatus.INTRANS, TransactionStatus.INERROR):
            self._leave(link.rollback)
        else:
            # The connection is lost; or the task ended the transaction and may have done more; or a
            # thread left behind still uses it.
            link.drop()

    def _leave(self, how: Callable[[], None]) -> None:
        """Leave the connection as the next job expects it.

        If that fails, close it, and the server rolls back.
        """
        try:
            how()
            self._link.end()
        except Exception:  # a lost connection, or a session that the task has broken
            self._link.drop()


def _opening(execution: Execution) -> bytes:
    job = execution.job
    opening = _BEGIN.format(
        execution=_name(execution), name=f"jobq task {job.task}".encode()[:63].decode("utf-8", "ignore")
    )
    if job.timeout is not None:
        limit = int(min((job.timeout + _IDLE_GRACE) * 1000, 2**31 - 1))
        opening += _IDLE_LIMIT.format(limit=limit)
    return opening.as_bytes(None)


def _name(execution: Execution) -> str:
    return f"{execution.job.id}/{execution.job.claims}/{execution.job.started}"
