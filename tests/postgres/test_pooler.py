"""Workers and callers through a real PgBouncer in transaction mode."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from jobq import JobQ
from jobq._postgres.sql import Statement
from jobq._worker.database import Database, fetch
from jobq.settings import Settings
from tests.apps import plain as apps
from tests.support.checks import some
from tests.support.jobs import Jobs
from tests.support.servers.pgbouncer import PgBouncer
from tests.support.waiting import wait_until
from tests.support.workers import WorkerProcess

pytestmark = pytest.mark.needs("pgbouncer")

StartWorker = Callable[..., WorkerProcess]
# Long enough that a heartbeat on a busy machine is not late.
TIMES = ("--heartbeat-interval", "0.5", "--suspicion", "2", "--lease", "8")


@pytest.fixture(autouse=True)
def _traces(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tasks' own connections are direct: psycopg's prepared statements do not pass this PgBouncer."""
    monkeypatch.setenv("TRACES_URL", database_url)


@pytest.fixture(params=["refuses options", "ignores options"])
def pooler(database_url: str, request: pytest.FixtureRequest) -> Iterator[PgBouncer]:
    """PgBouncer before the test's database."""
    made = PgBouncer(database_url, ignore_options=request.param == "ignores options")
    yield made
    made.close()


def advisory_locks(jobs: Jobs) -> int:
    return int(
        jobs.one(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )
    )


def test_a_worker_killed_is_rescued_from_after_its_lease(jobs: Jobs, pooler: PgBouncer, worker: StartWorker) -> None:
    job = apps.wait.enqueue(jobs.connection, 600.0, "x").id
    victim = worker(*TIMES, database_url=pooler.url)
    wait_until(lambda: jobs.traces(job), what="the first start")
    rescuer = worker(*TIMES, database_url=pooler.url)
    wait_until(lambda: jobs.one("SELECT count(*) FROM jobq.worker") == 2, what="the second worker")
    # No worker holds a lock, so none has leaked to other clients of the pooler, and no free lock counts against anyone.
    assert advisory_locks(jobs) == 0
    assert jobs.one("SELECT count(*) FROM jobq.worker WHERE lock_server_start IS NOT NULL") == 0
    jobs.connection.execute("CREATE TABLE killed AS SELECT clock_timestamp() AS at")
    victim.kill()
    wait_until(lambda: jobs.traces(job) == ["start x"] * 2, timeout=60, what="the second start")
    silent = jobs.one("SELECT extract(epoch FROM max(ran.at) - min(killed.at))::float8 FROM ran, killed")
    # Never by mere suspicion: its last heartbeat was at most an interval before its end.
    assert silent > 8 - 1.0
    (attempt,) = jobs.attempts(job)
    assert (attempt["outcome"], attempt["error_type"]) == ("crashed", "WorkerDied")
    assert rescuer.is_running()


def test_every_job_runs_once_and_everything_works_through_it(
    jobs: Jobs, pooler: PgBouncer, worker: StartWorker
) -> None:
    q = JobQ(database_url=pooler.url)
    first, second = worker(*TIMES, database_url=pooler.url), worker(*TIMES, database_url=pooler.url)
    with psycopg.connect(pooler.url, prepare_threshold=None) as connection:
        apps.q.enqueue_many(connection, [apps.record.job(str(n)) for n in range(500)])
        keyed = apps.record.options(key="once").enqueue(connection, "keyed")
        failing = apps.always_fail.enqueue(connection)
    wait_until(lambda: jobs.one("SELECT count(*) FROM jobq.job_history") == 502, timeout=90, what="every end")
    assert jobs.one("SELECT count(*) - count(DISTINCT job) FROM ran") == 0
    assert jobs.wait(keyed.id)["state"] == "succeeded"
    assert jobs.wait(failing.id)["state"] == "failed"
    assert len(jobs.attempts(failing.id)) == 3
    assert jobs.one("SELECT count(*) FROM jobq.maintenance_task WHERE last_error IS NOT NULL") == 0
    for running in (first, second):
        wait_until(lambda running=running: "notifications do not pass" in running.log, what="the notice")  # type: ignore[misc]
        assert running.log.count("notifications do not pass a pooler") == 1
        assert "stalled" not in running.log
        assert "does not answer" not in running.log
    q.close()
    for running in (first, second):
        running.terminate()
        assert running.wait() == 0
    assert jobs.one("SELECT count(*) FROM jobq.worker") == 0


def test_a_result_that_the_database_refuses_is_its_jobs_matter_alone(
    jobs: Jobs, pooler: PgBouncer, worker: StartWorker
) -> None:
    """An error in the middle of a pipelined transaction is reported as itself, and the connection stays usable."""
    jobs.connection.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$BEGIN RAISE 'no room for this' USING ERRCODE = 'untranslatable_character'; END$$"
    )
    jobs.connection.execute(
        "CREATE TRIGGER refuse BEFORE INSERT ON jobq.job_history FOR EACH ROW"
        """ WHEN (NEW.result = '"bad"'::jsonb) EXECUTE FUNCTION refuse()"""
    )
    notes = ["bad" if n % 20 == 7 else str(n) for n in range(63)]
    apps.q.enqueue_many(jobs.connection, [apps.record.job(note) for note in notes])
    running = worker(*TIMES, "--drain", database_url=pooler.url)
    assert running.wait() == 0
    ends = jobs.all("SELECT state, args->>'note' AS note, result, error FROM jobq.job_history ORDER BY id")
    assert [(end["state"], end["note"]) for end in ends] == [("succeeded", note) for note in notes]
    for end in some(ends):
        if end["note"] == "bad":
            assert end["result"] is None
            assert "the database refused the result" in end["error"]
        else:
            assert (end["result"], end["error"]) == (end["note"], None)
    assert "does not answer" not in running.log


async def test_an_error_through_it_leaves_the_connection_usable(pooler: PgBouncer) -> None:
    connection = await Database(Settings(database_url=pooler.url)).connect("test")
    try:
        for _ in range(3):
            with pytest.raises(psycopg.errors.InvalidTextRepresentation):
                await fetch(connection, "jobq", "worker_leave", id="no uuid")
            assert await fetch(connection, "jobq", "queue_rules") == []
        assert connection.info.transaction_status.name == "IDLE"
    finally:
        await connection.close()


def test_submit_and_result_from_many_threads(jobs: Jobs, pooler: PgBouncer, worker: StartWorker) -> None:
    """Prepared statements of one client would be unknown to the server session of the next."""
    from concurrent.futures import ThreadPoolExecutor

    q = JobQ(database_url=pooler.url)

    @q.task(name="record")
    def record(note: str) -> str:
        return note

    running = worker(*TIMES, database_url=pooler.url)
    with ThreadPoolExecutor(8) as threads:
        refs = list(threads.map(lambda n: record.submit(str(n)), range(120)))
        assert list(threads.map(lambda ref: ref.result(timeout=60), refs)) == [str(n) for n in range(120)]
    q.close()
    assert running.is_running()


def test_notifications_come_by_the_direct_url(
    jobs: Jobs, database_url: str, pooler: PgBouncer, worker: StartWorker
) -> None:
    running = worker(
        *TIMES, "--poll-interval", "600", database_url=pooler.url, env={"JOBQ_DIRECT_URL": database_url}
    )  # fmt: skip
    wait_until(
        lambda: jobs.one(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'jobq worker notifications'"
            " AND datname = current_database() AND state = 'idle'"
        ),
        what="the listener",
    )
    for note in ("a", "b", "c"):
        assert jobs.wait(apps.record.enqueue(jobs.connection, note).id)["state"] == "succeeded"
    assert "notifications do not pass" not in running.log


async def test_settings_hold_for_the_statement_and_do_not_leak(
    jobs: Jobs, pooler: PgBouncer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from jobq._worker import database as module

    names = ("enable_seqscan", "statement_timeout", "transaction_isolation")
    asked = f"SELECT {', '.join(f'current_setting({name!r})' for name in names)}"
    query = Statement(name="asked", text=asked, query=asked.encode(), raw=asked.encode(), names=())
    monkeypatch.setattr(module, "statement", lambda *_: query)
    connection = await Database(Settings(database_url=pooler.url)).connect("test")
    try:
        assert connection.pooled
        assert connection.prepare_threshold is None
        assert await fetch(connection, "jobq", "asked") == [("off", "10s", "read committed")]
        async with connection.transaction():
            assert await fetch(connection, "jobq", "asked") == [("off", "10s", "read committed")]
        with psycopg.connect(pooler.url, autocommit=True) as other:
            for _ in range(8):
                row = other.execute("SELECT current_setting('enable_seqscan')").fetchone()
                assert row == ("on",)
    finally:
        await connection.close()


async def test_a_pooler_is_found_out_or_taken_at_ones_word(database_url: str, pooler: PgBouncer) -> None:
    async def pooled(url: str, **settings: Any) -> bool:
        connection = await Database(Settings(database_url=url, **settings)).connect("test")
        await connection.close()
        return connection.pooled

    assert await pooled(pooler.url)
    assert not await pooled(database_url)
    assert await pooled(database_url, pooler="transaction")


async def test_none_is_refused_where_the_pooler_refuses_options(database_url: str) -> None:
    refusing = PgBouncer(database_url)
    try:
        with pytest.raises(psycopg.OperationalError, match="leave JOBQ_POOLER out"):
            await Database(Settings(database_url=refusing.url, pooler="none")).connect("test")
    finally:
        refusing.close()


def test_none_suits_session_mode(jobs: Jobs, database_url: str, worker: StartWorker) -> None:
    """There a session is one's own, so the worker takes its lock and listens."""
    session = PgBouncer(database_url, mode="session", size=40, ignore_options=True)
    try:
        running = worker(*TIMES, database_url=session.url, env={"JOBQ_POOLER": "none"})
        job = apps.record.enqueue(jobs.connection, "x").id
        assert jobs.wait(job)["state"] == "succeeded"
        assert advisory_locks(jobs) == 1
        assert "notifications do not pass" not in running.log
    finally:
        running.close()
        session.close()


def jobq(url: str, *args: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "jobq", *args],
        env={**os.environ, "JOBQ_DATABASE_URL": url, **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_command_line_works_through_it(jobs: Jobs, pooler: PgBouncer, database_url: str) -> None:
    report = jobq(pooler.url, "doctor")
    assert report.returncode == 0, report.stdout
    assert "a pooler such as PgBouncer stands between" in report.stdout
    assert "JOBQ_DIRECT_URL" in report.stdout
    apps.record.enqueue(jobs.connection, "x")
    listed = jobq(pooler.url, "jobs", "list", "--json")
    assert listed.returncode == 0, listed.stderr
    assert '"record"' in listed.stdout


def test_migrations_want_a_session(empty_database_url: str) -> None:
    """The lock that makes two of them safe would stay behind in the pooler's session, for ever."""
    pooler = PgBouncer(empty_database_url, ignore_options=True)
    try:
        refused = jobq(pooler.url, "migrate", "--yes")
        assert refused.returncode == 78
        assert "JOBQ_DIRECT_URL" in refused.stderr
        done = jobq(pooler.url, "migrate", "--yes", JOBQ_DIRECT_URL=empty_database_url)
        assert done.returncode == 0, done.stderr
        refused = jobq(pooler.url, "migrate", "--downgrade", "base", "--yes")
        assert refused.returncode == 78
        assert "JOBQ_DIRECT_URL" in refused.stderr
        done = jobq(pooler.url, "migrate", "--downgrade", "base", "--yes", JOBQ_DIRECT_URL=empty_database_url)
        assert done.returncode == 0, done.stderr
    finally:
        pooler.close()


async def test_a_direct_address_is_not_taken_for_the_pooler_that_was_named(
    database_url: str, pooler: PgBouncer
) -> None:
    database = Database(Settings(database_url=pooler.url, direct_url=database_url, pooler="transaction"))
    for direct, pooled in ((False, True), (True, False)):
        connection = await database.connect("test", direct=direct)
        assert connection.pooled is pooled
        await connection.close()
