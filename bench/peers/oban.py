"""Oban for Python on psycopg; under uvloop, as its command line runs it.

default: a queue with a limit of 10, a pool of 10.
tuned: a limit of 500 (of 50 to 1,000 the best). Acknowledging and inserting in bulk are Oban Pro's, which is sold.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import time
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import psycopg
import uvloop
from oban import Job, Oban, worker
from oban.schema import install

sys.path.append(str(Path(__file__).parents[2]))  # last: nothing of ours may hide a package
from bench.peers import adapter


@worker(queue="default")
class Noop:
    async def process(self, job: Job) -> None:
        await adapter.noop_async(job.args["i"])


def version() -> dict[str, str]:
    number = installed("oban")
    return {"peer": f"oban {number}", "version": number, "driver": f"psycopg {psycopg.__version__}"}


async def setup() -> None:
    pool = await Oban.create_pool(adapter.URL)
    await install(pool)
    await pool.close()


async def fill(jobs: int, first: int) -> dict[str, Any]:
    pool = await Oban.create_pool(adapter.URL)
    async with Oban(pool=pool) as oban:
        begin = time.monotonic()
        for numbers in adapter.chunks(first, jobs, 1_000):
            await oban.enqueue_many(Noop.new({"i": i}) for i in numbers)
        seconds = time.monotonic() - begin
    await pool.close()
    return {"seconds": seconds}


async def work() -> None:
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, over.set)
    pool = await Oban.create_pool(adapter.URL)
    async with Oban(pool=pool, queues={"default": 500 if adapter.TUNED else 10}):
        await over.wait()
    await pool.close()


async def enqueue(calls: adapter.Calls) -> dict[str, Any]:
    pool = await Oban.create_pool(adapter.URL)
    async with Oban(pool=pool) as oban:
        figures = await calls.run_async(lambda i: oban.enqueue(Noop.new({"i": i})))
    await pool.close()
    return figures


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    adapter.main(version=version, setup=setup, fill=fill, work=work, enqueue=enqueue, run=uvloop.run)
