"""What many queues, and many workers, cost.

`python -m bench.queues [--queues 10000] [--new 25000] [--seconds 20] [NAME …]`: all of `new`, `drain`, `memory`, `herd`,
`idle`, or those named. Starts its own Postgres (durable). `new`: one insert of a job for later in each of so many new queues,
while two workers run a long job each: their oldest heartbeats, and whether a job ran twice. `drain`: one job in each of so
many queues, and the memory of the dispatcher then. `memory`: the dispatcher's while names come and go. `herd`: what a job
costs Postgres when 40 a second come to 1 and to 8 workers, in 1 and in 200 queues. `idle`: how soon a job starts in an idle
worker, and in one of 3.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import Counter
from collections.abc import Callable

from bench.cpu import cpu_of_family, resident_mib
from bench.recovery import Bench, hold, opened, quick, until


def postgres_seconds(bench: Bench) -> float:
    """Return the CPU time of the server and of all its processes, those that have ended included."""
    return cpu_of_family(int(bench.count("SELECT pg_read_file('postmaster.pid')").split()[0]))


def oldest_heartbeat(bench: Bench, seconds: float, end: Callable[[], bool]) -> float:
    """Return the greatest age of a heartbeat until `end`, or for so many seconds."""
    worst, until_ = 0.0, time.monotonic() + seconds
    while time.monotonic() < until_ and not end():
        age = bench.count("SELECT coalesce(max(extract(epoch FROM now() - heartbeat_at)), 0)::float FROM jobq.worker")
        worst = max(worst, age)
        time.sleep(0.1)
    return worst


def new(bench: Bench, given: argparse.Namespace) -> None:
    bench.clear()
    for _ in range(2):
        bench.worker("--processes", "1", "--concurrency", "1")
    until(lambda: bench.count("SELECT count(*) FROM jobq.worker WHERE beats > 0") == 2, "two workers")
    for _ in range(2):
        hold.enqueue(bench.connection, given.seconds + 30)
    until(lambda: len(bench.lines("start")) == 2, "the long jobs")
    begun = time.monotonic()
    bench.connection.execute(
        "INSERT INTO jobq.job (task, queue, run_at) SELECT 'quick', 'new-' || n, now() + interval '1 h' "
        "FROM generate_series(1, %s) AS n",
        (given.new,),
    )
    took = time.monotonic() - begun
    worst = oldest_heartbeat(bench, given.seconds, lambda: False)
    twice = [job for job, times in Counter(job for job, *_ in bench.lines("start")).items() if times > 1]
    print(
        f"{given.new:,} new queues in one insert of {took:.1f} s: oldest heartbeat {worst:.1f} s, "
        f"{len(twice)} of 2 long jobs ran twice",
        flush=True,
    )


def drain(bench: Bench, given: argparse.Namespace) -> None:
    bench.clear()
    process = bench.worker("--processes", "1")
    bench.ready()
    time.sleep(1)
    before = resident_mib(process.pid)
    begun = time.monotonic()
    bench.connection.execute(
        "INSERT INTO jobq.job (task, queue) SELECT 'quick', 'many-' || n FROM generate_series(1, %s) AS n",
        (given.queues,),
    )
    inserted = time.monotonic()
    left = "SELECT count(*) FROM jobq.job"
    worst = oldest_heartbeat(bench, 600, lambda: not bench.count(left))
    took = time.monotonic() - inserted
    print(
        f"{given.queues:,} queues of one job: {given.queues / took:,.0f} jobs/s ({took:.1f} s, after an insert of "
        f"{inserted - begun:.1f} s), oldest heartbeat {worst:.1f} s, dispatcher {before:.0f} MiB before, "
        f"{resident_mib(process.pid):.0f} after",
        flush=True,
    )


def memory(bench: Bench, given: argparse.Namespace) -> None:
    bench.clear()
    process = bench.worker("--processes", "1")
    bench.ready()
    told = [resident_mib(process.pid)]
    for turn in range(5):
        bench.connection.execute(
            "INSERT INTO jobq.job (task, queue) SELECT 'quick', 'gone-' || %s || '-' || n FROM generate_series(1, 1500) AS n",
            (turn,),
        )
        until(lambda: not bench.count("SELECT count(*) FROM jobq.job"), "the end of the jobs", 120)
        time.sleep(15)
        told.append(resident_mib(process.pid))
    time.sleep(50)
    told.append(resident_mib(process.pid))
    print(
        "the dispatcher's memory, 1,500 new queues at a time: " + ", ".join(f"{mib:.0f}" for mib in told) + " MiB",
        flush=True,
    )


def herd(bench: Bench, given: argparse.Namespace) -> None:
    for workers, queues in ((1, 1), (8, 1), (8, 200)):
        bench.clear()
        for _ in range(workers):
            bench.worker("--processes", "1", "--concurrency", "2")
        until(lambda: bench.count("SELECT count(*) FROM jobq.worker WHERE beats > 0") == workers, "the workers", 240)  # noqa: B023 - called in this turn
        # Each queue has been seen.
        for number in range(queues):
            quick.options(queue=f"herd-{number}").enqueue(bench.connection)
        until(lambda: not bench.count("SELECT count(*) FROM jobq.job"), "the first jobs")
        time.sleep(6)
        transactions = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"
        idle, since = postgres_seconds(bench), time.monotonic()
        time.sleep(8)
        idle = (postgres_seconds(bench) - idle) / (time.monotonic() - since)
        committed, cpu, begun = bench.count(transactions), postgres_seconds(bench), time.monotonic()
        jobs = 0
        waits = bench.count("SELECT max(id) FROM jobq.job_history")
        while time.monotonic() - begun < given.seconds:
            quick.options(queue=f"herd-{jobs % queues}").enqueue(bench.connection)
            jobs += 1
            time.sleep(max(0.0, begun + jobs / 40 - time.monotonic()))
        until(lambda: not bench.count("SELECT count(*) FROM jobq.job"), "the last jobs")
        took = time.monotonic() - begun
        cpu = postgres_seconds(bench) - cpu - idle * took
        time.sleep(1.5)
        started = bench.connection.execute(
            "SELECT percentile_cont(ARRAY[0.5, 0.95, 0.99]) "
            "WITHIN GROUP (ORDER BY extract(epoch FROM started_at - run_at) * 1000) "
            "FROM jobq.job_history WHERE id > %s",
            (waits,),
        ).fetchone()
        assert started is not None
        print(
            f"40 jobs/s, {workers} workers, {queues} queues: {cpu / jobs * 1000:.1f} ms of Postgres a job, "
            f"{(bench.count(transactions) - committed) / jobs:.0f} transactions; claimed after "
            + ", ".join(f"{one:.1f}" for one in started[0])
            + " ms (p50, p95, p99)",
            flush=True,
        )


def idle(bench: Bench, given: argparse.Namespace) -> None:
    for workers in (1, 3):
        bench.clear()
        for _ in range(workers):
            bench.worker("--processes", "1", "--concurrency", "2")
        until(lambda: bench.count("SELECT count(*) FROM jobq.worker WHERE beats > 0") == workers, "the workers", 240)  # noqa: B023 - called in this turn
        quick.enqueue(bench.connection)
        until(lambda: bench.lines("quick"), "the first job")
        waits = []
        for number in range(int(given.seconds * 10)):
            time.sleep(0.1)
            begun = time.monotonic()
            quick.enqueue(bench.connection)
            until(lambda: len(bench.lines("quick")) == number + 2, "a job")  # noqa: B023 - called in this turn
            waits.append((bench.lines("quick")[-1][2] - begun) * 1000)
        told = statistics.quantiles(waits, n=100)
        print(f"idle, {workers} workers: a job starts after {told[49]:.2f}, {told[94]:.2f} ms (p50, p95)", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--queues", type=int, default=10_000)
    parser.add_argument("--new", type=int, default=25_000)
    parser.add_argument("--seconds", type=float, default=20.0)
    given = parser.parse_args()
    scenarios: dict[str, Callable[[Bench, argparse.Namespace], None]] = {
        "new": new,
        "drain": drain,
        "memory": memory,
        "herd": herd,
        "idle": idle,
    }
    with opened() as bench:
        for name in given.names or scenarios:
            scenarios[name](bench, given)


if __name__ == "__main__":
    main()
