"""The scene: workers and producers of two installed versions on one database, the ledger, and what it tells at the end."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from tests.support.installed import Installed
from tests.support.waiting import wait_until

HERE = Path(__file__).resolve().parent
# Notes each job that a worker's code has refused, whatever becomes of it then.
_REFUSALS = """
    CREATE TABLE refusal (job bigint PRIMARY KEY);
    CREATE FUNCTION note_refusal() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
    BEGIN
        INSERT INTO public.refusal VALUES (NEW.id) ON CONFLICT DO NOTHING;
        RETURN NULL;
    END $$;
    CREATE TRIGGER note_refusal AFTER UPDATE OF parked_at ON jobq.job FOR EACH ROW
    WHEN (NEW.parked_at IS NOT NULL) EXECUTE FUNCTION note_refusal()
"""
# Short, so that a killed worker's jobs come back soon; the proportions are those of the defaults.
TIMES = ("--heartbeat-interval", "0.5", "--suspicion", "2", "--lease", "4")
OLD, NEW = "v1", "v2"


@dataclass(slots=True, kw_only=True)
class Told:
    """What the ledger and the database tell."""

    committed: dict[int, float] = field(default_factory=dict)
    """When each job that was committed was due, in seconds of the wall clock."""
    starts: dict[int, list[tuple[float, str]]] = field(default_factory=dict)
    """When each job was started, and by which version of the application."""
    longest_call: float = 0.0
    """The longest transaction of a producer, in seconds."""
    errors: list[str] = field(default_factory=list)
    """What producers were refused."""
    states: dict[int, str] = field(default_factory=dict)
    """The states of finished jobs."""
    left: dict[int, str] = field(default_factory=dict)
    """The states of jobs that have not finished."""
    refused: set[int] = field(default_factory=set)
    """Jobs that some worker's code refused, and left to another's."""

    @property
    def lost(self) -> set[int]:
        """Jobs that were committed, and are nowhere."""
        return set(self.committed) - set(self.states) - set(self.left)

    @property
    def dead(self) -> set[int]:
        """Jobs that finished, and did not succeed."""
        return {job for job, state in self.states.items() if state != "succeeded"}

    @property
    def repeated(self) -> int:
        """How many executions there were of jobs that had been started before."""
        return sum(len(starts) - 1 for starts in self.starts.values())

    def delays(self, since: float, until: float) -> list[float]:
        """Return the delays of the jobs that were due in this time, from due to first start, in seconds, sorted."""
        return sorted(
            max(0.0, min(self.starts[job])[0] - due)
            for job, due in self.committed.items()
            if since <= due < until and job in self.starts
        )


class Scene:
    """Two installed versions on the database at `url`, which the old one has migrated. A context manager."""

    def __init__(
        self, home: Path, url: str, old: Installed, new: Installed, *, note: bool = True, times: tuple[str, ...] = TIMES
    ) -> None:
        self.home, self.url = home, url
        self._installed = {OLD: old, NEW: new}
        self._note = note
        self._times = times
        self.ledger = home / "ledger"
        self.ledger.touch()
        self._processes: list[subprocess.Popen[bytes]] = []
        for version in (OLD, NEW):
            (home / version).mkdir()
            shutil.copy(HERE / f"shop_{version}.py", home / version / "shop.py")
            shutil.copy(HERE / "produce.py", home / version / "produce.py")
        self.run(OLD, "migrate", "--yes")
        self.connection: psycopg.Connection[Any] = psycopg.connect(url, autocommit=True)
        self.connection.execute(_REFUSALS)

    def __enter__(self) -> Scene:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self.connection.close()

    def _environment(self) -> dict[str, str]:
        own = {"JOBQ_DATABASE_URL": self.url, "SHOP_LEDGER": str(self.ledger), "PYTHONUNBUFFERED": "1"}
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "COVERAGE"))}
        return {**kept, **own, **({"SHOP_NOTE": "1"} if self._note else {})}

    def _start(self, version: str, command: list[str], name: str) -> subprocess.Popen[bytes]:
        self._newest = self.log(name)
        with self._newest.open("wb") as log:
            process = subprocess.Popen(
                command, cwd=self.home / version, env=self._environment(), stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        self._processes.append(process)
        return process

    def log(self, name: str) -> Path:
        """Return where what it prints goes: of a worker, by its number from 0 in the order of the starts; of a producer."""
        return self.home / f"{name}.log"

    @property
    def newest_log(self) -> str:
        """What the process that was started last has printed."""
        return self._newest.read_text(errors="replace")

    # --- who takes part --------------------

    def run(self, version: str, *arguments: str) -> str:
        """Run the version's command `jobq` and return what it says; it must succeed."""
        done = subprocess.run(
            [str(self._installed[version].jobq), *arguments], cwd=self.home / version, env=self._environment(),
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{arguments} ended with {done.returncode}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def start_worker(self, version: str) -> subprocess.Popen[bytes]:
        """Start a worker, and wait until it has sent a heartbeat."""
        options = ["worker", "shop:q", "--processes", "1", "--concurrency", "8", *self._times]
        name = f"worker{len(self._processes)}-{version}"
        worker = self._start(version, [str(self._installed[version].jobq), *options], name)
        beats = "SELECT FROM jobq.worker WHERE pid = %s AND beats > 0"

        def works() -> bool:
            assert worker.poll() is None, self.log(name).read_text()
            return self.connection.execute(beats, (worker.pid,)).rowcount == 1

        wait_until(works, timeout=60, what=f"a heartbeat of {name}")
        return worker

    def start_producer(self, version: str, rate: float) -> subprocess.Popen[bytes]:
        """Start a producer of `rate` transactions a second, and wait until it has committed some."""
        before = len(self.told().committed)
        name = f"producer{len(self._processes)}-{version}"
        command = [str(self._installed[version].python), "produce.py", name, str(rate)]
        producer = self._start(version, command, name)
        wait_until(lambda: len(self.told().committed) > before, timeout=30, what=f"a job of {name}")
        return producer

    def stop(self, process: subprocess.Popen[bytes]) -> None:
        """Tell it to end, and wait for its end, which must be in order."""
        process.terminate()
        assert process.wait(60) == 0, f"process {process.pid} ended with {process.returncode}"

    def more(self, number: int, version: str = "") -> None:
        """Wait until `number` more executions have begun, in this version's workers only if it is given."""

        def begun() -> int:
            starts = self.told().starts.values()
            return sum(by.startswith(version) for each in starts for _, by in each)

        before = begun()
        wait_until(lambda: begun() >= before + number, timeout=60, what=f"{number} more executions {version}")

    # --- what happened --------------------

    def drain(self) -> Told:
        """Wait until no job is left, for a minute at most, and return what happened."""
        with contextlib.suppress(AssertionError):
            wait_until(
                lambda: self.connection.execute("SELECT FROM jobq.job LIMIT 1").rowcount == 0,
                timeout=60,
                what="the end",
            )
        told = self.told()
        told.states = dict(self.connection.execute("SELECT id, state FROM jobq.job_history").fetchall())
        told.left = dict(self.connection.execute("SELECT id, state FROM jobq.job").fetchall())
        told.refused = {job for (job,) in self.connection.execute("SELECT job FROM refusal")}
        return told

    def told(self) -> Told:
        """Return what the ledger tells so far."""
        told, starts = Told(), defaultdict[int, list[tuple[float, str]]](list)
        for line in self.ledger.read_text().splitlines():
            what, job, at, rest = line.split(" ", 3)
            match what:
                case "placed":
                    told.committed[int(job)] = float(at)
                    told.longest_call = max(told.longest_call, float(rest))
                case "start":
                    starts[int(job)].append((float(at), rest))
                case _:
                    told.errors.append(rest)
        told.starts = dict(starts)
        return told


def kill(process: subprocess.Popen[bytes]) -> None:
    """kill -9, and wait for its end."""
    process.kill()
    process.wait()
