"""14,400 debounced calls timed to the claim of their job: the last version of every document is worked on.

Authors save three versions of each document, the second and the third just when the job for the one before is due. Every call
must make a job or replace one that has not started; and what was saved last must be what the last run saw.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg

from bench.reliability.stage import Outcome, Stage, until
from jobq import JobQ, operations

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
    """The results of the calls."""

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
            until(lambda: connection.execute("SELECT FROM jobq.worker WHERE beats > 0").fetchall(), "the worker", 120)
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
            until(lambda: not connection.execute("SELECT FROM jobq.job LIMIT 1").fetchall(), "the end of the jobs", 120)
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


def run(stage: Stage, given: argparse.Namespace) -> Outcome:
    queue = limited(stage.url) if given.limited else "default"
    found = debounce(stage.url, stage.directory, documents=given.documents, authors=given.authors, queue=queue)
    outcome = Outcome()
    outcome.figures |= {
        name: getattr(found, name) for name in ("calls", "neither", "lost", "runs", "keys_left", "seconds")
    }
    outcome.demand(not found.neither, f"{found.neither} of {found.calls} calls neither made a job nor replaced one")
    outcome.demand(
        not found.lost, f"no job has worked on the last version of {found.lost} of {given.documents} documents"
    )
    outcome.demand(not found.keys_left, f"{found.keys_left} keys are held by jobs that have ended")
    return outcome
