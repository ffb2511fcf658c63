"""An application that counts its imports, and whose import does what PRELOADED_DOES names."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from jobq import JobQ

q = JobQ()

if notes := os.environ.get("PRELOADED_NOTES"):
    with Path(notes).open("a") as file:
        file.write(f"{os.getpid()}\n")

_kept: list[object] = []
match os.environ.get("PRELOADED_DOES"):
    case "thread":
        threading.Thread(target=threading.Event().wait, name="pool-worker", daemon=True).start()
    case "connection":
        _kept.append(socket.socketpair())
    case "loop":
        _kept.append(asyncio.new_event_loop())
    case "process":
        beside = subprocess.Popen(["sleep", "1000"])
        with Path(os.environ["PRELOADED_NOTES"] + ".programs").open("a") as file:
            file.write(f"{beside.pid}\n")
    case "file":
        _kept.append(Path(__file__).open())  # noqa: SIM115
    case "log":
        _kept.append(Path(os.environ["PRELOADED_NOTES"] + ".log").open("a"))  # noqa: SIM115
    case "temporary":
        _kept.append(tempfile.TemporaryDirectory())
    case "says":
        print("imported")
        logging.getLogger("shop").warning("imported")
    case "harmless":
        _kept.append(Path("/dev/null").open())  # noqa: SIM115


@q.task(max_attempts=3)
def who() -> dict[str, object]:
    return {"pid": os.getpid(), "parent": os.getppid(), "session": os.getsid(0), "number": random.random()}


@q.task(max_attempts=3)
async def who_async() -> int:
    await asyncio.sleep(0)
    return os.getpid()


@q.task(max_attempts=3)
def end(status: int) -> None:
    os._exit(status)


@q.task(max_attempts=3)
def segfault() -> None:
    signal.raise_signal(signal.SIGSEGV)


@q.task(max_attempts=3)
def program(pid_file: str) -> None:
    """Start a program, and run until the runner is ended."""
    started = subprocess.Popen(["sleep", "1000"])
    Path(pid_file).write_text(str(started.pid))
    time.sleep(1000)


@q.task(max_attempts=3)
def fork_and_terminate() -> int:
    """Fork a process that waits, and end it by SIGTERM; return how it ended."""
    pid = os.fork()
    if pid == 0:
        time.sleep(1000)
        os._exit(0)
    os.kill(pid, signal.SIGTERM)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@q.task(max_attempts=3)
def terminate_self() -> int:
    """A runner ignores it: the dispatcher decides when runners end."""
    os.kill(os.getpid(), signal.SIGTERM)
    return os.getpid()
