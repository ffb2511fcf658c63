"""procrastinate on psycopg.

default: concurrency 1, the connector's default pool.
tuned: concurrency 10 (of 2 to 100 the best), a pool of 10 to 25, succeeded jobs deleted, uvloop.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import psycopg
import uvloop
from procrastinate import App, PsycopgConnector

sys.path.append(str(Path(__file__).parents[2]))  # last: nothing of ours may hide a package
from bench.peers import adapter

app = App(
    connector=PsycopgConnector(conninfo=adapter.URL, min_size=10, max_size=25)
    if adapter.TUNED
    else PsycopgConnector(conninfo=adapter.URL)
)


@app.task(name="noop")
async def noop(i: int) -> None:
    await adapter.noop_async(i)


def version() -> dict[str, str]:
    number = installed("procrastinate")
    return {"peer": f"procrastinate {number}", "version": number, "driver": f"psycopg {psycopg.__version__}"}


async def setup() -> None:
    async with app.open_async():
        await app.schema_manager.apply_schema_async()


async def fill(jobs: int, first: int) -> dict[str, Any]:
    async with app.open_async():
        begin = time.monotonic()
        for numbers in adapter.chunks(first, jobs, 5_000):
            await noop.batch_defer_async(*({"i": i} for i in numbers))
        return {"seconds": time.monotonic() - begin}


async def work() -> None:
    async with app.open_async():
        if adapter.TUNED:
            await app.run_worker_async(concurrency=10, delete_jobs="successful")
        else:
            await app.run_worker_async()


async def enqueue(calls: adapter.Calls) -> dict[str, Any]:
    async with app.open_async():
        return await calls.run_async(lambda i: noop.defer_async(i=i))


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    adapter.main(
        version=version,
        setup=setup,
        fill=fill,
        work=work,
        enqueue=enqueue,
        run=uvloop.run if adapter.TUNED else asyncio.run,
    )
