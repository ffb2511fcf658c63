"""Which workers are suspected, and what a rescue may cost the rescuer."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from jobq._worker import WorkerOptions
from jobq._worker.database import Connection, Database, fetch
from jobq._worker.lease import Lease
from jobq._worker.peers import CLOCK_TOLERANCE, Peers
from jobq._worker.timeouts import lease_timeouts
from jobq.settings import Settings
from tests.apps import plain as apps
from tests.support.jobs import Jobs
from tests.support.waiting import wait_until
from tests.support.workers import WorkerProcess

StartWorker = Callable[..., WorkerProcess]
TERMS = lease_timeouts(2.0)


@pytest.fixture
async def watcher(database_url: str) -> AsyncIterator[Connection]:
    """The connection of a worker that watches."""
    connection = await Database(Settings(database_url=database_url)).connect("watch")
    yield connection
    await connection.close()


def lease_of(database_url: str, **settings: Any) -> tuple[Lease, Database]:
    options = WorkerOptions(app="shop:q", settings=Settings(database_url=database_url, **settings))
    return Lease(options, "0"), Database(options.settings)


async def unsuspected(watcher: Connection, lease: Lease) -> bool:
    [free] = [row[2] for row in await fetch(watcher, "jobq", "worker_peers") if row[0] == lease.worker]
    return bool(free)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What time.monotonic() says to a lease: `clock.now`."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr("jobq._worker.lease.time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


async def test_a_heartbeat_is_as_old_as_a_clock_that_runs_says(
    database_url: str, watcher: Connection, clock: SimpleNamespace
) -> None:
    """Suspicion counts from the heartbeat, not from the look that finds it, unless the server's clock was set meanwhile."""
    lease, _ = lease_of(database_url)
    other, since = uuid4(), []
    for now, took, beats, age, server in [
        (100.0, 0.0, 1, 0.1, 5000.0),
        (102.0, 0.0, 2, 1.5, 5002.0),
        (104.0, 0.0, 3, 1.5, 5009.0),
        (106.0, 0.0, 4, 9.0, 5011.0),
        (108.0, 0.0, 5, 0.0, 5013.05),
        (110.0, 0.8, 6, 1.0, 5014.3),
    ]:
        clock.now = now
        await lease.watch(watcher, Peers([(other, beats, True, age, server, 30.0, 3.5)], now - took, now))
        since.append(lease._watched[other].since)
    # The first is not known before; 1.4 s; the clock was set; no older than the last look; no younger than now; and an answer
    # that was slow to come says no more than when it came at the latest.
    assert since == [100.0, pytest.approx(102.0 - 1.5 + CLOCK_TOLERANCE), 104.0, 104.0, 108.0, pytest.approx(109.1)]


async def test_a_late_look_is_late_and_no_more(database_url: str, watcher: Connection, clock: SimpleNamespace) -> None:
    """A watch begins again only when the others, too, may have been kept from the database."""
    lease, _ = lease_of(database_url)
    other = uuid4()

    async def since(now: float) -> float:
        clock.now = now
        await lease.watch(watcher, Peers([(other, 7, True, now - 100.0, now, 30.0, 3.5)], now, now))
        return lease._watched[other].since

    assert await since(100.0) == 100.0
    assert await since(106.5) == 100.0, "only this process was slow"
    assert await since(120.0) == 120.0, "all of the machine may have stood still"
    # A statement that fails: the connection is closed under it.
    await watcher.close()
    with pytest.raises(psycopg.OperationalError):
        await lease.look(watcher)
    assert await since(121.0) == 121.0, "a statement of ours has failed"
    assert await since(122.0) == 121.0


async def test_a_free_lock_counts_only_in_the_server_where_it_was_taken(
    database_url: str, watcher: Connection, conn: psycopg.Connection[Any]
) -> None:
    lease, database = lease_of(database_url)
    connection = await database.connect("heartbeats", TERMS)
    await lease.register(connection, 1, [])
    assert lease.locked
    assert await unsuspected(watcher, lease)
    await connection.close()
    while await unsuspected(watcher, lease):
        pass  # until the server has noticed
    # After a failover no worker holds a lock yet, and all may be alive.
    conn.execute("UPDATE jobq.worker SET lock_server_start = lock_server_start - interval '1 day'")
    conn.commit()
    assert await unsuspected(watcher, lease)
    # The new server's lock counts again, from the first heartbeat that says so.
    again = await database.connect("heartbeats", TERMS)
    await lease.beat(again, running=0, state="running", tasks=[])
    assert lease.locked
    await again.close()
    while await unsuspected(watcher, lease):
        pass


async def test_without_a_lock_only_the_whole_lease_counts(database_url: str, watcher: Connection) -> None:
    lease, database = lease_of(database_url, pooler="transaction")
    connection = await database.connect("heartbeats", TERMS)
    await lease.register(connection, 1, [])
    assert not lease.locked
    assert lease.fence_after == pytest.approx(29.5)
    await lease.beat(connection, running=0, state="running", tasks=[])
    assert lease.fence_after == pytest.approx(29.5)
    await connection.close()
    assert await unsuspected(watcher, lease)


async def test_with_a_lock_that_may_be_lost_the_suspicion_counts(database_url: str) -> None:
    lease, database = lease_of(database_url)
    connection = await database.connect("heartbeats", TERMS)
    await lease.register(connection, 1, [])
    assert lease.fence_after == pytest.approx(29.5)
    lease.locked = False  # as the dispatcher notes when the connection is lost
    assert lease.fence_after == pytest.approx(3.0)
    await connection.close()


def test_a_dead_worker_that_is_locked_costs_the_rescuer_nothing(
    database_url: str, jobs: Jobs, worker: StartWorker
) -> None:
    """An open transaction holds the dead worker's row: the rescue waits for it, the rescuer's own heartbeats do not."""
    times = ("--heartbeat-interval", "0.5", "--suspicion", "2")
    lost = apps.wait.enqueue(jobs.connection, 600.0, "lost").id
    victim = worker(*times)
    wait_until(lambda: jobs.traces(lost), what="the first start")
    rescuer = worker(*times)
    wait_until(lambda: "working" in rescuer.log, what="the second worker")
    with psycopg.connect(database_url) as holder:
        victim.process.send_signal(signal.SIGKILL)
        holder.execute("SELECT FROM jobq.worker WHERE pid = %s FOR UPDATE", (victim.pid,))
        wait_until(lambda: "dead worker is locked" in rescuer.log, timeout=60, what="the rescue that waits")
        beats = jobs.one("SELECT max(beats) FROM jobq.worker")
        wait_until(lambda: jobs.one("SELECT max(beats) FROM jobq.worker") > beats + 8, timeout=60, what="heartbeats")
        assert "no heartbeat" not in rescuer.log
        holder.commit()
    wait_until(lambda: len(jobs.traces(lost)) == 2, timeout=60, what="the second start")
