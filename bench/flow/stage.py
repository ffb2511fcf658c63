"""A durable Postgres, the workers on it, and the ledger of what was executed when."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from bench.servers import Server
from jobq import migrate

# Short, so that a run sees many leases end; in the proportions of the defaults.
TIMES = ("--heartbeat-interval", "0.5", "--suspicion", "2", "--lease", "4")


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """One execution, in seconds of the machine's monotonic clock. `ended`: False when its worker was killed."""

    group: str
    n: int
    job: int
    start: float
    end: float
    ended: bool
    succeeded: bool


class Stage:
    """One run: a fresh database, workers, kills, and the result."""

    def __init__(self, server: Server, directory: Path) -> None:
        _, self.url = server.fresh()
        migrate.upgrade(self.url)
        self.connection = psycopg.connect(self.url, autocommit=True)
        self.ledger = directory / "ledger"
        self.ledger.write_bytes(b"")
        self._log = directory / "workers.log"
        self.workers: list[subprocess.Popen[bytes]] = []
        self.killed: dict[int, float] = {}
        """When the runners of killed workers died, at the earliest."""

    def rule(self, queue: str, **columns: Any) -> None:
        """Set what `queue` has: columns of the table of queues."""
        names = [sql.Identifier(name) for name in columns]
        self.connection.execute(
            sql.SQL("INSERT INTO jobq.queue (name, changed_at, {}) VALUES (%s, now(), {})").format(
                sql.SQL(", ").join(names), sql.SQL(", ").join([sql.Placeholder()] * len(names))
            ),
            (queue, *columns.values()),
        )

    def start(self, *options: str) -> subprocess.Popen[bytes]:
        """Start a worker."""
        environ = {**os.environ, "JOBQ_DATABASE_URL": self.url, "FLOW_LEDGER": str(self.ledger)}
        command = [sys.executable, "-m", "jobq", "worker", "bench.flow.app:q", "--log-level", "error", *options]
        with self._log.open("ab") as log:
            worker = subprocess.Popen(command, env=environ, stdout=log, stderr=log)
        self.workers.append(worker)
        return worker

    def ready(self, number: int) -> None:
        """Wait until so many workers have registered."""
        until(lambda: self.one("SELECT count(*) >= %s FROM jobq.worker", number), f"{number} workers")

    def kill(self, chooser: random.Random, *options: str) -> None:
        """kill -9 one worker, and start another in its place."""
        worker = chooser.choice([each for each in self.workers if each.poll() is None])
        runners = Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text().split()
        self.killed.update(dict.fromkeys(map(int, runners), time.monotonic()))
        worker.kill()
        worker.wait()
        self.start(*options)

    def one(self, query: str, *values: Any) -> Any:
        """Return the one value of a query."""
        row = self.connection.execute(query.encode(), values).fetchone()
        assert row is not None, query
        return row[0]

    def executions(self) -> list[Execution]:
        """Return what the ledger has, by start. What has no end was killed, and ended at its worker's death at the latest."""
        begun: dict[tuple[int, int], tuple[Execution, int]] = {}
        found: list[Execution] = []
        for line in self.ledger.read_text().splitlines():
            what, group, n, job, pid, at = line.split()
            name = int(job), int(pid)
            if what == "start":
                if name in begun:
                    found.append(self._lost(*begun.pop(name)))
                one = Execution(
                    group=group, n=int(n), job=int(job), start=float(at), end=0.0, ended=False, succeeded=False
                )
                begun[name] = one, int(pid)
            else:
                one, _ = begun.pop(name)
                found.append(replace(one, end=float(at), ended=True, succeeded=what == "end"))
        found += [self._lost(*each) for each in begun.values()]
        return sorted(found, key=lambda each: each.start)

    def _lost(self, one: Execution, pid: int) -> Execution:
        return replace(one, end=max(one.start, self.killed.get(pid, one.start)))

    def close(self) -> None:
        """Stop all workers."""
        for worker in self.workers:
            if worker.poll() is None:
                worker.send_signal(signal.SIGTERM)
        for worker in self.workers:
            worker.wait(60)
        self.connection.close()


def until(condition: Callable[[], object], what: str, timeout: float = 180) -> None:
    """Wait for a condition, or give up."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"{what}: not within {timeout:g} s")
        time.sleep(0.01)


def most_at_once(executions: Iterable[Execution]) -> int:
    """Return the largest number of executions that were under way at one moment."""
    steps = sorted([(each.start, 1) for each in executions] + [(each.end, -1) for each in executions])
    most = now = 0
    for _, step in steps:
        now += step
        most = max(most, now)
    return most
