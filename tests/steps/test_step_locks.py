"""What many jobs at once must not do to each other: deadlocks, and wakes that wait behind one locked job."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from jobq import operations
from jobq._worker.database import Database
from jobq._worker.runner.step_thread import StepThread
from jobq._worker.workflows.wakeups import HELD_FOR, Wakeups
from jobq.settings import Settings
from jobq.steps.store import Holder, NewStep, StepKey, TakeSignal, WriteSteps
from jobq.steps.suspension import ExecutionLost
from tests.support.jobs import Jobs
from tests.support.waiting import wait_until
from tests.support.workflows.waits import Execution, add, send, signal_key, wake

Conn = psycopg.Connection[Any]
JOBS, ROUNDS = 40, 25


@pytest.fixture
def db(jobs: Jobs, database_url: str) -> Iterator[Conn]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


def test_writers_enders_and_operators_of_the_same_jobs_do_not_deadlock(db: Conn, database_url: str) -> None:
    """Steps of many jobs in one statement, in any order, while the jobs are put back, woken, cancelled, retried, deleted."""
    ids = list(add(db, JOBS))
    before = db.execute("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()").fetchone()
    stores = [StepThread(Settings(database_url=database_url)) for _ in range(2)]
    errors: list[BaseException] = []
    lock = threading.Lock()
    held: dict[int, Execution] = {}

    def works(connection: Conn, source: random.Random, number: int) -> None:
        """Claim, write steps and ask for signals in a random order, and put back some."""
        for job in source.sample(ids, JOBS):
            one = Execution.of(connection, job)
            if one.holder is not None:
                with lock:
                    held[job] = one
        with lock:
            mine = source.sample(sorted(held), len(held))
            holders: list[Holder] = [found for job in mine if (found := held[job].holder) is not None]
        requests = []
        for holder in holders:
            # Of both stores: as an execution that was lost, and the one that has its job.
            step = NewStep(key=StepKey("run", "work", "0" * 16, number % 5), place=1, state="done", result="1")
            requests += [store.submit(holder, WriteSteps([step])) for store in source.sample(stores, 2)]
            requests.append(source.choice(stores).submit(holder, TakeSignal(signal_key("go", number), 2, None)))
        for request in requests:
            if not isinstance(request.exception(60), (ExecutionLost, type(None))):
                request.result()
        for job in mine[::2]:
            with lock:
                one = held.pop(job) if job in held else Execution(job)
            one.asked = "waiting"
            one.put_back(connection)

    def operates(connection: Conn, source: random.Random, number: int) -> None:
        chosen = source.sample(ids, JOBS)
        operations.cancel(connection, "jobq", chosen, actor="test")
        operations.retry(connection, "jobq", chosen, actor="test")
        if number == ROUNDS - 1:
            operations.delete(connection, "jobq", chosen[:5], actor="test")

    def signals(connection: Conn, source: random.Random, number: int) -> None:
        with connection.transaction():
            for job in source.sample(ids, 10):
                send(connection, job)
        wake(connection)

    def repeat(do: Callable[[Conn, random.Random, int], None], seed: int) -> None:
        try:
            with psycopg.connect(database_url, autocommit=True) as connection:
                for number in range(ROUNDS):
                    do(connection, random.Random(seed * 1000 + number), number)
        except BaseException as error:
            errors.append(error)

    threads = [
        threading.Thread(target=repeat, args=(do, seed))
        for seed, do in enumerate((works, works, operates, signals, signals))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    assert not errors, errors
    assert not any(thread.is_alive() for thread in threads)
    # The server reports what a session has counted when it ends, or after a second.
    after = db.execute(
        "SELECT pg_stat_clear_snapshot(), deadlocks FROM pg_stat_database WHERE datname = current_database()"
    ).fetchone()
    assert before is not None
    assert after is not None
    assert after[1] == before[0]
    assert db.execute("SELECT count(*) >= 40 FROM jobq.job_step WHERE kind = 'run'").fetchone() == (True,)
    assert db.execute("SELECT count(*) >= 10 FROM jobq.job_signal WHERE taken_at IS NOT NULL").fetchone() == (True,)


def test_a_locked_job_is_looked_at_again_soon_and_holds_up_no_other(db: Conn, database_url: str) -> None:
    locked, other = add(db, 2)
    for job in (locked, other):
        one = Execution.of(db, job)
        assert one.ask(db) == "waiting"
        one.put_back(db)
    while wake(db):
        pass

    def due() -> set[int]:
        return {id for (id,) in db.execute("SELECT id FROM jobq.job WHERE run_at <= clock_timestamp()")}

    async def look() -> None:
        connection = await Database(Settings(database_url=database_url)).connect("test")
        try:
            wakeups = Wakeups("jobq")

            def pause() -> float:
                return -1.0 if wakeups.pause is None else wakeups.pause

            assert pause() == -1.0
            send(db, locked)
            with psycopg.connect(database_url) as operator:
                operator.execute("SELECT FROM jobq.job WHERE id = %s FOR UPDATE", (locked,))
                assert not await wakeups.step(connection)
                assert 0.0 <= pause() <= HELD_FOR
                send(db, other)
                assert await wakeups.step(connection)
                assert due() == {other}
            wait_until(lambda: pause() == 0.0, what="the next look")
            assert await wakeups.step(connection)
            assert due() == {locked, other}
            assert pause() == -1.0
        finally:
            await connection.close()

    asyncio.run(look())
