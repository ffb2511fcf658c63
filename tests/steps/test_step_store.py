"""The runner's step thread, and the log of one execution, against a server that refuses, waits, or is away."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import psycopg
import pytest

from jobq import current_job, migrate, step
from jobq._app.step_host import StepHost
from jobq._worker.runner.step_thread import StepThread
from jobq.context import CurrentJob, use_current_job
from jobq.errors import NotDurable
from jobq.settings import Settings
from jobq.steps.log import StepLog
from jobq.steps.store import Holder, LoadSteps, NewStep, StepKey, TakeSignal, WriteSteps
from jobq.steps.suspension import ExecutionLost
from tests.apps import durable as apps
from tests.support.jobs import Jobs
from tests.support.servers.postgres import OwnServer
from tests.support.waiting import wait_until
from tests.support.workflows.waits import Execution, add, signal_key

Conn = psycopg.Connection[Any]
REFUSES = """
CREATE FUNCTION public.refuses() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'not this one';
END $$;
CREATE TRIGGER refuses BEFORE INSERT ON jobq.job_step FOR EACH ROW WHEN (NEW.name = 'bad') EXECUTE FUNCTION public.refuses();
"""
END_STEPS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE application_name = 'jobq steps' AND datname = current_database()
"""


@pytest.fixture
def db(jobs: Jobs, database_url: str) -> Iterator[Conn]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def store(database_url: str) -> StepThread:
    return StepThread(Settings(database_url=database_url))


def holders(db: Conn, count: int) -> list[Holder]:
    """Claim new jobs."""
    found = [Execution.of(db, job).holder for job in add(db, count)]
    return [each for each in found if each is not None]


def done(name: str = "work", place: int = 1) -> NewStep:
    return NewStep(key=StepKey("run", name, "0" * 16, 0), place=place, state="done", result="1")


def names(db: Conn) -> list[str]:
    return [name for (name,) in db.execute("SELECT name FROM jobq.job_step ORDER BY name")]


def write(store: StepThread, holder: Holder, *steps: NewStep) -> Future[Any]:
    return store.submit(holder, WriteSteps(list(steps or [done()])))


def test_a_row_that_the_database_refuses_stops_no_other(db: Conn, store: StepThread) -> None:
    db.execute(REFUSES.encode())
    *most, last = holders(db, 20)
    with db.transaction():
        # So that they are in one batch.
        db.execute("LOCK TABLE jobq.job_step IN SHARE MODE")
        first = write(store, most[0])
        others = [write(store, each) for each in most[1:]]
        bad = write(store, last, done("bad"))
    assert [each.result(20) for each in [first, *others]] == [None] * 19
    with pytest.raises(psycopg.errors.RaiseException, match="not this one"):
        bad.result(20)
    assert names(db) == ["work"] * 19


def test_a_value_that_cannot_be_sent_stops_no_other(db: Conn, store: StepThread) -> None:
    first, second = holders(db, 2)
    with db.transaction():
        db.execute("LOCK TABLE jobq.job_step IN SHARE MODE")
        good = write(store, first)
        bad = write(store, second, done("\ud800"))
        also = store.submit(first, WriteSteps([done("also", 2)]))
    assert (good.result(20), also.result(20)) == (None, None)
    with pytest.raises(UnicodeEncodeError):
        bad.result(20)


def test_a_step_that_is_locked_holds_up_no_other_job(db: Conn, database_url: str, store: StepThread) -> None:
    """The transaction of a lost runner has stored the step, and does not end."""
    mine, *others = holders(db, 5)
    with psycopg.connect(database_url) as lost:
        assert Execution(mine.job_id, mine).commit_steps(lost, done())
        waiting = write(store, mine)
        assert [write(store, each).result(20) for each in others] == [None] * 4
        signal = store.submit(others[0], TakeSignal(signal_key("go"), 2, None))
        assert signal.result(20).state == "waiting"
        assert not waiting.done()
        lost.rollback()
    assert waiting.result(20) is None


def test_a_job_that_is_locked_holds_up_no_other_wait(db: Conn, database_url: str, store: StepThread) -> None:
    mine, other = holders(db, 2)
    with psycopg.connect(database_url) as operator:
        operator.execute("SELECT FROM jobq.job WHERE id = %s FOR UPDATE", (mine.job_id,))
        waiting = store.submit(mine, TakeSignal(signal_key("go"), 1, None))
        assert store.submit(other, TakeSignal(signal_key("go"), 1, None)).result(20).state == "waiting"
        assert not waiting.done()
    assert waiting.result(20).state == "waiting"


def test_the_job_is_taken_over_while_its_step_waits_to_be_written(db: Conn, store: StepThread) -> None:
    mine, other = holders(db, 2)
    with db.transaction():
        db.execute("LOCK TABLE jobq.job_step IN SHARE MODE")
        late, fine = write(store, mine), write(store, other)
        db.execute("UPDATE jobq.job SET claims = claims + 1 WHERE id = %s", (mine.job_id,))
    assert fine.result(20) is None
    with pytest.raises(ExecutionLost):
        late.result(20)


def test_requests_wait_for_a_server_that_is_read_only(
    db: Conn, store: StepThread, caplog: pytest.LogCaptureFixture
) -> None:
    """A primary that has become a standby: the same host may take writes again, or another one of the URL."""
    [mine] = holders(db, 1)
    assert store.submit(mine, LoadSteps()).result(20) == []
    (name,) = db.execute("SELECT quote_ident(current_database())").fetchone() or ("",)
    db.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on".encode())

    db.execute(END_STEPS.encode())
    waiting = write(store, mine)
    wait_until(
        lambda: any("read-only" in str(vars(each).get("error")) for each in caplog.records),
        what="a read-only server's answer",
    )
    assert not waiting.done()
    db.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only".encode())
    assert waiting.result(20) is None


def test_requests_wait_for_a_server_that_is_away(caplog: pytest.LogCaptureFixture) -> None:
    server = OwnServer()
    try:
        migrate.upgrade(server.url)
        with psycopg.connect(server.url, autocommit=True) as db:
            [mine] = holders(db, 1)
        store = StepThread(Settings(database_url=server.url))
        assert store.submit(mine, LoadSteps()).result(20) == []
        server.stop_at_once()
        requests = [write(store, mine), store.submit(mine, TakeSignal(signal_key("go"), 2, 60.0))]
        told = "no connection for the steps of durable jobs"
        wait_until(lambda: sum(each.message == told for each in caplog.records) >= 3, what="three tries")
        assert not any(each.done() for each in requests)
        server.restart()
        assert requests[0].result(30) is None
        assert requests[1].result(30).state == "waiting"
    finally:
        server.close()


# --- the log of one execution --------------------


def log_of(store: StepThread, holder: Holder, *, is_async: bool) -> StepLog:
    return StepLog(
        holder=holder,
        task="task",
        store=store,
        is_async=is_async,
        max_result_bytes=10_000,
        is_cancelled=lambda: False,
        is_stopping=lambda: False,
        host=StepHost(apps.q),
    )


def running(log: StepLog) -> CurrentJob:
    return CurrentJob(id=log.holder.job_id, task="task", queue="default", attempt=1, max_attempts=3, steps=log)


def fails() -> int:
    raise ValueError("no")


def one() -> int:
    return 1


async def one_async() -> int:
    return 1


def test_a_caught_failure_is_stored_although_the_step_behind_it_is_refused(db: Conn, store: StepThread) -> None:
    """A replay must raise it again: the task has gone another way by it."""
    db.execute(REFUSES.encode())
    [mine] = holders(db, 1)
    with use_current_job(running(log_of(store, mine, is_async=False))):
        with pytest.raises(ValueError, match="no"):
            step.run(fails)
        with pytest.raises(psycopg.errors.RaiseException):
            step.options(name="bad").run(one)
        assert step.options(name="good").run(one) == 1
        assert current_job().id == mine.job_id
    found = db.execute("SELECT name, state FROM jobq.job_step ORDER BY name").fetchall()
    # That of the refused step is a caught failure, too; its own row is refused each time.
    assert ("fails", "failed") in found
    assert ("good", "done") in found


def test_a_cancelled_coroutine_stores_the_step_that_it_has_done(db: Conn, store: StepThread) -> None:
    """A worker that shuts down: the step is not done again by the next one."""
    [mine] = holders(db, 1)

    async def task() -> None:
        await step.run_async(one_async)

    async def cancelled() -> None:
        doing = asyncio.ensure_future(task())
        # `one_async` does not wait: after this turn of the loop, its row waits for the lock.
        for _ in range(10):
            await asyncio.sleep(0)
        assert not doing.done()
        doing.cancel()
        await asyncio.sleep(0)
        assert not doing.done()
        db.execute("COMMIT")
        with pytest.raises(asyncio.CancelledError):
            await doing

    log = log_of(store, mine, is_async=True)
    db.execute("BEGIN")
    db.execute("LOCK TABLE jobq.job_step IN SHARE MODE")
    with use_current_job(running(log)):
        asyncio.run(cancelled())
    assert names(db) == ["one_async"]


def test_a_step_in_a_process_that_a_task_has_forked_is_refused(db: Conn, store: StepThread) -> None:
    [mine] = holders(db, 1)
    pid = os.fork()
    if pid == 0:
        try:
            store.submit(mine, LoadSteps())
        except NotDurable:
            os._exit(0)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
