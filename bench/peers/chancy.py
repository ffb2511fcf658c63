"""Chancy.

Default: a queue declared with its name only (a process a core, a poll every five seconds) under `chancy worker start`; a push
notifies the worker of the queue.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

from chancy import Chancy, Job, Queue, Worker

sys.path.append(str(Path(__file__).parents[2]))  # last: nothing of ours may hide a package
from bench.peers import adapter

QUEUE = Queue("default")
if adapter.TUNED:
    # Its executor for many short jobs, which asks for more as soon as one has ended; figures by trial.
    QUEUE = Queue("default", executor=Chancy.Executor.Async, concurrency=500, eager_polling=True, polling_interval=1)

# Names, which its own `from_func` takes from the function: this file is __main__ here, and a module to its processes.
SYNC, ASYNC = "bench.peers.chancy.noop", "bench.peers.chancy.noop_async"


def noop(i: int) -> None:
    adapter.noop(i)


async def noop_async(i: int) -> None:
    await adapter.noop_async(i)


def app() -> Chancy:
    log = None
    if adapter.TUNED:
        # A line for each job is its default.
        log = logging.getLogger("chancy")
        log.setLevel(logging.WARNING)
    return Chancy(adapter.URL, log=log)


def job(i: int) -> Job:
    return Job(func=ASYNC if adapter.TUNED else SYNC, kwargs={"i": i})


def version() -> dict[str, str]:
    driver = f"psycopg {version_of('psycopg')}"
    return {"peer": f"chancy {version_of('chancy')}", "version": version_of("chancy"), "driver": driver}


async def setup() -> None:
    async with app() as chancy:
        await chancy.migrate()
        await chancy.declare(QUEUE, upsert=True)


async def fill(jobs: int, first: int) -> None:
    async with app() as chancy:
        # `push_many` without a batch size: a thousand a transaction.
        async for _ in chancy.push_many([job(i) for i in range(first, first + jobs)]):
            pass


async def work() -> None:
    async with app() as chancy:
        worker = Worker(chancy)
        if adapter.TUNED:
            worker.send_outgoing_interval = 0.1
        async with worker:
            await worker.wait_for_shutdown()


async def enqueue(calls: adapter.Calls) -> dict[str, Any]:
    async with app() as chancy:
        return await calls.run_async(lambda i: chancy.push(job(i)))


def run(coroutine: Any) -> Any:
    if adapter.TUNED:
        import uvloop

        return uvloop.run(coroutine)
    return asyncio.run(coroutine)


if __name__ == "__main__":
    adapter.main(version=version, setup=setup, fill=fill, work=work, enqueue=enqueue, run=run)
