"""How soon after its tick a job of a schedule starts, and what ticks cost.

`python -m bench.schedules [--seconds 30] [NAME …]`: all of `lateness`, `crowd`, `arithmetic`, or those named. Starts its own
Postgres (durable). `lateness`: a schedule of every second, with 1 and 5 idle workers. `crowd`: so many schedules that tick at
the same second; how long until all of their jobs are inserted. `arithmetic`: microseconds for one tick to be computed.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from bench.recovery import Bench, opened, until
from bench.wake import report
from jobq import operations
from jobq.cron import Cron, Every, When
from jobq.schedule import Schedule

WORKERS = (1, 5)
CROWDS = (100, 1000)
RULES: dict[str, When] = {
    "0 7 * * mon-fri in Europe/Berlin": Cron("0 7 * * mon-fri", "Europe/Berlin"),
    "*/5 * * * * in Europe/Berlin": Cron("*/5 * * * *", "Europe/Berlin"),
    "every second": Every(timedelta(seconds=1)),
}


def begin(bench: Bench, workers: int) -> None:
    bench.clear()
    bench.connection.execute("TRUNCATE jobq.schedule, jobq.schedule_tick")
    for _ in range(workers):
        bench.worker("--processes", "1")
    until(lambda: bench.count("SELECT count(*) FROM jobq.worker WHERE beats > 0") == workers, "the workers")


def lateness(bench: Bench, given: argparse.Namespace) -> None:
    for workers in WORKERS:
        begin(bench, workers)
        made = Schedule(name="second", task="quick", when=Every(timedelta(seconds=1)), missed="all")
        operations.set_schedule(bench.connection, "jobq", made, actor="bench")
        until(
            lambda: bench.count("SELECT count(*) FROM jobq.schedule_tick") >= given.seconds, "ticks", given.seconds + 60
        )
        operations.remove_schedule(bench.connection, "jobq", "second", actor="bench")
        until(lambda: not bench.count("SELECT count(*) FROM jobq.job"), "the end of the jobs")
        for what, column, table in (
            ("insert", "inserted_at", "jobq.schedule_tick"),
            ("start", "started_at", "jobq.schedule_tick JOIN jobq.job_history ON id = job_id"),
        ):
            query = f"SELECT 1000 * extract(epoch FROM {column} - tick)::float8 FROM {table}"
            late = [row[0] for row in bench.connection.execute(query.encode()).fetchall()]
            report(f"{workers} workers, {len(late)} ticks: from the tick to the job's {what}", late)


def crowd(bench: Bench, given: argparse.Namespace) -> None:
    for number in CROWDS:
        for workers in WORKERS:
            begin(bench, workers)
            at = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=4)
            bench.connection.execute(
                "INSERT INTO jobq.schedule (name, task, cron, next_at) SELECT 's' || n, 'quick', %s, %s"
                " FROM generate_series(1, %s) AS n",
                (f"{at.second} {at.minute} {at.hour} * * *", at, number),
            )
            bench.connection.execute("SELECT pg_notify('jobq', 'schedules')")
            until(
                lambda number=number: bench.count("SELECT count(*) FROM jobq.schedule_tick") == number,
                "all ticks",  # type: ignore[misc]  # no lambda has annotations
            )
            last = bench.count(
                "SELECT 1000 * extract(epoch FROM max(inserted_at - tick))::float8 FROM jobq.schedule_tick"
            )
            print(f"{number} schedules at one moment, {workers} workers: the last job after {last:.0f} ms", flush=True)


def arithmetic(_: Bench, given: argparse.Namespace) -> None:
    for what, rule in RULES.items():
        at = datetime(2026, 1, 1, tzinfo=UTC)
        begun = time.perf_counter()
        for _number in range(5000):
            at = rule.next(at)
        print(f"{what}: {(time.perf_counter() - begun) / 5000 * 1e6:.0f} µs a tick", flush=True)


SCENARIOS: dict[str, Callable[[Bench, argparse.Namespace], None]] = {
    "lateness": lateness,
    "crowd": crowd,
    "arithmetic": arithmetic,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(SCENARIOS)}")
    given = parser.parse_args()
    if unknown := sorted(set(given.names) - set(SCENARIOS)):
        parser.error(f"{unknown[0]!r} is none of {', '.join(SCENARIOS)}")
    with opened() as bench:
        for name in given.names or SCENARIOS:
            SCENARIOS[name](bench, given)


if __name__ == "__main__":
    main()
