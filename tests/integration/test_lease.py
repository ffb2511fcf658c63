"""Who is suspected, and what a rescue may cost the rescuer."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from jobq.config import Settings
from jobq.worker import WorkerOptions
from jobq.worker.database import Connection, Database, fetch, lease_terms
from jobq.worker.lease import CLOCK_TOLERANCE, Lease
from tests.support import apps
from tests.support.jobs import Jobs
from tests.support.waiting import wait_until
from tests.support.workers import WorkerProcess

StartWorker = Callable[..., WorkerProcess]
TERMS = lease_terms(2.0)


@pytest.fixture
async def watcher(database_url: str) -> AsyncIterator[Connection]:
    """The connection of somebody who watches."""
    connection = await Database(Settings(database_url=database_url)).connect("watch")
    yield connection
    await connection.close()


def lease_of(database_url: str, **settings: Any) -> tuple[Lease, Database]:
    options = WorkerOptions(app="shop:q", settings=Settings(database_url=database_url, **settings))
    return Lease(options, "0"), Database(options.settings)


async def unsuspected(watcher: Connection, lease: Lease) -> bool:
    [free] = [row[2] for row in await fetch(watcher, "jobq", "worker_peers") if row[0] == lease.worker]
    return bool(free)


async def test_a_heartbeat_is_as_old_as_a_clock_that_runs_says(
    database_url: str, watcher: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Suspicion counts from the heartbeat, not from the look that finds it, unless the server's clock was set meanwhile."""
    lease, _ = lease_of(database_url)
    times = iter([100.0, 102.0, 104.0, 106.0, 108.0])
    now = 0.0
    monkeypatch.setattr("jobq.worker.lease.time", SimpleNamespace(monotonic=lambda: now))
    other, since = uuid4(), []
    for beats, age, clock in [
        (1, 0.1, 5000.0),
        (2, 1.5, 5002.0),
        (3, 1.5, 5009.0),
        (4, 9.0, 5011.0),
        (5, 0.0, 5013.05),
    ]:
        now = next(times)
        await lease.watch(watcher, [(other, beats, True, age, clock)])
        since.append(lease._watched[other].since)
    # The first is not known before; 1.4 s; the clock was set; no older than the last look; no younger than now.
    assert since == [100.0, pytest.approx(102.0 - 1.5 + CLOCK_TOLERANCE), 104.0, 104.0, 108.0]


async def test_a_free_lock_counts_only_in_the_server_where_it_was_taken(
    database_url: str, watcher: Connection, conn: psycopg.Connection[Any]
) -> None:
    lease, database = lease_of(database_url)
    connection = await database.connect("lease", TERMS)
    await lease.register(connection, 1, [])
    assert lease.locked
    assert await unsuspected(watcher, lease)
    await connection.close()
    while await unsuspected(watcher, lease):
        pass  # until the server has noticed
    # After a failover nobody holds a lock yet, and everybody may be alive.
    conn.execute("UPDATE jobq.worker SET lock_server_start = lock_server_start - interval '1 day'")
    conn.commit()
    assert await unsuspected(watcher, lease)
    # The new server's lock counts again, from the first heartbeat that says so.
    again = await database.connect("lease", TERMS)
    await lease.beat(again, running=0, state="running", tasks=[])
    assert lease.locked
    await again.close()
    while await unsuspected(watcher, lease):
        pass


async def test_without_a_lock_only_the_whole_lease_counts(database_url: str, watcher: Connection) -> None:
    lease, database = lease_of(database_url, pooler="transaction")
    connection = await database.connect("lease", TERMS)
    await lease.register(connection, 1, [])
    assert not lease.locked
    assert lease.fence_after == pytest.approx(29.5)
    await lease.beat(connection, running=0, state="running", tasks=[])
    assert lease.fence_after == pytest.approx(29.5)
    await connection.close()
    assert await unsuspected(watcher, lease)


async def test_with_a_lock_that_may_be_lost_the_suspicion_counts(database_url: str) -> None:
    lease, database = lease_of(database_url)
    connection = await database.connect("lease", TERMS)
    await lease.register(connection, 1, [])
    assert lease.fence_after == pytest.approx(29.5)
    lease.locked = False  # as the dispatcher notes when the connection is lost
    assert lease.fence_after == pytest.approx(3.5)
    await connection.close()


def test_a_dead_worker_that_is_locked_costs_the_rescuer_nothing(
    database_url: str, jobs: Jobs, worker: StartWorker
) -> None:
    """Somebody's open transaction holds the dead worker's row: the rescue waits for it, the rescuer's own heartbeats do not."""
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
