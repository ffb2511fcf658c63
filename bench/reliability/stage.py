"""A durable Postgres, the workers on it, and the ledger of what was executed when."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from bench.servers import Server
from jobq import migrate

APP = "bench.reliability.app:q"


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What a proof found."""

    figures: dict[str, Any] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    """Each promise that was not kept, in words with its figure."""

    def demand(self, kept: bool, what: str) -> None:
        """Note `what` as broken unless it was kept."""
        if not kept:
            self.broken.append(what)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line of the ledger; `at` in seconds of the machine's monotonic clock."""

    what: str
    label: str
    job: int
    pid: int
    at: float


class Stage:
    """One proof's database, workers and ledger. A context manager; `ledger` and the workers' logs are in `directory`."""

    def __init__(self, server: Server, directory: Path) -> None:
        self.server = server
        self.directory = directory
        self.ledger = directory / "ledger"
        self.workers: list[subprocess.Popen[bytes]] = []
        self.begin()

    def begin(self) -> None:
        """Take a fresh database and an empty ledger; the workers that there were are stopped."""
        self.stop()
        _, self.url = self.server.fresh()
        migrate.upgrade(self.url)
        self.connection = self.connect()
        self.ledger.write_bytes(b"")
        self._read, self._lines, self._rest = 0, list[Line](), b""

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(patience=30)
        self.connection.close()

    def connect(self) -> psycopg.Connection[Any]:
        """Return another connection in autocommit."""
        return psycopg.connect(self.url, autocommit=True)

    # --- workers --------------------

    def start(self, *options: str, log: int | None = None) -> subprocess.Popen[bytes]:
        """Start a worker. Its log goes to a file of its own, or to the descriptor `log`."""
        environ = {**os.environ, "JOBQ_DATABASE_URL": self.url, "RELIABILITY_LEDGER": str(self.ledger)}
        command = [sys.executable, "-m", "jobq", "worker", APP, *options]
        with (self.directory / f"worker{len(self.workers)}.log").open("wb") as file:
            out = file if log is None else log
            # A session of its own: a task that signals its process group is not to reach this process.
            worker = subprocess.Popen(
                command, env=environ, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )
        self.workers.append(worker)
        return worker

    def fleet(self, number: int, *options: str) -> list[subprocess.Popen[bytes]]:
        """Start `number` workers, and wait until each has sent a heartbeat."""
        started = [self.start(*options) for _ in range(number)]
        self.ready(len(self.working))
        return started

    def ready(self, number: int) -> None:
        """Wait until so many workers have sent a heartbeat."""
        until(lambda: self.one("SELECT count(*) >= %s FROM jobq.worker WHERE beats > 0", number), f"{number} workers")

    @property
    def working(self) -> list[subprocess.Popen[bytes]]:
        """The workers that have not ended."""
        return [worker for worker in self.workers if worker.poll() is None]

    def stop(self, patience: float = 60) -> list[int]:
        """Tell all workers to stop, wait, and return how they ended; one that does not stop is killed."""
        for worker in self.working:
            worker.terminate()
        deadline = time.monotonic() + patience
        for worker in self.workers:
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker.wait(max(0.1, deadline - time.monotonic()))
            with contextlib.suppress(ProcessLookupError):
                os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()
        ended = [worker.returncode for worker in self.workers]
        self.workers.clear()
        return ended

    # --- what happened --------------------

    def one(self, query: str, *values: Any) -> Any:
        """Return the one value of a query."""
        row = self.connection.execute(query.encode(), values).fetchone()
        assert row is not None, query
        return row[0]

    def count(self, query: str, *values: Any) -> int:
        """Return the number that a query counts."""
        return int(self.one(query, *values))

    def lines(self, what: str | None = None) -> list[Line]:
        """Return the ledger's lines so far, or those that tell of `what`."""
        with self.ledger.open("rb") as file:
            file.seek(self._read)
            text = self._rest + file.read()
            self._read = file.tell()
        whole, _, self._rest = text.rpartition(b"\n")
        for line in whole.decode().splitlines():
            event, label, job, pid, at = line.split()
            self._lines.append(Line(what=event, label=label, job=int(job), pid=int(pid), at=float(at)))
        return [line for line in self._lines if what is None or line.what == what]

    def starts(self, what: str = "start") -> dict[int, list[float]]:
        """Return when each job was started, by job."""
        found: dict[int, list[float]] = defaultdict(list)
        for line in self.lines(what):
            found[line.job].append(line.at)
        return found

    @contextlib.contextmanager
    def beside(self, *steps: Callable[[threading.Event], None]) -> Iterator[threading.Event]:
        """Run each of `steps` in a thread until the block ends, or one fails: then the event is set, and the error raised."""
        done, errors = threading.Event(), list[BaseException]()

        def guarded(step: Callable[[threading.Event], None]) -> None:
            try:
                step(done)
            except BaseException as error:
                errors.append(error)
                done.set()

        threads = [threading.Thread(target=guarded, args=(step,)) for step in steps]
        for thread in threads:
            thread.start()
        try:
            yield done
        finally:
            done.set()
            for thread in threads:
                thread.join()
        if errors:
            raise errors[0]

    def heartbeat_ages(self) -> Callable[[threading.Event], None]:
        """Return a step for `beside` that keeps the oldest heartbeat seen in `oldest_heartbeat`, in seconds."""
        self.oldest_heartbeat = 0.0

        def watch(done: threading.Event) -> None:
            query = (
                "SELECT coalesce(max(extract(epoch FROM clock_timestamp() - heartbeat_at)), 0)::float8 FROM jobq.worker"
            )
            with self.connect() as own:
                while not done.wait(0.1):
                    row = own.execute(query.encode()).fetchone()
                    assert row is not None
                    self.oldest_heartbeat = max(self.oldest_heartbeat, row[0])

        return watch


def until(condition: Callable[[], object], what: str, timeout: float = 60, every: float = 0.02) -> None:
    """Wait for a condition, or give up the whole proof."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"{what}: not within {timeout:g} s")
        time.sleep(every)


def came(condition: Callable[[], object], timeout: float, every: float = 0.02) -> bool:
    """Wait for a condition, and tell whether it came in time."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(every)
    return True
