"""14,400 debounced calls timed to the claim of their job: the last version of every document is worked on.

Authors save three versions of each document, the second and the third just when the job for the one before is due. Every call
must make a job or replace one that has not started; and what was saved last must be what the last run saw.
"""

from __future__ import annotations

import argparse
import importlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from bench.servers import Server
from jobq import JobQ, migrate, operations

VERSIONS = 3
DELAY = 0.1
"""Seconds between a save and the run."""
AROUND = (-0.004, 0.008)
"""How long after a job is due the next version comes, in seconds: drawn from this range."""

q = JobQ()
_own = threading.local()


@q.task(name="debounce.index")
def index(document: int, version: int) -> None:
    """Note which version of the document is worked on."""
    if not hasattr(_own, "connection"):
        _own.connection = psycopg.connect(os.environ["JOBQ_DATABASE_URL"], autocommit=True)
    _own.connection.execute("INSERT INTO indexed (document, version) VALUES (%s, %s)", (document, version))


@dataclass(frozen=True, slots=True, kw_only=True)
class Debounced:
    """What became of the calls."""

    calls: int
    neither: int
    """Calls that made no job and replaced none."""
    lost: int
    """Documents whose last version no run saw."""
    runs: int
    keys_left: int
    seconds: float


def debounce(url: str, directory: Path, *, documents: int, authors: int, queue: str) -> Debounced:
    """Save and index `documents` documents by `authors` authors at a time, with one worker. `url`: of a migrated database."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS indexed (document int, version int)")
        connection.execute("TRUNCATE indexed")
        with (directory / "debounce.log").open("wb") as log:
            worker = subprocess.Popen(
                [sys.executable, "-m", "jobq", "worker", "bench.reliability.debounce:q", "--processes", "1"],
                env={**os.environ, "JOBQ_DATABASE_URL": url},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            _until(connection, "SELECT count(*) > 0 FROM jobq.worker WHERE beats > 0", "the worker")
            begun = time.monotonic()
            counts = [[0, 0] for _ in range(authors)]
            threads = [
                threading.Thread(target=_save, args=(url, range(n, documents, authors), queue, counts[n]))
                for n in range(authors)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            _until(connection, "SELECT count(*) = 0 FROM jobq.job", "the end of the jobs")
            seconds = time.monotonic() - begun
        finally:
            worker.terminate()
            try:
                worker.wait(30)
            finally:
                if worker.poll() is None:
                    os.killpg(worker.pid, signal.SIGKILL)
                    worker.wait()
        [(indexed, runs)] = connection.execute(
            "SELECT count(DISTINCT document) FILTER (WHERE version = %s), count(*) FROM indexed", [VERSIONS]
        ).fetchall()
        [(keys_left,)] = connection.execute("SELECT count(*) FROM jobq.job_key").fetchall()
    return Debounced(
        calls=sum(calls for calls, _ in counts),
        neither=sum(neither for _, neither in counts),
        lost=documents - indexed,
        runs=runs,
        keys_left=keys_left,
        seconds=seconds,
    )


def _save(url: str, documents: Sequence[int], queue: str, counts: list[int]) -> None:
    chooser = random.Random()
    with psycopg.connect(url, autocommit=True) as connection:
        for document in documents:
            debounced = index.options(
                key=f"index:{document}", key_holds="until_started", on_conflict="replace", delay=DELAY, queue=queue
            )
            for version in range(1, VERSIONS + 1):
                ref = debounced.enqueue(connection, document, version)
                due = time.monotonic() + DELAY
                counts[0] += 1
                counts[1] += not (ref.created or ref.replaced)
                if version < VERSIONS:
                    time.sleep(max(0.0, due + chooser.uniform(*AROUND) - time.monotonic()))


def _until(connection: psycopg.Connection[Any], query: str, what: str, timeout: float = 120) -> None:
    deadline = time.monotonic() + timeout
    while not connection.execute(query.encode()).fetchall()[0][0]:
        if time.monotonic() > deadline:
            raise SystemExit(f"waited {timeout:g} s in vain for {what}")
        time.sleep(0.05)


def limited(url: str) -> str:
    """Return the name of a queue with a limit, which is claimed from in another way."""
    with psycopg.connect(url, autocommit=True) as connection:
        operations.configure(connection, "jobq", "limited", actor="bench", limit=16)
    return "limited"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what can be chosen."""
    parser.add_argument("--documents", type=int, default=4800, help="how many, of three versions each (default: 4800)")
    parser.add_argument("--authors", type=int, default=12, help="how many save at a time (default: 12)")
    parser.add_argument("--limited", action="store_true", help="in a queue with a limit")


def _measured(url: str, directory: Path, given: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    queue = limited(url) if given.limited else "default"
    found = debounce(url, directory, documents=given.documents, authors=given.authors, queue=queue)
    figures = {name: getattr(found, name) for name in ("calls", "neither", "lost", "runs", "keys_left", "seconds")}
    broken = []
    if found.neither:
        broken.append(f"{found.neither} of {found.calls} calls neither made a job nor replaced one")
    if found.lost:
        broken.append(f"the last version of {found.lost} of {given.documents} documents was never worked on")
    if found.keys_left:
        broken.append(f"{found.keys_left} keys are held by jobs that have ended")
    return figures, broken


def run(stage: Any, given: argparse.Namespace) -> Any:
    """As a proof of `python -m bench.reliability`."""
    outcome = importlib.import_module(type(stage).__module__).Outcome
    figures, broken = _measured(stage.url, stage.directory, given)
    return outcome(figures=figures, broken=broken)


def main(argv: Sequence[str] | None = None) -> int:
    """Run it on a Postgres of its own; return 1 when something was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    arguments(parser)
    given = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="jobq-bench-") as name, Server(Path(name)) as server:
        _, url = server.fresh()
        migrate.upgrade(url)
        figures, broken = _measured(url, Path(name), given)
    print(
        " ".join(
            f"{name}={value:.1f}" if isinstance(value, float) else f"{name}={value}" for name, value in figures.items()
        )
    )
    for what in broken:
        print(what)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
