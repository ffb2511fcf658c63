"""jobq itself: everything by default."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

import psycopg

from jobq import JobQ, __version__, migrate

sys.path.append(str(Path(__file__).parents[2]))  # last: nothing of ours may hide a package
from bench.peers import adapter

q = JobQ(adapter.URL or None)


@q.task
def noop(i: int) -> None:
    adapter.noop(i)


def version() -> dict[str, str]:
    return {"peer": f"jobq {__version__}", "version": __version__, "driver": f"psycopg {psycopg.__version__}"}


def setup() -> None:
    migrate.upgrade(adapter.URL)


def fill(jobs: int, first: int) -> dict[str, Any]:
    with psycopg.connect(adapter.URL) as connection:
        begin = time.monotonic()
        listed = [noop.job(i) for i in range(first, first + jobs)]
        q.enqueue_many(connection, listed)
        connection.commit()
        return {"seconds": time.monotonic() - begin}


def work() -> None:
    command = [sys.executable, "-m", "jobq", "worker", "bench.peers.jobq:q", "--log-level", "warning"]
    os.execve(sys.executable, command, {**os.environ, "JOBQ_DATABASE_URL": adapter.URL})


def enqueue(calls: adapter.Calls) -> dict[str, Any]:
    with psycopg.connect(adapter.URL, autocommit=True) as connection:
        return calls.run(lambda i: noop.enqueue(connection, i))


def feed(given: argparse.Namespace) -> dict[str, Any]:
    """Enqueue `--rate` jobs a second for `--seconds`, in batches of 50 ms, a commit each: more than single calls can."""
    begun = adapter.mapped(".begun")
    number, most = given.first, given.first + given.jobs
    behind = 0.0
    with psycopg.connect(adapter.URL, autocommit=True) as connection:
        origin = time.monotonic()
        for step in range(round(given.seconds * 20)):
            due = origin + step / 20
            now = time.monotonic()
            if now < due:
                time.sleep(due - now)
            behind = max(behind, now - due)
            upto = min(most, given.first + round((step + 1) / 20 * given.rate))
            begin = time.monotonic()
            for i in range(number, upto):
                begun[i] = begin
            with connection.transaction():
                q.enqueue_many(connection, [noop.job(i) for i in range(number, upto)])
            number = upto
        return {"jobs": number - given.first, "seconds": time.monotonic() - origin, "behind_s": behind}


if __name__ == "__main__":
    adapter.main(version=version, setup=setup, fill=fill, work=work, enqueue=enqueue, feed=feed)
