"""Celery on Redis and on RabbitMQ.

Default: `celery worker`, its options as they are (prefork, one child a core, four messages ahead a child); no result backend,
which its introduction leaves out too. Messages are persistent, as they are by default: its advice of transient ones is no
tuning that one may compare.
"""

from __future__ import annotations

import os
import sys
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

from celery import Celery

sys.path.append(str(Path(__file__).parents[2]))  # last: nothing of ours may hide a package
from bench.peers import adapter

REDIS = adapter.BROKER_URL.startswith("redis")

app = Celery("bench", broker=adapter.BROKER_URL)
app.conf.task_ignore_result = True  # there is no backend to keep one
if adapter.TUNED:
    # Its page "Optimizing": for short tasks a multiplier that is higher, by trial (it names 50, 64 and 128).
    app.conf.worker_prefetch_multiplier = 128


@app.task(name="noop")
def noop(i: int) -> None:
    adapter.noop(i)


def version() -> dict[str, str]:
    driver = ", ".join(f"{name} {version_of(name)}" for name in ("kombu", "redis", "amqp"))
    return {"peer": f"celery {version_of('celery')}", "version": version_of("celery"), "driver": driver}


def setup() -> None:
    with app.connection_for_write() as connection:
        app.amqp.queues[app.conf.task_default_queue](connection.default_channel).declare()
        if REDIS:
            # What a killed worker had reserved is not in the queue; the server is the bench's own.
            connection.default_channel.client.flushdb()
    app.control.purge()


def fill(jobs: int, first: int) -> None:
    # There is no call for many. "Calling tasks" keeps one connection over a loop; one producer is that connection.
    with app.producer_pool.acquire(block=True) as producer:
        for i in range(first, first + jobs):
            noop.apply_async((i,), producer=producer)


def work() -> None:
    # By default a worker is named after the machine alone, and RabbitMQ refuses a second one of the same name.
    options = ["--hostname", f"bench-{os.getpid()}@%h"]
    if adapter.TUNED:
        # Its pool that runs tasks in the worker's own thread: by trial the fastest for jobs that do nothing (prefork spends
        # more on its pipes), and of no use for jobs that wait. The rest is what one worker says to others.
        options += ["--pool", "solo", "--without-gossip", "--without-mingle", "--without-heartbeat"]
    app.worker_main(["worker", *options])


def enqueue(calls: adapter.Calls) -> dict[str, Any]:
    return calls.run(noop.delay)


if __name__ == "__main__":
    adapter.main(version=version, setup=setup, fill=fill, work=work, enqueue=enqueue)
