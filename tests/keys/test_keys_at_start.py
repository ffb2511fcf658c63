"""A key that holds until the job starts: released at the start and not at the claim, and never lost between the two."""

from __future__ import annotations

import os
import signal
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest

from jobq import JobQ
from jobq._worker.database import connect
from jobq._worker.inline import drain
from jobq._worker.ipc.messages import Disposition, Failure, Job
from jobq._worker.lanes.cursor import everything
from jobq._worker.outcomes.store import JobStore
from jobq._worker.runners.key_starts import Starts
from jobq.settings import Settings
from tests.apps import plain as apps
from tests.support.jobs import Jobs
from tests.support.waiting import wait_until
from tests.support.workers import WorkerProcess

Conn = psycopg.Connection[Any]
LANES = everything((["default"], [5]))
COMMITTED = ["read committed", "read uncommitted"]


@pytest.fixture
def other(database_url: str) -> Iterator[Conn]:
    """A second connection, in a transaction of its own."""
    with closing(psycopg.connect(database_url)) as connection:
        yield connection


@pytest.fixture
def q(database_url: str) -> JobQ:
    q = JobQ(database_url)

    @q.task
    def index(version: int) -> None: ...

    return q


def debounced(q: JobQ, on_conflict: Any = "replace", **options: Any) -> Any:
    return q.tasks["index"].options(key="index:1", key_holds="until_started", on_conflict=on_conflict, **options)


def key_holders(db: Conn) -> list[Any]:
    return db.execute("SELECT job_id FROM jobq.job_key ORDER BY 1").fetchall()


def versions(db: Conn) -> list[tuple[Any, ...]]:
    return db.execute("SELECT id, state, args->'version', key_until_started FROM jobq.job ORDER BY id").fetchall()


async def claim(url: str, worker: uuid.UUID, want: int = 10) -> list[Job]:
    async with await connect(Settings(database_url=url), "test") as connection:
        claimed, _ = await JobStore("jobq").advance(connection, worker, [], LANES, want)
        jobs, expired = claimed.jobs()
        assert (jobs, expired) == ([], [])
        return list(claimed.keyed)


async def start(url: str, worker: uuid.UUID, jobs: list[Job]) -> Any:
    starts = Starts()
    starts.give(jobs, worker, 0.0)
    async with await connect(Settings(database_url=url), "test") as connection:
        return await starts.start(connection, "jobq", worker, lambda jobs: jobs)


async def release(
    url: str, worker: uuid.UUID, job: Job, ending: Disposition = Disposition.RELEASE, **what: Any
) -> None:
    async with await connect(Settings(database_url=url), "test") as connection:
        await JobStore("jobq").settle(connection, worker, [Failure(job.id, job.claims, job.started, ending, **what)])


# --- a replace that meets a claim ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", COMMITTED)
def test_a_replace_that_waits_for_the_end_of_its_holder_begins_again(
    q: JobQ, db: Conn, other: Conn, database_url: str, level: Any
) -> None:
    """One statement updates the job's row and deletes its key: a session that waited for the row must look at the key again."""
    debounced(q).enqueue(db, 1)
    other.execute("UPDATE jobq.job SET state = 'running', attempt = 1, claims = 1, worker_id = %s", [uuid.uuid4()])
    refs: list[Any] = []

    def late() -> None:
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute("SELECT set_config('default_transaction_isolation', %s, false)", [level])
            refs.append(debounced(q).enqueue(connection, 2))

    thread = threading.Thread(target=late)
    thread.start()
    wait_until(lambda: waiting_for_a_lock(db), what="the replace to wait")
    other.execute("DELETE FROM jobq.job_key WHERE key = 'index:1'")
    other.commit()
    thread.join(20)
    (ref,) = refs
    assert (ref.created, ref.replaced) == (True, False)
    assert key_holders(db) == [(ref.id,)]
    assert [version for _, state, version, _ in versions(db) if state == "ready"] == [2]


@pytest.mark.parametrize("level", COMMITTED)
@pytest.mark.parametrize("many", [False, True])
def test_a_key_released_between_two_statements_is_taken(
    q: JobQ, db: Conn, database_url: str, level: Any, many: bool
) -> None:
    """Its insert has met the key, and before it can look who holds it, that one lets go."""
    debounced(q, "return").enqueue(db, 1)
    db.execute(
        "CREATE FUNCTION pause() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF EXISTS (SELECT FROM jobq.job_key WHERE job_id = 1) THEN PERFORM pg_advisory_xact_lock(77); END IF;"
        " RETURN NULL; END $$"
    )
    db.execute("CREATE TRIGGER pause AFTER INSERT ON jobq.job_key FOR EACH STATEMENT EXECUTE FUNCTION pause()")
    db.execute("SELECT pg_advisory_lock(77)")
    refs: list[Any] = []

    def late() -> None:
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute("SELECT set_config('default_transaction_isolation', %s, false)", [level])
            batch = [debounced(q, "return").job(2)] * (2 if many else 1)
            refs.extend(q.enqueue_many(connection, batch))

    thread = threading.Thread(target=late)
    thread.start()
    wait_until(lambda: waiting_for_a_lock(db), what="the insert")
    db.execute("DELETE FROM jobq.job_key WHERE job_id = 1")
    db.execute("SELECT pg_advisory_unlock(77)")
    thread.join(20)
    assert [ref.created for ref in refs] == [True, False][: len(refs)]
    assert key_holders(db) == [(refs[0].id,)]


def waiting_for_a_lock(db: Conn) -> bool:
    row = db.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    ).fetchone()
    return row is not None and row[0] > 0


async def test_a_replace_reaches_a_job_that_is_claimed_and_has_not_started(
    q: JobQ, db: Conn, database_url: str
) -> None:
    worker = uuid.uuid4()
    first = debounced(q).enqueue(db, 1)
    (job,) = await claim(database_url, worker)
    assert key_holders(db) == [(first.id,)]
    again = debounced(q).enqueue(db, 2)
    assert (again.id, again.created, again.replaced) == (first.id, False, True)
    found = await start(database_url, worker, [job])
    (started,) = found.start
    assert started.args == b'{"version": 2}'
    assert key_holders(db) == []
    third = debounced(q).enqueue(db, 3)
    assert third.created
    assert key_holders(db) == [(third.id,)]


async def test_a_later_time_given_to_a_claimed_job_is_kept(q: JobQ, db: Conn, database_url: str) -> None:
    worker = uuid.uuid4()
    first = debounced(q).enqueue(db, 1)
    (job,) = await claim(database_url, worker)
    assert debounced(q, delay=3600).enqueue(db, 2).replaced
    found = await start(database_url, worker, [job])
    assert ([], [job]) == (found.start, found.back)
    await release(database_url, worker, job)
    row = db.execute(
        "SELECT state, run_at > now() + interval '50 minutes', attempt, key_until_started FROM jobq.job"
    ).fetchone()
    assert row == ("ready", True, 0, True)
    assert key_holders(db) == [(first.id,)]


async def test_a_job_that_expires_between_claim_and_start_does_not_start(q: JobQ, db: Conn, database_url: str) -> None:
    worker = uuid.uuid4()
    debounced(q, expires_in=60).enqueue(db, 1)
    (job,) = await claim(database_url, worker)
    db.execute("UPDATE jobq.job SET expires_at = clock_timestamp()")
    found = await start(database_url, worker, [job])
    assert (found.start, found.expired) == ([], [job])
    await release(database_url, worker, job, Disposition.EXPIRE, message="expired")
    assert key_holders(db) == []
    assert db.execute("SELECT state FROM jobq.job_history").fetchall() == [("expired",)]


async def test_a_job_that_is_no_longer_ours_does_not_start(q: JobQ, db: Conn, database_url: str) -> None:
    worker = uuid.uuid4()
    first = debounced(q).enqueue(db, 1)
    (job,) = await claim(database_url, worker)
    db.execute("UPDATE jobq.job SET worker_id = %s", [uuid.uuid4()])
    found = await start(database_url, worker, [job])
    assert (found.start, found.lost) == ([], [job])
    assert key_holders(db) == [(first.id,)]


@pytest.mark.parametrize("taken", [False, True])
async def test_a_start_that_did_not_come_takes_the_key_again(
    q: JobQ, db: Conn, other: Conn, database_url: str, taken: bool
) -> None:
    """The worker stopped between the commit that released the key and the start. No open transaction is waited for."""
    worker = uuid.uuid4()
    first = debounced(q).enqueue(db, 1)
    (job,) = await claim(database_url, worker)
    assert (await start(database_url, worker, [job])).start
    second = debounced(q).enqueue(other, 2) if taken else None
    await release(database_url, worker, job)
    other.commit()
    assert key_holders(db) == [(second.id if second is not None else first.id,)]
    assert versions(db)[0] == (first.id, "ready", 1, True)
    if second is None:
        assert debounced(q).enqueue(db, 3).replaced


async def test_a_start_that_came_does_not_take_it_again(q: JobQ, db: Conn, database_url: str) -> None:
    worker = uuid.uuid4()
    debounced(q).enqueue(db, 1)
    (job,) = await claim(database_url, worker)
    assert (await start(database_url, worker, [job])).start
    await release(database_url, worker, job, seconds=0.5)
    assert key_holders(db) == []
    assert debounced(q).enqueue(db, 2).created


async def test_a_job_cancelled_before_its_start_lets_its_key_go(q: JobQ, db: Conn, database_url: str) -> None:
    worker = uuid.uuid4()
    debounced(q).enqueue(db, 1)
    (job,) = await claim(database_url, worker)
    db.execute("UPDATE jobq.job SET cancel_requested_at = now()")
    assert (await start(database_url, worker, [job])).back == [job]
    await release(database_url, worker, job)
    assert key_holders(db) == []
    assert db.execute("SELECT state FROM jobq.job_history").fetchall() == [("cancelled",)]


# --- a holder that was returned ------------------------------------------------------------------------------------------


def test_a_returned_holder_starts_after_its_caller_has_committed(q: JobQ, db: Conn, database_url: str) -> None:
    saw = []

    @q.task
    def read(doc: int) -> None:
        with psycopg.connect(database_url) as connection:
            saw.append(connection.execute("SELECT body FROM doc WHERE id = %s", [doc]).fetchone())

    once = read.options(key="index:1", key_holds="until_started")
    db.execute("CREATE TABLE doc (id int PRIMARY KEY, body text)")
    db.execute("INSERT INTO doc VALUES (1, 'v0')")
    with psycopg.connect(database_url) as caller:
        caller.execute("UPDATE doc SET body = 'v1'")
        first = once.enqueue(caller, 1)
    with psycopg.connect(database_url) as caller:
        caller.execute("UPDATE doc SET body = 'v2'")
        assert once.enqueue(caller, 1).id == first.id
        drain(q, db)
    # Still held by it.
    assert once.enqueue(db, 1).id == first.id
    assert drain(q, db).succeeded == 1
    assert saw == [("v2",)]


async def test_callers_without_end_do_not_keep_a_holder_from_starting(q: JobQ, db: Conn, database_url: str) -> None:
    """Each of them overlaps with the next: after a while the next one gets a job of its own."""
    worker = uuid.uuid4()
    first = debounced(q, "return").enqueue(db, 1)
    with closing(psycopg.connect(database_url)) as one, closing(psycopg.connect(database_url)) as two:
        assert debounced(q, "return").enqueue(one, 1).id == first.id
        # A caller's lock does not keep it from being claimed.
        (job,) = await claim(database_url, worker)
        starts = Starts()
        starts.give([job], worker, 0.0)
        async with await connect(Settings(database_url=database_url), "test") as connection:
            assert (await starts.start(connection, "jobq", worker, lambda jobs: jobs)).locked == [job]
            assert debounced(q, "return").enqueue(two, 1).id == first.id
            one.commit()
            assert starts.stubborn(float("inf")) == [job]
            assert await starts.put_back(connection, "jobq", worker, [job]) == [job]
        assert starts.held == 0
        second = debounced(q, "return").enqueue(db, 2)
        assert second.created
        assert versions(db)[0] == (first.id, "ready", 1, True)
        two.commit()
    db.execute("UPDATE jobq.job SET run_at = clock_timestamp()")
    again = await claim(database_url, worker)
    assert sorted(job.id for job in again) == [first.id, second.id]
    assert len((await start(database_url, worker, again)).start) == 2


def test_a_hundred_callers_of_one_holder(q: JobQ, db: Conn, database_url: str) -> None:
    first = debounced(q, "return").enqueue(db, 1)
    connections = [psycopg.connect(database_url) for _ in range(60)]
    try:
        assert {debounced(q, "return").enqueue(one, 1).id for one in connections} == {first.id}
        assert drain(q, db).succeeded == 0
        for one in connections:
            one.commit()
    finally:
        for one in connections:
            one.close()
    assert drain(q, db).succeeded == 1


@pytest.mark.parametrize("level", [psycopg.IsolationLevel.REPEATABLE_READ, psycopg.IsolationLevel.SERIALIZABLE])
async def test_in_a_snapshot_a_key_that_was_released_since_is_taken(
    q: JobQ, db: Conn, other: Conn, database_url: str, level: Any
) -> None:
    worker = uuid.uuid4()
    debounced(q).enqueue(db, 1)
    other.isolation_level = level
    other.execute("SELECT FROM jobq.job")
    (job,) = await claim(database_url, worker)
    assert (await start(database_url, worker, [job])).start
    ref = debounced(q).enqueue(other, 2)
    other.commit()
    assert (ref.created, ref.replaced) == (True, False)
    assert key_holders(db) == [(ref.id,)]


# --- with a worker -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_jobs_claimed_ahead_and_given_back_keep_their_keys(
    jobs: Jobs, worker: Callable[..., WorkerProcess], db: Conn
) -> None:
    running = worker("--processes", "1", "--concurrency", "4", "--shutdown-timeout", "1")
    wait_until(lambda: "working" in running.log, what="the worker")
    # Quick ones let the prefetch grow.
    db.execute("INSERT INTO jobq.job (task) SELECT 'noop' FROM generate_series(1, 20000)")
    slow = apps.q.tasks["wait"]
    apps.q.enqueue_many(db, [slow.options(key=f"rebuild {n}", key_holds="until_started").job(8) for n in range(60)])
    ours = "task = 'wait' AND claims > 0"
    wait_until(lambda: jobs.one(f"SELECT count(*) > 4 FROM jobq.job WHERE {ours}"), what="claims ahead")
    running.terminate()
    running.wait(30)
    free = jobs.all(
        "SELECT id FROM jobq.job WHERE task = 'wait' AND attempt = 0"
        " AND NOT EXISTS (SELECT FROM jobq.job_key WHERE key = job.key AND job_id = job.id)"
    )
    # The four that had started have let theirs go; no other has.
    assert len(free) <= 4
    assert jobs.one("SELECT count(*) FROM jobq.job WHERE task = 'wait' AND state = 'ready'") == 60


def test_keyed_jobs_start_among_plain_ones(jobs: Jobs, worker: Callable[..., WorkerProcess], db: Conn) -> None:
    """What is fetched in advance does not keep them from a slot."""
    db.execute("INSERT INTO jobq.job (task) SELECT 'noop' FROM generate_series(1, 5000)")
    record = apps.q.tasks["record"]
    refs = apps.q.enqueue_many(
        db, [record.options(key=f"k{n}", key_holds="until_started").job(f"n{n}") for n in range(40)]
    )
    db.execute("INSERT INTO jobq.job (task) SELECT 'noop' FROM generate_series(1, 5000)")
    running = worker("--processes", "2", "--concurrency", "4", "--drain")
    assert running.wait(60) == 0
    assert [jobs.traces(ref.id) for ref in refs] == [[f"n{n}"] for n in range(40)]
    assert jobs.one("SELECT count(*) FROM jobq.job_history WHERE state = 'succeeded'") == 10040
    assert jobs.one("SELECT count(*) FROM jobq.job_key") == 0


def test_a_locked_one_starts_when_its_caller_has_committed(
    jobs: Jobs, worker: Callable[..., WorkerProcess], db: Conn, other: Conn
) -> None:
    running = worker("--processes", "1")
    wait_until(lambda: "working" in running.log, what="the worker")
    once = apps.q.tasks["record"].options(key="k", key_holds="until_started")
    ref = apps.q.tasks["record"].options(key="k", key_holds="until_started", delay=1).enqueue(db, "first")
    assert once.enqueue(other, "first").id == ref.id
    wait_until(lambda: jobs.one("SELECT claims FROM jobq.job WHERE id = %s", ref.id) > 1, what="a second claim")
    plain = apps.q.tasks["record"].enqueue(db, "plain")
    jobs.wait(plain.id)
    # The key has been let go, so that callers without end do not keep it from starting.
    assert once.enqueue(db, "second").created
    assert jobs.traces(ref.id) == []
    other.commit()
    assert jobs.wait(ref.id)["state"] == "succeeded"


def test_after_a_kill_the_key_is_still_held(jobs: Jobs, worker: Callable[..., WorkerProcess], db: Conn) -> None:
    """Claimed, not started, its worker killed: still one job, whose key is held until it starts elsewhere."""
    running = worker("--processes", "1", "--concurrency", "1")
    wait_until(lambda: "working" in running.log, what="the worker")
    once = apps.q.tasks["record"].options(key="k", key_holds="until_started", on_conflict="replace")
    with psycopg.connect(str(db.info.dsn)) as caller:
        delayed = apps.q.tasks["record"].options(key="k", key_holds="until_started", delay=0.5)
        ref = delayed.enqueue(db, "first")
        caller.execute("SELECT FROM jobq.job WHERE id = %s FOR KEY SHARE", [ref.id])
        wait_until(lambda: jobs.one("SELECT state FROM jobq.job WHERE id = %s", ref.id) == "running", what="the claim")
        os.killpg(running.pid, signal.SIGKILL)
    assert jobs.one("SELECT count(*) FROM jobq.job_key WHERE job_id = %s", ref.id) == 1
    assert once.enqueue(db, "second").replaced
    worker("--processes", "1")
    jobs.wait(ref.id)
    assert jobs.traces(ref.id) == ["second"]
