"""What waking costs the producers, and how soon jobs start.

`python -m bench.wake [--rounds 3] [--seconds 3] [NAME …]`: all of `insert`, `start`, `delay`, or those named. Starts its own
Postgres (durable). `insert`: pgbench inserts without the trigger, with a silent one, and with one that notifies, as ratios.
`start`: how long jobs take to start, by arrivals a second and number of workers. `delay`: how late jobs of `delay=0.5` start.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psycopg

from bench.recovery import Bench, opened, quick, until
from jobq._worker.wakeup.policy import NotifyMode
from jobq.dev import bindir

RATES = (20, 50, 200, 500, 1000)
WORKERS = (1, 3)


def insert(bench: Bench, given: argparse.Namespace) -> None:
    bench.clear()
    trigger = "ALTER TABLE jobq.job {} TRIGGER job_notify_insert"
    # What notifies has a listener, as it would have in a worker.
    with psycopg.connect(bench.url, autocommit=True) as listener, tempfile.TemporaryDirectory() as directory:
        listener.execute("LISTEN jobq")
        script = Path(directory) / "insert.sql"
        script.write_text("INSERT INTO jobq.job (task) VALUES ('noop');\n")
        for clients in (1, 8):
            rates: dict[str, list[float]] = {"no trigger": [], "silent": [], "notifying": []}
            for _ in range(given.rounds):
                for kind, found in rates.items():
                    bench.connection.execute("TRUNCATE jobq.job")
                    bench.connection.execute(trigger.format("DISABLE" if kind == "no trigger" else "ENABLE").encode())
                    mode = NotifyMode.POLL if kind == "silent" else NotifyMode.NOTIFY
                    bench.connection.execute("SELECT setval('jobq.notify_mode', %s)", (mode,))
                    found.append(pgbench(script, bench.url, clients, given.seconds))
                    list(listener.notifies(timeout=0.01))
            told = {kind: statistics.median(found) for kind, found in rates.items()}
            print(
                f"inserts, {clients} clients: "
                + ", ".join(f"{kind} {rate:,.0f}/s ({rate / told['no trigger']:.2f})" for kind, rate in told.items()),
                flush=True,
            )
    bench.connection.execute(trigger.format("ENABLE").encode())
    bench.connection.execute("SELECT setval('jobq.notify_mode', %s)", (NotifyMode.NOTIFY,))


def pgbench(script: Path, url: str, clients: int, seconds: float) -> float:
    command = [bindir() / "pgbench", "-n", "-M", "prepared", "-c", str(clients), "-T", str(max(1, round(seconds)))]
    done = subprocess.run([*command, "-f", script, url], check=True, capture_output=True, text=True)
    rate = re.search(r"tps = ([\d.]+)", done.stdout)
    assert rate, done.stdout
    return float(rate[1])


def start(bench: Bench, given: argparse.Namespace) -> None:
    for workers in WORKERS:
        bench.clear()
        for _ in range(workers):
            bench.worker("--processes", "1")
        until(
            lambda workers=workers: bench.count("SELECT count(*) FROM jobq.worker WHERE beats > 0") == workers, "them"
        )  # type: ignore[misc]  # no lambda has annotations
        bench.connection.execute("SELECT setval('jobq.notify_mode', 1)")
        for rate in RATES:
            until(lambda: bench.count("SELECT last_value FROM jobq.notify_mode") == NotifyMode.NOTIFY, "the quiet mode")
            bench.ledger.write_bytes(b"")
            committed: dict[int, float] = {}
            begun = time.monotonic()
            for n in range(int(rate * given.seconds)):
                time.sleep(max(0.0, begun + n / rate - time.monotonic()))
                at = time.monotonic()
                committed[quick.enqueue(bench.connection).id] = at
            reached = len(committed) / (time.monotonic() - begun)
            mode = NotifyMode(bench.count("SELECT last_value FROM jobq.notify_mode")).name.lower()
            until(lambda committed=committed: {j for j, _, _ in bench.lines("quick")} >= set(committed), "every start")  # type: ignore[misc]  # no lambda has annotations
            started = {job: at for job, _, at in bench.lines("quick")}
            report(
                f"{workers} workers, {reached:.0f} jobs/s, {mode} at the end: begin of the call to start",
                [1000 * (started[job] - at) for job, at in committed.items()],
            )


def delay(bench: Bench, given: argparse.Namespace) -> None:
    for load in (0, 200):
        bench.clear()
        bench.worker("--processes", "1")
        bench.ready()
        due: dict[int, float] = {}
        end = time.monotonic() + given.seconds * 2
        n = 0
        while time.monotonic() < end:
            if n % 20 == 0:
                # Its time is counted from within the call; the earliest is as late as it can be.
                due[quick.options(delay=0.5).enqueue(bench.connection).id] = time.monotonic() + 0.5
            elif load:
                quick.enqueue(bench.connection)
            n += 1
            time.sleep(1 / (load or 200))
        mode = NotifyMode(bench.count("SELECT last_value FROM jobq.notify_mode")).name.lower()
        until(lambda due=due: {j for j, _, _ in bench.lines("quick")} >= set(due), "every start")  # type: ignore[misc]  # no lambda has annotations
        started = {job: at for job, _, at in bench.lines("quick")}
        late = [1000 * (started[job] - at) for job, at in due.items()]
        report(f"{load} other jobs/s, {mode}: start after the time of a job with delay=0.5", late)


def report(what: str, figures: list[float]) -> None:
    figures.sort()
    print(
        f"{what}: p50 {statistics.median(figures):.1f} ms, p99 {figures[int(len(figures) * 0.99)]:.1f}, "
        f"worst {figures[-1]:.1f}",
        flush=True,
    )


SCENARIOS: dict[str, Callable[[Bench, argparse.Namespace], None]] = {"insert": insert, "start": start, "delay": delay}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(SCENARIOS)}")
    given = parser.parse_args()
    if unknown := sorted(set(given.names) - set(SCENARIOS)):
        parser.error(f"{unknown[0]!r} is none of {', '.join(SCENARIOS)}")
    with opened() as bench:
        for name in given.names or SCENARIOS:
            SCENARIOS[name](bench, given)


if __name__ == "__main__":
    main()
