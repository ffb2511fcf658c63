"""pgqueuer on asyncpg.

default: `run()` as it is, batch_size 10, on one connection under uvloop as its command line does.
tuned: batch_size 100 (sizes from 50 to 1,000 differ by less than the noise) and the autovacuum settings of `pgq autovac`.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import asyncpg
import uvloop
from pgqueuer import PgQueuer
from pgqueuer.models import Job
from pgqueuer.queries import Queries

sys.path.append(str(Path(__file__).parents[2]))  # last: nothing of ours may hide a package
from bench.peers import adapter


def version() -> dict[str, str]:
    number = installed("pgqueuer")
    return {"peer": f"pgqueuer {number}", "version": number, "driver": f"asyncpg {asyncpg.__version__}"}


async def setup() -> None:
    connection = await asyncpg.connect(adapter.URL)
    queries = Queries.from_asyncpg_connection(connection)
    await queries.install()
    if adapter.TUNED:
        await queries.optimize_autovacuum()
    await connection.close()


async def fill(jobs: int, first: int) -> dict[str, Any]:
    connection = await asyncpg.connect(adapter.URL)
    queries = Queries.from_asyncpg_connection(connection)
    begin = time.monotonic()
    for numbers in adapter.chunks(first, jobs, 10_000):
        count = len(numbers)
        await queries.enqueue(["noop"] * count, [b'{"i": %d}' % i for i in numbers], [0] * count)
    seconds = time.monotonic() - begin
    await connection.close()
    return {"seconds": seconds}


async def work() -> None:
    connection = await asyncpg.connect(adapter.URL)
    manager = PgQueuer.from_asyncpg_connection(connection)

    @manager.entrypoint("noop")
    async def noop(job: Job) -> None:
        assert job.payload is not None
        await adapter.noop_async(int(job.payload[6:-1]))

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, manager.shutdown.set)
    if adapter.TUNED:
        await manager.run(batch_size=100)
    else:
        await manager.run()


async def enqueue(calls: adapter.Calls) -> dict[str, Any]:
    connection = await asyncpg.connect(adapter.URL)
    queries = Queries.from_asyncpg_connection(connection)
    return await calls.run_async(lambda i: queries.enqueue("noop", b'{"i": %d}' % i))


if __name__ == "__main__":
    adapter.main(version=version, setup=setup, fill=fill, work=work, enqueue=enqueue, run=uvloop.run)
