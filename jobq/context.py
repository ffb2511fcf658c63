"""The running job, as its task sees it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

from jobq._core.logs import context as log_context
from jobq._core.logs.attempt import AttemptLog
from jobq._core.validation import check_int
from jobq.errors import NoCurrentJob, NotTransactional

if TYPE_CHECKING:
    import psycopg
    from psycopg.rows import TupleRow
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Session


class JobTransaction(Protocol):
    """The transaction of a transactional task.

    A property that the task's kind lacks raises NotTransactional.
    """

    @property
    def connection(self) -> psycopg.Connection[TupleRow]: ...

    @property
    def session(self) -> Session: ...

    @property
    def async_connection(self) -> psycopg.AsyncConnection[TupleRow]: ...

    @property
    def async_session(self) -> AsyncSession: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class CurrentJob:
    """The job that the calling task runs."""

    id: int
    task: str
    queue: str
    attempt: int
    """Number of this attempt; the first is 1."""
    max_attempts: int
    headers: Mapping[str, Any] = field(default_factory=dict)
    args: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """The arguments by parameter name, converted as the task's annotations say.

    Parameters that keep their defaults are not included.
    """
    deadline: datetime | None = None
    """When the task's timeout expires; None without a timeout."""
    is_cancelled: Callable[[], bool] = field(default=lambda: False, repr=False)
    report_progress: Callable[[int, int | None], None] = field(default=lambda done, total: None, repr=False)
    begin_additions: Callable[[], Any] | None = field(default=None, repr=False)
    """Returns the workflow that collects the nodes which this job adds to its run: see ``JobQ.add_nodes``."""
    transaction: JobTransaction | None = field(default=None, repr=False)
    """The source of `connection`, `session` and their async twins; None if not transactional."""

    steps: object | None = field(default=None, repr=False)
    """The steps of a durable task, for `jobq.step`; None if it is not durable."""

    @property
    def cancelled(self) -> bool:
        """True once an operator has asked to cancel this job.

        The task should clean up and raise Cancel.
        """
        return self.is_cancelled()

    @property
    def schedule(self) -> str | None:
        """The name of the schedule that inserted this job; None for any other job."""
        name = self.headers.get("jobq.schedule")
        return name if isinstance(name, str) else None

    @property
    def tick(self) -> datetime | None:
        """The time of the schedule for which this job was inserted, in UTC; None for any other job.

        The job may start later: a missed tick may be made up for, and a job may be retried.
        """
        try:
            return datetime.fromisoformat(self.headers["jobq.tick"])
        except (KeyError, TypeError, ValueError):
            return None

    def progress(self, done: int, total: int | None = None) -> None:
        """Report the progress of this attempt to operators.

        It is written about once a second, and only the last report counts. A tight loop may call
        it.

        Args:
            done: number of steps done.
            total: number of steps in all; None if it is not known.

        Raises:
            InvalidOption: a value is not a whole number from 0 to 2**63 - 1.
        """
        check_int("progress done", done, 0, 2**63 - 1)
        if total is not None:
            check_int("progress total", total, 0, 2**63 - 1)
        # Plain integers: an instance of a subclass may not be sent, and its methods may be
        # overridden.
        done, total = int.__add__(done, 0), None if total is None else int.__add__(total, 0)
        self.report_progress(min(max(done, 0), 2**63 - 1), None if total is None else min(max(total, 0), 2**63 - 1))

    @property
    def connection(self) -> psycopg.Connection[TupleRow]:
        """The connection of a transactional ``def`` task.

        Its transaction commits with the success of the job. Everything done on it, including
        enqueuing further jobs, takes effect if and only if the job succeeds. For a nested
        transaction, use ``connection.transaction()``. To undo everything, raise an exception.
        Raises NotTransactional.
        """
        return self._transaction("connection").connection

    @property
    def session(self) -> Session:
        """A SQLAlchemy Session on the same transaction.

        It is created at the first use and flushed at the end. For a nested transaction, use
        ``session.begin_nested()``; ``commit()`` raises
        TransactionEnded. Raises NotTransactional.
        """
        return self._transaction("session").session

    @property
    def async_connection(self) -> psycopg.AsyncConnection[TupleRow]:
        """The connection of a transactional ``async def`` task, like `connection`."""
        return self._transaction("async_connection").async_connection

    @property
    def async_session(self) -> AsyncSession:
        """A SQLAlchemy AsyncSession on the same transaction, like `session`.

        It needs SQLAlchemy's extra ``asyncio``.
        """
        return self._transaction("async_session").async_session

    def _transaction(self, wanted: str) -> JobTransaction:
        if self.transaction is None and self.steps is not None:
            raise NotTransactional(
                f"current_job().{wanted}: task {self.task!r} is durable and has no transaction of its own; use it in the "
                "function of a transactional step: step.options(transactional=True).run(…)"
            )
        if self.transaction is None:
            raise NotTransactional(
                f"current_job().{wanted}: task {self.task!r} has no transaction; define it with "
                "@q.task(transactional=True)"
            )
        return self.transaction


class _Lazy:
    """A current job that is created when it is first requested: most tasks never request it."""

    __slots__ = ("job", "make")

    def __init__(self, make: Callable[[], CurrentJob]) -> None:
        self.make = make
        self.job: CurrentJob | None = None


_current: ContextVar[_Lazy] = ContextVar("jobq_current_job")


def current_job() -> CurrentJob:
    """Return the running job. Raises NoCurrentJob unless a worker runs the calling task."""
    try:
        lazy = _current.get()
    except LookupError:
        raise NoCurrentJob("no job is being run here: current_job() is for tasks that a worker runs") from None
    if lazy.job is None:
        lazy.job = lazy.make()
    return lazy.job


def set_current_job(make: Callable[[], CurrentJob]) -> Token[_Lazy]:
    """Let `current_job` return the result of `make`, in this thread or asyncio task.

    This lasts until `reset_current_job`.
    """
    return _current.set(_Lazy(make))


def reset_current_job(token: Token[_Lazy]) -> None:
    """Let `current_job` return again what it returned before the call that returned `token`."""
    _current.reset(token)


@contextmanager
def use_current_job(job: CurrentJob) -> Iterator[None]:
    """Let `current_job` return `job` inside the with block, in this thread or asyncio task.

    Log records carry it, too.
    """
    token = set_current_job(lambda: job)
    try:
        with log_context.within(_Logged(job)):
            yield
    finally:
        reset_current_job(token)


@dataclass(slots=True)
class _Logged:
    job: CurrentJob
    log: AttemptLog | None = None
