"""A current job without a worker and a database, for unit tests of tasks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from jobq._core.logs import context as log_context
from jobq.context import CurrentJob, use_current_job
from jobq.errors import NotTransactional

if TYPE_CHECKING:
    import psycopg
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Session


@dataclass(slots=True)
class FakeJob:
    """The value of `fake_job`."""

    current: CurrentJob = field(init=False)
    """What ``current_job()`` returns inside the block."""
    progress: list[tuple[int, int | None]] = field(default_factory=list)
    """What the task has reported with ``progress(done, total)``, in order."""
    cancelled: bool = False
    """The value of ``current_job().cancelled``; set it to test how the task stops."""

    def cancel(self) -> None:
        """Make ``current_job().cancelled`` true from now on."""
        self.cancelled = True


@contextmanager
def fake_job(
    *,
    task: str = "fake",
    id: int = 1,
    queue: str = "default",
    attempt: int = 1,
    max_attempts: int = 10,
    headers: Mapping[str, Any] | None = None,
    deadline: datetime | None = None,
    cancelled: bool = False,
    schedule: str | None = None,
    tick: datetime | None = None,
    connection: psycopg.Connection[Any] | None = None,
    session: Session | None = None,
    async_connection: psycopg.AsyncConnection[Any] | None = None,
    async_session: AsyncSession | None = None,
) -> Iterator[FakeJob]:
    """Let ``current_job()`` return a fake job in the with block, in this thread or asyncio task::

        with fake_job(attempt=3) as fake:
            import_rows("rows.csv")  # calls the function itself
        assert fake.progress[-1] == (100, 100)

    `connection`, `session` and their async twins are what a transactional task gets under these
    names. The test commits or rolls back. A twin that is not given raises NotTransactional, as in
    a task without it.
    """
    made = FakeJob(cancelled=cancelled)
    given = dict(headers or {})
    if schedule is not None:
        given["jobq.schedule"] = schedule
    if tick is not None:
        given["jobq.tick"] = tick.isoformat()
    found = {
        "connection": connection,
        "session": session,
        "async_connection": async_connection,
        "async_session": async_session,
    }
    transaction = _Given(task, {name: value for name, value in found.items() if value is not None})
    made.current = CurrentJob(
        id=id,
        task=task,
        queue=queue,
        attempt=attempt,
        max_attempts=max_attempts,
        headers=given,
        deadline=deadline,
        is_cancelled=lambda: made.cancelled,
        report_progress=lambda done, total: made.progress.append((done, total)),
        transaction=transaction if transaction.values else None,
    )
    log_context.install()
    with use_current_job(made.current):
        yield made


class _Given:
    """The transaction of a fake job, with the values from the test."""

    def __init__(self, task: str, values: Mapping[str, Any]) -> None:
        self._task = task
        self.values = values

    @property
    def connection(self) -> Any:
        return self._value("connection")

    @property
    def session(self) -> Any:
        return self._value("session")

    @property
    def async_connection(self) -> Any:
        return self._value("async_connection")

    @property
    def async_session(self) -> Any:
        return self._value("async_session")

    def _value(self, name: str) -> Any:
        try:
            return self.values[name]
        except KeyError:
            raise NotTransactional(
                f"current_job().{name}: fake_job(…) was given {', '.join(self.values)} only; pass {name}=…"
            ) from None
