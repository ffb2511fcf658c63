"""Writing to a terminal, a pipe or a file whose reader may stop reading: the writer never waits for it.

What the reader does not take at once waits in a bounded queue for a thread. When the queue is full, what comes is dropped
and counted; when the reader has read the queue to its end, one line says how many were dropped.

A dispatcher and its runners share a standard error. Each line reaches it whole: a process that writes locks it (`_WriteLock`).
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import logging
import os
import select
import socket
import stat
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue

MAX_WAITING = 1 << 20  # bytes that wait for the reader
MAX_LINE = 1 << 14  # bytes of a line that is not complete yet
MAX_RECORDS = 1_000  # log records that wait for handlers that are not ours
LAST_WORDS = 2.0  # seconds that a process which ends gives the reader

_STDOUT, _STDERR = 1, 2


class Output(io.TextIOBase):
    """A text stream on `descriptor` whose `write` and `flush` return at once.

    It may be used from a signal handler that interrupts itself: its lock is reentrant, and so is its bell. A process that was
    forked has no thread to write for it, so there it waits for the reader.
    """

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, descriptor: int) -> None:
        """Raises OSError when `descriptor` is not open."""
        self._descriptor = descriptor
        self._quick = _without_waiting(descriptor)
        self._write_lock = _write_lock_of(descriptor)
        self._has_lock = False
        """Whether the rest of a line is to be written by the thread, which has the lock already."""
        self._lock = threading.RLock()
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._line = b""
        """What was written since the last newline."""
        self._busy = False
        """Whether the thread is writing."""
        self._full = False
        """Whether something was dropped; then everything is, until the queue is empty."""
        self._untold = 0
        """How many were dropped and not told of."""
        self._bell: SimpleQueue[None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()
        self.dropped = 0
        """How many lines, or records of several lines, were dropped since the start."""
        self.note: Callable[[int], str] = lambda number: f"{number} lines were dropped: the reader did not read\n"
        """Returns the line that says how many were dropped."""

    # --- what a stream can do --------------------

    def fileno(self) -> int:
        """Return the descriptor that is written to."""
        return self._descriptor

    def isatty(self) -> bool:
        """Tell whether it is a terminal."""
        try:
            return os.isatty(self._descriptor)
        except OSError:
            return False

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, text: str) -> int:
        """Write `text`, now or later, or drop it. Raises nothing but TypeError for what is no text."""
        if not isinstance(text, str):
            raise TypeError(f"write() takes text, not {type(text).__name__}")
        data = text.encode("utf-8", "backslashreplace")
        if os.getpid() != self._pid:
            self._write(data)
            return len(text)
        with self._lock:
            # print() writes its newline by itself: a line is written, or dropped, as a whole.
            self._line += data
            if self._line.endswith(b"\n") or len(self._line) > MAX_LINE:
                self._put()
        return len(text)

    def flush(self) -> None:
        """Send off an incomplete line. Does not wait for it to be written: see `finish`."""
        if self._line and os.getpid() == self._pid:
            with self._lock:
                self._put()

    def finish(self, seconds: float) -> bool:
        """Wait up to `seconds` until everything is written; tell whether it is."""
        self.flush()
        deadline = time.monotonic() + seconds
        while (self._waiting or self._busy) and self._pid == os.getpid():
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.005)
        return True

    @property
    def quick_descriptor(self) -> int | None:
        """A descriptor for the same reader on which no write waits; None when there is none."""
        return self._quick if isinstance(self._quick, int) else None

    # --- the queue --------------------

    def _put(self) -> None:
        data, self._line = self._line, b""
        if not data:
            return
        if self._full or (self._waiting and self._size + len(data) > MAX_WAITING):
            self._full = True
            self._drop()
            return
        if not self._waiting and not self._busy:
            try:
                data = data[self._write_now(data) :]
            except OSError:  # the reader is gone, or the disk is full
                self._drop()
                return
            if not data and not self._untold:
                return
        if data:
            self._waiting.append(data)
            self._size += len(data)
        if self._thread is None:
            self._begin()
        if self._thread is None and self._has_lock:
            # There is no thread to write the rest: better a mixed line than others that wait for it.
            self._has_lock = False
            self._write_lock.release()
        self._bell.put(None)

    def _drop(self) -> None:
        self.dropped += 1
        self._untold += 1

    def _write_now(self, data: bytes) -> int:
        """Return how many bytes of `data` could be written without waiting."""
        if self._quick is None or not self._write_lock.acquire(wait=False):
            return 0
        written = 0
        try:
            written = self._write_some(data)
        finally:
            self._has_lock = 0 < written < len(data)
            if not self._has_lock:
                self._write_lock.release()
        return written

    def _write_some(self, data: bytes) -> int:
        try:
            if isinstance(self._quick, int):
                return os.write(self._quick, data)
            if self._quick is not None:
                return self._quick.send(data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            pass
        return 0

    def _begin(self) -> None:
        thread = threading.Thread(target=self._serve, name="jobq-output", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no thread can be had: the next line tries again
            return
        self._thread = thread

    def _serve(self) -> None:
        while True:
            self._bell.get()
            while self._write_next():
                pass

    def _write_next(self) -> bool:
        """Write the next of what waits, or how many were dropped. Return whether there was any."""
        with self._lock:
            telling = 0
            if self._waiting:
                data = self._waiting[0]
            elif self._untold:
                telling, self._untold, self._full = self._untold, 0, False
                data = self.note(telling).encode("utf-8", "backslashreplace")
            else:
                return False
            self._busy = True
        if not self._has_lock:
            self._write_lock.acquire(wait=True)
        try:
            written = self._write(data)
        finally:
            self._has_lock = False
            self._write_lock.release()
        with self._lock:
            self._busy = False
            if not telling:
                self._waiting.popleft()
                self._size -= len(data)
            if not written and telling:
                # It is told with the next line that can be written.
                self._untold += telling
                return False
            if not written:
                self._drop()
        return True

    def _write(self, data: bytes) -> bool:
        """Write all of `data`, however long that takes. Return whether it could be written."""
        try:
            while data:
                try:
                    data = data[os.write(self._descriptor, data) :]
                except BlockingIOError:
                    # Another process that shares the descriptor has made it non-blocking.
                    poll = select.poll()
                    poll.register(self._descriptor, select.POLLOUT)
                    poll.poll(1000)
        except OSError:
            return False
        return True


class _WriteLock:
    """The right to write to one terminal, pipe or socket, which others have as well: of this process, and other processes.

    Between processes it is a record lock (fcntl) on the reader's inode: the kernel releases it with a process that dies. It
    is advisory, so it hinders no program but jobq. Where it cannot be had, lines may mix.
    """

    def __init__(self, descriptor: int, *, shared: bool) -> None:
        self._descriptor = descriptor
        self._shared = shared
        self._here = threading.Lock()

    def acquire(self, *, wait: bool) -> bool:
        """Take the lock; return whether it was taken, which it always is after waiting."""
        if not self._here.acquire(blocking=wait):
            return False
        if self._shared:
            try:
                fcntl.lockf(self._descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except (BlockingIOError, PermissionError):  # either says that another process has it
                if not wait:
                    self._here.release()
                    return False
            except OSError:
                pass
        return True

    def release(self) -> None:
        """Let others write."""
        if self._shared:
            with contextlib.suppress(OSError):
                fcntl.lockf(self._descriptor, fcntl.LOCK_UN)
        self._here.release()


_write_locks: dict[tuple[int, int], _WriteLock] = {}
"""By device and inode: standard output and standard error are often the same."""


def _write_lock_of(descriptor: int) -> _WriteLock:
    status = os.fstat(descriptor)
    # A file that is appended to takes each write whole.
    shared = not stat.S_ISREG(status.st_mode)
    return _write_locks.setdefault((status.st_dev, status.st_ino), _WriteLock(descriptor, shared=shared))


def _without_waiting(descriptor: int) -> int | socket.socket | None:
    """Return another way to the reader of `descriptor`, on which no write waits; None when there is none.

    The flag that says so belongs to the open file, which other processes share (runners, a shell): so it is opened again. A
    file is not, for its end is where the other writers are.
    """
    mode = os.fstat(descriptor).st_mode
    try:
        if stat.S_ISSOCK(mode):
            return socket.socket(fileno=os.dup(descriptor))
        if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
            flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            return os.open(f"/proc/self/fd/{descriptor}", flags)
    except OSError:
        pass
    return None


_outputs: dict[int, Output] = {}


def standard_error() -> Output | None:
    """Return this process's standard error as an `Output`, always the same one; None when it is closed."""
    return _standard(_STDERR)


def _standard(descriptor: int) -> Output | None:
    if descriptor not in _outputs:
        try:
            _outputs[descriptor] = Output(descriptor)
        except OSError:
            return None
    return _outputs[descriptor]


def guard() -> None:
    """From here on nothing that this process prints waits for a reader: sys.stdout and sys.stderr become `Output`s.

    For good, for the last words of a process are printed late. Streams that are not the process's own are left as they are.
    """
    for name, descriptor in (("stdout", _STDOUT), ("stderr", _STDERR)):
        stream = getattr(sys, name)
        try:
            own = stream is not None and stream.fileno() == descriptor
        except (AttributeError, OSError, ValueError):
            own = False
        if own and (output := _standard(descriptor)) is not None and stream is not output:
            stream.flush()
            setattr(sys, name, output)


def say(text: str) -> None:
    """Write `text` to standard error without waiting for its reader."""
    if (output := standard_error()) is not None:
        output.write(text)
        output.flush()


def dropped() -> int:
    """Return how many lines and log records this process has dropped."""
    return sum(output.dropped for output in _outputs.values()) + _deferred.dropped


def finish(seconds: float = LAST_WORDS, *, streams: bool = True) -> None:
    """Let what was said be written, for `seconds` at most. A stream whose reader does not read is given up.

    `streams`: also flush sys.stdout and sys.stderr where they are the application's own, which takes a thread.
    """
    deadline = time.monotonic() + seconds
    _deferred.finish(seconds)
    for output in list(_outputs.values()):
        output.finish(max(0.0, deadline - time.monotonic()))
    others = [stream for stream in (sys.stdout, sys.stderr) if stream is not None and not isinstance(stream, Output)]

    def flush() -> None:
        for stream in others:
            with contextlib.suppress(Exception):
                stream.flush()

    if streams and others:
        # Their locks may be held by a thread that waits for the reader.
        thread = threading.Thread(target=flush, daemon=True)
        with contextlib.suppress(RuntimeError):
            thread.start()
            thread.join(max(0.05, deadline - time.monotonic()))


class _Deferred:
    """Hands log records to handlers that may wait, in a thread."""

    def __init__(self) -> None:
        self._records: SimpleQueue[tuple[logging.Logger, logging.LogRecord]] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._busy = False
        self._untold = 0
        self._pid = os.getpid()
        self.dropped = 0

    def handle(self, logger: logging.Logger, record: logging.LogRecord) -> None:
        """Call the handlers for `record`: at once where all of them are ours, else in the thread."""
        if _never_waits(logger) or os.getpid() != self._pid:
            type(logger).callHandlers(logger, record)
            return
        if self._records.qsize() >= MAX_RECORDS:
            self.dropped += 1
            self._untold += 1
            return
        self._records.put((logger, record))
        if self._thread is None:
            thread = threading.Thread(target=self._serve, name="jobq-log", daemon=True)
            with contextlib.suppress(RuntimeError):
                thread.start()
                self._thread = thread

    def _serve(self) -> None:
        while True:
            logger, record = self._records.get()
            self._busy = True
            # A handler that raises is its application's affair, and costs one record.
            with contextlib.suppress(BaseException):
                type(logger).callHandlers(logger, record)
                if self._untold and self._records.empty():
                    number, self._untold = self._untold, 0
                    type(logger).callHandlers(logger, dropped_record(number))
            self._busy = False

    def finish(self, seconds: float) -> None:
        """Wait up to `seconds` until no record waits."""
        deadline = time.monotonic() + seconds
        while (not self._records.empty() or self._busy) and time.monotonic() < deadline and self._pid == os.getpid():
            time.sleep(0.005)


_deferred = _Deferred()


def defer_logging(*names: str) -> None:
    """From here on the loggers of these names never wait for a handler, whatever handlers an application sets up.

    On the loggers, not by a handler of ours: an application that configures logging replaces handlers.
    """
    for name in names:
        logger = logging.getLogger(name)

        def call_handlers(record: logging.LogRecord, logger: logging.Logger = logger) -> None:
            _deferred.handle(logger, record)

        logger.callHandlers = call_handlers  # type: ignore[method-assign]


def _never_waits(logger: logging.Logger) -> bool:
    current: logging.Logger | None = logger
    while current is not None:
        for handler in current.handlers:
            if not isinstance(getattr(handler, "stream", None), Output):
                return False
        current = current.parent if current.propagate else None
    return True


def dropped_record(number: int) -> logging.LogRecord:
    """Return the log record that says how many were dropped."""
    record = logging.LogRecord(
        "jobq.logs",
        logging.WARNING,
        __file__,
        0,
        "log records were dropped: their reader did not read them",
        None,
        None,
    )
    record.dropped = number
    return record
