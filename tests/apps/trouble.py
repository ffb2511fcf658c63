"""An application whose tasks do what no task should.

``TROUBLE_IMPORT``: seconds that its import takes. ``TROUBLE_DIE``: a file; while it exists, the import ends the process.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import random
import shlex
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import Any

from jobq import Backoff, JobQ, TimedOut, current_job
from jobq.errors import NoCurrentJob
from tests.apps.plain import FAST, trace

q = JobQ()

time.sleep(float(os.environ.get("TROUBLE_IMPORT", "0")))
if os.path.exists(os.environ.get("TROUBLE_DIE", "")):
    os.kill(os.getpid(), signal.SIGSEGV)


@q.task
def calm(note: str = "") -> str:
    trace(note)
    return note


@q.task(backoff=FAST, max_attempts=1)
def wrong_progress(kind: str) -> None:
    """Report what is no progress."""
    wrong: dict[str, Any] = {"fraction": 0.5, "huge": 2**63, "text": "half", "negative": -1, "truth": True}
    current_job().progress(wrong[kind], 10)


@q.task
def endless_progress(seconds: float) -> None:
    """Report progress as fast as a loop can."""
    deadline = time.monotonic() + seconds
    done = 0
    while time.monotonic() < deadline:
        done += 1
        current_job().progress(done)


class Unspeakable(Exception):
    """Cannot be turned into text."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


@q.task(backoff=FAST, max_attempts=2)
def raise_unspeakable() -> None:
    raise Unspeakable


@q.task
def leave_a_child(seconds: float) -> None:
    """Fork a process that lives on, and take the runner down."""
    pid = os.fork()
    if pid == 0:
        time.sleep(seconds)
        os._exit(0)
    trace(str(pid))
    os.kill(os.getpid(), signal.SIGKILL)


@q.task
def scribble() -> None:
    """Write to every socket of the process, as code that holds a stale descriptor does."""
    trace("start")
    for number in range(3, 64):
        try:
            if os.readlink(f"/proc/self/fd/{number}").startswith("socket:"):
                os.write(number, b"\x00\x00\x00\x03abc")
        except OSError:
            continue
    time.sleep(600)


@q.task
def end_a_program() -> int:
    """Start a program, tell it to end, and return how it ended."""
    program = subprocess.Popen(["sleep", "600"])
    program.terminate()
    try:
        return program.wait(3)
    except subprocess.TimeoutExpired:
        program.kill()
        program.wait()
        return 0


@q.task
async def tidy_up_slowly(seconds: float) -> None:
    """When cancelled, clean up for a while."""
    await asyncio.to_thread(trace, "start")
    try:
        await asyncio.sleep(600)
    finally:
        await asyncio.sleep(seconds)
        await asyncio.to_thread(trace, "tidy")


@q.task
def hang(seconds: float) -> None:
    """Wait, whatever is said, and leave no trace: hundreds at once would take every connection of the server."""
    time.sleep(seconds)


@q.task
def large_results_together(size: int, moment: float) -> str:
    """Return at `moment` (of time.time()), so that many results are ready at once."""
    value = "x" * size
    time.sleep(max(0.0, moment - time.time()))
    return value


@q.task
def environment() -> list[str]:
    """Return the names of the variables that a program started here is given."""
    program = [sys.executable, "-c", "import os; print(*os.environ)"]
    return subprocess.run(program, capture_output=True, text=True, check=True).stdout.split()


@q.task
def spin(seconds: float) -> None:
    """Compute in Python without ever letting go of the interpreter by itself."""
    trace("start")
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        pass


@q.task
async def spin_async(seconds: float) -> None:
    """The same on the event loop, which nothing else can use meanwhile."""
    await asyncio.to_thread(trace, "start")
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        pass


@q.task
def hang_in_c(seconds: int) -> None:
    """Sleep in C with the interpreter's lock held, as a careless extension does."""
    trace("start")
    left = seconds
    while left:
        left = ctypes.PyDLL(None).sleep(left)  # a signal cuts it short


@q.task
def take(data: str) -> int:
    return len(data)


@q.task(timeout=0.5, max_attempts=1)
def loop_past_timeout(then: str) -> str:
    """Compute until TimedOut comes, then do as told."""
    trace("start")
    try:
        while True:
            time.sleep(0.005)
    except TimedOut:
        trace(f"interrupted, cancelled={current_job().cancelled}")
        if then == "fail":
            raise ValueError("while cleaning up") from None
        if then == "ignore":
            hold_the_interpreter_for(60)
        if then == "end":
            return "just in time"
        raise


def hold_the_interpreter_for(seconds: int) -> None:
    """Call into C without letting other threads run."""
    ctypes.PyDLL(None).sleep(seconds)


@q.task
def hold_the_interpreter(seconds: int, note: str) -> None:
    """Hold it from before the file `note` is there: no other thread of the runner starts anything after that."""
    ctypes.PyDLL(None).system(f"touch {shlex.quote(note)}; exec sleep {seconds}".encode())


@q.task
def busy(seconds: float) -> None:
    """Compute in Python."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


@q.task
def pid() -> int:
    return os.getpid()


@q.task(isolation="process")
def pid_alone(seconds: float) -> tuple[int, float, float]:
    """Return its process, its start and its end (time.monotonic())."""
    start = time.monotonic()
    time.sleep(seconds)
    return os.getpid(), start, time.monotonic()


@q.task(isolation="process")
def die_alone() -> None:
    os._exit(3)


_leaked: list[bytearray] = []


@q.task
def leak(mib: int) -> int:
    """Keep so much memory for ever."""
    _leaked.append(bytearray(b"x") * (mib << 20))
    return os.getpid()


@q.task
def bomb() -> None:
    """Take memory until something ends it."""
    while True:
        _leaked.append(bytearray(b"x") * (8 << 20))
        time.sleep(0.005)


@q.task(timeout=0.3, no_retry_on=(TimedOut,))
def hang_once() -> None:
    time.sleep(600)


@q.task(timeout=0.05, max_attempts=1)
def about_as_long_as_its_timeout() -> None:
    time.sleep(random.uniform(0.03, 0.12))


@q.task
def note_in_file(path: str) -> None:
    """Leave a trace as fast as can be."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, b"%d\n" % current_job().id)
    os.close(descriptor)


@q.task
def hold_the_interpreter_at_once(seconds: int) -> None:
    hold_the_interpreter_for(seconds)


@q.task
def fork_and_return(seconds: float) -> None:
    """Fork a process that comes back from the task as its parent does, only sooner."""
    if os.fork() != 0:
        time.sleep(seconds)
        trace("end")


def _fork_in(place: str) -> Any:
    """Fork where jobq calls an application's code outside of its task's function; both processes go on from there."""
    if place == "text":

        class Forking(Exception):
            def __str__(self) -> str:
                os.fork()
                return "forked"

        raise Forking
    if place == "finalizer":

        class Finalized:
            def __del__(self) -> None:
                os.fork()

        kept = Finalized()
        raise ValueError(f"the traceback keeps {type(kept).__name__}")
    if place == "thread":
        forking = threading.Thread(target=os.fork)
        forking.start()
        forking.join()
    return (os.fork() and item for item in (1,)) if place == "result" else None


@q.task(max_attempts=1)
def fork_in(place: str) -> Any:
    return _fork_in(place)


@q.task(max_attempts=1)
async def fork_in_async(place: str) -> Any:
    await asyncio.sleep(0)
    return _fork_in(place)


@q.task(max_attempts=1, transactional=True)
def fork_in_transaction(place: str) -> Any:
    return _fork_in(place)


class ForkingBackoff(Backoff):
    def delay(self, attempt: int) -> float:
        with suppress(NoCurrentJob):
            current_job()
            os.fork()
        return 0.05


@q.task(max_attempts=2, backoff=ForkingBackoff())
def fork_in_backoff(place: str) -> None:
    raise ValueError(place)


@q.task(transactional=True)
def fork_and_return_in_a_transaction(seconds: float) -> None:
    if os.fork() != 0:
        time.sleep(seconds)


@q.task
async def fork_and_return_async(seconds: float) -> None:
    if os.fork() != 0:
        await asyncio.sleep(seconds)
        await asyncio.to_thread(trace, "end")
