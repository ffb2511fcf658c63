"""Inspect and run jobs in tests: on a separate database, or inside a transaction of the test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from datetime import datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self

from jobq._postgres.adapters import driver_of
from jobq.errors import UnsupportedConnection
from jobq.settings import url_of

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg

    from jobq._postgres.adapters import AnyConnection
    from jobq._worker.inline import Drained
    from jobq._worker.inline_transaction import Within
    from jobq.app import JobQ
    from jobq.job import NewJob
    from jobq.jobref import JobRef
    from jobq.queries import JobDetail, JobRow
    from jobq.task import BaseTask
    from jobq.testing.clock import Clock
    from jobq.testing.crashes import Signals
    from jobq.workflow.run import WorkflowRun, WorkflowState


class JobqTester:
    """The value of the fixture `jobq`: the test's database, and an application that runs jobs here.

    Jobs run in the process of the test.
    """

    def __init__(
        self,
        app: JobQ,
        database_url: str,
        *,
        connection: psycopg.Connection[Any] | None = None,
        within: Within | None = None,
    ) -> None:
        from jobq._postgres import connecting

        self.app = app
        """The application, configured for this test's database."""
        self.database_url = database_url
        """URL of this test's database, ``postgresql://…``, for psycopg."""
        self.connection: psycopg.Connection[Any] = (
            connecting.connect(database_url, "testing", autocommit=True) if connection is None else connection
        )
        """A connection in autocommit mode, for reads and for enqueuing.

        For `on`: the given connection.
        """
        self._within = within
        self._pools, self._waiting_helps = app._pools, app.waiting_helps
        self._inner: list[JobqTester] = []
        self._clock: Clock | None = None

    @property
    def sqlalchemy_url(self) -> str:
        """URL of this test's database for SQLAlchemy's ``create_engine``.

        Its form is ``postgresql+psycopg://…``.
        """
        return url_of(self.database_url).replace("postgresql://", "postgresql+psycopg://", 1)

    def on(self, connection: AnyConnection) -> JobqTester:
        """Return a tester for jobs inside the open transaction of `connection`: see `jobq.testing.on`."""
        self._inner.append(on(self.app, connection))
        return self._inner[-1]

    def close(self) -> None:
        """Close the connection.

        With `on`, the connection stays open, and the application uses its own connections again.
        """
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
        """Return the committed, unfinished jobs of `task` with these arguments, oldest first.

        Arguments are compared as JSON, as the task stores them. An argument that is not given may
        have any value. With `on`, jobs of the transaction are found before any commit.

        Raises InvalidArguments if the task has no such argument, or a value cannot be stored.
        """
        from jobq import queries
        from jobq.filters import JobFilter
        from jobq.job import LIVE_STATES

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
        """Fail unless such a job is committed and has not finished; return the oldest one.

        The parameters are those of `enqueued`.
        """
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

        Starts of jobs, retries, expiries, keys that hold for a period, and rates come that much
        nearer. Schedules of the application (``@q.schedule``) and of the database tick as if a
        worker had been running: each tick in between inserts a job. Schedules begin with the first
        call. Clocks (``datetime.now()``, ``now()`` in SQL) and finished jobs do not change.

        Args:
            by: the time to pass. It is added to the other numbers.
            days: days to pass.
            hours: hours to pass.
            minutes: minutes to pass.
            seconds: seconds to pass.
            until: an aware datetime to advance to, instead of the other arguments.

        Returns:
            The number of jobs that schedules have inserted.

        Raises:
            InvalidOption: the time is not in the future.
        """
        from jobq.testing.clock import Clock

        if self._clock is None:
            self._clock = Clock(self.app, self.connection)
        return self._clock.advance(by, days=days, hours=hours, minutes=minutes, seconds=seconds, until=until)

    def drain(
        self, *, queues: tuple[str, ...] | None = None, with_scheduled: bool = False, max_jobs: int = 10_000
    ) -> Drained:
        """Run every due job, and the jobs that they enqueue, in this process.

        Workflows are run to their end, or until they wait for an operator or for a job that is not
        due, as by a worker: maps are expanded, and runs are cancelled by `on_failure` and deadlines.
        Return counts of results.

        Args:
            queues: only these queues; None: all.
            with_scheduled: whether to run future jobs and retries too, as if they were due.
            max_jobs: most executions.
        """
        from jobq._worker.inline import Drained, drain
        from jobq._worker.workflows.inline import run_steps
        from jobq.testing.scheduled import MAKE_DUE

        total = Drained(0, 0, 0)
        while True:
            if with_scheduled:
                self._execute(MAKE_DUE)
            left = max_jobs - total.succeeded - total.failed - total.retried
            done = drain(self.app, self.connection, queues=queues, max_jobs=left, within=self._within)
            total = Drained(total.succeeded + done.succeeded, total.failed + done.failed, total.retried + done.retried)
            went_on = run_steps(self.connection, self._schema) and left > 0
            if not went_on and (not with_scheduled or done == Drained(0, 0, 0)):
                return total

    def run(self, job: JobRef[Any] | int, /) -> JobDetail:
        """Run this one job now, even if it is not due, and return its state afterwards.

        Raises JobNotFound. Raises InvalidOption if the job has finished or is running.
        """
        from jobq import queries
        from jobq._worker.inline import drain
        from jobq.errors import InvalidOption

        job_id = job if isinstance(job, int) else job.id
        row = queries.get_job(self.connection, self._schema, job_id)
        if row.state == "waiting":
            raise InvalidOption(f"job {job_id} waits for the turn of its group: `drain` runs it after those before it")
        if row.state not in ("ready", "scheduled"):
            raise InvalidOption(f"job {job_id} is {row.state}: only a job that waits can be run")
        # It is first in its lane, and its lane is first in its queue. Its original values are
        # restored.
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

    def assert_replays(
        self,
        job: NewJob,
        *,
        signals: Signals = (),
        before_each: Callable[[], object] | None = None,
        same: Callable[[Any, Any], object] | None = None,
        shuffle: bool = False,
    ) -> int:
        """Fail unless a durable task ends as without a crash if it crashes behind any of its steps::

            jobq.assert_replays(order.job(7), signals=[("approval", Approval("ada"))])

        The job is run to its end once without a crash, then once for each write of a step with a
        crash behind it: the task is called again, and the steps that are stored are not. So the functions of
        its steps are called in each run. Sleeps end at once, and waits time out at once unless their
        signal is given.

        Args:
            job: ``task.job(…)``. Its key, if it has one, is left out.
            signals: names and payloads, sent before the job starts.
            before_each: called before each run: resets what the steps have changed.
            same: called with the results of two runs as JSON types, returns whether they are the same.
                Default: they are equal.
            shuffle: let the branches of ``step.gather`` begin in a random order, another one in each run.

        Returns:
            The number of crashes.

        Raises:
            AssertionError: a run has ended otherwise or has come to other steps, or the job waits for a
                signal that is not given.
        """
        from jobq.testing.crashes import check_crashes
        from jobq.testing.played import play

        __tracebackhide__ = True
        return check_crashes(
            job.task,
            lambda crash: play(self, self._within, job, signals, crash),
            before_each=before_each,
            same=same,
            shuffle=shuffle,
        )

    def assert_workflow(
        self, name: str, *, key: str | None = None, state: WorkflowState | None = None
    ) -> WorkflowRun[Any]:
        """Fail unless there is a committed run of the workflow `name`; return the newest.

        Args:
            name: the workflow's name.
            key: its idempotency key; None: any.
            state: its state, such as ``"succeeded"`` or ``"blocked"``; None: any.
        """
        from jobq import queries

        __tracebackhide__ = True
        runs = queries.workflows(self.connection, self._schema, name=name, limit=1000)
        newest = next((each for each in runs if key is None or each.key == key), None)
        if newest is None:
            others = queries.workflow_names(self.connection, self._schema)
            raise AssertionError(
                f"no run of workflow {name!r}{'' if key is None else f' with key {key!r}'} is enqueued and committed; "
                f"there {'are runs of: ' + ', '.join(others[:20]) if others else 'is none at all'}"
            )
        run = self.app.workflow_run(newest.id)
        if state is not None and (found := run.state()) != state:
            raise AssertionError(f"run {run.id} of workflow {name!r} is {found}, not {state}: {self.node_states(run)}")
        return run

    def node_states(self, run: WorkflowRun[Any] | int, /) -> dict[str, str]:
        """Return the states of a run's nodes by their names, in the order in which they were made.

        A node that has not ended has the state of its job, or ``waiting`` for its parents. A map is
        ``running`` while it has items. Raises WorkflowNotFound.
        """
        from jobq import queries
        from jobq.errors import WorkflowNotFound

        run_id = run if isinstance(run, int) else run.id
        found = queries.get_workflow(self.connection, self._schema, run_id, limit=100_000, explain=0)
        if found is None:
            raise WorkflowNotFound(f"there is no workflow run {run_id}")
        return {node.name: node.state for node in found.nodes}

    def _stored(self, task: BaseTask[..., Any] | str | None, args: dict[str, Any]) -> dict[str, Any]:
        """Return `args` as the task stores them; values that do not fit its types stay as JSON."""
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
                # For example as text, which other producers may have stored.
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
    """Return a tester for the jobs of `app` inside the open transaction of `connection`.

    The owner of the connection rolls the transaction back. Until the tester is closed (it is a
    context manager), ``submit()``, ``ref.status()``, ``ref.result()`` and ``q.connection()`` use
    this connection too, so everything that the code under test does is in one transaction.
    ``drain()`` runs jobs in it. It undoes the effects of a failed execution of a transactional
    task, and of any execution in which a statement failed.

    Limits: asynchronous connections are not supported (``submit_async`` raises
    UnsupportedConnection), and no other process or thread sees these jobs.

    Args:
        app: the application.
        connection: a psycopg Connection that is not in autocommit mode, or a SQLAlchemy
            Connection, Session or scoped_session that uses psycopg. Its database has jobq's
            tables.

    Raises:
        UnsupportedConnection: the connection is of another kind.
        ConnectionNotUsable: the connection is closed, or its transaction has failed.
    """
    from jobq._worker.inline_transaction import Within

    driver, alchemy = driver_of(connection)
    if driver.autocommit:
        raise UnsupportedConnection(
            "jobq.on(connection): the connection is in autocommit mode, so nothing could be rolled back; use one that is not"
        )
    tester = JobqTester(app, driver.info.dsn, connection=driver, within=Within(driver, alchemy))
    app.waiting_helps = False
    app._pools = _Borrowed(driver)  # type: ignore[assignment]  # what is asked of pools, it has
    return tester


class _Borrowed:
    """Replaces jobq's pools: lends one connection of the test."""

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
