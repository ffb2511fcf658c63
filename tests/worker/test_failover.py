"""Two servers, one of them a standby: when the primary is lost, workers and callers go on with the other."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from jobq import DatabaseUnavailable, JobQ, migrate
from jobq._worker.database import Database
from jobq._worker.database_errors import ErrorKind, Unreachable, classify
from jobq.settings import Settings, redact_url
from tests.apps import plain as apps
from tests.apps import trouble
from tests.support.jobs import Jobs
from tests.support.servers.replication import Pair
from tests.support.waiting import wait_until
from tests.support.workers import WorkerProcess

StartWorker = Callable[..., WorkerProcess]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """A primary with a migrated schema, and its standby."""
    made = Pair()
    try:
        migrate.upgrade(made.url)
        yield made
    finally:
        made.close()


@pytest.mark.parametrize("how", ["killed", "demoted"])
def test_running_jobs_go_on_and_their_outcomes_are_written_to_the_new_primary(
    pair: Pair, worker: StartWorker, how: str
) -> None:
    jobs = Jobs(pair.primary.url)
    apps.create_traces(jobs.connection)
    running = worker(database_url=pair.url, app="tests.apps.trouble:q")
    job = trouble.hang.enqueue(jobs.connection, 4.0).id
    wait_until(lambda: (jobs.live(job) or {}).get("state") == "running", what="the start")
    pair.caught_up()
    jobs.close()
    if how == "killed":
        pair.primary.end(signal.SIGKILL)
        pair.promote()
    else:
        pair.demote()
    after = Jobs(pair.standby.url)
    ended = after.wait(job, timeout=60)
    assert (ended["state"], ended["claims"], ended["crashes"]) == ("succeeded", 1, 0)
    # Claims and callers go on as well, by the same address of both.
    q = JobQ(database_url=pair.url)
    assert q.settings.database_url == pair.url
    later = after.wait(trouble.calm.enqueue(after.connection, "later").id, timeout=60)
    assert later["state"] == "succeeded"
    assert "no heartbeat for too long" not in running.log
    assert migrate.current(pair.url) == migrate.head()
    assert running.is_running()
    assert "secret" not in running.log
    running.terminate()
    assert running.wait() == 0
    after.close()


async def test_a_connection_to_a_standby_is_none(pair: Pair) -> None:
    """By whatever address it was found: a worker can do nothing there."""
    with pytest.raises(Unreachable, match="is a standby") as raised:
        await Database(Settings(database_url=pair.standby.url)).connect("test")
    assert raised.value.refused
    assert classify(raised.value, None) is ErrorKind.CONNECTION
    without = f"postgresql://postgres@127.0.0.1:{pair.standby.port},127.0.0.1:{pair.primary.port}/postgres"
    connection = await Database(Settings(database_url=without)).connect("test")
    assert connection.info.port == pair.primary.port
    await connection.close()


async def test_a_silent_host_is_passed_over_within_the_connect_timeout(pair: Pair) -> None:
    import socket

    with socket.socket() as silent:
        # It takes the connection into its backlog, and says nothing, as a frozen host does.
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        hosts = f"host=127.0.0.1,127.0.0.1 port={silent.getsockname()[1]},{pair.primary.port}"
        database = Database(Settings(database_url=f"{hosts} user=postgres dbname=postgres", connect_timeout=4))
        begun = time.monotonic()
        connection = await database.connect("test")
        first = time.monotonic() - begun
        assert connection.info.port == pair.primary.port
        await connection.close()
        # It is not asked first again.
        begun = time.monotonic()
        await (await database.connect("test")).close()
        assert time.monotonic() - begun < first
        assert first < 20


def test_addresses_of_several_hosts_are_redacted() -> None:
    url = "postgresql://u:secret@h1:5432,h2:5433/db?target_session_attrs=read-write"
    assert redact_url(url) == "postgresql://u:***@h1:5432,h2:5433/db?target_session_attrs=read-write"
    assert redact_url("host=a,b port=1,2 password='s e' user=u") == "host=a,b port=1,2 password=*** user=u"


@pytest.mark.parametrize(
    ("processes", "task", "end"), [("1", apps.wait, "cancelled"), ("2", apps.wait_async, "succeeded")]
)
def test_a_job_under_an_id_that_was_issued_again_is_another_job(
    database_url: str, jobs: Jobs, worker: StartWorker, processes: str, task: Any, end: str
) -> None:
    """The former primary's last commits are lost: a job, its claim, and how far the sequence was. Its execution goes on."""
    running = worker("--processes", processes, "--concurrency", "2")
    wait_until(lambda: jobs.all("SELECT FROM jobq.worker"), what="the worker")
    sequence = jobs.all("SELECT last_value, is_called FROM jobq.job_id_seq")[0]
    lost = task.enqueue(jobs.connection, 5.0).id
    wait_until(lambda: jobs.traces(lost), what="the first job's start")
    jobs.connection.execute("DELETE FROM jobq.job")
    jobs.connection.execute("DELETE FROM ran")
    jobs.connection.execute("SELECT setval('jobq.job_id_seq', %s, %s)", (sequence["last_value"], sequence["is_called"]))
    jobs.connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND application_name LIKE 'jobq worker%%'"
    )
    job = task.enqueue(jobs.connection, 600.0 if end == "cancelled" else 6.0).id
    assert job == lost
    # One starts, the former ends, which says nothing of the new one, and that one ends.
    wait_until(lambda: len(jobs.traces(job)) == 2, timeout=30, what="the new job's start and the former's end")
    assert {trace.split()[0] for trace in jobs.traces(job)} == {"start", "end"}
    assert (jobs.live(job) or {})["state"] == "running"
    if end == "cancelled":
        # It can still be reached.
        jobs.connection.execute("UPDATE jobq.job SET cancel_requested_at = now()")
    ended = jobs.wait(job, timeout=30)
    assert (ended["state"], ended["claims"]) == (end, 1)
    if end == "succeeded":
        assert (ended["finished_at"] - ended["started_at"]).total_seconds() > 5
        assert len(jobs.traces(job)) == 3
    assert running.is_running()
    assert jobs.wait(apps.noop.enqueue(jobs.connection).id)["state"] == "succeeded"


def test_submit_goes_to_the_new_primary(pair: Pair) -> None:
    q = JobQ(database_url=pair.url)

    @q.task
    def nothing() -> None:
        """Do nothing."""

    first = nothing.submit()
    pair.caught_up()
    pair.primary.end(signal.SIGKILL)
    pair.promote()
    second = nothing.submit()
    after = Jobs(pair.standby.url)
    assert [row["id"] for row in after.all("SELECT id FROM jobq.job ORDER BY id")] == [first.id, second.id]
    after.close()


def test_a_callers_connection_to_what_is_now_a_standby_is_given_up(database_url: str) -> None:
    """It answers, so the pool would keep it, and refuses every job. Read-only by a setting, as a standby is by its state."""
    q = JobQ(database_url=database_url)

    @q.task
    def nothing() -> None:
        """Do nothing."""

    with q._pools.connection() as connection:
        connection.execute("SET default_transaction_read_only = on")
    with pytest.raises(DatabaseUnavailable, match="read-only"):
        nothing.submit()
    assert nothing.submit().created
    q.close()


async def test_an_asynchronous_callers_too(database_url: str) -> None:
    q = JobQ(database_url=database_url)

    @q.task
    def nothing() -> None:
        """Do nothing."""

    async with q._pools.connection_async() as connection:
        await connection.execute("SET default_transaction_read_only = on")
    with pytest.raises(DatabaseUnavailable, match="read-only"):
        await nothing.submit_async()
    assert (await nothing.submit_async()).created
    await q.aclose()
