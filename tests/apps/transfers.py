"""An application of transactional tasks. Each success leaves one row in table `effect`, which has no unique constraint."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sys
import threading
import time
from typing import Any

import psycopg
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from jobq import Backoff, Cancel, Fail, JobQ, Snooze, current_job

q = JobQ()

FAST = Backoff(base=0.01, cap=0.05)
SLOW_COMMIT = """
    CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(new.note::float); RETURN NULL; END $$;
    CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON effect DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW WHEN (new.note ~ '^[0-9.]+$') EXECUTE FUNCTION slow();
"""
_EFFECT = "INSERT INTO effect (job, attempt, note) VALUES (%s, %s, %s)"


def create(connection: psycopg.Connection[Any]) -> None:
    """Make the tables that the tasks use."""
    connection.execute(
        "CREATE TABLE effect (job bigint, attempt int, note text, at timestamptz DEFAULT clock_timestamp())"
    )
    connection.execute("CREATE TABLE account (name text PRIMARY KEY, balance int NOT NULL CHECK (balance >= 0))")


def effect(note: str = "") -> None:
    job = current_job()
    job.connection.execute(_EFFECT, (job.id, job.attempt, note))


async def effect_async(note: str = "") -> None:
    job = current_job()
    await job.async_connection.execute(_EFFECT, (job.id, job.attempt, note))


@q.task
def plain() -> str:
    """Not transactional."""
    current_job().connection.execute("SELECT 1")
    return "never"


@q.task(transactional=True, backoff=FAST)
def act(note: str = "") -> str:
    effect(note)
    return note


@q.task(transactional=True, backoff=FAST)
async def act_async(note: str = "") -> str:
    await effect_async(note)
    return note


@q.task(transactional=True, backoff=FAST)
def session_act(how: str) -> Any:
    """Use the session, in one of several ways."""
    session: Session = current_job().session
    session.execute(
        text("INSERT INTO effect (job, attempt, note) VALUES (:job, :attempt, :note)"),
        {"job": current_job().id, "attempt": current_job().attempt, "note": how},
    )
    match how:
        case "commit":
            session.commit()
        case "begin":
            with session.begin():
                pass
        case "rollback":
            session.rollback()
        case "savepoint":
            with session.begin_nested() as nested:
                session.execute(text("INSERT INTO effect (job, note) VALUES (0, 'undone')"))
                nested.rollback()
        case "swallow" if current_job().attempt == 1:
            try:
                session.execute(text("SELECT 1 / 0"))
            except Exception:
                session.rollback()
        case "error" if current_job().attempt == 1:
            session.execute(text("SELECT 1 / 0"))
        case "same":
            # What the connection does is seen by the session: one transaction.
            current_job().connection.execute("UPDATE effect SET note = 'both' WHERE job = %s", (current_job().id,))
            return session.scalar(text("SELECT note FROM effect WHERE job = :job"), {"job": current_job().id})
    return how


@q.task(transactional=True, backoff=FAST)
async def session_act_async(how: str) -> Any:
    session: AsyncSession = current_job().async_session
    await session.execute(
        text("INSERT INTO effect (job, attempt, note) VALUES (:job, :attempt, :note)"),
        {"job": current_job().id, "attempt": current_job().attempt, "note": how},
    )
    match how:
        case "commit":
            await session.commit()
        case "rollback":
            await session.rollback()
        case "savepoint":
            async with session.begin_nested() as nested:
                await session.execute(text("INSERT INTO effect (job, note) VALUES (0, 'undone')"))
                await nested.rollback()
        case "error" if current_job().attempt == 1:
            await session.execute(text("SELECT 1 / 0"))
    return how


@q.task(transactional=True, backoff=FAST, max_attempts=3)
def end_it(how: str) -> str:
    """End the transaction, or try to."""
    effect(how)
    connection = current_job().connection
    match how:
        case "commit()":
            connection.commit()
        case "rollback()":
            connection.rollback()
        case "with":
            with connection:
                pass
        case "COMMIT":
            connection.execute("COMMIT")
        case "ROLLBACK":
            connection.execute("ROLLBACK")
        case "COMMIT AND CHAIN":
            connection.execute("COMMIT AND CHAIN")
        case "COMMIT, and go on":
            connection.execute("COMMIT")
            effect("after the commit")
        case "swallowed commit()":
            try:
                connection.commit()
            except Exception as error:
                return type(error).__name__
        case "close()":
            connection.close()
    return how


@q.task(transactional=True, backoff=FAST)
def swallow_error() -> int:
    """In the first attempt, go on after a failed statement."""
    effect()
    attempt = current_job().attempt
    if attempt == 1:
        with contextlib.suppress(psycopg.Error):
            current_job().connection.execute("SELECT 1 / 0")
    return attempt


@q.task(transactional=True, backoff=FAST, max_attempts=3)
def stop(how: str) -> Any:
    """Leave an effect, then end in some way other than success. The second time, succeed."""
    effect(how)
    if current_job().headers.get("again") is None and current_job().attempt > 1:
        return how
    match how:
        case "error":
            raise RuntimeError(how)
        case "cancel":
            raise Cancel
        case "fail":
            raise Fail(how)
        case "exit":
            sys.exit(how)
        case "crash":
            os._exit(3)
        case "nul":
            return "a\x00b"
        case "not json":
            return object()
        case "savepoint":
            connection = current_job().connection
            try:
                with connection.transaction():
                    connection.execute("INSERT INTO effect (job, note) VALUES (0, 'undone')")
                    raise ValueError
            except ValueError:
                return how
        case "snooze" if not _seen():
            raise Snooze(0.01)
    return how


def _seen() -> bool:
    """Whether this job was here before: kept by a sequence, which no rollback takes back."""
    row = current_job().connection.execute("SELECT nextval('seen')").fetchone()
    return row is not None and row[0] > 1


@q.task(transactional=True, timeout=0.3, backoff=FAST, max_attempts=1)
def too_slow(in_database: bool) -> None:
    effect()
    if in_database:
        current_job().connection.execute("SELECT pg_sleep(600)")
    time.sleep(600)


@q.task(transactional=True, timeout=0.3, backoff=FAST, max_attempts=1)
async def too_slow_async(in_database: bool) -> None:
    await effect_async()
    if in_database:
        await current_job().async_connection.execute("SELECT pg_sleep(600)")
    await asyncio.sleep(600)


@q.task(transactional=True, backoff=FAST)
def linger(seconds: float) -> None:
    """An effect, then a wait that heeds nothing."""
    effect()
    announce("lingers")
    time.sleep(seconds)


@q.task(transactional=True)
async def linger_async(seconds: float) -> None:
    await effect_async()
    await asyncio.to_thread(announce, "lingers")
    await asyncio.sleep(seconds)


def announce(note: str) -> None:
    """Tell the test, on a connection beside the transaction."""
    with psycopg.connect(os.environ["JOBQ_DATABASE_URL"], autocommit=True) as connection:
        connection.execute("INSERT INTO ran (job, attempt, note) VALUES (%s, 0, %s)", (current_job().id, note))


@q.task(transactional=True, backoff=FAST)
def outbox(numbers: list[int]) -> None:
    """Enqueue on the transaction's connection; fail at a negative number, after the enqueues."""
    job = current_job()
    q.enqueue_many(job.connection, [act.options(key=f"outbox:{n}").job(str(n)) for n in numbers if n >= 0])
    if min(numbers) < 0 and job.attempt == 1:
        raise RuntimeError("a negative number")


@q.task(transactional=True, backoff=FAST)
async def outbox_async(numbers: list[int]) -> None:
    job = current_job()
    for number in numbers:
        await act_async.enqueue_async(job.async_session, str(number))


@q.task(transactional=True, backoff=FAST)
def litter(name: str) -> dict[str, str]:
    """Return what is left in the session by former jobs, and leave the same."""
    connection = current_job().connection
    found = {}
    for setting in (
        *("search_path", "work_mem", "default_transaction_isolation", "transaction_isolation", "role"),
        *("enable_seqscan", "plan_cache_mode", "idle_in_transaction_session_timeout"),
    ):
        row = connection.execute("SELECT current_setting(%s)", (setting,)).fetchone()
        found[setting] = str(row[0] if row else "")
    rows = connection.execute(
        "SELECT (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()), "
        "(SELECT count(*) FROM pg_class WHERE relpersistence = 't'), (SELECT count(*) FROM pg_cursors "
        "WHERE is_holdable), (SELECT count(*) FROM pg_listening_channels()), pg_backend_pid(), "
        "(SELECT application_name FROM pg_stat_activity WHERE pid = pg_backend_pid())"
    ).fetchone()
    assert isinstance(rows, tuple)
    found |= dict(zip(("locks", "tables", "cursors", "channels", "pid", "name"), map(str, rows), strict=True))
    connection.execute("SET search_path = pg_catalog, public; SET work_mem = '1MB'")
    connection.execute("SET default_transaction_isolation = 'serializable'; SELECT pg_advisory_lock(4711)")
    connection.execute("CREATE TEMP TABLE litter (x int); LISTEN litter")
    connection.execute("DECLARE litter CURSOR WITH HOLD FOR SELECT 1")
    connection.row_factory = psycopg.rows.dict_row  # type: ignore[assignment]
    return found


@q.task(transactional=True, backoff=FAST)
def leave_a_thread() -> None:
    """Return while a thread still executes a statement on the connection."""
    connection = current_job().connection
    threading.Thread(target=lambda: connection.execute("SELECT pg_sleep(60)"), daemon=True).start()
    while connection.info.transaction_status != psycopg.pq.TransactionStatus.ACTIVE:
        time.sleep(0.001)


@q.task(transactional=True, backoff=FAST)
async def leave_a_task() -> None:
    """The same with a task of the event loop."""
    connection = current_job().async_connection
    _left.append(asyncio.create_task(connection.execute("SELECT pg_sleep(60)")))
    while connection.info.transaction_status != psycopg.pq.TransactionStatus.ACTIVE:  # noqa: ASYNC110  # there is no event
        await asyncio.sleep(0)


_left: list[asyncio.Task[Any]] = []


@q.task(transactional=True, backoff=FAST, max_attempts=20)
def transfer(source: str, target: str, amount: int) -> None:
    connection = current_job().connection
    connection.execute("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
    connection.execute("UPDATE account SET balance = balance - %s WHERE name = %s", (amount, source))
    connection.execute("UPDATE account SET balance = balance + %s WHERE name = %s", (amount, target))
    effect()


@q.task(transactional=True, backoff=FAST, max_attempts=30)
def chaotic(number: int) -> int:
    """A little work, with a chance to be caught anywhere."""
    job = current_job()
    time.sleep(random.random() * 0.01)
    effect(f"n{number}")
    if number % 10 == 5:
        act.enqueue(job.connection, f"child of {number}")
    time.sleep(random.random() * 0.01)
    return number


@q.task(transactional=True, backoff=FAST, max_attempts=30)
async def chaotic_async(number: int) -> int:
    await asyncio.sleep(random.random() * 0.01)
    await effect_async(f"n{number}")
    await asyncio.sleep(random.random() * 0.01)
    return number
