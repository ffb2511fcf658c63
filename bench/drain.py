"""First speed: how fast one worker with default options drains no-op jobs, and the pgbench floor beside it.

`python -m bench.drain [--jobs 20000] [--rounds 3] [--json]`. Starts its own Postgres (durable: fsync on). Rounds of worker
and floor alternate; medians are compared. The worker is up and idle; the clock runs from the commit of the jobs to the last
row of history.
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
import time
from pathlib import Path

import psycopg

from bench.floor import floor
from jobq import JobQ, migrate
from jobq.dev import DevPostgres, bindir

q = JobQ()


@q.task
def noop() -> None:
    """Nothing."""


def wait_for(
    connection: psycopg.Connection[tuple[int]], query: str, value: int, process: subprocess.Popen[bytes]
) -> None:
    while True:
        row = connection.execute(query.encode()).fetchone()
        if row and row[0] >= value:
            return
        if process.poll() is not None:
            raise SystemExit(f"the worker ended with {process.returncode}")
        time.sleep(0.005)


def worker(url: str, jobs: int, options: list[str]) -> float:
    """Return jobs a second from the commit to the last outcome."""
    environ = {**os.environ, "JOBQ_DATABASE_URL": url}
    command = [sys.executable, "-m", "jobq", "worker", "bench.drain:q", "--log-level", "warning", *options]
    process = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL)
    try:
        with psycopg.connect(url, autocommit=True) as connection:
            before = connection.execute("SELECT count(*) FROM jobq.job_history").fetchone()
            assert before is not None
            # One job first: the runners have started when it is done.
            noop.enqueue(connection)
            wait_for(connection, "SELECT count(*) FROM jobq.job_history", before[0] + 1, process)
            with connection.transaction():
                q.enqueue_many(connection, [noop.job() for _ in range(jobs)])
            begun = time.perf_counter()
            # Counting history costs the server something; the live table empties and is cheap to look at by index.
            query = (
                "SELECT count(*) FROM (SELECT FROM jobq.job WHERE state IN ('ready', 'running') LIMIT 1) AS left_over"
            )
            while True:
                row = connection.execute(query.encode()).fetchone()
                if row == (0,):
                    break
                time.sleep(0.02)
            seconds = time.perf_counter() - begun
            wait_for(connection, "SELECT count(*) FROM jobq.job_history", before[0] + 1 + jobs, process)
            return jobs / seconds
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("options", nargs="*", help="further options of `jobq worker`, after --")
    given = parser.parse_args()
    rates: dict[str, list[float]] = {"worker": [], "floor, batch 100": []}
    with tempfile.TemporaryDirectory(prefix="jobq-bench-") as home:
        directory = Path(home)
        directory.chmod(0o755)
        with DevPostgres(directory / "pg", shared_buffers="512MB", max_wal_size="4GB") as server:
            url = server.url("postgres")
            migrate.upgrade(url)
            for number in range(given.rounds):
                rates["worker"].append(worker(url, given.jobs, given.options))
                rates["floor, batch 100"].append(floor(bindir(), url, directory, given.jobs, 100))
                print(
                    f"round {number + 1}: " + ", ".join(f"{name} {found[-1]:,.0f}/s" for name, found in rates.items()),
                    file=sys.stderr,
                )
    medians = {name: statistics.median(found) for name, found in rates.items()}
    if given.json:
        print(json.dumps({"jobs": given.jobs, "rates": rates, "medians": medians}))
        return
    for name, median in medians.items():
        print(f"{name:18} {median:10,.0f} jobs/s   (of {', '.join(f'{rate:,.0f}' for rate in rates[name])})")
    print(f"worker / floor     {medians['worker'] / medians['floor, batch 100']:10.2f}")


if __name__ == "__main__":
    main()
