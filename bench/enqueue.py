"""What enqueueing costs: one job at a time on each kind of connection, from one process and from eight, and 50,000 at once.

`python -m bench.enqueue [--jobs 2000] [--rounds 5] [--clients 8] [--bulk 50000] [--json]`. Starts its own Postgres (durable:
fsync on), without a worker. The ways take turns within each round, and medians over the rounds are printed: jobs a second by
the wall clock, and microseconds of CPU a job of the client and of its Postgres sessions, which hold where the rate does not
because others use the machine. Single jobs commit each. The bulks count the making of the jobs (``task.job(i)``) as well.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import psycopg
from sqlalchemy import create_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from jobq import JobQ, migrate
from jobq.dev import DevPostgres

q = JobQ()


@q.task
def noop(i: int, text: str | None = None) -> None:
    """Nothing."""


Enqueue: TypeAlias = Callable[[int], Any]


class Cost(NamedTuple):
    """Of one job: seconds by the wall clock, and seconds of CPU."""

    wall: float
    client: float
    postgres: float


def cpu_of(process: int) -> float:
    """Return the seconds that a process has been running on a CPU, to the nanosecond; ticks of 10 ms would be too coarse."""
    tasks = Path(f"/proc/{process}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def measured(work: Callable[[], Any], jobs: int, session: int) -> Cost:
    wall, client, postgres = time.perf_counter(), time.process_time(), cpu_of(session)
    work()
    return Cost(
        (time.perf_counter() - wall) / jobs,
        (time.process_time() - client) / jobs,
        (cpu_of(session) - postgres) / jobs,
    )


@contextmanager
def on_psycopg(url: str) -> Iterator[tuple[Enqueue, int]]:
    with psycopg.connect(url, autocommit=True) as connection:
        yield lambda i: noop.enqueue(connection, i), connection.info.backend_pid


@contextmanager
def keyed(url: str) -> Iterator[tuple[Enqueue, int]]:
    with psycopg.connect(url, autocommit=True) as connection:
        name = f"{os.getpid()}/{time.monotonic_ns()}"
        yield lambda i: noop.options(key=f"{name}/{i}").enqueue(connection, i), connection.info.backend_pid


@contextmanager
def submitted(url: str) -> Iterator[tuple[Enqueue, int]]:
    q.configure(database_url=url)
    with q.connection() as connection:
        session = connection.info.backend_pid
    yield noop.submit, session
    q.close()


@contextmanager
def on_sqlalchemy(url: str) -> Iterator[tuple[Enqueue, int]]:
    engine = create_engine(
        url.replace("postgresql:", "postgresql+psycopg:"), poolclass=NullPool, isolation_level="AUTOCOMMIT"
    )
    with Session(engine) as session:
        found = session.connection().exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
        yield lambda i: noop.enqueue(session, i), found
    engine.dispose()


@contextmanager
def by_sql(url: str) -> Iterator[tuple[Enqueue, int]]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.cursor()
        query = "SELECT jobq.enqueue('noop', jsonb_build_object('i', %s::int))"
        yield lambda i: cursor.execute(query, (i,)).fetchone(), connection.info.backend_pid


SINGLE = {
    "psycopg": on_psycopg,
    "psycopg, with a key": keyed,
    "submit": submitted,
    "SQLAlchemy session": on_sqlalchemy,
    "SELECT jobq.enqueue": by_sql,
}


def single(way: str, url: str, jobs: int) -> Cost:
    with SINGLE[way](url) as (enqueue, session):
        for i in range(10):  # by then the statement is prepared
            enqueue(-i)

        def work() -> None:
            for i in range(jobs):
                enqueue(i)

        return measured(work, jobs, session)


def client(way: str, url: str, jobs: int, start: Any, costs: Any) -> None:
    """One of several processes that begin together."""
    with SINGLE[way](url) as (enqueue, session):
        for i in range(10):
            enqueue(-i)
        start.wait()

        def work() -> None:
            for i in range(jobs):
                enqueue(i)

        costs.put(tuple(measured(work, jobs, session)))


def together(way: str, url: str, jobs: int, clients: int) -> Cost:
    spawn = multiprocessing.get_context("spawn")
    start, costs = spawn.Barrier(clients + 1), spawn.SimpleQueue()
    each = max(1, jobs // clients)
    processes = [spawn.Process(target=client, args=(way, url, each, start, costs)) for _ in range(clients)]
    for process in processes:
        process.start()
    start.wait(60)
    begun = time.perf_counter()
    found = [Cost(*costs.get()) for _ in processes]
    wall = (time.perf_counter() - begun) / (each * clients)
    for process in processes:
        process.join()
    return Cost(wall, statistics.mean(cost.client for cost in found), statistics.mean(cost.postgres for cost in found))


def bulk(url: str, jobs: int, text: str | None, ways: int = 1) -> Cost:
    """Insert `jobs` in one call; `ways` kinds of options among them."""
    tasks = [noop, *(noop.options(queue=f"q{n}", priority=n % 10) for n in range(ways - 1))]
    with psycopg.connect(url, autocommit=True) as connection:

        def work() -> None:
            made = [tasks[i % ways].job(i) if text is None else tasks[i % ways].job(i, text) for i in range(jobs)]
            q.enqueue_many(connection, made)

        return measured(work, jobs, connection.info.backend_pid)


def bulk_keyed(url: str, jobs: int) -> Cost:
    name = time.monotonic_ns()
    with psycopg.connect(url, autocommit=True) as connection:

        def work() -> None:
            q.enqueue_many(connection, [noop.options(key=f"{name}/{i}").job(i) for i in range(jobs)])

        return measured(work, jobs, connection.info.backend_pid)


def ways(url: str, jobs: int, clients: int, many: int) -> Mapping[str, Callable[[], Cost]]:
    found: dict[str, Callable[[], Cost]] = {}
    for way in SINGLE:
        found[way] = lambda way=way: single(way, url, jobs)  # type: ignore[misc]  # no lambda has annotations
    found[f"psycopg, {clients} clients"] = lambda: together("psycopg", url, jobs, clients)
    found[f"bulk of {many:,}"] = lambda: bulk(url, many, None)
    found[f"bulk of {many:,}, 5 kinds of options"] = lambda: bulk(url, many, None, 5)
    found[f"bulk of {many:,}, 1 kB each"] = lambda: bulk(url, many, "x" * 1000)
    found[f"bulk of {many // 5:,} with keys"] = lambda: bulk_keyed(url, many // 5)
    return found


def report(costs: Mapping[str, Sequence[Cost]]) -> None:
    print(f"{'':40} {'jobs/s':>9}  {'client':>7} {'Postgres':>9}   (CPU, µs a job)")
    for name, found in costs.items():
        wall, cpu, postgres = (statistics.median(values) for values in zip(*found, strict=True))
        print(f"{name:40} {1 / wall:9,.0f}  {cpu * 1e6:7.1f} {postgres * 1e6:9.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--bulk", type=int, default=50_000)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    costs: dict[str, list[Cost]] = {}
    with tempfile.TemporaryDirectory(prefix="jobq-bench-") as home:
        directory = Path(home)
        directory.chmod(0o755)
        with DevPostgres(directory / "pg", shared_buffers="512MB", max_wal_size="4GB") as server:
            url = server.url("postgres")
            migrate.upgrade(url)
            for number in range(given.rounds):
                for name, way in ways(url, given.jobs, given.clients, given.bulk).items():
                    costs.setdefault(name, []).append(way())
                    with psycopg.connect(url, autocommit=True) as connection:
                        connection.execute("TRUNCATE jobq.job, jobq.job_key")
                print(f"round {number + 1} of {given.rounds}", file=sys.stderr)
    if given.json:
        print(json.dumps({name: [cost._asdict() for cost in found] for name, found in costs.items()}))
    else:
        report(costs)


if __name__ == "__main__":
    main()
