"""The arena: one scenario's server, workers, producers and faults, and the verdict at its end."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row

from jobq import migrate, operations
from tests.chaos.scene import ledger
from tests.chaos.scene.app import act, q
from tests.chaos.scene.checker import check
from tests.chaos.scene.history import Final, JobRow, Limits
from tests.chaos.scene.producer import OWN_DATA
from tests.support.servers.postgres import OwnServer
from tests.support.waiting import hold, wait_until
from tests.support.workers import ROOT, WorkerProcess

# Short, so that a scenario sees several leases end; the proportions are those of the defaults.
TIMES = ("--heartbeat-interval", "0.5", "--suspicion", "2", "--lease", "4")
APP = "tests.chaos.scene.app:q"
_NANOSECONDS = "(extract(epoch FROM finished_at) * 1000000)::bigint * 1000"


class Arena:
    """A server of its own, what runs on it, and what is known of it. Everything random comes from `random`."""

    def __init__(self, directory: Path, name: str, *, seed: int, long: bool) -> None:
        self.directory = directory
        self.name = name
        self.seed = seed
        self.long = long
        self.random = random.Random(f"{seed} {name}")
        self.ledger = ledger.Ledger(directory)
        self.server = OwnServer()
        self.url = ""
        self.workers: list[WorkerProcess] = []
        self.producers: list[subprocess.Popen[bytes]] = []
        self.unread: list[int] = []
        self.move_to(self.server.url)

    def move_to(self, url: str) -> None:
        """Take another database, which is empty, for the scene."""
        self.url = url
        migrate.upgrade(url)
        with self.connect() as connection:
            connection.execute(OWN_DATA)

    # --- who takes part --------------------

    def size(self, jobs: int) -> int:
        """Return how many jobs to place: `jobs` in the short form, eight times as many in the long one."""
        return jobs * 8 if self.long else jobs

    def start_worker(
        self,
        *args: str,
        url: str | None = None,
        env: Mapping[str, str] | None = None,
        times: tuple[str, ...] = TIMES,
        unread: bool = False,
        app: str = APP,
    ) -> WorkerProcess:
        """Start a worker and wait until it works. `unread`: what it prints goes to a pipe that is never read."""
        log = self.directory / f"worker{len(self.workers)}.log"
        environ = {ledger.VARIABLE: str(self.directory), **(env or {})}
        if unread:
            os.mkfifo(log)
            # Open in both directions: neither does the opening wait, nor does a write fail because there is no reader.
            self.unread.append(os.open(log, os.O_RDWR))
            worker = WorkerProcess(url or self.url, log, *times, *args, app=app, env=environ)
            self.workers.append(worker)
            with self.connect() as connection:
                registered = "SELECT FROM jobq.worker WHERE pid = %s AND beats > 0"
                wait_until(
                    lambda: connection.execute(registered, (worker.pid,)).rowcount, timeout=60, what="a silent worker"
                )
            return worker
        worker = WorkerProcess(url or self.url, log, *times, *args, app=app, env=environ)
        self.workers.append(worker)
        wait_until(lambda: "working" in worker.log or not worker.is_running(), timeout=60, what=f"a start in {log}")
        assert worker.is_running(), worker.log
        return worker

    def produce(
        self, jobs: int, seconds: float, *, mix: str = "calm", url: str | None = None, producers: int = 2
    ) -> None:
        """Start producers that together place `jobs` jobs within about `seconds`."""
        for _ in range(producers):
            number = len(self.producers)
            wish = {
                "url": url or self.url, "name": f"p{number}", "seed": self.seed, "jobs": -(-jobs // producers),
                "seconds": seconds, "mix": mix,
            }  # fmt: skip
            with (self.directory / f"producer{number}.log").open("wb") as log:
                process = subprocess.Popen(
                    [sys.executable, "-m", "tests.chaos.scene.producer", json.dumps(wish)],
                    cwd=ROOT,
                    env={**os.environ, ledger.VARIABLE: str(self.directory)},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            self.producers.append(process)

    def place(self, name: str, plans: list[list[str]], *, line: bool = False, **options: Any) -> list[int]:
        """Enqueue a job for each plan in one transaction, with these options of its task, and return their ids.

        `line`: they are to start in their order, as far as workers have not claimed several at once.
        """
        tokens = [f"{name}-{number}" for number in range(len(plans))]
        # A line at a time, and each a write: short.
        for token in tokens:
            wish = {"token": token, "key": None, "holds": "period", "line": name if line else None}
            self.ledger.write("intent", transaction=token, jobs=[wish])
        task = act.options(**{"max_attempts": 10, **options})
        with self.connect() as connection:
            jobs = [task.job(token, plan) for token, plan in zip(tokens, plans, strict=True)]
            refs = q.enqueue_many(connection, jobs)
        for token, ref in zip(tokens, refs, strict=True):
            self.ledger.write("placed", token=token, job=ref.id, created=True)
            self.ledger.write("commit", transaction=token)
        return [ref.id for ref in refs]

    @property
    def producing(self) -> bool:
        """Whether some producer still places jobs."""
        return any(process.poll() is None for process in self.producers)

    # --- faults --------------------

    def fault(self, what: str, **values: Any) -> None:
        """Write down what is about to be done to whom."""
        self.ledger.write("fault", what=what, **values)

    def pause(self, least: float, most: float) -> None:
        """Let the load run on for a random while: when a fault strikes is drawn from the seed."""
        hold(self.random.uniform(least, most))

    def torment(self, step: Callable[[], None], *, every: tuple[float, float], most: int | None = None) -> None:
        """Call `step` again and again until the producers are done, once at least; in the short form `most` times."""
        times = 0
        while not times or (self.producing and (self.long or most is None or times < most)):
            self.pause(*every)
            step()
            times += 1

    def kill_dispatcher(self, worker: WorkerProcess) -> None:
        """kill -9 the dispatcher; its runners are left to the kernel."""
        self.fault("kill -9 dispatcher", pid=worker.pid)
        worker.kill()

    def kill_runner(self, worker: WorkerProcess) -> None:
        """kill -9 one of its runners, if it has one."""
        if runners := children(worker.pid):
            pid = self.random.choice(runners)
            self.fault("kill -9 runner", pid=pid)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def terminate_backends(self, share: float, like: str = "%") -> None:
        """pg_terminate_backend some of the connections of workers and producers; and wonder not when the server is away."""
        with contextlib.suppress(psycopg.OperationalError), self.connect() as connection:
            rows = connection.execute(
                "SELECT pid, application_name AS name FROM pg_stat_activity WHERE backend_type = 'client backend' "
                "AND application_name LIKE %s AND application_name <> 'chaos' AND pid <> pg_backend_pid()",
                (like,),
            ).fetchall()
            for row in rows:
                if self.random.random() < share:
                    self.fault("terminate", backend=row["name"])
                    connection.execute("SELECT pg_terminate_backend(%s)", (row["pid"],))

    def cancel_some(self, most: int) -> None:
        """Cancel a few live jobs, as an operator would."""
        with contextlib.suppress(psycopg.OperationalError), self.connect() as connection:
            ids = [
                row["id"] for row in connection.execute("SELECT id FROM jobq.job ORDER BY random() LIMIT %s", (most,))
            ]
            for job in ids:
                # Before it is done: an execution can end by it at once.
                self.ledger.write("cancel", job=job)
            operations.cancel(connection, "jobq", ids, actor="chaos")

    # --- the end --------------------

    def connect(self) -> psycopg.Connection[dict[str, Any]]:
        """Return a connection of the harness' own, which no fault is aimed at."""
        return psycopg.connect(
            self.url, autocommit=True, row_factory=dict_row, application_name="chaos", connect_timeout=5
        )

    def finish(self, *, timeout: float = 60, limits: Limits | None = None, clocks: bool = True) -> Counter[str]:
        """Wait for the producers and until no job is live; stop the workers; judge. Returns how many jobs ended how.

        `timeout` is for the jobs to end after the last was placed. `clocks`: whether the database's clock is ours.
        """
        wait_until(lambda: not self.producing, timeout=300 if self.long else 60, what=f"the producers{self.where()}")
        failed = [process.args for process in self.producers if process.returncode]
        assert not failed, f"a producer failed{self.where()}"
        looked = 0.0

        def drained() -> bool:
            nonlocal looked
            if time.monotonic() - looked > 0.5:
                self.look()
                looked = time.monotonic()
            return self._drained()

        # What is left then is among the violations.
        with contextlib.suppress(AssertionError):
            wait_until(drained, timeout=timeout, what="the end of all jobs")
        running = [worker for worker in self.workers if worker.is_running()]
        for worker in running:
            worker.terminate()
        codes = [worker.wait() for worker in running]
        final = self.final(clocks=clocks)
        violations = check(self.ledger.read(), final, limits)
        text = "\n".join(str(violation)[:1000] for violation in violations[:20])
        assert not violations, f"{len(violations)} violations{self.where()}\n{text}"
        assert not any(codes), f"workers ended with {codes}{self.where()}"
        states = Counter(row.state for row in final.finished)
        print(f"{self.name}, seed {self.seed}: {dict(states)}, {self.summary()}")
        return states

    def look(self) -> None:
        """Write down which jobs run in whose name, and how many each worker says that it holds."""
        query = """
            SELECT ARRAY(SELECT jsonb_build_array(id, claims, worker_id) FROM jobq.job
                         WHERE state = 'running' AND worker_id IS NOT NULL) AS jobs,
                   (SELECT jsonb_object_agg(id, running) FROM jobq.worker) AS workers"""
        with contextlib.suppress(psycopg.OperationalError), self.connect() as connection:
            row = connection.execute(query.encode()).fetchone()
            assert row is not None
            self.ledger.write("held", jobs=row["jobs"], workers=row["workers"] or {})

    def waiting(self) -> list[str]:
        """Return the tasks of the jobs that have not finished."""
        with self.connect() as connection:
            return [row["task"] for row in connection.execute("SELECT DISTINCT task FROM jobq.job")]

    def waiting_jobs(self) -> list[int]:
        """Return the jobs that have not finished."""
        with self.connect() as connection:
            return [row["id"] for row in connection.execute("SELECT id FROM jobq.job")]

    def started(self, jobs: Iterable[int]) -> set[int]:
        """Return which of `jobs` have started."""
        return {record["job"] for record in self.ledger.read() if record["event"] == "start"} & set(jobs)

    def _drained(self) -> bool:
        with contextlib.suppress(psycopg.OperationalError):
            return not self.waiting()
        return False

    def final(self, *, clocks: bool = True) -> Final:
        """Read the database as the checker wants it."""
        columns = "id, args->>'token' AS token, state, attempt, max_attempts, crashes, key"
        # Both clocks are of this machine: what lies between them now lay between them all along.
        between = time.time_ns() - time.monotonic_ns()
        with self.connect() as connection:
            # Those that have no token are no part of any plan.
            live = connection.execute(
                f"SELECT {columns}, NULL AS finished_at FROM jobq.job WHERE args ? 'token'".encode()
            ).fetchall()
            finished = connection.execute(
                f"SELECT {columns}, {_NANOSECONDS} AS finished_at FROM jobq.job_history WHERE args ? 'token'".encode()
            ).fetchall()
            attempts = connection.execute(
                f"SELECT job_id, outcome, {_NANOSECONDS} AS at FROM jobq.job_attempt "
                "WHERE outcome IN ('crashed', 'released')".encode()
            ).fetchall()
            keys = connection.execute(
                "SELECT key FROM jobq.job_key WHERE expires_at IS NULL OR expires_at > now()"
            ).fetchall()
            data = connection.execute("SELECT token FROM own_data").fetchall()
        for row in finished:
            row["finished_at"] = row["finished_at"] - between if clocks else None
        return Final(
            live=tuple(JobRow(**row) for row in live),
            finished=tuple(JobRow(**row) for row in finished),
            crashed=Counter(row["job_id"] for row in attempts if row["outcome"] == "crashed"),
            data=frozenset(row["token"] for row in data),
            given_back=tuple((row["job_id"], row["at"] - between) for row in attempts) if clocks else (),
            keys=frozenset(row["key"] for row in keys),
        )

    def summary(self) -> str:
        """Return what happened, in a few figures."""
        events = Counter(record["event"] for record in self.ledger.read())
        return ", ".join(f"{events[name]} {name}" for name in ("start", "rollback", "unknown", "fault"))

    def where(self) -> str:
        """Return where to look, and how to see it again."""
        tests = f"tests/chaos -k {self.name.partition('[')[0]}"
        again = (
            f"chaos SEED={self.seed} ARGS='{tests}'" if self.long else f"test ARGS='{tests} --chaos-seed={self.seed}'"
        )
        return f"\n  ledger and logs: {self.directory}\n  again: make {again}"

    def close(self) -> None:
        """End everything that was started."""
        for process in self.producers:
            if process.poll() is None:
                process.kill()
            process.wait()
        for worker in self.workers:
            worker.close()
        for file in self.unread:
            os.close(file)
        with contextlib.suppress(OSError):
            shutil.copy(Path(self.server.server.base_dir) / "Server.log", self.directory / "postgres.log")
        self.server.close()
        self.ledger.close()


def signal_all(pids: Iterable[int], number: int) -> None:
    """Send a signal to each; one that has ended meanwhile is past caring."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def children(pid: int) -> list[int]:
    """Return the processes that `pid` has started and that still run."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
