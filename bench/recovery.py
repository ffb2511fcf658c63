"""How fast a worker recovers from faults, and what it costs when it has nothing to do.

`python -m bench.recovery [--rounds 5] [--idle 60] [--busy 60] [NAME …]`: all of `worker`, `runner`, `postgres`,
`interpreter`, `poison`, `idle`, or those named. Starts its own Postgres (durable). Every figure is printed with its median and
its worst case.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from bench.cpu import resident_mib
from jobq import JobQ, current_job, migrate
from jobq.dev import DevPostgres

q = JobQ()
_ledger = os.environ.get("BENCH_LEDGER", os.devnull)
# Everything else is the default. Jobs that are there to be interrupted are not waited for.
OPTIONS = ["--log-level", "error", "--shutdown-timeout", "0"]


def note(text: str) -> None:
    """Append a line in one write, which a kill cannot halve."""
    line = f"{text} {current_job().id} {os.getpid()} {time.monotonic():.6f}\n"
    with open(_ledger, "ab", buffering=0) as ledger:
        ledger.write(line.encode())


@q.task
def hold(seconds: float) -> None:
    note("start")
    time.sleep(seconds)


@q.task
def short(milliseconds: float) -> None:
    note("start")
    time.sleep(milliseconds / 1000)


@q.task(queue="other")
def quick() -> None:
    note("quick")


@q.task
def compute(seconds: float, kind: str) -> None:
    """Hold the interpreter: in Python, or in a call into C that never lets go."""
    note("compute")
    if kind == "C":
        ctypes.PyDLL(None).sleep(int(seconds))
        return
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


@q.task
def poison() -> None:
    note("poison")
    os._exit(1)


class Bench:
    """A server, a ledger, and the workers of one scenario."""

    def __init__(self, server: DevPostgres, directory: Path) -> None:
        self.server = server
        self.url = server.url("postgres")
        self.ledger = directory / "ledger"
        self._log = directory / "log"
        self._workers: list[subprocess.Popen[bytes]] = []
        self.connection = psycopg.connect(self.url, autocommit=True)

    def clear(self) -> None:
        """Begin again: no worker, no job, an empty ledger."""
        for worker in self._workers:
            if worker.poll() is None:
                worker.send_signal(signal.SIGTERM)
        for worker in self._workers:
            worker.wait(30)
        self._workers.clear()
        self.connection.close()
        self.connection = psycopg.connect(self.url, autocommit=True)
        self.connection.execute("TRUNCATE jobq.job, jobq.job_history, jobq.job_attempt, jobq.worker")
        self.ledger.write_bytes(b"")

    def worker(self, *options: str) -> subprocess.Popen[bytes]:
        environ = {**os.environ, "JOBQ_DATABASE_URL": self.url, "BENCH_LEDGER": str(self.ledger)}
        command = [sys.executable, "-m", "jobq", "worker", "bench.recovery:q", *OPTIONS, *options]
        with self._log.open("ab") as log:
            process = subprocess.Popen(command, env=environ, stdout=log, stderr=log)
        self._workers.append(process)
        return process

    def lines(self, kind: str) -> list[tuple[int, int, float]]:
        """Return (job, process, time) of every line of `kind`."""
        found = []
        for line in self.ledger.read_text().splitlines():
            what, job, pid, at = line.split()
            if what == kind:
                found.append((int(job), int(pid), float(at)))
        return found

    def count(self, query: str) -> Any:
        row = self.connection.execute(query.encode()).fetchone()
        assert row is not None
        return row[0]

    def ready(self) -> None:
        """Wait until a worker has registered."""
        until(lambda: self.count("SELECT count(*) FROM jobq.worker WHERE beats > 0") > 0, "a worker")


def until(condition: Callable[[], object], what: str, timeout: float = 60) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"{what}: not within {timeout:g} s")
        time.sleep(0.002)


def runners_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def report(what: str, figures: list[float], unit: str = "s") -> None:
    listed = ", ".join(f"{figure:.2f}" for figure in figures)
    print(f"{what}: median {statistics.median(figures):.2f} {unit}, worst {max(figures):.2f}   ({listed})", flush=True)


def again_after(bench: Bench, kind: str, jobs: set[int], moment: float, timeout: float = 60) -> float:
    """Return how many seconds after `moment` each of `jobs` has started again."""

    def restarted() -> dict[int, float]:
        return {job: at for job, _, at in reversed(bench.lines(kind)) if at > moment and job in jobs}

    until(lambda: len(restarted()) == len(jobs), "every job's second start", timeout)
    return max(restarted().values()) - moment


def killed_worker(bench: Bench, given: argparse.Namespace) -> None:
    figures = []
    for _ in range(given.rounds):
        bench.clear()
        victim = bench.worker()
        bench.ready()
        jobs = {ref.id for ref in q.enqueue_many(bench.connection, [hold.job(600.0) for _ in range(20)])}
        until(lambda jobs=jobs: len(bench.lines("start")) == len(jobs), "20 starts")  # type: ignore[misc]  # no lambda has annotations
        moment = time.monotonic()
        victim.kill()
        bench.worker()
        figures.append(again_after(bench, "start", jobs, moment))
    report("kill -9 of the only worker, another started at once: its 20 jobs run again after", figures)


def killed_runner(bench: Bench, given: argparse.Namespace) -> None:
    for options in ([], ["--processes", "1"]):
        figures = []
        for _ in range(given.rounds):
            bench.clear()
            bench.worker("--concurrency", "20", *options)
            bench.ready()
            q.enqueue_many(bench.connection, [hold.job(600.0) for _ in range(20)])
            until(lambda: len(bench.lines("start")) == 20, "20 starts")
            # The one that has most: a runner that seemed slow may have been given none.
            holders = [pid for _, pid, _ in bench.lines("start")]
            victim = max(holders, key=holders.count)
            jobs = {job for job, pid, _ in bench.lines("start") if pid == victim}
            moment = time.monotonic()
            os.kill(victim, signal.SIGKILL)
            figures.append(again_after(bench, "start", jobs, moment))
        report(f"kill -9 of a runner ({' '.join(options) or 'default'}): its jobs run again after", figures)


def stopped_postgres(bench: Bench, given: argparse.Namespace) -> None:
    figures = []
    for _ in range(given.rounds):
        bench.clear()
        bench.worker()
        bench.ready()
        refs = q.enqueue_many(bench.connection, [short.job(20.0) for _ in range(8000)])
        until(lambda: len(bench.lines("start")) > 500, "500 starts")
        os.kill(int(bench.count("SELECT pg_read_file('postmaster.pid')").split()[0]), signal.SIGQUIT)
        time.sleep(3)
        bench.server.start()
        answers = time.monotonic()
        bench.connection = psycopg.connect(bench.url, autocommit=True)
        seen = {job for job, _, _ in bench.lines("start")}
        until(lambda seen=seen: {job for job, _, _ in bench.lines("start")} - seen, "a new start")  # type: ignore[misc]  # no lambda has annotations
        new = [at for job, _, at in bench.lines("start") if job not in seen]
        figures.append(min(new) - answers)
        until(lambda: bench.count("SELECT count(*) FROM jobq.job") == 0, "every end", 120)
        ends = bench.count("SELECT count(*) || ' ' || count(DISTINCT id) FROM jobq.job_history")
        if ends != f"{len(refs)} {len(refs)}":
            raise SystemExit(f"of {len(refs)} jobs, ends and jobs ended: {ends}")
    report("Postgres stopped (immediate) for 3 s under load: a new job starts after it answers in", figures)


def held_interpreter(bench: Bench, given: argparse.Namespace) -> None:
    for kind in ("Python", "C"):
        bench.clear()
        bench.worker()
        bench.ready()
        before = latencies(bench, given.busy / 2)
        job = compute.enqueue(bench.connection, given.busy, kind).id
        until(lambda: bench.lines("compute"), "the start")
        age = "SELECT extract(epoch FROM clock_timestamp() - heartbeat_at) FROM jobq.worker"
        during = latencies(bench, given.busy - 2, age)
        if bench.count(f"SELECT count(*) FROM jobq.job WHERE id = {job} AND state = 'running'") != 1:
            raise SystemExit("the task did not hold out")
        print(
            f"a task holds the interpreter in {kind} for {given.busy:g} s: oldest heartbeat {during.oldest:.2f} s; "
            f"start of other queue's jobs, p50 {before.p50:.1f} -> {during.p50:.1f} ms, p99 {before.p99:.1f} -> "
            f"{during.p99:.1f} ms ({during.p99 / before.p99:.2f} times), worst {before.worst:.0f} -> {during.worst:.0f} ms",
            flush=True,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Latencies:
    """How long jobs took to start, in ms, and the largest answer to the query that was asked beside each, in seconds."""

    p50: float
    p99: float
    worst: float
    oldest: float


def latencies(bench: Bench, seconds: float, ask: str = "SELECT 0") -> Latencies:
    """Enqueue a job every 20 ms for so long, and `ask` the database each time."""
    committed: dict[int, float] = {}
    answers = []
    end = time.monotonic() + seconds
    while (at := time.monotonic()) < end:
        committed[quick.enqueue(bench.connection).id] = time.monotonic()
        answers.append(float(bench.count(ask)))
        time.sleep(max(0.0, at + 0.02 - time.monotonic()))
    until(lambda: {job for job, _, _ in bench.lines("quick")} >= set(committed), "every start")
    started = {job: at for job, _, at in bench.lines("quick")}
    found = sorted(1000 * (started[job] - at) for job, at in committed.items())
    return Latencies(
        p50=statistics.median(found), p99=found[int(len(found) * 0.99)], worst=found[-1], oldest=max(answers)
    )


def poison_job(bench: Bench, given: argparse.Namespace) -> None:
    bench.clear()
    bench.worker()
    bench.ready()
    job = poison.enqueue(bench.connection).id
    until(lambda: bench.count("SELECT count(*) FROM jobq.job_history") == 1, "the end")
    died = len({pid for _, pid, _ in bench.lines("poison")})
    ended = bench.count(
        f"SELECT state || ' after ' || crashes || ' crashes: ' || error FROM jobq.job_history WHERE id = {job}"
    )
    print(f"a job that ends its runner: {ended}; {died} runners died", flush=True)


def idle(bench: Bench, given: argparse.Namespace) -> None:
    bench.clear()
    bench.connection.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
    worker = bench.worker()
    bench.ready()
    time.sleep(5)  # the start's own statements
    statements = "SELECT sum(calls)::bigint FROM pg_stat_statements"
    before = bench.count(statements)
    time.sleep(given.idle)
    made = bench.count(statements) - before - 1
    sizes = [resident_mib(pid) for pid in (worker.pid, *runners_of(worker.pid))]
    print(
        f"idle for {given.idle:g} s: {made / given.idle:.2f} statements a second; resident memory of the dispatcher "
        f"{sizes[0]:.0f} MiB, of a runner {sizes[1]:.0f} MiB",
        flush=True,
    )


SCENARIOS: dict[str, Callable[[Bench, argparse.Namespace], None]] = {
    "worker": killed_worker,
    "runner": killed_runner,
    "postgres": stopped_postgres,
    "interpreter": held_interpreter,
    "poison": poison_job,
    "idle": idle,
}


@contextmanager
def opened() -> Iterator[Bench]:
    with tempfile.TemporaryDirectory(prefix="jobq-bench-") as home:
        directory = Path(home)
        directory.chmod(0o755)
        settings = {"shared_preload_libraries": "pg_stat_statements", "pg_stat_statements.track_utility": "on"}
        with DevPostgres(directory / "pg", **settings) as server:
            migrate.upgrade(server.url("postgres"))
            bench = Bench(server, directory)
            try:
                yield bench
            finally:
                bench.clear()
                bench.connection.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--idle", type=float, default=60)
    parser.add_argument("--busy", type=float, default=60)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(SCENARIOS)}")
    given = parser.parse_args()
    if unknown := sorted(set(given.names) - set(SCENARIOS)):
        parser.error(f"{unknown[0]!r} is none of {', '.join(SCENARIOS)}")
    with opened() as bench:
        for name in given.names or SCENARIOS:
            SCENARIOS[name](bench, given)


if __name__ == "__main__":
    main()
