"""Run one durable job of a test's database to its end, as fast as its waits allow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg import sql
from psycopg.rows import tuple_row

from jobq._worker.inline import drain
from jobq._worker.inline_steps import InlineSteps
from jobq._worker.workflows.inline import run_steps
from jobq.testing.crashes import MOST_ROUNDS, CrashingHost, CrashingSteps, Played, Signals, no_signal
from jobq.testing.scheduled import MAKE_DUE

if TYPE_CHECKING:
    from jobq._worker.inline_transaction import Within
    from jobq.job import NewJob
    from jobq.testing.tester import JobqTester

_WAITS = "SELECT name FROM {}.job_step WHERE job_id = %s AND state = 'waiting' ORDER BY place"


def play(tester: JobqTester, within: Within | None, job: NewJob, signals: Signals, crash: int | None) -> Played:
    """Insert `job`, send `signals`, and run it to its end, with a crash behind its step number `crash`."""
    __tracebackhide__ = True
    app, connection, schema = tester.app, tester.connection, tester.app.settings.schema
    [inserted] = app.insert(connection, [job.with_options(key=None)])
    job_id = inserted.id
    assert job_id is not None  # only a key's holder may be unknown
    for name, payload in signals:
        app.send_signal(connection, job_id, name, payload)
    steps = CrashingSteps(InlineSteps(connection, schema), crash)
    host = CrashingHost(app, steps)
    due = sql.SQL(MAKE_DUE).format(sql.Identifier(schema))
    for _ in range(MOST_ROUNDS):
        done = drain(app, connection, max_jobs=1_000, within=within, steps=steps, step_host=host)
        went_on = run_steps(connection, schema)
        status = app.fetch_status(job_id)
        if status is not None and status.finished:
            return Played(status.state, status.result, status.error, steps.stored)
        if (
            not went_on
            and connection.execute(due).rowcount == 0
            and not (done.succeeded or done.failed or done.retried)
        ):
            break
    with connection.cursor(row_factory=tuple_row) as cursor:
        rows = cursor.execute(sql.SQL(_WAITS).format(sql.Identifier(schema)), (job_id,)).fetchall()
    no_signal(job.task, [name for (name,) in rows])
