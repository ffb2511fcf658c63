"""What tests see of jobs, and how they run them: on a database of their own, or inside a transaction of theirs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from datetime import datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self

from jobq.config import url_of
from jobq.connections import driver_of
from jobq.errors import UnsupportedConnection

if TYPE_CHECKING:
    import psycopg

    from jobq.app import JobQ
    from jobq.connections import AnyConnection
    from jobq.queries import JobDetail, JobRow
    from jobq.refs import JobRef
    from jobq.tasks import BaseTask
    from jobq.testing.clock import Clock
    from jobq.worker.inprocess import Drained
    from jobq.worker.within import Within


class JobqTester:
    """What the fixture `jobq` gives: the test's database, and an application whose jobs are run in this process."""

    def __init__(
        self,
        app: JobQ,
        database_url: str,
        *,
        connection: psycopg.Connection[Any] | None = None,
        within: Within | None = None,
    ) -> None:
        from jobq import sessions

        self.app = app
        """The application, its settings turned to this test's database."""
        self.database_url = database_url
        """URL of this test's database, ``postgresql://…``, for psycopg."""
        self.connection: psycopg.Connection[Any] = (
            sessions.connect(database_url, autocommit=True) if connection is None else connection
        )
        """A connection in autocommit mode, for looks and for enqueueing; of `on`, the connection that was given."""
        self._within = within
        self._pools, self._waiting_helps = app._pools, app.waiting_helps
        self._inner: list[JobqTester] = []
        self._clock: Clock | None = None

    @property
    def sqlalchemy_url(self) -> str:
        """URL of this test's database for ``create_engine`` of SQLAlchemy, with the driver: ``postgresql+psycopg://…``."""
        return url_of(self.database_url).replace("postgresql://", "postgresql+psycopg://", 1)

    def on(self, connection: AnyConnection) -> JobqTester:
        """Return a tester for jobs inside the open transaction of `connection`: see `jobq.testing.on`."""
        self._inner.append(on(self.app, connection))
        return self._inner[-1]

    def close(self) -> None:
        """Close the connection; of `on`, leave it to its owner and let the application use its own connections again."""
        while self._inner:
            self._inner.pop().close()
        if self._within is None:
            self.connection.close()
        else:
            self.app._pools, self.app.waiting_helps = self._pools, self._waiting_helps

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def enqueued(self, task: BaseTask[..., Any] | str | None = None, /, **args: Any) -> list[JobRow]:
        """Return the committed jobs that have not finished, oldest first: those of `task`, with these arguments.

        Arguments are compared as the task stores them, as JSON; those that are not named may be anything. `on` a transaction
        its own jobs are there before any commit. Raises InvalidArguments for names that the task does not have, and for values
        that cannot be stored.
        """
        from jobq import queries
        from jobq.filters import LIVE_STATES, JobFilter

        wanted = self._stored(task, args)
        name = task if task is None or isinstance(task, str) else task.name
        found: list[JobRow] = []
        jobs = JobFilter(states=LIVE_STATES, task=name)
        for row in queries.list_jobs(self.connection, self._schema, jobs, limit=1000):
            stored = queries.get_job(self.connection, self._schema, row.id).args
            if all(key in stored and stored[key] == value for key, value in wanted.items()):
                found.append(row)
        return sorted(found, key=lambda row: row.id)

    def assert_enqueued(self, task: BaseTask[..., Any] | str, /, **args: Any) -> JobRow:
        """Fail unless a job of `task` with these arguments is committed and has not finished; return the oldest."""
        __tracebackhide__ = True
        if found := self.enqueued(task, **args):
            return found[0]
        name = task if isinstance(task, str) else task.name
        others = [f"{row.task} (job {row.id}, {row.state})" for row in self.enqueued()]
        raise AssertionError(
            f"no job of task {name!r} with {args or 'any arguments'} is enqueued and committed; "
            f"there {'are: ' + ', '.join(others[:20]) if others else 'is none at all'}"
        )

    def refute_enqueued(self, task: BaseTask[..., Any] | str, /, **args: Any) -> None:
        """Fail if a job of `task` with these arguments is committed and has not finished."""
        __tracebackhide__ = True
        if found := self.enqueued(task, **args):
            raise AssertionError(f"job {found[0].id} of task {found[0].task!r} is enqueued: {found[0].state}")

    def advance(
        self,
        by: timedelta | None = None,
        *,
        days: float = 0,
        hours: float = 0,
        minutes: float = 0,
        seconds: float = 0,
        until: datetime | None = None,
    ) -> int:
        """Let time pass for jobs and schedules: ``jobq.advance(hours=3)``, then ``jobq.drain()``.

        `by` and the numbers add up; or `until`, an aware datetime. What jobs wait for (their start, a retry), their expiry,
        keys that hold for a period, and rates come that much nearer. Schedules of the application (``@q.schedule``) and of
        the database tick as though a worker had been there all the while: each tick in between becomes a job; their number
        is returned. Schedules begin with the first call. Clocks (``datetime.now()``, ``now()`` in SQL) and finished jobs
        stay as they are. Raises InvalidOption for a time that is not ahead.
        """
        from jobq.testing.clock import Clock

        if self._clock is None:
            self._clock = Clock(self.app, self.connection)
        return self._clock.advance(by, days=days, hours=hours, minutes=minutes, seconds=seconds, until=until)

    def drain(
        self, *, queues: tuple[str, ...] | None = None, with_scheduled: bool = False, max_jobs: int = 10_000
    ) -> Drained:
        """Run every job that is due, and what they enqueue, in this process; return how many ended how.

        `with_scheduled`: run future jobs and retries too, as though their time had come. At most `max_jobs` executions.
        """
        from jobq.worker.inprocess import Drained, drain

        total = Drained(0, 0, 0)
        while True:
            if with_scheduled:
                self._execute(
                    "WITH due AS (UPDATE {0}.job SET run_at = now() WHERE state IN ('ready', 'waiting') AND run_at > now() "
                    "RETURNING queue, group_key, state) "
                    "INSERT INTO {0}.job_turn (queue, group_key) SELECT queue, group_key FROM due WHERE state = 'waiting'"
                )
            left = max_jobs - total.succeeded - total.failed - total.retried
            done = drain(self.app, self.connection, queues=queues, max_jobs=left, within=self._within)
            total = Drained(total.succeeded + done.succeeded, total.failed + done.failed, total.retried + done.retried)
            if not with_scheduled or done == Drained(0, 0, 0):
                return total

    def run(self, job: JobRef[Any] | int, /) -> JobDetail:
        """Run this one job now, whenever it is due, and return its state afterwards. Raises JobNotFound, and
        InvalidOption for a job that has finished or is running.
        """
        from jobq import queries
        from jobq.errors import InvalidOption
        from jobq.worker.inprocess import drain

        job_id = job if isinstance(job, int) else job.id
        row = queries.get_job(self.connection, self._schema, job_id)
        if row.state == "waiting":
            raise InvalidOption(f"job {job_id} waits for the turn of its group: `drain` runs it after those before it")
        if row.state not in ("ready", "scheduled"):
            raise InvalidOption(f"job {job_id} is {row.state}: only a job that waits can be run")
        # First in its lane, and the lane first in its queue. It gets its own values back, which it was enqueued with.
        self._execute("UPDATE {}.job SET run_at = '1970-01-02', priority = 9 WHERE id = %s AND state = 'ready'", job_id)
        try:
            drain(self.app, self.connection, queues=(row.queue,), max_jobs=1, within=self._within)
        finally:
            self._execute(
                "UPDATE {}.job SET priority = %s, run_at = CASE WHEN run_at = '1970-01-02' THEN %s ELSE run_at END "
                "WHERE id = %s",
                row.priority,
                row.run_at,
                job_id,
            )
            self._execute(
                "UPDATE {}.job_history SET priority = %s, run_at = %s WHERE id = %s", row.priority, row.run_at, job_id
            )
        return queries.get_job(self.connection, self._schema, job_id)

    def _stored(self, task: BaseTask[..., Any] | str | None, args: dict[str, Any]) -> dict[str, Any]:
        """Return `args` as the task stores them; values that do not fit its types, as JSON has them."""
        import json

        from pydantic_core import to_jsonable_python

        from jobq.errors import InvalidArguments

        known = self.app.tasks.get(task) if isinstance(task, str) else task
        if known is None:
            return {name: to_jsonable_python(value, bytes_mode="base64") for name, value in args.items()}
        stored: dict[str, Any] = {}
        for name, value in args.items():
            try:
                stored |= json.loads(known.arguments.encode_some({name: value}))
            except InvalidArguments:
                # As text, say, which other producers may have stored.
                if known.arguments.has(name) and value == to_jsonable_python(value, fallback=lambda _: None):
                    stored[name] = value
                else:
                    raise
        return stored

    @property
    def _schema(self) -> str:
        return self.app.settings.schema

    def _execute(self, query: str, *parameters: Any) -> None:
        from psycopg import sql

        composed = sql.SQL(query).format(sql.Identifier(self._schema))
        self.connection.execute(composed, parameters)


def on(app: JobQ, connection: AnyConnection) -> JobqTester:
    """Return a tester for the jobs of `app` inside the open transaction of `connection`, which is rolled back by its owner.

    `connection` is a psycopg Connection that is not in autocommit mode, or a SQLAlchemy Connection, Session or scoped_session
    that uses psycopg; jobq's tables are in its database. Until the tester is closed (it is a context manager), ``submit()``,
    ``ref.status()``, ``ref.result()`` and ``q.connection()`` use this connection too, so that all that the code under test
    does is in the one transaction. ``drain()`` runs jobs in it: what a failed execution of a transactional task did is
    undone, and so is any execution in which a statement failed.

    Limits: no asynchronous connections (``submit_async`` raises UnsupportedConnection), and no other process or thread sees
    these jobs. Raises UnsupportedConnection and ConnectionNotUsable.
    """
    from jobq.worker.within import Within

    driver, alchemy = driver_of(connection)
    if driver.autocommit:
        raise UnsupportedConnection(
            "jobq.on(connection): the connection is in autocommit mode, so nothing could be rolled back; give one that is not"
        )
    tester = JobqTester(app, driver.info.dsn, connection=driver, within=Within(driver, alchemy))
    app.waiting_helps = False
    app._pools = _Borrowed(driver)  # type: ignore[assignment]  # what is asked of pools, it has
    return tester


class _Borrowed:
    """Stands for jobq's pools: lends one connection of the test's."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    @contextmanager
    def connection(self) -> Iterator[psycopg.Connection[Any]]:
        yield self._connection

    def connection_async(self) -> AbstractAsyncContextManager[NoReturn]:
        raise UnsupportedConnection(
            "jobq.on(connection): the test's connection is synchronous, and an asynchronous one would not see its transaction; "
            "enqueue on the connection, or test with the fixture jobq alone"
        )

    def close(self) -> None:
        """Leave the connection to its owner."""

    async def aclose(self) -> None:
        """Leave the connection to its owner."""
