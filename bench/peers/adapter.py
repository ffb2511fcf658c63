"""What every adapter in Python does the same: commands, the record, pacing. Standard library only.

An adapter calls `main` with a function for each command; a coroutine function is run in an event loop. Commands:

- ``version``                                   what is measured, and its driver;
- ``setup``                                     the schema in a fresh database, or an empty queue in the broker;
- ``fill --jobs N --first I``                   jobs I … I+N-1 at once, by the fastest documented way;
- ``work``                                      one worker, until the peer's stop signal;
- ``enqueue --first I --jobs N [--rate R] [--seconds S]``  one job a call, one call after the other, each its own commit.

What is said to the driver is one JSON object on the last line of stdout. The job is ``noop(i)``: it writes when it starts
(CLOCK_MONOTONIC, seconds, eight bytes) to place `i` of the file BENCH_RECORD; a client writes when a call begins to the same
place of BENCH_RECORD.begun.
"""

from __future__ import annotations

import argparse
import asyncio
import inspect
import json
import math
import mmap
import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

URL = os.environ.get("BENCH_DATABASE_URL", "")
BROKER_URL = os.environ.get("BENCH_BROKER_URL", "")
TUNED = os.environ.get("BENCH_CONFIG", "default") == "tuned"

_work_seconds = float(os.environ.get("BENCH_WORK_MS", "0")) / 1000
_places: memoryview[float] | None = None


def mapped(suffix: str = "") -> memoryview[float]:
    """Return the record, or the file beside it, as an array of floats shared with the driver."""
    with open(os.environ["BENCH_RECORD"] + suffix, "r+b") as file:
        return memoryview(mmap.mmap(file.fileno(), 0)).cast("d")


def started(i: int) -> None:
    """Write down that job `i` starts now."""
    global _places  # noqa: PLW0603  # once a process, lazily: workers fork
    if _places is None:
        _places = mapped()
    _places[i] = time.monotonic()


def noop(i: int) -> None:
    """The job: write down its start, then sleep if it is to take some time."""
    started(i)
    if _work_seconds:
        time.sleep(_work_seconds)


async def noop_async(i: int) -> None:
    """The job for workers that run coroutines."""
    started(i)
    if _work_seconds:
        await asyncio.sleep(_work_seconds)


def chunks(first: int, jobs: int, size: int) -> Iterator[range]:
    """Yield the numbers of the jobs to fill in with, `size` at a time."""
    for at in range(first, first + jobs, size):
        yield range(at, min(at + size, first + jobs))


class Calls:
    """Enqueue calls of one client, paced and timed."""

    def __init__(self, first: int, jobs: int, rate: float | None, seconds: float | None) -> None:
        self._numbers = range(first, first + jobs)
        self._step = 1 / rate if rate else 0.0
        self._seconds = seconds or math.inf
        self._took: list[float] = []
        self._begun = mapped(".begun")

    def run(self, call: Callable[[int], object]) -> dict[str, Any]:
        """Call once for each number and return the figures."""
        origin = time.monotonic()
        for number in self._numbers:
            if (wait := self._wait(origin)) > 0:
                time.sleep(wait)
            begin = time.monotonic()
            if begin - origin >= self._seconds:
                break
            self._begun[number] = begin
            call(number)
            self._took.append(time.monotonic() - begin)
        return self._figures(origin)

    async def run_async(self, call: Callable[[int], Awaitable[object]]) -> dict[str, Any]:
        """Await once for each number and return the figures."""
        origin = time.monotonic()
        for number in self._numbers:
            if (wait := self._wait(origin)) > 0:
                await asyncio.sleep(wait)
            begin = time.monotonic()
            if begin - origin >= self._seconds:
                break
            self._begun[number] = begin
            await call(number)
            self._took.append(time.monotonic() - begin)
        return self._figures(origin)

    def _wait(self, origin: float) -> float:
        return origin + len(self._took) * self._step - time.monotonic() if self._step else 0.0

    def _figures(self, origin: float) -> dict[str, Any]:
        took = sorted(self._took)
        figures: dict[str, Any] = {"jobs": len(took), "seconds": time.monotonic() - origin}
        for share in (50, 95, 99):
            # Nearest rank: a value that was measured.
            rank = max(0, math.ceil(len(took) * share / 100) - 1)
            figures[f"call_p{share}_ms"] = took[rank] * 1000 if took else None
        return figures


Command = Callable[..., Any]


def main(
    *,
    version: Command,
    setup: Command,
    fill: Command,
    work: Command,
    enqueue: Command,
    run: Callable[[Any], Any] = asyncio.run,
    **more: Command,
) -> None:
    """Do what argv asks. `fill(jobs, first)` may return figures of its own; `enqueue(calls)` returns those of `calls.run`.

    `run`: what runs a coroutine (default: asyncio.run). `more`: commands of this adapter only, given the parsed arguments.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["version", "setup", "fill", "work", "enqueue", *more])
    parser.add_argument("--jobs", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--seconds", type=float)
    given = parser.parse_args()

    def do(command: Command, *arguments: Any) -> Any:
        answer = command(*arguments)
        return run(answer) if inspect.iscoroutine(answer) else answer

    match given.command:
        case "version":
            said = do(version)
        case "setup":
            said = do(setup) or {}
        case "fill":
            begin = time.monotonic()
            said = do(fill, given.jobs, given.first)
            said = {"jobs": given.jobs, "seconds": time.monotonic() - begin} | (said or {})
        case "work":
            do(work)
            return
        case "enqueue":
            said = do(enqueue, Calls(given.first, given.jobs, given.rate, given.seconds))
        case other:
            said = do(more[other], given) or {}
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()
