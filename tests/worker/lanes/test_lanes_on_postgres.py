"""How a worker chooses between queues and priorities, on a real database: by counts of what was claimed, not by times."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from jobq._worker.claiming.loop import ClaimLoop
from jobq._worker.database import Connection, Database
from jobq._worker.health.state import LoopHealth
from jobq._worker.ipc.messages import Job, Success
from jobq._worker.lanes.cursor import Cursor
from jobq._worker.lanes.lanes import Lanes
from jobq._worker.lease import Lease
from jobq._worker.options import WorkerOptions
from jobq._worker.outcomes.store import JobStore
from jobq._worker.queue_spec import QueueOrder
from jobq._worker.runners.pool import RunnerPool
from jobq.cli.exits import Exit
from jobq.settings import Settings
from tests.support.checks import some
from tests.support.claim_loops import running
from tests.support.jobs import Jobs
from tests.support.waiting import wait_until_async
from tests.support.workers import WorkerProcess


@pytest.fixture
def options(database_url: str) -> WorkerOptions:
    return WorkerOptions(app="-", settings=Settings(database_url=database_url), queues=("a", "b", "c"))


def backlog(jobs: Jobs, **counts: int) -> None:
    """Queue so many jobs by queue, all with different priorities."""
    for queue, count in counts.items():
        jobs.connection.execute(
            "INSERT INTO jobq.job (task, queue, priority) SELECT 'noop', %s, n %% 10 FROM generate_series(1, %s) AS n",
            (queue, count),
        )


# --- Claim by claim


class Claims:
    """Claims as the worker's loop does."""

    def __init__(self, connection: Connection, options: WorkerOptions) -> None:
        self.lanes = Lanes.of(options)
        self.total: Counter[str] = Counter()
        self._connection = connection
        self._cursor = Cursor()
        self._ledger = JobStore("jobq")
        self._worker = uuid4()
        self._held: list[Success] = []

    async def claim(self, want: int) -> Counter[str]:
        """Acknowledge what was claimed, claim up to `want`, and return how many of each queue came."""
        scan = self._cursor.plan(*self.lanes.arrays())
        claimed, refused = await self._ledger.advance(self._connection, self._worker, self._held, scan, want)
        assert not refused
        assert claimed.sight is not None
        self._cursor.read(scan, claimed.sight)
        self.lanes.claimed(scan, claimed.sight)
        found, _ = claimed.jobs()
        self._held = [Success(job.id, job.claims, job.started, b"null", 0.0) for job in found]
        counts = Counter(job.queue for job in found)
        self.total += counts
        return counts


@asynccontextmanager
async def claiming(options: WorkerOptions) -> AsyncIterator[Claims]:
    async with await Database(options.settings).connect("test") as connection:
        yield Claims(connection, options)


WEIGHTS = {"a": 3, "c": 2}


async def test_single_slots_are_shared_by_weight(jobs: Jobs, options: WorkerOptions) -> None:
    backlog(jobs, a=300, b=300, c=300)
    async with claiming(replace(options, queue_weights=WEIGHTS)) as claims:
        for _ in range(300):
            await claims.claim(1)
            done = claims.total.total()
            for queue, weight in (("a", 3), ("b", 1), ("c", 2)):
                assert abs(claims.total[queue] - done * weight / 6) <= 3
    assert claims.total == {"a": 150, "b": 50, "c": 100}


async def test_large_claims_are_shared_by_weight(jobs: Jobs, options: WorkerOptions) -> None:
    """Each comes from one queue, which is then passed over until the others have had their part."""
    backlog(jobs, a=9_000, b=3_000, c=6_000)
    async with claiming(replace(options, queue_weights=WEIGHTS)) as claims:
        for _ in range(48):
            assert len(await claims.claim(250)) == 1
            done = claims.total.total()
            for queue, weight in (("a", 3), ("b", 1), ("c", 2)):
                assert abs(claims.total[queue] - done * weight / 6) <= 3 * 250
    assert claims.total == {"a": 6_000, "b": 2_000, "c": 4_000}


async def test_large_claims_of_the_one_and_small_of_the_other(jobs: Jobs, options: WorkerOptions) -> None:
    """It is jobs that count, not claims: a queue that fills the large ones is passed over for longer."""
    backlog(jobs, a=20_000, b=20_000)
    async with claiming(replace(options, queues=("a", "b"), queue_weights={"a": 1})) as claims:
        for n in range(200):
            await claims.claim(1 if n % 2 else 100)
    assert abs(claims.total["a"] - claims.total["b"]) <= 100


async def test_what_an_idle_queue_leaves_the_others_get_at_once(jobs: Jobs, options: WorkerOptions) -> None:
    backlog(jobs, a=100, b=20)
    async with claiming(replace(options, queue_weights={"a": 1, "b": 1, "c": 1_000})) as claims:
        for _ in range(20):
            await claims.claim(1)
        assert claims.total == {"a": 10, "b": 10}
        for _ in range(30):
            await claims.claim(2)
        assert claims.total == {"a": 60, "b": 20}
        # And it is no worse off for having had nothing, nor better.
        backlog(jobs, c=30)
        claims.lanes.hear("c")
        assert await claims.claim(30) == {"c": 30}
        assert await claims.claim(100) == {"a": 40}


async def test_by_default_queues_take_equal_parts_of_each_priority(jobs: Jobs, options: WorkerOptions) -> None:
    for queue, priority, count in (("a", 9, 10), ("b", 9, 10), ("a", 5, 50), ("c", 4, 50)):
        jobs.connection.execute(
            "INSERT INTO jobq.job (task, queue, priority) SELECT 'noop', %s, %s FROM generate_series(1, %s)",
            (queue, priority, count),
        )
    async with claiming(options) as claims:
        for done in range(1, 21):
            await claims.claim(1)
            assert abs(claims.total["a"] - done / 2) <= 1
        assert claims.total == {"a": 10, "b": 10}
        await claims.claim(60)
        assert claims.total == {"a": 60, "b": 10, "c": 10}


async def test_strict_leaves_the_later_queues_what_the_earlier_do_not_take(jobs: Jobs, options: WorkerOptions) -> None:
    backlog(jobs, a=30, b=30, c=30)
    async with claiming(replace(options, queues=("c", "a", "b"), queue_order=QueueOrder.STRICT)) as claims:
        found = [await claims.claim(20) for _ in range(5)]
    assert found == [{"c": 20}, {"c": 10, "a": 10}, {"a": 20}, {"b": 20}, {"b": 10}]


# --- The worker's loop


class Slots(RunnerPool):
    """Has so many slots and starts no process: it notes what it is given, which ends at once or never."""

    ready = True

    def __init__(self, options: WorkerOptions, slots: int, *, end: Callable[[list[Success]], None] | None) -> None:
        super().__init__(
            options,
            on_success=lambda _: None,
            on_setback=lambda _: None,
            on_recorded=lambda _: None,
            on_progress=lambda _: None,
            on_ready=lambda: None,
        )
        self._free = slots
        self._end = end
        self.given: list[Job] = []

    @property
    def slots(self) -> int:
        return 1

    @property
    def load(self) -> int:
        return 0

    @property
    def held(self) -> int:
        return 0

    def room(self, prefetch: int, soon: float = 0.0) -> int:
        return self._free

    def holds(self, job_id: int, claims: int, started: int) -> bool:
        return True

    def give(self, jobs: Iterable[Job], worker: Any) -> None:
        jobs = list(jobs)
        self.given += jobs
        if self._end is None:
            self._free -= len(jobs)
        else:
            self._end([Success(job.id, job.claims, job.started, b"null", 0.0) for job in jobs])


@asynccontextmanager
async def working(
    options: WorkerOptions, slots: int, end: Callable[[list[Success]], None] | None = None
) -> AsyncIterator[Slots]:
    """Run the worker's loop. `end` is called with what has ended before the loop is told."""

    def ended(successes: list[Success]) -> None:
        assert end is not None
        end(successes)
        loop.outcomes.succeeded(successes)

    pool = Slots(options, slots, end=ended if end is not None else None)
    loop = ClaimLoop(options, pool, Lease(options, "test"), LoopHealth("claims"))
    async with running(loop):
        yield pool


async def until(holds: Callable[[], bool], within: float = 60) -> None:
    await wait_until_async(holds, timeout=within, what="what the test waits for")


async def test_a_worker_that_starts_shares_its_slots_by_weight(jobs: Jobs, options: WorkerOptions) -> None:
    """With jobs that take for ever: the queue that comes first must not get all slots."""
    backlog(jobs, a=100, b=100, c=100)
    async with working(replace(options, queue_weights=WEIGHTS), slots=48) as pool:
        await until(lambda: len(pool.given) >= 48)
    assert Counter(job.queue for job in pool.given) == {"a": 24, "b": 8, "c": 16}


async def test_one_queue_of_a_worker_that_starts_gets_all_slots(jobs: Jobs, options: WorkerOptions) -> None:
    backlog(jobs, b=100)
    async with working(replace(options, queue_weights=WEIGHTS), slots=48) as pool:
        await until(lambda: len(pool.given) >= 48)
    assert Counter(job.queue for job in pool.given) == {"b": 48}


def saturate(jobs: Jobs) -> Callable[[list[Success]], None]:
    """Begin a backlog of priority 9 that never gets shorter: for each job that ends another one comes."""
    insert = b"INSERT INTO jobq.job (task, queue, priority) SELECT 'noop', 'a', 9 FROM generate_series(1, %s)"
    jobs.connection.execute(insert, (10,))

    def end(successes: list[Success]) -> None:
        jobs.connection.execute(insert, (len(successes),))

    return end


@pytest.mark.parametrize("order", list(QueueOrder))
async def test_with_aging_the_lowest_priority_moves(jobs: Jobs, options: WorkerOptions, order: QueueOrder) -> None:
    options = replace(options, queue_order=order, aging=0.05)
    lowest = jobs.one("INSERT INTO jobq.job (task, queue, priority) VALUES ('noop', 'a', 0) RETURNING id")
    async with working(options, 4, saturate(jobs)) as pool:
        await until(lambda: any(job.id == lowest for job in pool.given))
        # The others go on.
        done = len(pool.given)
        await until(lambda: len(pool.given) > done + 10)
    assert len(pool.given) > 10


@pytest.mark.parametrize("order", list(QueueOrder))
async def test_without_aging_the_lowest_priority_waits(jobs: Jobs, options: WorkerOptions, order: QueueOrder) -> None:
    """For longer than the other test gives it, by the database's clock."""
    options = replace(options, queue_order=order)
    lowest = jobs.one("INSERT INTO jobq.job (task, queue, priority) VALUES ('noop', 'a', 0) RETURNING id")
    waited = "SELECT now() - run_at > interval '2 s' FROM jobq.job WHERE id = %s"
    async with working(options, 4, saturate(jobs)) as pool:
        await until(lambda: len(pool.given) > 100 and bool(jobs.one(waited, lowest)))
    assert not any(job.id == lowest for job in some(pool.given))


async def test_a_low_priority_that_comes_under_load_is_seen(jobs: Jobs, options: WorkerOptions) -> None:
    """No claim reads so far as to see it: the heads are looked at every so often."""
    async with working(replace(options, aging=0.05), 4, saturate(jobs)) as pool:
        await until(lambda: len(pool.given) > 100)
        lowest = jobs.one("INSERT INTO jobq.job (task, queue, priority) VALUES ('noop', 'a', 0) RETURNING id")
        await until(lambda: any(job.id == lowest for job in pool.given))


# --- The worker itself


def test_the_options_of_the_command(jobs: Jobs, worker: Callable[..., WorkerProcess]) -> None:
    """Weights and caps are the worker's own affair: its row names its queues."""
    backlog(jobs, **{"a": 30, "tenant:5": 10})
    jobs.connection.execute("CREATE TABLE seen AS SELECT queues FROM jobq.worker")
    jobs.connection.execute(
        "CREATE FUNCTION seen() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO seen VALUES (new.queues); "
        "RETURN new; END $$; CREATE TRIGGER seen BEFORE INSERT ON jobq.worker FOR EACH ROW EXECUTE FUNCTION seen()"
    )
    running = worker("--drain", "--aging", "60", env={"JOBQ_WORKER_QUEUES": "a:3, tenant:5:1:max=2, mail:max=4"})
    assert running.wait() == 0, running.log
    assert jobs.one("SELECT count(*) FROM jobq.job") == 0
    assert jobs.all("SELECT * FROM seen") == [{"queues": ["a", "tenant:5", "mail"]}]
    running = worker("--drain", "--queues", "a,mail", "--queue-order", "strict")
    assert running.wait() == 0, running.log


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--queues", "a:0"], "weight '0'"),
        (["--queue-order", "strict"], "name them"),
        (["--queues", "a:2", "--queue-order", "strict"], "no use for weights"),
    ],
)
def test_what_makes_no_sense_ends_the_command(
    worker: Callable[..., WorkerProcess], arguments: list[str], said: str
) -> None:
    running = worker(*arguments)
    assert running.wait() in (Exit.USAGE, Exit.CONFIGURATION)
    assert said in running.log.replace("\n", " ")
