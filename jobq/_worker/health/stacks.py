"""SIGQUIT: print what every thread and every coroutine is doing to standard error, and continue.

There are two layers. faulthandler prints the threads from within the signal handler, in C. This
works even while a task holds the interpreter lock, in Python or in C. Names, jobs and coroutines
need the interpreter, so they follow as soon as the main thread executes a bytecode. A runner that
hangs in C without releasing the lock prints only the first layer.

faulthandler writes a line in pieces. Pieces would mix with the lines of other processes, and a
write to a socket that is not read would stop the process. So faulthandler writes into a pipe from
the runner to its dispatcher, which prints whole lines (`Relay`).
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import fcntl
import os
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from types import CodeType, FrameType
from typing import Any

from jobq._core import output

# After a dump, signals are ignored for this many seconds: Ctrl-\ in a terminal reaches a runner
# twice, from the terminal and from its dispatcher.
_MUTE = 1.0
# The dispatcher forwards the signal after this many seconds. A runner that has already received it
# ignores signals by then. The runners get the signal one after the other, so that their lines do
# not mix.
FORWARD_AFTER = 0.25
# faulthandler prints at most this many threads.
_C_THREADS = 100
# Maximum bytes in a relay's pipe, and seconds that a runner waits for its dispatcher to read a full
# pipe.
_RELAY_BYTES = 1 << 20
_RELAY_WITHIN = 0.5
_STDERR = 2


def install(
    who: str, loop: Callable[[], asyncio.AbstractEventLoop | None], *, job: Callable[[str], str], relay: int
) -> None:
    """Install the dump at SIGQUIT, and a dump before the process dies of a fatal signal.

    Call this only from the main thread. The first dump goes to the pipe `relay`, the second to
    standard error. Without a pipe (-1), both go to standard error.

    Args:
        who: Name of the process.
        loop: Returns the event loop whose tasks to print.
        job: Returns, for a thread's name, the job that it executes ('' for none).
        relay: Write end of the pipe; -1 for none.
    """
    if relay >= 0:
        os.set_inheritable(relay, False)
    if not _has_stderr():
        signal.signal(signal.SIGQUIT, lambda *_: None)
        return
    faulthandler.enable(file=_descriptor())
    threads = relay if relay >= 0 else _descriptor()
    last = [-_MUTE]

    def dump(_number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if now - last[0] < _MUTE:
            return
        last[0] = now
        faulthandler.unregister(signal.SIGQUIT)
        try:
            _send(relay, describe(who, loop(), job=job))
        finally:
            timer = threading.Timer(_MUTE, _register, (threads,))
            timer.daemon = True
            try:
                timer.start()
            except RuntimeError:  # no thread is available
                _register(threads)

    signal.signal(signal.SIGQUIT, dump)
    _register(threads)


def install_in_loop(loop: asyncio.AbstractEventLoop, forward: Callable[[], None]) -> None:
    """Install the dump in the dispatcher: print its own stacks, then call `forward`.

    The caller's loop must run in the main thread.
    """

    def dump() -> None:
        _say(describe(f"jobq dispatcher {os.getpid()}", loop, job=lambda _: ""))
        forward()

    # This order matters: faulthandler's handler calls the handler that it finds.
    loop.add_signal_handler(signal.SIGQUIT, dump)
    if _has_stderr():
        faulthandler.enable(file=_descriptor())
        relay = Relay.open()
        _register(_descriptor() if relay is None else relay.writing)


def remove_from_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Remove what `install_in_loop` has installed."""
    faulthandler.unregister(signal.SIGQUIT)
    loop.remove_signal_handler(signal.SIGQUIT)


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Block SIGQUIT in processes started within the context.

    Such a process would die of the signal before it has installed its handler.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGQUIT})
    try:
        yield
    finally:
        # Do not restore the previous mask: two overlapping contexts would leave the signal blocked.
        let_through()


def let_through() -> None:
    """Accept the signals that `held_back` kept from this thread."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGQUIT})


def describe(who: str, loop: asyncio.AbstractEventLoop | None, *, job: Callable[[str], str]) -> str:
    """Return the threads by name with their jobs, and the tasks of `loop` with their stacks."""
    threads = threading.enumerate()
    frames = sys._current_frames() if len(threads) > _C_THREADS else {}
    lines = [f"=== {who}: its threads"]
    for thread in threads:
        doing = job(thread.name)
        lines.append(f"0x{thread.ident or 0:016x} {_plain(thread.name)}{f': {_plain(doing)}' if doing else ''}")
        if thread.ident in frames:
            lines += [f"  {line}" for line in _stack(frames[thread.ident])]
    if loop is not None:
        try:
            tasks = sorted(asyncio.all_tasks(loop), key=lambda task: task.get_name())
        except RuntimeError as error:
            tasks = []
            lines.append(f"=== {who}: its tasks cannot be listed now: {error}")
        else:
            lines.append(f"=== {who}: {len(tasks)} tasks on its event loop (most recent call last)")
        for task in tasks:
            lines.append(f"task {_plain(task.get_name())}")
            lines += [f"  {line}" for line in _coroutine(task.get_coro())]
    lines.append(f"=== {who}: end of its stacks")
    return "\n".join(lines) + "\n"


def _coroutine(awaited: Any) -> Iterator[str]:
    """Yield where a coroutine waits, from the outermost frame to the innermost awaited object."""
    for _ in range(100):
        frame: FrameType | None = None
        following: Any = None
        for prefix, inner in (("cr", "cr_await"), ("gi", "gi_yieldfrom"), ("ag", "ag_await")):
            if hasattr(awaited, f"{prefix}_frame"):
                frame, following = getattr(awaited, f"{prefix}_frame"), getattr(awaited, inner, None)
                break
        if frame is None:
            if awaited is not None:
                yield f"waits for {_plain(type(awaited).__qualname__)}"
            return
        yield _place(frame.f_code, frame.f_lineno)
        awaited = following


def _stack(frame: FrameType) -> Iterator[str]:
    for inner, line in traceback.walk_stack(frame):
        yield _place(inner.f_code, line)


def _place(code: CodeType, line: int | None) -> str:
    return f'File "{_plain(code.co_filename)}", line {line} in {_plain(code.co_qualname)}'


def _plain(text: str) -> str:
    """Escape a name from user code, so that it cannot forge a line or control a terminal."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _say(text: str) -> None:
    """Write without Python's stream, and without waiting for the reader.

    The interrupted code may hold the lock of that stream.
    """
    output.say(text)


def say(text: str) -> None:
    """Write a line of a dump to standard error."""
    _say(text + "\n")


def _register(descriptor: int) -> None:
    # A task may have closed it.
    with contextlib.suppress(OSError, ValueError):
        faulthandler.register(signal.SIGQUIT, file=descriptor, all_threads=True, chain=True)


def _send(relay: int, text: str) -> None:
    """Write `text` into the pipe, after the output of faulthandler.

    If the pipe is full or closed, write to standard error.
    """
    data = text.encode(errors="backslashreplace")
    deadline = time.monotonic() + (_RELAY_WITHIN if relay >= 0 else 0.0)
    with contextlib.suppress(OSError):
        while data and (left := deadline - time.monotonic()) > 0:
            try:
                data = data[os.write(relay, data) :]
            except BlockingIOError:
                poll = select.poll()
                poll.register(relay, select.POLLOUT)
                poll.poll(left * 1000)
    if data:
        _say(data.decode(errors="backslashreplace"))


class Relay:
    """A pipe whose writers never wait.

    A thread of the dispatcher, whose interpreter no task holds, prints the lines.

    Data that does not fit into the pipe is lost. The thread ends when all writers have closed the
    pipe.
    """

    def __init__(self, reading: int, writing: int) -> None:
        self._reading = reading
        self.writing = writing

    @classmethod
    def open(cls) -> Relay | None:
        """Return a new relay; None if no descriptor or no thread is available."""
        try:
            reading, writing = os.pipe()
        except OSError:
            return None
        relay = cls(reading, writing)
        try:
            os.set_blocking(writing, False)
            with contextlib.suppress(OSError):  # above the user's limit
                fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, _RELAY_BYTES)
            threading.Thread(target=relay._say_lines, name="jobq-stacks", daemon=True).start()
        except (OSError, RuntimeError):
            os.close(reading)
            os.close(writing)
            return None
        return relay

    def close(self) -> None:
        """Close the write end of this process."""
        if self.writing >= 0:
            os.close(self.writing)
            self.writing = -1

    def _say_lines(self) -> None:
        line = b""
        try:
            while data := os.read(self._reading, 1 << 16):
                said, newline, line = (line + data).rpartition(b"\n")
                if newline:
                    _say((said + newline).decode(errors="backslashreplace"))
        except OSError:
            pass
        finally:
            os.close(self._reading)
        if line:
            _say(line.decode(errors="backslashreplace") + "\n")


def _descriptor() -> int:
    """Return the descriptor for faulthandler without a relay.

    A write that waits within a signal would stop the process.

    Data that the reader does not take is lost. A socket (the journal's) has only the descriptor
    that may wait.
    """
    stderr = output.standard_error()
    return _STDERR if stderr is None or stderr.quick_descriptor is None else stderr.quick_descriptor


def _has_stderr() -> bool:
    try:
        os.fstat(_STDERR)
    except OSError:
        return False
    return True
