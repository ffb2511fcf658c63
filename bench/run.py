"""One run of one peer: a fresh database, a record, its processes, and what they cost."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import psycopg

from bench import environments
from bench.cpu import cpu_of_family, family
from bench.figures import Figures
from bench.peers import Peer
from bench.record import Record
from bench.servers import Server

_LIMIT = 1_800  # seconds of a run, whatever goes on
_BEGUN_BYTES = 32 * 1024  # of log: more than a worker's own beginnings write, less than its first claims


class RunFailed(Exception):
    """A run came to no result; the text says what happened."""


class Broker(Protocol):
    """A running broker, as far as a run needs it."""

    @property
    def url(self) -> str: ...
    @property
    def pid(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Spent:
    """CPU seconds since the start of each, by kind of process."""

    at: float
    postgres: float
    worker: float
    broker: float

    def per_job(self, since: Spent, jobs: int) -> Figures:
        """Return microseconds a job since an earlier look; nothing for what took none."""
        return {f"{kind}_us_per_job": spent / jobs * 1e6 for kind, spent in self._between(since) if spent > 0}

    def cores(self, since: Spent) -> Figures:
        """Return how many CPUs each kind kept busy since an earlier look."""
        return {f"{kind}_cores": spent / (self.at - since.at) for kind, spent in self._between(since) if spent > 0}

    def _between(self, since: Spent) -> list[tuple[str, float]]:
        return [(kind, getattr(self, kind) - getattr(since, kind)) for kind in ("postgres", "worker", "broker")]


class Client:
    """A process of the adapter that says figures at its end."""

    def __init__(self, process: subprocess.Popen[bytes], out: IO[bytes], log: Path, what: str) -> None:
        self.process = process
        self._out = out
        self._log = log
        self._what = what

    def figures(self, timeout: float = 600) -> dict[str, Any]:
        """Wait for its end and return what it said. Raises RunFailed."""
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise RunFailed(f"{self._what} was not done in {timeout:g} s; {tail(self._log)}") from None
        if status:
            raise RunFailed(f"{self._what} ended with {status}; {tail(self._log)}")
        self._out.seek(0)
        lines = self._out.read().decode(errors="replace").splitlines()
        try:
            said = json.loads(lines[-1])
        except (IndexError, ValueError):
            raise RunFailed(f"{self._what} said no JSON; {tail(self._log)}") from None
        if not isinstance(said, dict):
            raise RunFailed(f"{self._what} said {said!r}, which is no object")
        return said


class Run:
    """A peer in a fresh database with room for `places` jobs in the record. A context manager, which ends all it started.

    `work_ms`: how long a job sleeps. `database`: (name, URL) of one to be used again, which is then not dropped.
    """

    def __init__(
        self,
        server: Server,
        peer: Peer,
        config: str,
        places: int,
        *,
        broker: Broker | None = None,
        work_ms: float = 0,
        database: tuple[str, str] | None = None,
    ) -> None:
        self.server = server
        self.peer = peer
        self._config = config
        self._broker = broker
        self._work_ms = work_ms
        self._given = database
        self.directory = Path(tempfile.mkdtemp(prefix="jobq-bench-run-"))
        self.record = Record(self.directory, places)
        self._deadline = time.monotonic() + _LIMIT
        self._processes: list[subprocess.Popen[bytes]] = []
        self.workers: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Run:
        self._database, self.url = self._given or self.server.fresh()
        try:
            self.connection = psycopg.connect(self.url, autocommit=True)
            if self._given is None:
                self.call("setup")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            if process.poll() is None:
                self._end(process, 5)
        if hasattr(self, "connection"):
            self.connection.close()
        if self._given is None:
            self.server.drop(self._database)
        shutil.rmtree(self.directory, ignore_errors=True)

    # --- The adapter

    def call(self, command: str, timeout: float = 600, **options: object) -> dict[str, Any]:
        """Run a command of the adapter to its end and return what it says. Raises RunFailed."""
        return self.start(command, **options).figures(timeout)

    def start(self, command: str, **options: object) -> Client:
        """Start a command of the adapter, such as a client that enqueues."""
        arguments = [f"--{name}={value}" for name, value in options.items()]
        out = tempfile.TemporaryFile(dir=self.directory)  # noqa: SIM115  # the client's, until its end
        log = self._log()
        process = self._spawn([command, *arguments], out, log)
        return Client(process, out, log, f"{self.peer.name} {command}")

    def start_worker(self) -> None:
        """Start one more worker process."""
        with open(os.devnull, "wb") as nowhere:
            self.workers.append(self._spawn(["work"], nowhere, self._log()))

    def stop_workers(self) -> None:
        """End the workers in good order, so that what they hold back of the record is written. Raises RunFailed."""
        for worker in self.workers:
            if worker.poll() is None:
                worker.send_signal(getattr(signal, self.peer.stop_signal))
        for worker in self.workers:
            pid = worker.pid
            try:
                worker.wait(40)
            except subprocess.TimeoutExpired:
                self._end(worker, 5)
                raise RunFailed(f"{self.peer.name}: worker {pid} outlived {self.peer.stop_signal} by 40 s") from None
        self.workers.clear()

    def warm_up(self) -> None:
        """Have the worker do the job numbered 0, so that it is up. Raises RunFailed."""
        self.call("enqueue", first=0, jobs=1)
        self.wait_done(0, 1)

    # --- Waiting

    def left(self) -> bool:
        """Tell whether the store holds a job that is not finished."""
        assert self.peer.left is not None
        row = self.connection.execute(self.peer.left.encode()).fetchone()
        assert row is not None
        return bool(row[0])

    def wait_begun(self, first: int, timeout: float = 60) -> None:
        """Wait until a worker has started a job (Node shows no record while it runs: until it writes to the database)."""
        logged = self.server.wal_bytes()
        deadline = time.monotonic() + timeout
        while True:
            if self.peer.kind == "python":
                if self.record.any_started(first):
                    return
            elif self.server.wal_bytes() - logged > _BEGUN_BYTES:
                return
            self._check(deadline, f"no job was started within {timeout:g} s")
            time.sleep(0.001)

    def wait_done(self, first: int, jobs: int, patience: float = 60) -> float:
        """Wait until `jobs` have been done and recorded; return when that was (brokers: when the last one started).

        Raises RunFailed when nothing happens for `patience` seconds, and when a worker ends.
        """
        deadline = time.monotonic() + patience
        seen = -1
        if self.peer.kind == "python":
            while not self.record.all_started(first, jobs):
                if self.record.seen != seen:
                    seen, deadline = self.record.seen, time.monotonic() + patience
                self._check(deadline, f"job {max(seen, first)} of {first} to {first + jobs - 1} did not start")
                time.sleep(0.002)
        if self.peer.left is None:
            return max(self.record.starts(first, jobs))
        logged = self.server.wal_bytes()
        while self.left():
            # A poll is a scan over what has just been deleted: not too often.
            if (now_logged := self.server.wal_bytes()) != logged:
                logged, deadline = now_logged, time.monotonic() + patience
            self._check(deadline, "the store holds jobs that are not finished, and nothing happens")
            time.sleep(0.002 if self.peer.kind == "python" else 0.005)
        return time.monotonic()

    def wait_for(self, condition: Callable[[], bool], what: str, timeout: float = 60) -> None:
        """Wait until `condition` holds. Raises RunFailed, which names `what`, when it does not, and when a worker ends."""
        deadline = time.monotonic() + timeout
        while not condition():
            self._check(deadline, f"{what} within {timeout:g} s")
            time.sleep(0.05)

    def check_all_started(self, first: int, jobs: int) -> list[float]:
        """Return when each job started. Raises RunFailed if one did not."""
        starts = list(self.record.starts(first, jobs))
        if missing := sum(not start for start in starts):
            raise RunFailed(f"{self.peer.name}: {missing} of {jobs} jobs were never started")
        return starts

    def _check(self, deadline: float, what: str) -> None:
        for worker in self.workers:
            if worker.poll() is not None:
                raise RunFailed(f"{self.peer.name}: a worker ended with {worker.returncode}; {self._said()}")
        if time.monotonic() > min(deadline, self._deadline):
            raise RunFailed(f"{self.peer.name}: {what}; {self._said()}")

    # --- Costs

    def spent(self, without: Iterable[int] = ()) -> Spent:
        """Return what was spent so far; the driver's own backends are not counted, nor those in `without`."""
        return Spent(
            at=time.monotonic(),
            # The bench's Postgres has nothing to do for a peer on a broker.
            postgres=0.0 if self._broker else self.server.cpu({self.connection.info.backend_pid, *without}),
            worker=sum(cpu_of_family(worker.pid) for worker in self.workers),
            broker=cpu_of_family(self._broker.pid) if self._broker else 0.0,
        )

    # --- Processes

    def _spawn(self, arguments: list[str], out: IO[bytes], log: Path) -> subprocess.Popen[bytes]:
        record = self.record.part() if self.peer.kind == "node" else self.record.path
        environ = {
            **os.environ,
            **environments.environ(self.peer),
            "BENCH_DATABASE_URL": self.url,
            "BENCH_BROKER_URL": self._broker.url if self._broker else "",
            "BENCH_CONFIG": self._config,
            "BENCH_RECORD": str(record),
            "BENCH_WORK_MS": f"{self._work_ms:g}",
        }
        with log.open("ab") as error:
            process = subprocess.Popen(
                [*environments.command(self.peer), *arguments],
                env=environ,
                cwd=environments.ROOT,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=error,
                start_new_session=True,
            )
        self._processes.append(process)
        return process

    def _log(self) -> Path:
        return self.directory / f"log-{len(self._processes)}"

    def _said(self) -> str:
        return " | ".join(tail(log) for log in sorted(self.directory.glob("log-*")) if log.stat().st_size)[-1500:]

    def _end(self, process: subprocess.Popen[bytes], patience: float) -> None:
        """End a process in good order, or after `patience` seconds with all that it started."""
        process.send_signal(getattr(signal, self.peer.stop_signal))
        with suppress(subprocess.TimeoutExpired):
            process.wait(patience)
            return
        for member in family(process.pid):
            with suppress(ProcessLookupError):
                os.kill(member, signal.SIGKILL)
        process.wait(10)


def tail(log: Path, lines: int = 6) -> str:
    """Return the last lines of a log in one."""
    said = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()][-lines:]
    return "its log ends: " + " / ".join(said) if said else "its log is empty"
