"""An application whose start waits where a test says so. ``SLOW_START``: a folder; see `Start` in test_start.py."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from jobq import JobQ, Resource, injected

q = JobQ()
FOLDER = Path(os.environ["SLOW_START"])


def note(what: str) -> None:
    with (FOLDER / "notes").open("a") as notes:
        notes.write(f"{what}\n")


def pause(place: str) -> None:
    """Wait for the file `go` if the start is to wait at this place; then raise if there is a file `fail`."""
    if (FOLDER / place).exists():
        note(f"waits at {place}")
        while not (FOLDER / "go").exists():
            time.sleep(0.005)
        if (FOLDER / "fail").exists():
            raise RuntimeError("the start failed")


@q.on_worker_start
def worker_starts() -> None:
    pause("worker")


@q.on_runner_stop
def runner_stops() -> None:
    note("stops")


@q.resource
def first() -> Iterator[str]:
    note("opens")
    yield "first"
    note("closes")


@q.resource
def second(first: Resource[str]) -> Iterator[int]:
    pause("resource")
    yield len(first)


@q.task
def work(second: Resource[int] = injected) -> None: ...
