"""What a batch task saves: rows a second with one INSERT of many rows for a batch, and with one INSERT for each job.

`python -m bench.batches [--jobs 20000] [--rounds 3] [--json]`. Starts its own Postgres (durable: fsync on).
Rounds of both alternate on one worker with default options, each with a connection that its threads keep, and medians are
compared; the clock runs from the commit of the jobs to the last of them leaving the live table.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psycopg

from bench.transactional import wait_for
from jobq import JobQ, migrate
from jobq.dev import DevPostgres

q = JobQ()

_slot = threading.local()


def _insert(numbers: list[int]) -> None:
    if not hasattr(_slot, "connection"):
        _slot.connection = psycopg.connect(os.environ["JOBQ_DATABASE_URL"])
    with _slot.connection.transaction():
        _slot.connection.execute("INSERT INTO effect (number) SELECT unnest(%s::bigint[])", (numbers,))


@q.task
def single(number: int) -> None:
    """One row, in a transaction of its own."""
    _insert([number])


@q.task(batch=500)
def batch(numbers: list[int]) -> None:
    """One row for each job, in one statement and one transaction; and one row for the call."""
    _insert(numbers)
    with _slot.connection.transaction():
        _slot.connection.execute("INSERT INTO call (size) VALUES (%s)", (len(numbers),))


def measure(connection: psycopg.Connection[Any], task: str, jobs: int) -> float:
    """Return rows a second from the commit of the jobs to the last outcome."""
    connection.execute("TRUNCATE effect, call")
    made = single if task == "single" else batch
    with connection.transaction():
        q.enqueue_many(connection, [made.job(number) for number in range(jobs)])
    begun = time.perf_counter()
    while connection.execute("SELECT FROM jobq.job LIMIT 1").fetchone() is not None:
        time.sleep(0.01)
    seconds = time.perf_counter() - begun
    rows = connection.execute("SELECT count(*) FROM effect").fetchall()
    if rows != [(jobs,)]:
        raise SystemExit(f"{task}: {rows} rows of {jobs} jobs")
    return jobs / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    rates: dict[str, list[float]] = {"single": [], "batch": []}
    sizes: list[float] = []
    with tempfile.TemporaryDirectory(prefix="jobq-bench-") as home:
        directory = Path(home)
        directory.chmod(0o755)
        with DevPostgres(directory / "pg", shared_buffers="512MB", max_wal_size="4GB") as server:
            url = server.url("postgres")
            migrate.upgrade(url)
            environ = {**os.environ, "JOBQ_DATABASE_URL": url}
            command = [sys.executable, "-m", "jobq", "worker", "bench.batches:q", "--log-level", "warning"]
            process = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL)
            try:
                with psycopg.connect(url, autocommit=True) as connection:
                    connection.execute("CREATE TABLE effect (number bigint)")
                    connection.execute("CREATE TABLE call (size int)")
                    # First a few: the runners have started, and every slot has its connection, when they are done.
                    q.enqueue_many(connection, [task.job(0) for task in (single, batch) for _ in range(200)])
                    wait_for(connection, "SELECT count(*) FROM jobq.job_history", 400, process)
                    for number in range(given.rounds):
                        for task, found in rates.items():
                            found.append(measure(connection, task, given.jobs))
                        sizes += [size for (size,) in connection.execute("SELECT size FROM call").fetchall()]
                        shown = ", ".join(f"{name} {found[-1]:,.0f}/s" for name, found in rates.items())
                        print(f"round {number + 1}: {shown}", file=sys.stderr)
            finally:
                process.send_signal(signal.SIGTERM)
                process.wait(30)
    medians = {name: statistics.median(found) for name, found in rates.items()}
    size = statistics.mean(sizes)
    if given.json:
        print(json.dumps({"jobs": given.jobs, "rates": rates, "medians": medians, "jobs_a_call": size}))
        return
    for name, median in medians.items():
        print(f"{name:8} {median:8,.0f} rows/s   (of {', '.join(f'{rate:,.0f}' for rate in rates[name])})")
    print(f"batch / single {medians['batch'] / medians['single']:6.2f}, with {size:.0f} jobs a call on average")


if __name__ == "__main__":
    main()
