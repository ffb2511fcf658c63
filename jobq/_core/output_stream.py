"""A stream to a terminal, pipe or file whose reader may stop reading: the writer never waits.

Output that the reader does not take at once waits in a bounded queue for a thread. If the queue is
full, new output is dropped and counted. Once the reader has emptied the queue, one line reports how
much was dropped.

A dispatcher and its runners share standard error. Each line arrives whole, because a process locks
the stream while it writes (`WriteLock`).
"""

from __future__ import annotations

import io
import os
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue

from jobq._core.write_lock import without_waiting, write_lock_of

MAX_WAITING = 1 << 20  # most bytes that wait for the reader
MAX_LINE = 1 << 14  # most bytes of an incomplete line


class Output(io.TextIOBase):
    """A text stream on `descriptor` whose `write` and `flush` return at once.

    A signal handler that interrupts the stream may use it: its lock and its bell are reentrant. A
    forked process has no thread to write for it, so it waits for the reader.
    """

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, descriptor: int) -> None:
        """Raises OSError if `descriptor` is not open."""
        self._descriptor = descriptor
        self._quick = without_waiting(descriptor)
        self._write_lock = write_lock_of(descriptor)
        self._has_lock = False
        """Whether the thread, which already holds the lock, must write the rest of a line."""
        self._lock = threading.RLock()
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._line = b""
        """Text since the last newline."""
        self._busy = False
        """Whether the thread is writing."""
        self._full = False
        """Whether output was dropped. If so, all output is dropped until the queue is empty."""
        self._untold = 0
        """Number of dropped lines that were not reported yet."""
        self._bell: SimpleQueue[None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()
        self.dropped = 0
        """Number of dropped lines, or records of several lines, since the start."""
        self.note: Callable[[int], str] = lambda number: f"{number} lines were dropped: the reader did not read\n"
        """Returns the line that reports how many were dropped."""

    # --- methods of a stream --------------------

    def fileno(self) -> int:
        """Return the descriptor that is written to."""
        return self._descriptor

    def isatty(self) -> bool:
        """Return whether it is a terminal."""
        try:
            return os.isatty(self._descriptor)
        except OSError:
            return False

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, text: str) -> int:
        """Write `text` now or later, or drop it. Raises only TypeError, if `text` is no text."""
        if not isinstance(text, str):
            raise TypeError(f"write() takes text, not {type(text).__name__}")
        data = text.encode("utf-8", "backslashreplace")
        if os.getpid() != self._pid:
            self._write(data)
            return len(text)
        with self._lock:
            # print() writes its newline separately: a line is written or dropped as a whole.
            self._line += data
            if self._line.endswith(b"\n") or len(self._line) > MAX_LINE:
                self._put()
        return len(text)

    def flush(self) -> None:
        """Send an incomplete line. This does not wait until it is written: see `finish`."""
        if self._line and os.getpid() == self._pid:
            with self._lock:
                self._put()

    def finish(self, seconds: float) -> bool:
        """Wait up to `seconds` until everything is written; return whether it is."""
        self.flush()
        deadline = time.monotonic() + seconds
        while (self._waiting or self._busy) and self._pid == os.getpid():
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.005)
        return True

    @property
    def quick_descriptor(self) -> int | None:
        """A descriptor for the same reader on which no write waits; None if there is none."""
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
            # No thread can write the rest: a mixed line is better than other writers that wait for
            # it.
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
        except RuntimeError:  # no thread is available; the next line tries again
            return
        self._thread = thread

    def _serve(self) -> None:
        while True:
            self._bell.get()
            while self._write_next():
                pass

    def _write_next(self) -> bool:
        """Write the next queued output, or the number of dropped lines.

        Return whether there was any.
        """
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
                # It is reported with the next line that can be written.
                self._untold += telling
                return False
            if not written:
                self._drop()
        return True

    def _write(self, data: bytes) -> bool:
        """Write all of `data`, however long this takes. Return whether that succeeded."""
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
