"""Thousands of queues, new ones at once among them: heartbeats go on, no job overlaps, and every job is found."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from jobq._worker.claiming.loop import ClaimLoop
from jobq._worker.health.state import LoopHealth
from jobq._worker.ipc.messages import Success
from jobq._worker.lanes.next_due import head_start
from jobq._worker.lease import Lease
from jobq._worker.loops import Topic
from jobq._worker.options import WorkerOptions
from jobq._worker.wakeup.policy import NotifyMode
from jobq.settings import Settings
from tests.apps import plain as apps
from tests.support.checks import some
from tests.support.claim_loops import running
from tests.support.jobs import Jobs
from tests.support.waiting import wait_until
from tests.support.workers import WorkerProcess
from tests.worker.lanes.test_lanes_on_postgres import Slots, until

StartWorker = Callable[..., WorkerProcess]
NO_POLL = ("--poll-interval", "100")
NEW_QUEUES = (
    "INSERT INTO jobq.job (task, queue, run_at) SELECT 'noop', 'new-' || n, now() + {} FROM generate_series(1, {}) AS n"
)


@pytest.fixture
def heard(jobs: Jobs, database_url: str) -> Iterator[Callable[[], list[str]]]:
    """What has been notified since the last call."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("LISTEN jobq")
        yield lambda: [one.payload for one in connection.notifies(timeout=0.3)]


@pytest.mark.parametrize(("queues", "told"), [(1, 1), (100, 100), (101, 1), (5_000, 1)])
def test_an_insert_into_many_queues_tells_so_once(
    jobs: Jobs, heard: Callable[[], list[str]], queues: int, told: int
) -> None:
    jobs.connection.execute(NEW_QUEUES.format("interval '1 h'", queues).encode())
    payloads = heard()
    assert len(payloads) == told
    assert set(payloads) == ({f"insert new-{n + 1}" for n in range(queues)} if queues <= 100 else {"many"})


def test_jobs_of_many_queues_in_the_mode_poll_tell_nobody(jobs: Jobs, heard: Callable[[], list[str]]) -> None:
    jobs.connection.execute("SELECT setval('jobq.notify_mode', %s)", (NotifyMode.POLL,))
    jobs.connection.execute(NEW_QUEUES.format("interval '1 h'", 200).encode())
    assert heard() == []


def test_enqueue_many_over_many_queues_starts_every_job(jobs: Jobs, worker: StartWorker) -> None:
    """Without a poll: the one message is enough, for jobs of now and for those of later."""
    worker(*NO_POLL)
    wait_until(lambda: jobs.all("SELECT FROM jobq.worker WHERE beats > 0"), what="the worker")
    apps.q.enqueue_many(jobs.connection, [apps.noop.options(queue=f"q-{n}", delay=n % 2).job() for n in range(400)])
    wait_until(lambda: jobs.one("SELECT count(*) FROM jobq.job") == 0, timeout=60, what="the end of all jobs")
    late = "SELECT max(started_at - run_at) < interval '5 s' FROM jobq.job_history"
    assert jobs.one(late)


def test_new_queues_keep_no_worker_from_its_heartbeat(jobs: Jobs, worker: StartWorker) -> None:
    """Jobs for later in thousands of queues, made at once: two workers go on, and so do their jobs, once each."""
    for _ in range(2):
        worker("--processes", "1", "--concurrency", "1")
    wait_until(lambda: len(jobs.all("SELECT FROM jobq.worker WHERE beats > 0")) == 2, timeout=60, what="the workers")
    long = [apps.wait.enqueue(jobs.connection, seconds=12).id for _ in range(2)]
    wait_until(lambda: jobs.one("SELECT count(*) FROM jobq.job WHERE state = 'running'") == 2, what="the long jobs")
    jobs.connection.execute(NEW_QUEUES.format("interval '1 h'", 12_000).encode())
    oldest, ends = 0.0, time.monotonic() + 60
    while jobs.one("SELECT count(*) FROM jobq.job_history") < 2:
        assert time.monotonic() < ends
        age = jobs.one("SELECT max(extract(epoch FROM now() - heartbeat_at))::float FROM jobq.worker")
        oldest = max(oldest, age)
        time.sleep(0.05)
    assert oldest < 10
    assert [jobs.wait(job)["claims"] for job in long] == [1, 1]
    assert jobs.all("SELECT FROM jobq.job_attempt") == []


@pytest.fixture
def options(database_url: str) -> WorkerOptions:
    return WorkerOptions(app="-", settings=Settings(database_url=database_url), poll_interval=60)


async def test_a_job_in_each_of_thousands_of_queues(jobs: Jobs, options: WorkerOptions) -> None:
    """Each claim looks at some of the lanes that have jobs, so that the number of statements is bounded by that of jobs."""
    jobs.connection.execute(
        "INSERT INTO jobq.job (task, queue) SELECT 'noop', 'q' || n FROM generate_series(1, 3000) AS n"
    )
    statements: list[int] = []

    def ended(successes: list[Success]) -> None:
        loop.outcomes.succeeded(successes)

    pool = Slots(options, 100, end=ended)
    loop = ClaimLoop(options, pool, Lease(options, "test"), LoopHealth("claims"))
    exchange = loop.claimer._exchange

    async def counted(*arguments: Any, **others: Any) -> None:
        statements.append(len(arguments[2].queues))
        await exchange(*arguments, **others)

    loop.claimer._exchange = counted  # type: ignore[method-assign]
    async with running(loop):
        await until(lambda: len(pool.given) == 3000, 60)
        await until(lambda: not len(loop.outcomes))
    assert jobs.one("SELECT count(*) FROM jobq.job") == 0
    # How many slots are free at each depends on the speed of the machine: 120 to 190 were seen.
    assert len(statements) <= 500
    assert max(statements) <= 256 + 64


def again(loop: ClaimLoop) -> bool:
    """Have all lanes read once more; tell whether they were often enough."""
    loop.finder.survey.hasten(0.0, 0.0)
    loop.wake()
    return loop.finder.survey.slices >= 4


async def test_a_queue_that_goes_on_again_after_a_pause(jobs: Jobs, options: WorkerOptions) -> None:
    """What it got meanwhile, no reading has noted: it is read from its beginning."""
    pool = Slots(options, 100, end=None)
    loop = ClaimLoop(options, pool, Lease(options, "test"), LoopHealth("claims"))
    jobs.connection.execute("INSERT INTO jobq.queue (name, paused_at) VALUES ('mail', now())")
    async with running(loop):
        apps.noop.options(queue="mail").enqueue(jobs.connection)
        other = apps.noop.enqueue(jobs.connection).id
        loop.wake(Topic("insert", "default"))
        await until(lambda: [job.id for job in pool.given] == [other])
        # All lanes are read again and again, and this one is passed over.
        await until(lambda: again(loop))
        jobs.connection.execute("UPDATE jobq.queue SET paused_at = NULL")
        loop.sync.heard([], None)
        await until(lambda: len(pool.given) == 2)


def test_one_of_many_workers_goes_for_a_job_at_once() -> None:
    """Alone or with one other, always; among many, two on the average, and the others give them a head start."""
    assert {head_start(peers) for peers in (0, 1) for _ in range(100)} == {0.0}
    waits = [head_start(49) for _ in range(5_000)]
    at_once = waits.count(0.0)
    assert 100 <= at_once <= 320
    assert all(some(0.001 <= wait <= 0.025 for wait in waits if wait))


async def test_who_leaves_a_job_to_others_takes_it_if_nobody_does(
    jobs: Jobs, options: WorkerOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobq._worker.claiming.finder.head_start", lambda _: 0.005)
    pool = Slots(options, 100, end=None)
    loop = ClaimLoop(options, pool, Lease(options, "test"), LoopHealth("claims"))
    async with running(loop):
        for number in range(5):
            await until(lambda: loop.finder.sleeping)
            apps.noop.enqueue(jobs.connection)
            loop.wake(Topic("insert", "default"))
            await until(lambda: len(pool.given) == number + 1)  # noqa: B023 - called in this turn
