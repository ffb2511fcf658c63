"""Transactional tasks under attack: for each job that succeeded exactly one effect, for every other none."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from jobq._worker.database import connect, fetch
from jobq._worker.ipc.messages import AlreadyCommitted
from jobq._worker.lanes.cursor import everything
from jobq._worker.outcomes.store import JobStore
from jobq._worker.runner.execution import Execution
from jobq._worker.runner.transaction import Transactions
from jobq.errors import NotTransactional
from jobq.settings import Settings
from tests.apps import transfers
from tests.chaos.test_faults import runners_of
from tests.support.jobs import Jobs
from tests.support.servers.commit_eater import CommitEater
from tests.support.waiting import wait_until
from tests.support.workers import WorkerProcess

StartWorker = Callable[..., WorkerProcess]
APP = "tests.apps.transfers:q"


@pytest.fixture
def start(jobs: Jobs, worker: StartWorker) -> StartWorker:
    """Starts a worker for transactional tasks; their tables are there."""
    transfers.create(jobs.connection)
    return lambda *args, **options: worker(*args, app=APP, **options)


def assert_exactly_once(jobs: Jobs) -> None:
    """One effect for each success, none for anything else."""
    assert not jobs.all(
        "SELECT job, count(*) FROM effect GROUP BY job HAVING count(*) <> 1 "
        "OR job NOT IN (SELECT id FROM jobq.job_history WHERE state = 'succeeded')"
    )
    assert not jobs.all(
        "SELECT id FROM jobq.job_history WHERE state = 'succeeded' AND id NOT IN (SELECT job FROM effect)"
    )


def cut(jobs: Jobs, condition: str) -> int:
    """Terminate the backends of this database that fit; return how many."""
    return len(
        jobs.all(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
            f"AND datname = current_database() AND {condition}"
        )
    )


# --- the commit itself --------------------


@pytest.mark.parametrize("task", [transfers.act, transfers.act_async])
def test_a_backend_killed_while_it_commits(jobs: Jobs, start: StartWorker, task: Any) -> None:
    """Nothing was committed: the job is tried again."""
    jobs.connection.execute(transfers.SLOW_COMMIT)
    job = task.enqueue(jobs.connection, "4").id
    start()
    committing = "application_name LIKE 'jobq task%%' AND query = 'COMMIT' AND state = 'active'"
    wait_until(lambda: cut(jobs, committing), what="the commit")
    ended = jobs.wait(job)
    assert (ended["state"], ended["attempt"], ended["claims"]) == ("succeeded", 2, 2)
    (attempt,) = jobs.attempts(job)
    assert attempt["error_type"] == "jobq._worker.runner.verdict.CommitUnknown"
    assert_exactly_once(jobs)


@pytest.mark.parametrize("task", [transfers.act, transfers.act_async])
def test_a_commit_whose_answer_is_lost(database_url: str, jobs: Jobs, start: StartWorker, task: Any) -> None:
    """All was committed: nothing is repeated, though the runner could not know."""
    proxy = CommitEater(database_url, "jobq task", appetite=3)
    found = [task.enqueue(jobs.connection, str(n)).id for n in range(6)]
    running = start("--drain", database_url=proxy.url)
    assert running.wait() == 0
    proxy.close()
    assert proxy.eaten == 3
    for job in found:
        assert (jobs.wait(job)["state"], jobs.wait(job)["claims"]) == ("succeeded", 1)
    assert jobs.one("SELECT count(*) FROM jobq.job_attempt") == 0
    assert_exactly_once(jobs)


def test_a_deferred_constraint_is_an_error_of_the_job(jobs: Jobs, start: StartWorker) -> None:
    jobs.connection.execute("ALTER TABLE effect ADD UNIQUE (note) DEFERRABLE INITIALLY DEFERRED")
    first = transfers.act.enqueue(jobs.connection, "same").id
    start()
    jobs.wait(first)
    second = transfers.act.options(max_attempts=2).enqueue(jobs.connection, "same").id
    ended = jobs.wait(second)
    assert (ended["state"], ended["attempt"]) == ("failed", 2)
    assert [row["error_type"] for row in jobs.attempts(second)] == ["psycopg.errors.UniqueViolation"] * 2
    # The connection goes on being used.
    assert jobs.wait(transfers.act.enqueue(jobs.connection, "other").id)["claims"] == 1
    assert_exactly_once(jobs)


def test_serialization_failures_move_no_money_twice(jobs: Jobs, start: StartWorker) -> None:
    names = ["ann", "bob", "eve"]
    for name in names:
        jobs.connection.execute("INSERT INTO account VALUES (%s, 100000)", (name,))
    pairs = [(a, b) for a in names for b in names if a != b] * 25
    transfers.q.enqueue_many(
        jobs.connection, [transfers.transfer.options(max_attempts=1000).job(a, b, 7) for a, b in pairs]
    )
    start("--concurrency", "4")
    wait_until(lambda: jobs.one("SELECT count(*) = 0 FROM jobq.job"), timeout=60, what="every end")
    assert jobs.one("SELECT count(*) FROM jobq.job_history WHERE state = 'succeeded'") == len(pairs)
    # As much went to each as came from it.
    assert [row["balance"] for row in jobs.all("SELECT balance FROM account")] == [100000] * 3
    assert jobs.one("SELECT bool_and(error_type LIKE 'psycopg.errors.%%') FROM jobq.job_attempt") in (True, None)
    assert_exactly_once(jobs)


# --- nothing waits for a commit -------------------


def test_a_locked_job_holds_up_no_other(database_url: str, jobs: Jobs, start: StartWorker) -> None:
    """The backend of a lost runner may be committing, or undoing, for long: its job's row is locked meanwhile."""
    running = start("--processes", "1")
    job = transfers.linger.enqueue(jobs.connection, 600.0).id
    wait_until(lambda: jobs.traces(job), what="the start")
    with psycopg.connect(database_url) as holder:
        holder.execute("SELECT FROM jobq.job WHERE id = %s FOR UPDATE", (job,))
        (runner,) = runners_of(running.pid)
        os.kill(runner, signal.SIGKILL)
        # Others are claimed and acknowledged as though nothing were.
        for _ in range(3):
            assert jobs.wait(transfers.act.enqueue(jobs.connection).id, timeout=10)["state"] == "succeeded"
        row = jobs.live(job)
        assert row is not None
        assert (row["state"], row["claims"]) == ("running", 1)
        holder.rollback()
    wait_until(lambda: jobs.traces(job) == ["lingers"] * 2, what="the second start")
    (attempt,) = jobs.attempts(job)
    assert (attempt["outcome"], attempt["error_type"]) == ("crashed", "RunnerCrashed")
    assert "never arrived" not in running.log


def test_a_worker_that_stops_waits_for_a_locked_job(database_url: str, jobs: Jobs, start: StartWorker) -> None:
    running = start("--processes", "1", "--shutdown-timeout", "0")
    job = transfers.linger.enqueue(jobs.connection, 600.0).id
    wait_until(lambda: jobs.traces(job), what="the start")
    with psycopg.connect(database_url) as holder:
        holder.execute("SELECT FROM jobq.job WHERE id = %s FOR UPDATE", (job,))
        running.terminate()
        wait_until(lambda: "stopping jobs that have not ended" in running.log, what="the killing")
        wait_until(lambda: "a runner was killed" in running.log, what="the runner's end")
        tried = "application_name = 'jobq worker claims' AND query LIKE 'WITH ended AS%%' AND state = 'idle'"
        wait_until(lambda: jobs.one(f"SELECT count(*) FROM pg_stat_activity WHERE {tried}"), what="a failed try")
        holder.rollback()
    assert running.wait() == 0
    row = jobs.live(job)
    assert row is not None
    assert (row["state"], row["attempt"]) == ("ready", 0)
    assert jobs.one("SELECT count(*) FROM jobq.worker") == 0


async def test_a_dead_workers_locked_job_holds_up_no_rescuer(database_url: str, jobs: Jobs, start: StartWorker) -> None:
    times = ("--lease", "3", "--suspicion", "1", "--heartbeat-interval", "0.3")
    locked, free = (transfers.linger.enqueue(jobs.connection, 600.0).id for _ in range(2))
    victim = start(*times)
    wait_until(lambda: jobs.traces(locked) and jobs.traces(free), what="both starts")
    with psycopg.connect(database_url) as holder:
        holder.execute("SELECT FROM jobq.job WHERE id = %s FOR UPDATE", (locked,))
        victim.kill()
        rescuer = start(*times)
        wait_until(lambda: len(jobs.traces(free)) == 2, what="the rescue")
        row = jobs.live(locked)
        assert row is not None
        assert row["claims"] == 1
        assert jobs.wait(transfers.act.enqueue(jobs.connection).id, timeout=10)["state"] == "succeeded"
        # The maintenance task passes it over as well, for now.
        jobs.connection.execute("UPDATE jobq.job SET started_at = started_at - interval '1 h' WHERE id = %s", (free,))
        async with await connect(Settings(database_url=database_url), "test") as connection:
            assert (await fetch(connection, "jobq", "release_orphans", only=None, channel="jobq"))[0][0] == 0
            holder.execute("UPDATE jobq.job SET started_at = started_at - interval '1 h' WHERE id = %s", (locked,))
            holder.commit()
            assert (await fetch(connection, "jobq", "release_orphans", only=None, channel="jobq"))[0][0] == 1
    wait_until(lambda: len(jobs.traces(locked)) == 2, what="its second start")
    assert "no heartbeat" not in rescuer.log


# --- the fence --------------------


@pytest.mark.parametrize("taken", ["claims", "worker", "started", "finished"])
async def test_an_execution_that_is_no_longer_ours_commits_nothing(
    database_url: str, jobs: Jobs, start: StartWorker, taken: str
) -> None:
    transfers.act.enqueue(jobs.connection)
    settings, worker = Settings(database_url=database_url), uuid4()
    async with await connect(settings, "test") as connection:
        claimed, _ = await JobStore("jobq").advance(connection, worker, [], everything((["default"], [5])), 1)
    ((job,), _) = claimed.jobs()
    transactions = Transactions(settings, lambda execution, coroutine: coroutine.close())
    try:
        transaction = transactions.begin(Execution(job=job, worker=worker), is_async=False)
        lent = transaction.connection
        lent.execute("INSERT INTO effect (job) VALUES (%s)", (job.id,))
        backend = lent.info.backend_pid
        match taken:
            case "claims":
                jobs.connection.execute("UPDATE jobq.job SET claims = claims + 1")
            case "worker":
                jobs.connection.execute("UPDATE jobq.job SET worker_id = %s", (uuid4(),))
            case "started":
                jobs.connection.execute("UPDATE jobq.job SET started_at = started_at + interval '1 microsecond'")
            case "finished":
                jobs.connection.execute("DELETE FROM jobq.job")
        assert transaction.succeed(b"null", 0.1) == AlreadyCommitted(job.id, job.claims, job.started, accepted=False)
        assert jobs.one("SELECT count(*) FROM effect") == 0
        assert jobs.one("SELECT count(*) FROM jobq.job_history") == 0
        # What the job had is closed, and the slot's connection is as good as new.
        assert lent.closed
        with pytest.raises(NotTransactional, match="the job has ended"):
            _ = transaction.connection
        again = transactions.begin(Execution(job=job, worker=worker), is_async=False)
        assert again.connection.info.backend_pid == backend
        assert again.connection.execute("SELECT count(*) FROM effect").fetchone() == (0,)
        again.abandon()
    finally:
        transactions.close()


async def test_a_rescue_that_commits_first_wins(database_url: str, jobs: Jobs, start: StartWorker) -> None:
    """The success waits for the rescuer's lock, and then finds that the job is not its own."""
    transfers.act.enqueue(jobs.connection)
    settings, worker = Settings(database_url=database_url), uuid4()
    async with await connect(settings, "test") as connection:
        claimed, _ = await JobStore("jobq").advance(connection, worker, [], everything((["default"], [5])), 1)
    ((job,), _) = claimed.jobs()
    transactions = Transactions(settings, lambda execution, coroutine: coroutine.close())
    try:
        transaction = transactions.begin(Execution(job=job, worker=worker), is_async=False)
        backend = transaction.connection.info.backend_pid
        with psycopg.connect(database_url) as rescuer:
            rescuer.execute("UPDATE jobq.job SET state = 'ready', worker_id = NULL")
            outcomes: list[object] = []
            late = threading.Thread(target=lambda: outcomes.append(transaction.succeed(b"null", 0.1)))
            late.start()
            waiting = "SELECT count(*) FROM pg_locks WHERE pid = %s AND NOT granted"
            wait_until(lambda: jobs.one(waiting, backend), what="the wait")
            rescuer.commit()
            late.join(10)
        assert outcomes == [AlreadyCommitted(job.id, job.claims, job.started, accepted=False)]
        assert jobs.one("SELECT state FROM jobq.job") == "ready"
    finally:
        transactions.close()


def test_a_frozen_worker_commits_nothing(jobs: Jobs, start: StartWorker) -> None:
    """SIGSTOP of the dispatcher and its runner beyond the lease, amid open transactions; another worker runs the jobs."""
    times = ("--lease", "3", "--suspicion", "2", "--heartbeat-interval", "0.5", "--processes", "1")
    found = [task.enqueue(jobs.connection, 3.0).id for task in (transfers.linger, transfers.linger_async) * 3]
    frozen = start(*times)
    wait_until(lambda: jobs.one("SELECT count(*) FROM ran") == 6, what="every start")
    stopped = [*runners_of(frozen.pid), frozen.pid]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        other = start(*times)
        for job in found:
            assert jobs.wait(job, timeout=40)["state"] == "succeeded"
        assert_exactly_once(jobs)
    finally:
        # The runner first: it wakes where it was, with nothing to stop it but the fence.
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    wait_until(lambda: not os.path.exists(f"/proc/{stopped[0]}"), what="the runner's end")
    wait_until(lambda: "the lease is lost" in frozen.log, what="the notice")
    assert_exactly_once(jobs)
    assert jobs.one("SELECT max(claims) FROM jobq.job_history") == 2
    # Its new runners commit in the name of its new identity.
    other.terminate()
    other.wait()
    assert jobs.wait(transfers.act.enqueue(jobs.connection).id)["claims"] == 1


# --- all of it --------------------


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_kills_at_random(jobs: Jobs, start: StartWorker, record_property: Any) -> None:
    """kill -9 of runners and dispatchers, and termination of backends, amid 3,000 jobs."""
    seed = random.randrange(1 << 32)
    record_property("seed", seed)
    chance = random.Random(seed)
    jobs_to_do = [(transfers.chaotic if n % 2 else transfers.chaotic_async).job(n) for n in range(3000)]
    transfers.q.enqueue_many(jobs.connection, jobs_to_do)
    expected = 3000
    options = ("--max-crashes", "1000", "--processes", "2", "--suspicion", "2", "--heartbeat-interval", "0.5")
    workers = [start(*options), start(*options)]
    kills = {"runner": 0, "dispatcher": 0, "task": 0, "worker": 0}
    until = time.monotonic() + 200

    def strike() -> None:
        kind = chance.choices(list(kills), weights=(4, 1, 6, 2))[0]
        victim = chance.choice(workers)
        match kind:
            case "runner":
                for pid in runners_of(victim.pid):
                    os.kill(pid, signal.SIGKILL)
                    kills[kind] += 1
                    break
            case "dispatcher" if kills[kind] < 4:
                victim.kill()
                workers[workers.index(victim)] = start(*options)
                kills[kind] += 1
            case "task":
                kills[kind] += cut(jobs, "application_name LIKE 'jobq task%%'")
            case "worker":
                kills[kind] += cut(jobs, "application_name = 'jobq worker claims'")

    step = 3000 // 40

    def ended(share: int) -> bool:
        return bool(jobs.one("SELECT count(*) >= %s FROM jobq.job_history", share))

    for share in range(step, 3000, step):
        wait_until(partial(ended, share), timeout=max(1, until - time.monotonic()), what=f"{share} ends")
        strike()
    wait_until(
        lambda: jobs.one("SELECT count(*) = 0 FROM jobq.job"), timeout=max(1, until - time.monotonic()), what="the rest"
    )
    print(f"seed {seed}: {kills}, {jobs.one('SELECT sum(claims) FROM jobq.job_history')} claims")
    assert_exactly_once(jobs)
    states = jobs.all("SELECT state, task, count(*) AS n FROM jobq.job_history GROUP BY 1, 2 ORDER BY 1, 2")
    parents = sum(row["n"] for row in states if row["task"] != "act" and row["state"] == "succeeded")
    assert parents == expected, states
    # Each was enqueued by the transaction that made its parent succeed. Those of `chaotic`: odd numbers have none.
    assert jobs.one("SELECT count(*) FROM jobq.job_history WHERE task = 'act'") == jobs.one(
        "SELECT count(*) FROM jobq.job_history WHERE task = 'chaotic' AND (args ->> 'number')::int %% 10 = 5"
    )
