"""awa (on PyPI: awa-pg): a core in Rust, handlers in Python.

Default: 50 workers on the queue: its engine's default, while its Python client demands a number (its examples: 2 to 10).
"""

from __future__ import annotations

import asyncio
import signal
import sys
from dataclasses import dataclass
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

from awa import AsyncClient

sys.path.append(str(Path(__file__).parents[2]))  # last: nothing of ours may hide a package
from bench.peers import adapter

QUEUE = "bench"

# Its ADR 026 measures this shape: one claimer, 512 a claim (both the defaults), 1,024 workers. By trial here 512 and 2,048
# workers did worse; two claimers, no deadlines and four enqueue shards did no better.
WORKERS = 1024 if adapter.TUNED else 50


@dataclass
class Noop:
    i: int


def version() -> dict[str, str]:
    return {"peer": f"awa {version_of('awa-pg')}", "version": version_of("awa-pg"), "driver": "its own (sqlx, in Rust)"}


async def setup() -> None:
    async with AsyncClient(adapter.URL) as client:
        await client.migrate()
        # "Driving installs from external migration tooling": bulk inserts before the first worker need its storage switched on.
        transaction = await client.transaction()
        await transaction.execute("SELECT awa.storage_auto_finalize_if_fresh('awa')")
        await transaction.commit()


async def fill(jobs: int, first: int) -> None:
    async with AsyncClient(adapter.URL) as client:
        for numbers in adapter.chunks(first, jobs, 10_000):
            await client.enqueue_many_copy([Noop(i) for i in numbers], queue=QUEUE)


async def work() -> None:
    client = AsyncClient(adapter.URL)

    @client.task(Noop, queue=QUEUE)
    async def noop(job: Any) -> None:
        await adapter.noop_async(job.args.i)

    stop = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    await client.start([(QUEUE, WORKERS)])
    await stop.wait()
    await client.shutdown()
    await client.close()


async def enqueue(calls: adapter.Calls) -> dict[str, Any]:
    async with AsyncClient(adapter.URL) as client:
        return await calls.run_async(lambda i: client.insert(Noop(i), queue=QUEUE))


def run(coroutine: Any) -> Any:
    if adapter.TUNED:
        import uvloop

        return uvloop.run(coroutine)
    return asyncio.run(coroutine)


if __name__ == "__main__":
    adapter.main(version=version, setup=setup, fill=fill, work=work, enqueue=enqueue, run=run)
