"""An application whose tasks harm what they share with others: their process, its event loop, its group, its descriptors.

``ROUGH_NOTES``: a file in which the exit handlers of each runner leave a line.
"""

from __future__ import annotations

import asyncio
import atexit
import contextvars
import decimal
import logging.handlers
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn

from jobq import JobQ, current_job
from tests.apps.plain import FAST, trace

q = JobQ()
tenant = contextvars.ContextVar("tenant", default="nobody")
executor = ThreadPoolExecutor(1)

notes = os.environ.get("ROUGH_NOTES", "")
if notes:

    def _note(line: str) -> None:
        with Path(notes).open("a") as file:
            file.write(f"{os.getpid()} {line}\n")

    _target = logging.FileHandler(notes)
    _buffer = logging.handlers.MemoryHandler(1000, logging.CRITICAL, _target)
    logging.getLogger("rough").addHandler(_buffer)
    logging.getLogger("rough").setLevel(logging.INFO)
    atexit.register(_note, "atexit")


# --- what jobs leave in their context ---------------------------------------------------------------------------------


def _seen(name: str) -> list[str]:
    seen = [tenant.get(), str(decimal.Decimal(1) / 3), str(current_job().id)]
    tenant.set(name)
    decimal.getcontext().prec = 4
    return seen


@q.task
def context_sync(name: str) -> list[str]:
    return _seen(name)


@q.task
async def context_async(name: str) -> list[str]:
    return await asyncio.to_thread(_seen, name)


@q.task(transactional=True)
def context_transactional(name: str) -> list[str]:
    current_job().connection.execute("SELECT 1")
    return _seen(name)


@q.task(transactional=True)
async def context_transactional_async(name: str) -> list[str]:
    await current_job().async_connection.execute("SELECT 1")
    return _seen(name)


# --- long jobs, and jobs that hang ------------------------------------------------------------------------------------


@q.task
def work(seconds: float) -> None:
    """Wait in small steps."""
    trace("start")
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(0.05)


@q.task
async def work_async(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "done"


@q.task(timeout=0.3, max_attempts=1)
def hang() -> None:
    """Block in one call, as a recv() without a timeout does."""
    time.sleep(3600)


@q.task(timeout=0.3, max_attempts=2, backoff=FAST)
def hang_twice() -> int:
    trace(str(os.getpid()))
    time.sleep(3600)
    return 0


# --- outcomes that cannot be told ----------------------------------------------------------------------------------------


@q.task(max_attempts=2, backoff=FAST)
def close_descriptors() -> str:
    """As code that makes a daemon of itself does."""
    os.closerange(3, 1000)
    return "done"


@q.task(max_attempts=2, backoff=FAST)
def shut_sockets() -> str:
    _each_socket(lambda fd: socket.socket(fileno=os.dup(fd)).shutdown(socket.SHUT_WR))
    return "done"


@q.task(max_attempts=2, backoff=FAST)
def replace_sockets(keep: bool) -> str:
    """Put other sockets in their places: what is sent goes nowhere, without an error. `keep` the former ones open."""
    ours, theirs = socket.socketpair()
    _kept.append((ours, theirs))

    def replace(number: int) -> None:
        if keep:
            _copies.append(os.dup(number))
        os.dup2(ours.fileno(), number)

    _each_socket(replace)
    return "done"


_copies: list[int] = []


_kept: list[Any] = []


def _each_socket(do: Any) -> None:
    me = os.getpid()
    for number in range(3, 64):
        try:
            if os.readlink(f"/proc/{me}/fd/{number}").startswith("socket:") and number not in _own():
                do(number)
        except OSError:
            continue


def _own() -> set[int]:
    return {end.fileno() for pair in _kept for end in pair} | set(_copies)


# --- process groups -------------------------------------------------------------------------------------------------------


@q.task(max_attempts=1)
def signal_group(number: int) -> str:
    """End a program by its process group, which is the runner's: `start_new_session` was forgotten."""
    helper = subprocess.Popen(["sleep", "60"])
    os.killpg(os.getpgid(helper.pid), number)
    return "signalled"


@q.task(timeout=0.5, max_attempts=2, backoff=FAST)
def convert(seconds: str) -> None:
    """Wait for a program for too long."""
    subprocess.run(["sleep", seconds], check=True)


@q.task
def leave_program(seconds: str) -> int:
    """Start a program that ignores SIGTERM, and end."""
    subprocess.Popen(["sh", "-c", f"trap '' TERM; sleep {seconds}"])
    return os.getpid()


@q.task(max_attempts=1)
def crash_with_program(seconds: str) -> None:
    subprocess.Popen(["sleep", seconds])
    os._exit(3)


@q.task
def orphan() -> None:
    """Start a program whose parent ends before it does."""
    subprocess.run(["sh", "-c", "sleep 0.2 &"], check=True)


# --- the event loop -------------------------------------------------------------------------------------------------------


async def _exit() -> None:
    sys.exit(4)


@q.task(max_attempts=1)
async def exit_gathered() -> None:
    await asyncio.gather(_exit())


@q.task(max_attempts=1)
async def exit_in_group() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(_exit())


@q.task(max_attempts=1)
async def exit_later() -> str:
    """Leave a task behind that exits."""
    _kept.append(asyncio.create_task(_exit()))
    return "done"


@q.task(max_attempts=1)
async def exit_in_callback() -> None:
    asyncio.get_running_loop().call_soon(sys.exit, 4)
    await asyncio.sleep(0.1)
    raise ValueError("after it")


@q.task(max_attempts=1)
async def interrupt_gathered() -> None:
    async def interrupt() -> None:
        raise KeyboardInterrupt

    await asyncio.gather(interrupt())


@q.task(max_attempts=1)
async def stop_loop() -> None:
    asyncio.get_running_loop().stop()
    await asyncio.sleep(0.1)


@q.task(max_attempts=1)
async def close_loop() -> None:
    asyncio.get_running_loop().close()


@q.task(max_attempts=1)
async def raise_in_handler() -> None:
    """A signal's handler raises wherever the event loop is."""

    def late(*_: object) -> NoReturn:
        raise TimeoutError("too late")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        await asyncio.sleep(0.3)
    finally:
        signal.signal(signal.SIGALRM, before)
    raise ValueError("after it")


@q.task
async def end_executor() -> str:
    loop = asyncio.get_running_loop()
    await loop.shutdown_default_executor()
    await loop.shutdown_asyncgens()
    return "done"


@q.task
async def in_thread() -> str:
    return await asyncio.to_thread(lambda: "done")


@q.task(max_attempts=1)
def lower_recursion_limit() -> None:
    sys.setrecursionlimit(len(_frames()) + 12)
    raise ValueError("with a low limit")


def _frames() -> list[object]:
    return [frame for frame, _ in traceback.walk_stack(None)]


@q.task(max_attempts=2, backoff=FAST)
async def cancelled_by_nobody() -> None:
    raise asyncio.CancelledError


@q.task(max_attempts=2, backoff=FAST)
async def cancel_itself() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(1)


# --- errors that cannot be looked at --------------------------------------------------------------------------------------


class _OddText(Exception):
    def __str__(self) -> str:  # noqa: PLE0307 - it is the case
        sys.exit(3)

    __repr__ = __str__


class _OddNotes(Exception):
    @property
    def __notes__(self) -> list[str]:  # type: ignore[override]
        raise KeyboardInterrupt


class _OddClass(Exception):
    def __getattribute__(self, name: str) -> Any:
        if name == "__class__":
            raise SystemExit(3)
        return super().__getattribute__(name)


class _Meta(type):
    def __getattribute__(cls, name: str) -> Any:
        if name in ("__qualname__", "__name__", "__module__"):
            raise SystemExit(3)
        return super().__getattribute__(name)


class _OddName(Exception, metaclass=_Meta):
    pass


class _Text(str):
    __slots__ = ()

    def encode(self, *_: Any, **__: Any) -> bytes:
        sys.exit(3)

    def replace(self, *_: Any, **__: Any) -> str:
        sys.exit(3)

    def __len__(self) -> int:  # noqa: PLE0303
        sys.exit(3)


class _OddSubclass(Exception):
    def __str__(self) -> str:
        return _Text("odd")


_NUL = type("Nul", (Exception,), {"__module__": "\ud800", "__qualname__": "N\x00\ud800"})
_BARE = type("Bare", (Exception,), {"__module__": 5})

ODD: dict[str, type[BaseException]] = {
    "text": _OddText,
    "notes": _OddNotes,
    "class": _OddClass,
    "name": _OddName,
    "subclass": _OddSubclass,
    "nul": _NUL,
    "bare": _BARE,
}


@q.task(max_attempts=1)
def odd_error(kind: str) -> None:
    raise ODD[kind]


@q.task(max_attempts=1)
async def odd_error_async(kind: str) -> None:
    raise ODD[kind]


@q.task(max_attempts=1)
async def odd_error_gathered(kind: str) -> None:
    async def part() -> None:
        raise ODD[kind]

    await asyncio.gather(part())


# --- forks ----------------------------------------------------------------------------------------------------------------


@q.task
async def step(path: str, times: int) -> None:
    """Note in a file which process executes each step."""
    for _ in range(times):
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, b"%d\n" % os.getpid())
        os.close(descriptor)
        await asyncio.sleep(0)


@q.task
async def fork_and_await(how: str) -> int:
    """Fork a process that awaits, and return its exit status."""
    pid = os.fork()
    if pid == 0:
        match how:
            case "sleep":
                await asyncio.sleep(0.01)
            case "yield":
                while True:  # noqa: ASYNC110
                    await asyncio.sleep(0)
            case "future":
                await _future
            case "gather":
                await asyncio.gather(asyncio.sleep(0), asyncio.sleep(0))
            case "exit":
                os._exit(7)
        os._exit(0)
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)  # noqa: ASYNC222
        if ended:
            return os.waitstatus_to_exitcode(status)
        await asyncio.sleep(0.001)


_future: asyncio.Future[None] = asyncio.Future(loop=asyncio.new_event_loop())


@q.task
async def fork_in_child_task() -> int:
    """The same in a task beside the job's own."""

    async def fork() -> int:
        pid = os.fork()
        if pid == 0:
            return 0
        return os.waitstatus_to_exitcode(await asyncio.to_thread(lambda: os.waitpid(pid, 0)[1]))

    return (await asyncio.gather(fork()))[0]


def _square(number: int) -> int:
    return number * number


def _pool() -> list[int]:
    with multiprocessing.get_context("fork").Pool(2) as pool:
        return pool.map(_square, [1, 2, 3])


@q.task
def terminate_fork() -> int:
    """End a forked process by SIGTERM, as multiprocessing does, and return its status."""
    child = os.fork()
    if child == 0:
        time.sleep(5)
        os._exit(0)
    os.kill(child, signal.SIGTERM)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@q.task
def use_multiprocessing() -> list[int]:
    return _pool()


@q.task
async def use_multiprocessing_async() -> list[int]:
    return _pool()


# --- the end of a runner --------------------------------------------------------------------------------------------------


@q.task
def log_something() -> int:
    logging.getLogger("rough").info("buffered by %d", os.getpid())
    print("printed", end="")
    return os.getpid()


@q.task
def leave_thread() -> int:
    """Leave threads that never end, of the kind that an interpreter waits for at its end."""
    threading.Thread(target=time.sleep, args=(3600,)).start()
    executor.submit(time.sleep, 3600)
    return os.getpid()


@q.task
async def leave_coroutine() -> int:
    async def tidy() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            _note("tidied")

    _kept.append(asyncio.create_task(tidy()))
    return os.getpid()
