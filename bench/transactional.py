"""What exactly once costs: one INSERT by a transactional task, and by an ordinary one on a connection that it keeps.

`python -m bench.transactional [--jobs 4000] [--rounds 3] [--json]`. Starts its own Postgres (durable: fsync on). Rounds of
both alternate on one worker with default options, and medians are compared; the clock runs from the commit of the jobs to
the last of them leaving the live table.
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

import psycopg

from jobq import JobQ, current_job, migrate
from jobq.dev import DevPostgres
from jobq.task import Task

q = JobQ()

_slot = threading.local()


@q.task
def ordinary() -> None:
    """One row, in a transaction of its own, on a connection that this thread keeps."""
    if not hasattr(_slot, "connection"):
        _slot.connection = psycopg.connect(os.environ["JOBQ_DATABASE_URL"])
    with _slot.connection.transaction():
        _slot.connection.execute("INSERT INTO effect (job) VALUES (%s)", (current_job().id,))


@q.task(transactional=True)
def transactional() -> None:
    """One row, in the transaction that records the success."""
    current_job().connection.execute("INSERT INTO effect (job) VALUES (%s)", (current_job().id,))


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


def measure(connection: psycopg.Connection[tuple[int]], task: Task[[], None], jobs: int) -> float:
    """Return jobs a second from the commit to the last outcome."""
    with connection.transaction():
        q.enqueue_many(connection, [task.job() for _ in range(jobs)])
    begun = time.perf_counter()
    left = "SELECT count(*) FROM (SELECT FROM jobq.job WHERE state IN ('ready', 'running') LIMIT 1) AS left_over"
    while connection.execute(left).fetchone() != (0,):
        time.sleep(0.01)
    return jobs / (time.perf_counter() - begun)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    rates: dict[str, list[float]] = {"ordinary": [], "transactional": []}
    with tempfile.TemporaryDirectory(prefix="jobq-bench-") as home:
        directory = Path(home)
        directory.chmod(0o755)
        with DevPostgres(directory / "pg", shared_buffers="512MB", max_wal_size="4GB") as server:
            url = server.url("postgres")
            migrate.upgrade(url)
            environ = {**os.environ, "JOBQ_DATABASE_URL": url}
            command = [sys.executable, "-m", "jobq", "worker", "bench.transactional:q", "--log-level", "warning"]
            process = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL)
            try:
                with psycopg.connect(url, autocommit=True) as connection:
                    connection.execute("CREATE TABLE effect (job bigint)")
                    # First a few: the runners have started, and every slot has its connections, when they are done.
                    q.enqueue_many(connection, [task.job() for task in (ordinary, transactional) for _ in range(200)])
                    wait_for(connection, "SELECT count(*) FROM jobq.job_history", 400, process)
                    for number in range(given.rounds):
                        rates["ordinary"].append(measure(connection, ordinary, given.jobs))
                        rates["transactional"].append(measure(connection, transactional, given.jobs))
                        shown = ", ".join(f"{name} {found[-1]:,.0f}/s" for name, found in rates.items())
                        print(f"round {number + 1}: {shown}", file=sys.stderr)
            finally:
                process.send_signal(signal.SIGTERM)
                process.wait(30)
    medians = {name: statistics.median(found) for name, found in rates.items()}
    if given.json:
        print(json.dumps({"jobs": given.jobs, "rates": rates, "medians": medians}))
        return
    for name, median in medians.items():
        print(f"{name:14} {median:8,.0f} jobs/s   (of {', '.join(f'{rate:,.0f}' for rate in rates[name])})")
    print(f"transactional / ordinary {medians['transactional'] / medians['ordinary']:6.2f}")


if __name__ == "__main__":
    main()
