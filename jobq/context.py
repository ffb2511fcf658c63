"""A job while it runs: what its task may ask of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

from jobq.bounds import whole
from jobq.errors import NoCurrentJob, NotTransactional

if TYPE_CHECKING:
    import psycopg
    from psycopg.rows import TupleRow
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Session


class JobTransaction(Protocol):
    """The transaction of a transactional task. What the task's kind does not have raises NotTransactional."""

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
    """The job that the calling task is running."""

    id: int
    task: str
    queue: str
    attempt: int
    """Which attempt this is; the first is 1."""
    max_attempts: int
    headers: Mapping[str, Any] = field(default_factory=dict)
    deadline: datetime | None = None
    """When the task's timeout strikes; None without a timeout."""
    is_cancelled: Callable[[], bool] = field(default=lambda: False, repr=False)
    report_progress: Callable[[int, int | None], None] = field(default=lambda done, total: None, repr=False)
    transaction: JobTransaction | None = field(default=None, repr=False)
    """What `connection`, `session` and their asynchronous twins come from; None unless the task is transactional."""

    @property
    def cancelled(self) -> bool:
        """True once an operator has asked to cancel this job: clean up and raise Cancel."""
        return self.is_cancelled()

    @property
    def schedule(self) -> str | None:
        """The name of the schedule that inserted this job; None for any other job."""
        name = self.headers.get("jobq.schedule")
        return name if isinstance(name, str) else None

    @property
    def tick(self) -> datetime | None:
        """The time of the schedule for which this job was inserted, in UTC; None for any other job.

        When it started is another matter: a tick may be made up for, and a job retried.
        """
        try:
            return datetime.fromisoformat(self.headers["jobq.tick"])
        except (KeyError, TypeError, ValueError):
            return None

    def progress(self, done: int, total: int | None = None) -> None:
        """Tell operators how far this attempt is: `done` steps, of `total` if that is known.

        Written down about once a second, the last word only: calling it in a tight loop is fine. Raises InvalidOption for
        anything but whole numbers of 0 to 2**63 - 1.
        """
        whole("progress done", done, 0, 2**63 - 1)
        if total is not None:
            whole("progress total", total, 0, 2**63 - 1)
        # Plain numbers: a subclass of int need not travel, nor what its methods say of it.
        done, total = int.__add__(done, 0), None if total is None else int.__add__(total, 0)
        self.report_progress(min(max(done, 0), 2**63 - 1), None if total is None else min(max(total, 0), 2**63 - 1))

    @property
    def connection(self) -> psycopg.Connection[TupleRow]:
        """The connection of a transactional ``def`` task, in the transaction that commits with the job's success.

        What is done on it, further jobs enqueued on it included, counts if and only if the job succeeds. Nest with
        ``connection.transaction()``; to undo everything, raise. Raises NotTransactional.
        """
        return self._transaction("connection").connection

    @property
    def session(self) -> Session:
        """A SQLAlchemy Session on that same transaction, made at the first use and flushed at the end.

        Nest with ``session.begin_nested()``; ``commit()`` raises TransactionEnded. Raises NotTransactional.
        """
        return self._transaction("session").session

    @property
    def async_connection(self) -> psycopg.AsyncConnection[TupleRow]:
        """The connection of a transactional ``async def`` task, like `connection`."""
        return self._transaction("async_connection").async_connection

    @property
    def async_session(self) -> AsyncSession:
        """A SQLAlchemy AsyncSession on that same transaction, like `session`. Needs SQLAlchemy's extra ``asyncio``."""
        return self._transaction("async_session").async_session

    def _transaction(self, wanted: str) -> JobTransaction:
        if self.transaction is None:
            raise NotTransactional(
                f"current_job().{wanted}: task {self.task!r} has no transaction; define it with "
                "@q.task(transactional=True)"
            )
        return self.transaction


class _Lazy:
    """A current job that is made when it is first asked for: most tasks never do."""

    __slots__ = ("job", "make")

    def __init__(self, make: Callable[[], CurrentJob]) -> None:
        self.make = make
        self.job: CurrentJob | None = None


_current: ContextVar[_Lazy] = ContextVar("jobq_current_job")


def current_job() -> CurrentJob:
    """Return the job that is being run. Raises NoCurrentJob outside of a task that a worker runs."""
    try:
        lazy = _current.get()
    except LookupError:
        raise NoCurrentJob("no job is being run here: current_job() is for tasks that a worker runs") from None
    if lazy.job is None:
        lazy.job = lazy.make()
    return lazy.job


def set_current_job(make: Callable[[], CurrentJob]) -> Token[_Lazy]:
    """Let `current_job` return what `make` makes, in this thread or asyncio task, until `reset_current_job`."""
    return _current.set(_Lazy(make))


def reset_current_job(token: Token[_Lazy]) -> None:
    """Let `current_job` return what it did before `set_current_job` returned `token`."""
    _current.reset(token)


@contextmanager
def use_current_job(job: CurrentJob) -> Iterator[None]:
    """Let `current_job` return `job` inside the with block, in this thread or asyncio task."""
    token = set_current_job(lambda: job)
    try:
        yield
    finally:
        reset_current_job(token)
