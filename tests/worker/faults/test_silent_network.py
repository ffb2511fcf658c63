"""A network that falls silent: no wait of the worker's outlasts its deadline, and every stall is told, once."""

from __future__ import annotations

import asyncio
import json
import select
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from jobq._worker.database import Connection, Database, ServerTimeout, fetch
from jobq._worker.database_errors import ErrorKind, classify
from jobq._worker.timeouts import lease_timeouts
from jobq.settings import Settings
from tests.apps import plain as apps
from tests.support.checks import some
from tests.support.jobs import Jobs
from tests.support.servers.silence import Proxy
from tests.support.waiting import wait_until
from tests.support.workers import WorkerProcess

StartWorker = Callable[..., WorkerProcess]
TERMS = lease_timeouts(2.0)


@pytest.fixture
def proxy(database_url: str) -> Iterator[Proxy]:
    made = Proxy(database_url)
    yield made
    made.close()


def messages(worker: WorkerProcess, text: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in worker.log.splitlines() if line.startswith("{")]
    return [line for line in lines if line["message"] == text]


async def through(proxy: Proxy, patience: float) -> Connection:
    return await Database(Settings(database_url=proxy.url)).connect("test", patience=patience)


async def test_a_statement_without_an_answer_ends_its_connection(proxy: Proxy) -> None:
    connection = await through(proxy, 0.3)
    await fetch(connection, "jobq", "queue_rules")
    proxy.silence()
    with pytest.raises(ServerTimeout, match=r"no answer to statement queue_rules within 0\.3 s") as raised:
        await fetch(connection, "jobq", "queue_rules")
    assert classify(raised.value, None) is ErrorKind.CONNECTION
    assert connection.closed


async def test_a_commit_without_an_answer_ends_its_connection(proxy: Proxy) -> None:
    connection = await through(proxy, 0.3)

    async def silenced_before_the_commit() -> None:
        async with connection.transaction():
            await fetch(connection, "jobq", "queue_rules")
            proxy.silence()

    with pytest.raises(ServerTimeout):
        await silenced_before_the_commit()
    assert connection.closed


async def test_a_wait_that_is_cancelled_ends_at_once(proxy: Proxy) -> None:
    """psycopg by itself opens a second connection to cancel the statement, and waits for that one and for the first."""
    connection = await through(proxy, 60)
    proxy.silence()
    statement = asyncio.ensure_future(fetch(connection, "jobq", "queue_rules"))
    while connection.since is None:  # noqa: ASYNC110  (it is the connection's own note, not an event)
        await asyncio.sleep(0)
    begun = time.monotonic()
    statement.cancel()
    with pytest.raises(asyncio.CancelledError):
        await statement
    # psycopg's own way takes 10 s here.
    assert time.monotonic() - begun < 5
    assert connection.closed


async def test_the_server_is_the_first_to_end_a_statement(database_url: str, conn: psycopg.Connection[Any]) -> None:
    """So that what is slow is named by the side that knows why; and a lock of another session does not hold the rescuer."""
    conn.execute("LOCK TABLE jobq.worker")
    connection = await Database(Settings(database_url=database_url)).connect("test", TERMS)
    try:
        with pytest.raises(psycopg.errors.LockNotAvailable):
            await fetch(connection, "jobq", "worker_peers")
        assert TERMS.statement < TERMS.patience
        assert not connection.closed
    finally:
        await connection.close()


def test_a_worker_outlasts_the_silence_and_tells_of_it_once(proxy: Proxy, jobs: Jobs, worker: StartWorker) -> None:
    running = worker(database_url=proxy.url, env={"JOBQ_LOG_FORMAT": "json"})
    wait_until(lambda: messages(running, "working"), what="the worker")
    before = apps.noop.enqueue(jobs.connection).id
    jobs.wait(before)
    proxy.silence()
    during = apps.noop.enqueue(jobs.connection).id
    wait_until(
        lambda: {line["stalled"] for line in messages(running, "stalled")} >= {"claims", "heartbeats"},
        timeout=60,
        what="the stalls",
    )
    causes = {line["stalled"]: line["cause"] for line in messages(running, "stalled")}
    assert "has been running for" in causes["claims"] or "waiting for a connection" in causes["claims"]
    proxy.heal()
    assert jobs.wait(during, timeout=90)["state"] == "succeeded"
    wait_until(
        lambda: {line["stalled"] for line in messages(running, "a stall is over")} >= {"claims", "heartbeats"},
        timeout=60,
        what="their end",
    )
    assert all(line["seconds"] > 5 for line in some(messages(running, "a stall is over")))
    for what in ("claims", "heartbeats"):
        assert len([line for line in messages(running, "stalled") if line["stalled"] == what]) == 1
    # Nothing was told at each attempt.
    assert len(messages(running, "no heartbeat")) <= 3
    assert len(messages(running, "the database does not answer")) <= 3


def test_a_worker_told_to_stop_in_the_silence_does_so(proxy: Proxy, jobs: Jobs, worker: StartWorker) -> None:
    running = worker("--shutdown-timeout", "1", database_url=proxy.url)
    job = apps.stubborn.enqueue(jobs.connection, 600.0).id
    wait_until(lambda: jobs.traces(job), what="the start")
    proxy.silence()
    running.terminate()
    # 1 s for the job, 2 s to cancel it, 10 s for the last outcomes, 5 s for the worker's row; and a busy machine.
    assert running.wait(60) == 0
    assert "outcomes could not be recorded" in running.log or "outcomes wait" in running.log


def test_a_worker_without_a_database_does_not_flood_its_log(database_url: str, jobs: Jobs, worker: StartWorker) -> None:
    through_proxy = Proxy(database_url)
    running = worker(database_url=through_proxy.url, env={"JOBQ_LOG_FORMAT": "json"})
    wait_until(lambda: messages(running, "working"), what="the worker")
    through_proxy.close()
    # Every connection is refused from now on: many attempts, few lines.
    wait_until(
        lambda: {line["stalled"] for line in messages(running, "stalled")} >= {"claims", "heartbeats", "notifications"},
        timeout=60,
        what="the stalls",
    )
    assert len(running.log.splitlines()) < 40


async def test_a_cancelled_wait_is_cancelled(database_url: str) -> None:
    """psycopg 3.2 raises the connection's error instead: a loop that retries what was lost would never end."""
    connection = await Database(Settings(database_url=database_url)).connect("test")
    waiting = asyncio.create_task(connection.execute("SELECT pg_sleep(60)"))
    await asyncio.to_thread(wait_until, lambda: connection.since is not None, what="the wait")
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert classify(psycopg.OperationalError(), connection) is ErrorKind.CONNECTION


async def test_a_wait_cancelled_when_its_answer_has_come_leaves_no_half_dead_connection(database_url: str) -> None:
    """The answer lies in the socket already, so that nothing fails at the cancellation: the connection must go all the same."""
    connection = await Database(Settings(database_url=database_url)).connect("test")
    await fetch(connection, "jobq", "clock")
    statement = asyncio.ensure_future(fetch(connection, "jobq", "clock"))
    # Let it be sent; then the event loop stands still until the answer is there.
    await asyncio.sleep(0)
    readable = select.select([connection.pgconn.socket], [], [], 10)[0]
    assert readable
    statement.cancel()
    with pytest.raises(asyncio.CancelledError):
        await statement
    assert connection.closed
    # A cancellation is that of one wait. What is waited for later fails as it would on any lost connection.
    with pytest.raises(psycopg.OperationalError):
        await fetch(connection, "jobq", "clock")
