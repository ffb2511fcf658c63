"""The job in log records: a record from inside a task has the job's id, task, queue and attempt.

`install` wraps ``logging.Logger.makeRecord`` once in each process. A record factory cannot do this:
`logging` raises KeyError if an `extra` has the name of an attribute that the factory has set, and
``extra={"task": …}`` is common. A filter cannot do it either: a filter on a logger does not see the
records of child loggers, and a filter on a handler is lost when the application configures logging.
The wrapper reads the context variable only when a record is made, so a job without log records has
no extra cost.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

from jobq._core.logs.attempt import AttemptLog

FIELDS = ("job_id", "task", "queue", "attempt")
"""The attributes of a record, and the names in structlog's context variables."""


class LoggedJob(Protocol):
    """A job, as records show it."""

    @property
    def id(self) -> int: ...

    @property
    def task(self) -> str: ...

    @property
    def queue(self) -> str: ...

    @property
    def attempt(self) -> int: ...


class LoggedExecution(Protocol):
    """An execution whose records carry its job."""

    log: AttemptLog | None
    """What it has logged, if that is kept; None before its first record."""

    @property
    def job(self) -> LoggedJob: ...


_current: ContextVar[LoggedExecution | None] = ContextVar("jobq_logged_execution", default=None)
# The method that ours has replaced; empty before that.
_replaced: list[Callable[..., logging.LogRecord]] = []


def install() -> None:
    """Make every record of this process from inside a task carry `FIELDS`.

    A second call does nothing.
    """
    # Methods are not compared: if a library has wrapped ours, wrapping it again would recurse
    # forever.
    if not _replaced:
        _replaced.append(logging.Logger.makeRecord)
        logging.Logger.makeRecord = _with_job  # type: ignore[method-assign]  # that is the point


def current_execution() -> LoggedExecution | None:
    """Return the execution of this thread or asyncio task, for its records; None outside a task."""
    return _current.get()


def begin(execution: LoggedExecution) -> None:
    """Make the records of this context carry the job of `execution`.

    The caller has created the context for it alone.
    """
    _current.set(execution)
    # The first question is for speed: this is called for each job.
    if "structlog.contextvars" in sys.modules and (bind := _structlog("bind_contextvars")) is not None:
        bind(**fields_of(execution.job))


@contextmanager
def within(execution: LoggedExecution) -> Iterator[None]:
    """Make the records inside the with block carry the job of `execution`."""
    token = _current.set(execution)
    bind, reset = _structlog("bind_contextvars"), _structlog("reset_contextvars")
    bound = bind(**fields_of(execution.job)) if bind is not None and reset is not None else {}
    try:
        yield
    finally:
        if bound:
            reset(**bound)
        _current.reset(token)


def fields_of(job: LoggedJob) -> dict[str, Any]:
    """Return `FIELDS` and their values for `job`."""
    return {"job_id": job.id, "task": job.task, "queue": job.queue, "attempt": job.attempt}


def _structlog(name: str) -> Any:
    """Return a function of structlog's context variables; None if structlog is not imported."""
    # Another thread may be importing it now: the function may then be missing.
    return getattr(sys.modules.get("structlog.contextvars"), name, None)


def _with_job(self: logging.Logger, *args: Any, **kwargs: Any) -> logging.LogRecord:
    record = _replaced[0](self, *args, **kwargs)
    if (execution := _current.get()) is not None:
        attributes = vars(record)
        for name, value in fields_of(execution.job).items():
            # The application's own `extra` with this name is kept.
            attributes.setdefault(name, value)
    return record
