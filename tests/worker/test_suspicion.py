"""Workers whose times differ: each is judged by its own, whatever the times of the one that looks at it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack

import pytest

from jobq._worker.database import Connection, Database
from jobq._worker.lease import Lease
from jobq._worker.options import WorkerOptions
from jobq._worker.timeouts import lease_timeouts
from jobq.settings import Settings

Open = Callable[[float], Coroutine[None, None, tuple[Lease, Connection]]]


@pytest.fixture
async def registered(database_url: str) -> AsyncIterator[Open]:
    """Register a worker with this suspicion; return its lease and the connection that holds its lock."""
    async with AsyncExitStack() as opened:

        async def register(suspicion: float) -> tuple[Lease, Connection]:
            settings = Settings(database_url=database_url)
            options = WorkerOptions(app="shop:q", settings=settings, lease=600.0, suspicion=suspicion)
            lease = Lease(options, "0")
            connection = await Database(settings).connect("heartbeats", lease_timeouts(2.0))
            opened.push_async_callback(connection.close)
            await lease.register(connection, 1, [])
            return lease, connection

        yield register


@pytest.mark.parametrize(("ours", "theirs"), [(3.0, 300.0), (300.0, 30.0)])
@pytest.mark.parametrize("with_heartbeat", [False, True])
async def test_each_is_judged_by_its_own(registered: Open, ours: float, theirs: float, with_heartbeat: bool) -> None:
    """By what comes with a heartbeat, and by the looks between two."""
    lease, connection = await registered(ours)
    other, lost = await registered(theirs)
    await lost.close()
    while lease.next_due is None:
        # Until the server has noticed that the connection, and so the lock, is gone.
        if with_heartbeat:
            peers = (await lease.hear(connection)).peers
            assert peers is not None
            await lease.watch(connection, peers)
        else:
            await lease.look(connection)
    assert lease.next_due - lease._watched[other.worker].since == pytest.approx(theirs)
