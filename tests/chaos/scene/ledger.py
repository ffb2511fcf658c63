"""The ledger: what jobs, producers and faults did, each line written by whom it happened to, outside of the database.

One file, JSON lines. A line is one `write` to a file opened with O_APPEND, and begins with its own newline: a kill -9
can lose or cut the last line of a process, and never another's. Times are CLOCK_MONOTONIC, one clock for all processes
of the machine, in nanoseconds.

Beside it one small file for each job that has run, whose lock an execution holds from before its start line until after
its end line. The kernel lets go of the lock when the process dies, whatever it died of. So a start that finds the lock
free proves that every earlier execution of the job has ended, those that left no end line too; and one that does not
names the executions whose process is still there.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import itertools
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jobq import Cancel, Fail, Snooze, current_job

Record = dict[str, Any]

VARIABLE = "CHAOS_LEDGER"
_FILE = "ledger.jsonl"
_numbers = itertools.count()


@dataclass(slots=True, kw_only=True)
class Running:
    """What a task may ask, and say, of its execution."""

    earlier: int
    """How many executions of this job came before."""
    how: str = "ok"
    """How it will have ended, if it returns: ``unstorable`` when it succeeds without its result."""


class Ledger:
    """The ledger in `directory`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.path = directory / _FILE
        (directory / "jobs").mkdir(exist_ok=True)
        self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def write(self, event: str, **values: Any) -> None:
        """Append one line about `event`, now."""
        line = json.dumps({"event": event, "at": time.monotonic_ns(), **values}, separators=(",", ":"))
        os.write(self._file, f"\n{line}".encode())

    def read(self) -> list[Record]:
        """Return every whole line, in the order of the file."""
        return parse(self.path.read_text(errors="replace"))

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)

    # --- executions --------------------

    @contextlib.contextmanager
    def execution(self, token: str) -> Iterator[Running]:
        """Record the calling task's execution, from its start to its end."""
        job = current_job()
        name = f"{os.getpid()}-{next(_numbers)}"
        path = self.directory / "jobs" / str(job.id)
        lock = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            free = _lock(lock)
            begun, ended = _earlier(os.pread(lock, 1 << 20, 0).decode())
            open_ones = [other for other in begun if other not in ended]
            os.write(lock, f"begin {name} {os.getpid()} {birth(os.getpid())}\n".encode())
            self.write(
                "start",
                execution=name,
                job=job.id,
                token=token,
                task=job.task,
                attempt=job.attempt,
                max_attempts=job.max_attempts,
                pid=os.getpid(),
                parent=os.getppid(),
                earlier=len(begun),
                lock_free=free,
                alive=[other for other in open_ones if is_alive(*begun[other])],
            )
            running = Running(earlier=len(begun))
            try:
                yield running
            except BaseException as error:
                running.how = _how(error)
                raise
            finally:
                self.write("end", execution=name, job=job.id, token=token, attempt=job.attempt, how=running.how)
                os.write(lock, f"end {name}\n".encode())
        finally:
            os.close(lock)


@cache
def here() -> Ledger:
    """Return the ledger that the environment names."""
    return Ledger(Path(os.environ[VARIABLE]))


def parse(text: str) -> list[Record]:
    """Return the records in `text`; a line that was cut off by its writer's death is passed over."""
    found = []
    for line in text.split("\n"):
        if line:
            with contextlib.suppress(json.JSONDecodeError):
                found.append(json.loads(line))
    return found


def birth(pid: int) -> int | None:
    """Return when the process started, in clock ticks since boot: with the pid it names one process for good.

    None when it has ended, even if its exit code has not been read yet.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # After the name, which can hold anything: the state is field 3, the start field 22.
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def is_alive(pid: int, born: int) -> bool:
    """Tell whether the process `pid` that started at `born` still runs."""
    return birth(pid) == born


def _lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _earlier(text: str) -> tuple[dict[str, tuple[int, int]], set[str]]:
    """Return the executions that began, with their processes, and the names of those that ended."""
    begun: dict[str, tuple[int, int]] = {}
    ended: set[str] = set()
    for line in text.splitlines():
        match line.split():
            case ["begin", name, pid, born]:
                begun[name] = (int(pid), int(born))
            case ["end", name]:
                ended.add(name)
    return begun, ended


def _how(error: BaseException) -> str:
    match error:
        case Snooze():
            return "snooze"
        case Cancel():
            return "cancel"
        case Fail():
            return "fail"
        case asyncio.CancelledError() | GeneratorExit():
            return "cut"
        case Exception():
            return "error"
    return "exit"
