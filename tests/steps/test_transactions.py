"""Transactional steps: sessions and connections, and steps that end their transaction themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from jobq import JobQ, TransactionEnded, current_job, step
from jobq.testing import JobqTester


class Base(DeclarativeBase):
    pass


class Account(Base):
    __tablename__ = "account"
    id: Mapped[int] = mapped_column(primary_key=True)
    cents: Mapped[int]


@pytest.fixture
def tester(database_url: str) -> Iterator[JobqTester]:
    q = JobQ(database_url)
    with JobqTester(q, database_url) as tester:
        tester.connection.execute("CREATE TABLE account (id integer PRIMARY KEY, cents integer NOT NULL)")
        yield tester
    q.close()


def accounts(tester: JobqTester) -> list[tuple[Any, ...]]:
    return tester.connection.execute("SELECT id, cents FROM account ORDER BY id").fetchall()


def run(tester: JobqTester, function: Callable[..., Any], *args: Any) -> Any:
    task = tester.app.task(durable=True, max_attempts=2, backoff=[0])(function)
    job = task.submit(*args)
    for _ in range(3):
        tester.drain(with_scheduled=True)
    return job.result(timeout=0)


once = step.options(transactional=True)


def open_by_session(number: int) -> int:
    session = current_job().session
    session.add(Account(id=number, cents=0))
    session.flush()
    with session.begin_nested():
        session.execute(text("UPDATE account SET cents = cents + 1 WHERE id = :id"), {"id": number})
    return number


async def open_by_async_session(number: int) -> int:
    session = current_job().async_session
    session.add(Account(id=number, cents=0))
    await session.flush()
    async with session.begin_nested():
        await session.execute(text("UPDATE account SET cents = cents + 1 WHERE id = :id"), {"id": number})
    return number


def fail_once() -> None:
    if current_job().attempt == 1:
        raise RuntimeError("after the steps")


def test_the_session_of_a_step(tester: JobqTester) -> None:
    def opens() -> list[int]:
        found = [once.run(open_by_session, number) for number in range(3)]
        fail_once()
        return found

    assert run(tester, opens) == [0, 1, 2]
    assert accounts(tester) == [(0, 1), (1, 1), (2, 1)]


def test_the_async_session_of_a_step(tester: JobqTester) -> None:
    async def opens() -> list[int]:
        found = [await once.run_async(open_by_async_session, number) for number in range(2)]
        found += await step.gather_async(*(once.run_async(open_by_async_session, number) for number in (2, 3)))
        fail_once()
        return found

    assert run(tester, opens) == [0, 1, 2, 3]
    assert accounts(tester) == [(0, 1), (1, 1), (2, 1), (3, 1)]


def unflushed(number: int) -> None:
    current_job().session.add(Account(id=number, cents=5))


async def unflushed_async(number: int) -> None:
    current_job().async_session.add(Account(id=number, cents=5))


def test_a_session_is_flushed_at_the_end(tester: JobqTester) -> None:
    run(tester, lambda_of(lambda: once.run(unflushed, 1)))

    async def later() -> None:
        await once.run_async(unflushed_async, 2)

    run(tester, later)
    assert accounts(tester) == [(1, 5), (2, 5)]


def lambda_of(body: Callable[[], Any]) -> Callable[[], Any]:
    def called() -> Any:
        return body()

    return called


def opens_and_raises(number: int) -> None:
    open_by_session(number)
    raise ValueError("no")


def test_a_step_that_raises_leaves_nothing(tester: JobqTester) -> None:
    def catches() -> str:
        try:
            once.run(opens_and_raises, 1)
        except ValueError as error:
            return str(error)
        return "nothing"

    assert run(tester, catches) == "no"
    assert accounts(tester) == []


def twice(number: int) -> None:
    current_job().session.add(Account(id=number, cents=0))
    current_job().session.flush()
    current_job().connection.execute("INSERT INTO account VALUES (%s, 1)", (number,))


def breaks_a_rule(number: int) -> None:
    for _ in range(2):
        current_job().session.execute(text("INSERT INTO account VALUES (:id, 0)"), {"id": number})


@pytest.mark.parametrize(("function", "kind"), [(twice, psycopg.IntegrityError), (breaks_a_rule, IntegrityError)])
def test_the_error_of_a_statement_is_the_one_that_is_raised(
    tester: JobqTester, function: Callable[[int], None], kind: type[Exception]
) -> None:
    def catches() -> str:
        try:
            once.run(function, 1)
        except kind as error:
            return type(error).__name__
        return "nothing"

    assert run(tester, catches) in ("UniqueViolation", "IntegrityError")
    assert accounts(tester) == []


def commits() -> None:
    open_by_session(1)
    current_job().session.commit()


def commits_the_connection() -> None:
    current_job().connection.execute("INSERT INTO account VALUES (1, 1)")
    current_job().connection.commit()


def rolls_back() -> None:
    open_by_session(1)
    current_job().session.rollback()


def rolls_back_the_connection() -> None:
    current_job().connection.execute("INSERT INTO account VALUES (1, 1)")
    current_job().connection.rollback()


def rolls_back_by_a_statement() -> None:
    current_job().connection.execute("ROLLBACK")
    current_job().connection.execute("INSERT INTO account VALUES (1, 1)")


@pytest.mark.parametrize(
    "function", [commits, commits_the_connection, rolls_back, rolls_back_the_connection, rolls_back_by_a_statement]
)
def test_a_step_must_not_end_its_transaction(tester: JobqTester, function: Callable[[], None]) -> None:
    def ends() -> str:
        try:
            once.run(function)
        except TransactionEnded as error:
            return str(error)
        return "nothing"

    assert "the step ended its transaction by itself" in run(tester, ends)
    assert accounts(tester) == []


async def commits_async() -> None:
    await open_by_async_session(1)
    await current_job().async_session.commit()


async def rolls_back_async() -> None:
    await current_job().async_connection.execute("INSERT INTO account VALUES (1, 1)")
    await current_job().async_connection.rollback()


@pytest.mark.parametrize("function", [commits_async, rolls_back_async])
def test_an_async_step_must_not_end_its_transaction(tester: JobqTester, function: Callable[[], Any]) -> None:
    async def ends() -> str:
        try:
            await once.run_async(function)
        except TransactionEnded as error:
            return str(error)
        return "nothing"

    assert "the step ended its transaction by itself" in run(tester, ends)
    assert accounts(tester) == []


def goes_on_after_a_failed_statement() -> None:
    try:
        current_job().connection.execute("SELECT 1/0")
    except psycopg.Error:
        return


def test_a_failed_statement_that_is_caught(tester: JobqTester) -> None:
    def catches() -> str:
        try:
            once.run(goes_on_after_a_failed_statement)
        except psycopg.Error as error:
            return str(error)
        return "nothing"

    assert "wrap what may fail in connection.transaction()" in run(tester, catches)


kept: list[Any] = []


def keeps() -> None:
    kept[:] = [current_job().connection, current_job()]


def test_the_connection_is_closed_after_the_step(tester: JobqTester) -> None:
    def uses() -> str:
        once.run(keeps)
        try:
            kept[0].execute("INSERT INTO account VALUES (1, 1)")
        except psycopg.OperationalError as error:
            return str(error)
        return "nothing"

    assert "closed" in run(tester, uses)
    assert accounts(tester) == []


def test_the_other_kind_of_connection_is_refused(tester: JobqTester) -> None:
    def wants_async() -> None:
        assert current_job().async_session

    async def wants_sync() -> None:
        assert current_job().connection

    def asks() -> str:
        try:
            once.run(wants_async)
        except Exception as error:
            return str(error)
        return "nothing"

    async def asks_async() -> str:
        try:
            await once.run_async(wants_sync)
        except Exception as error:
            return str(error)
        return "nothing"

    assert run(tester, asks) == "current_job().async_session: the step is a `def`: use current_job().session"
    assert run(tester, asks_async) == "current_job().connection: the step is async: use current_job().async_connection"


def test_a_connection_outside_a_transactional_step(tester: JobqTester) -> None:
    def asks() -> str:
        try:
            current_job().connection.execute("SELECT 1")
        except Exception as error:
            return str(error)
        return "nothing"

    assert "of a transactional step: step.options(transactional=True).run(…)" in run(tester, asks)


def test_a_step_enqueues_jobs_in_its_transaction(tester: JobqTester) -> None:
    @tester.app.task(name="other")
    def other(value: int) -> int:
        return value

    def enqueues() -> list[int]:
        job = current_job()
        return [other.enqueue(job.session, 1).id, other.enqueue(job.connection, 2).id]

    def twice() -> int:
        once.run(enqueues)
        fail_once()
        return len(once.run(enqueues))

    assert run(tester, twice) == 2
    assert tester.connection.execute("SELECT count(*) FROM jobq.job_history WHERE task = 'other'").fetchone() == (4,)
