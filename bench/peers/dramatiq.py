"""Dramatiq on Redis and on RabbitMQ.

Default: `dramatiq MODULE`, its options as they are: a process a core, eight threads each, two messages ahead a thread.
"""

from __future__ import annotations

import os
import sys
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.brokers.redis import RedisBroker

sys.path.append(str(Path(__file__).parents[2]))  # last: nothing of ours may hide a package
from bench.peers import adapter

REDIS = adapter.BROKER_URL.startswith("redis")

broker = RedisBroker(url=adapter.BROKER_URL) if REDIS else RabbitmqBroker(url=adapter.BROKER_URL)
dramatiq.set_broker(broker)


@dramatiq.actor
def noop(i: int) -> None:
    adapter.noop(i)


def version() -> dict[str, str]:
    driver = ", ".join(f"{name} {version_of(name)}" for name in ("redis", "pika"))
    return {"peer": f"dramatiq {version_of('dramatiq')}", "version": version_of("dramatiq"), "driver": driver}


def setup() -> None:
    broker.declare_queue(noop.queue_name)
    broker.flush_all()
    if isinstance(broker, RedisBroker):
        # What a killed worker had reserved is not in the queue; the server is the bench's own.
        broker.client.flushdb()


def fill(jobs: int, first: int) -> None:
    # There is no call for many: its own benchmark loops too.
    for i in range(first, first + jobs):
        noop.send(i)


def work() -> None:
    if adapter.TUNED:
        # Its page "Reference", "Environment variables". By trial fewer threads or one process did no better on either broker.
        os.environ["dramatiq_queue_prefetch"] = "500"  # noqa: SIM112  # its spelling
    command = [sys.executable, "-P", "-m", "dramatiq", "bench.peers.dramatiq", "--path", sys.path[-1]]
    os.execv(sys.executable, command)


def enqueue(calls: adapter.Calls) -> dict[str, Any]:
    return calls.run(noop.send)


if __name__ == "__main__":
    adapter.main(version=version, setup=setup, fill=fill, work=work, enqueue=enqueue)
