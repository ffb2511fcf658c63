"""A lock for writers that share a terminal, pipe or file, and ways to write without waiting."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
import threading


class WriteLock:
    """The right to write to a terminal, pipe or socket that threads and other processes share.

    Between processes it is a record lock (fcntl) on the reader's inode: if a process dies, the
    kernel releases its lock. The lock is advisory, so it affects only jobq. If it is not available,
    lines may mix.
    """

    def __init__(self, descriptor: int, *, shared: bool) -> None:
        self._descriptor = descriptor
        self._shared = shared
        self._here = threading.Lock()

    def acquire(self, *, wait: bool) -> bool:
        """Take the lock; return whether it was taken. With `wait`, it always is."""
        if not self._here.acquire(blocking=wait):
            return False
        if self._shared:
            try:
                fcntl.lockf(self._descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except (BlockingIOError, PermissionError):  # both mean that another process holds it
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


_write_locks: dict[tuple[int, int], WriteLock] = {}
"""By device and inode, because standard output and standard error are often the same."""


def write_lock_of(descriptor: int) -> WriteLock:
    """Return the lock for the target of `descriptor`, always the same one in this process.

    Raises OSError.
    """
    status = os.fstat(descriptor)
    # With a file opened for appending, each write arrives whole.
    shared = not stat.S_ISREG(status.st_mode)
    return _write_locks.setdefault((status.st_dev, status.st_ino), WriteLock(descriptor, shared=shared))


def without_waiting(descriptor: int) -> int | socket.socket | None:
    """Return another way to the reader of `descriptor` on which no write waits.

    The result is None if there is none.

    The non-blocking flag belongs to the open file, which other processes share (runners, a shell).
    The target is therefore opened again. A file is not: its end is where the other writers write.
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
