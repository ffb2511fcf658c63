"""Every way by which a job of a limited queue becomes claimable wakes who can claim it; and who claims does so for all."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg.rows import tuple_row

from jobq import operations
from jobq._postgres.sql import statement
from jobq._worker.claiming.loop import ClaimLoop
from jobq._worker.health.state import LoopHealth
from jobq._worker.ipc.messages import AlreadyCommitted, Job, Success
from jobq._worker.lease import Lease
from jobq._worker.loops import Topic
from jobq._worker.options import WorkerOptions
from jobq._worker.queue_spec import QueueOrder
from jobq._worker.runners.pool import RunnerPool
from jobq._worker.wakeup.policy import NotifyMode
from jobq.settings import Settings
from tests.apps import plain as apps
from tests.support.claim_loops import running
from tests.support.jobs import Jobs
from tests.support.waiting import wait_until, wait_until_async
from tests.support.workers import WorkerProcess

StartWorker = Callable[..., WorkerProcess]
# Too seldom for a poll to be what made a job start.
NO_POLL = ("--poll-interval", "100")


def rule(jobs: Jobs, queue: str, **columns: Any) -> None:
    names = ", ".join(columns)
    jobs.connection.execute(
        f"INSERT INTO jobq.queue (name, {names}) VALUES (%s{', %s' * len(columns)})", (queue, *columns.values())
    )


def claim(jobs: Jobs, queue: str = "mail", want: int = 10, worker: Any = None) -> list[int]:
    rows = jobs.all("SELECT id FROM jobq.claim_limited(%s, %s, %s)", worker or uuid4(), queue, want)
    return sorted(row["id"] for row in rows if row["id"] is not None)


@pytest.fixture
def heard(jobs: Jobs, database_url: str) -> Iterator[Callable[[], list[str]]]:
    """What has been notified since the last call."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("LISTEN jobq")
        yield lambda: [one.payload for one in connection.notifies(timeout=0.2)]


# --- what statements tell ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["cancel", "delete", "expire", "move"])
def test_a_head_that_leaves_wakes_those_who_can_claim_the_next(
    jobs: Jobs, heard: Callable[[], list[str]], way: str
) -> None:
    rule(jobs, "mail", group_mode="ordered")
    head = apps.noop.options(queue="mail", group="a", delay=3600, expires_in=7200).enqueue(jobs.connection).id
    behind = apps.noop.options(queue="mail", group="a").enqueue(jobs.connection).id
    assert claim(jobs) == []
    heard()
    if way == "expire":
        jobs.connection.execute("UPDATE jobq.job SET expires_at = now() WHERE id = %s", (head,))
        jobs.connection.execute(statement("expire_jobs", "jobq").query, {"ids": [head], "channel": "jobq"})
    else:
        operate: dict[str, Callable[[], operations.Changed]] = {
            "cancel": lambda: operations.cancel(jobs.connection, "jobq", [head], actor="test"),
            "delete": lambda: operations.delete(jobs.connection, "jobq", [head], actor="test"),
            "move": lambda: operations.move(jobs.connection, "jobq", [head], queue="other", actor="test"),
        }
        assert operate[way]().done == [head]
    assert "insert mail" in heard()
    assert claim(jobs) == [behind]


def test_a_job_that_is_replaced_wakes_while_producers_are_silent(jobs: Jobs, heard: Callable[[], list[str]]) -> None:
    """The lead poller looks at the heads of lanes: what waits for its group's turn is in none."""
    rule(jobs, "mail", group_mode="fair")
    options: dict[str, Any] = {"queue": "mail", "group": "a", "key": "k", "key_holds": "until_started"}
    apps.noop.options(**options, delay=3600).enqueue(jobs.connection)
    jobs.connection.execute("SELECT setval('jobq.notify_mode', %s)", (int(NotifyMode.POLL),))
    heard()
    assert apps.noop.options(**options, on_conflict="replace").enqueue(jobs.connection).replaced
    assert heard() == ["insert mail"]


def test_a_dead_worker_may_not_have_told_of_the_room_that_it_made(jobs: Jobs, heard: Callable[[], list[str]]) -> None:
    rule(jobs, "mail", max_running=1)
    dead = uuid4()
    jobs.connection.execute(
        "INSERT INTO jobq.worker (id, lock_key, pid, slots, host, version) VALUES (%s, 1, 1, 1, 'h', 'v')", (dead,)
    )
    heard()
    parameters = {"dead": dead, "beats": 0, "only": None, "max_losses": 3, "channel": "jobq"}
    beats = jobs.one("SELECT beats FROM jobq.worker")
    jobs.connection.execute(statement("rescue", "jobq").query, {**parameters, "beats": beats + 1})
    assert heard() == []
    jobs.connection.execute(statement("rescue", "jobq").query, {**parameters, "beats": beats})
    assert heard() == ["insert mail"]


def test_a_drain_waits_for_a_rate_of_groups_as_for_one_of_the_queue(jobs: Jobs) -> None:
    rule(jobs, "mail", group_mode="fair", group_rate_jobs=1, group_rate_seconds=60.0, group_rate_burst=1)
    apps.q.enqueue_many(jobs.connection, [apps.noop.options(queue="mail", group="a").job() for _ in range(2)])
    apps.noop.options(queue="mail", group="b", delay=3600).enqueue(jobs.connection)
    worker = uuid4()
    [first] = claim(jobs, worker=worker)
    jobs.connection.execute("DELETE FROM jobq.job WHERE id = %s", (first,))
    with jobs.connection.cursor(row_factory=tuple_row) as cursor:
        drained = statement("is_drained", "jobq").query
        assert cursor.execute(drained, {"queues": None, "leaving": []}).fetchone() == (False,)
        cursor.execute("DELETE FROM jobq.job WHERE run_at <= now()")
        assert cursor.execute(drained, {"queues": None, "leaving": []}).fetchone() == (True,)


# --- the loop by itself ------------------------------------------------------------------------------------------------


class Pool(RunnerPool):
    """Has slots, and starts no process: each job that it is given succeeds in a moment."""

    ready = True
    load = held = 0
    slots = 1

    def __init__(self, options: WorkerOptions) -> None:
        super().__init__(
            options,
            on_success=lambda _: None,
            on_setback=lambda _: None,
            on_recorded=lambda _: None,
            on_progress=lambda _: None,
            on_ready=lambda: None,
        )
        self.given: list[Job] = []
        self.busy = 0
        self.ends: Callable[[list[Success]], None] = lambda _: None

    def room(self, prefetch: int, soon: float = 0.0) -> int:
        return self.slots - self.busy

    def holds(self, job_id: int, claims: int, started: int) -> bool:
        return False

    def give(self, jobs: Any, worker: Any) -> None:
        self.given += jobs
        self.busy += len(jobs)
        for job in jobs:
            asyncio.get_running_loop().call_later(0.001, self._end, job)

    def _end(self, job: Job) -> None:
        self.busy -= 1
        self.ends([Success(job.id, job.claims, job.started, b"null", 0.001)])


class Stage:
    """One hot loop, and what it does."""

    def __init__(self, url: str, **options: Any) -> None:
        self.options = WorkerOptions(app="-", settings=Settings(database_url=url), poll_interval=100, **options)
        self.pool = Pool(self.options)
        self.lease = Lease(self.options, "test")
        self.loop = ClaimLoop(self.options, self.pool, self.lease, LoopHealth("claims"))
        self.pool.ends = self.loop.outcomes.succeeded

    async def until(self, holds: Callable[[], bool]) -> None:
        """Run the loop until that."""
        async with running(self.loop) as task:
            await wait_until_async(lambda: holds() or task.done(), timeout=60, what="what the test waits for")

    @property
    def queues(self) -> list[str]:
        return [job.queue for job in self.pool.given]


async def test_a_busy_limited_queue_does_not_starve_another(jobs: Jobs, database_url: str) -> None:
    """Each round acknowledges jobs of the busy one, and claims into their room."""
    for queue in ("busy", "seldom"):
        rule(jobs, queue, max_running=10)
    apps.q.enqueue_many(jobs.connection, [apps.noop.options(queue="busy").job() for _ in range(400)])
    stage = Stage(database_url)
    await stage.until(lambda: len(stage.queues) >= 20)
    apps.noop.options(queue="seldom").enqueue(jobs.connection)
    stage.loop.wake(Topic("insert", "seldom"))
    await stage.until(lambda: "seldom" in stage.queues or len(stage.queues) >= 400)
    assert "seldom" in stage.queues[:200]


async def test_limited_queues_share_by_their_weights(jobs: Jobs, database_url: str) -> None:
    for queue in ("a", "b"):
        rule(jobs, queue, max_running=1000)
        apps.q.enqueue_many(jobs.connection, [apps.noop.options(queue=queue).job() for _ in range(600)])
    stage = Stage(database_url, queues=("a", "b"), queue_weights={"a": 3})
    stage.pool.slots = 8
    await stage.until(lambda: len(stage.queues) >= 400)
    share = Counter(stage.queues[:400])
    assert share["a"] > 1.5 * share["b"] > 0, share


async def test_limited_queues_keep_a_strict_order(jobs: Jobs, database_url: str) -> None:
    names = ("d", "a", "c", "b")
    for queue in names:
        rule(jobs, queue, max_running=10)
        apps.q.enqueue_many(jobs.connection, [apps.noop.options(queue=queue).job() for _ in range(20)])
    stage = Stage(database_url, queues=names, queue_order=QueueOrder.STRICT)
    await stage.until(lambda: len(stage.queues) == 80)
    assert stage.queues == [queue for queue in names for _ in range(20)]


async def test_a_claim_that_never_arrived_makes_room_when_it_is_put_back(jobs: Jobs, database_url: str) -> None:
    rule(jobs, "mail", max_running=1)
    stage = Stage(database_url)
    lost, behind = (apps.noop.options(queue="mail").enqueue(jobs.connection).id for _ in range(2))
    assert claim(jobs, want=1, worker=stage.lease.worker) == [lost]
    stage.loop.sync._reconciler.doubt()
    await stage.until(lambda: len(stage.pool.given) == 2)
    assert sorted(job.id for job in stage.pool.given) == [lost, behind]


async def test_a_worker_at_its_end_tells_of_all_the_room_that_it_makes(
    jobs: Jobs, database_url: str, heard: Callable[[], list[str]]
) -> None:
    """The last ends may come sooner after one another than others are called, and be written down by their runners."""
    rule(jobs, "mail", max_running=2)
    ids = [apps.noop.options(queue="mail").enqueue(jobs.connection).id for _ in range(2)]
    stage = Stage(database_url)
    stage.pool.slots = 2
    stage.pool.ends = lambda _: None
    await stage.until(lambda: len(stage.pool.given) == 2)
    stage.loop.leave()
    heard()
    stage.loop.outcomes.succeeded([Success(ids[0], 1, 0, b"null", 0.0)])
    await stage.loop.flush()
    stage.loop.claimer.recorded(AlreadyCommitted(ids[1], 1, 0, accepted=True))
    await stage.loop.flush()
    await stage.loop.close()
    assert heard() == ["due mail"] * 2
    assert stage.loop.finished


async def test_a_claim_beside_an_acknowledgement_is_not_made_twice(jobs: Jobs, database_url: str) -> None:
    rule(jobs, "mail", max_running=1)
    apps.q.enqueue_many(jobs.connection, [apps.noop.options(queue="mail").job() for _ in range(50)])
    stage = Stage(database_url)
    claims: list[int] = []
    begin = stage.loop.finder.limited.begin

    def counted(*args: Any, **kwargs: Any) -> dict[str, Any]:
        claims.append(1)
        return begin(*args, **kwargs)

    stage.loop.finder.limited.begin = counted  # type: ignore[method-assign]
    await stage.until(lambda: len(stage.pool.given) == 50)
    assert len(claims) < 60


async def test_idle_limited_queues_cost_one_look_for_all(jobs: Jobs, database_url: str) -> None:
    jobs.connection.execute(
        "INSERT INTO jobq.queue (name, max_running) SELECT 'idle' || n, 5 FROM generate_series(1, 300) AS n"
    )
    stage = Stage(database_url)
    limited = stage.loop.finder.limited
    limited._poll_interval = 0.02
    looks: list[int] = []
    claims: list[str] = []
    poll, begin = limited.poll, limited.begin

    async def counted(connection: Any) -> None:
        looks.append(1)
        await poll(connection)

    def claimed(worker: Any, queue: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        claims.append(queue)
        return begin(worker, queue, *args, **kwargs)

    limited.poll, limited.begin = counted, claimed  # type: ignore[method-assign]
    await stage.until(lambda: len(looks) >= 5)
    assert claims == []
    # What nothing told of, a look finds.
    apps.noop.options(queue="idle7").enqueue(jobs.connection)
    await stage.until(lambda: stage.queues == ["idle7"])
    assert set(claims) == {"idle7"}


async def test_an_outcome_is_written_while_the_lock_of_its_queue_is_held(jobs: Jobs, database_url: str) -> None:
    rule(jobs, "mail", max_running=1)
    first, second = (apps.noop.options(queue="mail").enqueue(jobs.connection).id for _ in range(2))
    stage = Stage(database_url)
    stage.pool.ends = lambda _: None
    await stage.until(lambda: bool(stage.pool.given))
    with psycopg.connect(database_url) as operator:
        operator.execute("SELECT 1")
        operations.configure(operator, "jobq", "mail", limit=2, actor="anna")
        stage.loop.outcomes.succeeded([Success(first, 1, stage.pool.given[0].started, b"null", 0.0)])
        stage.pool.busy = 0
        await stage.until(lambda: bool(jobs.finished(first)))
        assert [job.id for job in stage.pool.given] == [first]
        operator.rollback()
    await stage.until(lambda: [job.id for job in stage.pool.given] == [first, second])


async def test_plain_jobs_start_while_many_limited_queues_are_locked(jobs: Jobs, database_url: str) -> None:
    names = [f"locked{n}" for n in range(60)]
    for queue in names:
        rule(jobs, queue, max_running=10)
        apps.noop.options(queue=queue).enqueue(jobs.connection)
    with psycopg.connect(database_url) as operator:
        for queue in names:
            operator.execute(statement("queue_lock", "jobq").query, {"schema": "jobq", "queue": queue})
        stage = Stage(database_url)
        for n in range(5):
            apps.noop.options(queue="plain").enqueue(jobs.connection)
            stage.loop.wake(Topic("insert", "plain"))
            await stage.until(lambda n=n: len(stage.queues) == n + 1)  # type: ignore[misc]
        assert set(stage.queues) == {"plain"}
    await stage.until(lambda: len(stage.queues) == 65)


# --- workers -----------------------------------------------------------------------------------------------------------


def test_a_result_that_cannot_be_stored_makes_room(jobs: Jobs, worker: StartWorker) -> None:
    rule(jobs, "mail", max_running=1)
    running = worker("--processes", "1", *NO_POLL)
    wait_until(lambda: "working" in running.log, what="the worker")
    bad = apps.nul.options(queue="mail").enqueue(jobs.connection).id
    behind = apps.noop.options(queue="mail").enqueue(jobs.connection).id
    assert [jobs.wait(job)["state"] for job in (bad, behind)] == ["succeeded"] * 2


def test_a_worker_that_leaves_tells_of_each_job_that_ends(jobs: Jobs, worker: StartWorker) -> None:
    rule(jobs, "mail", max_running=8)
    first = worker("--processes", "1", *NO_POLL)
    wait_until(lambda: "working" in first.log, what="the first worker")
    held = [apps.wait.options(queue="mail").enqueue(jobs.connection, 2.0 + n / 100).id for n in range(8)]
    wait_until(lambda: jobs.one("SELECT count(*) = 8 FROM ran"), what="the first jobs")
    second = worker("--processes", "1", *NO_POLL)
    wait_until(lambda: "working" in second.log, what="the second worker")
    behind = [apps.wait.options(queue="mail").enqueue(jobs.connection, 6.0).id for _ in range(8)]
    first.terminate()
    rows = [jobs.wait(one) for one in behind]
    assert all(jobs.finished(one) for one in held)
    assert max(row["started_at"] for row in rows) < min(row["finished_at"] for row in rows)
