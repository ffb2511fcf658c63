"""The output and logs of this process.

No write waits for a reader, and the last lines still appear.

`output_stream.py` has the streams. Records for handlers that may wait go through
`deferred_logging.py`.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time

from jobq._core.logs.deferred import defer_logging
from jobq._core.logs.deferred import deferred as _deferred
from jobq._core.output_stream import Output

__all__ = ["LAST_WORDS", "defer_logging", "dropped", "finish", "guard", "say", "standard_error"]

LAST_WORDS = 2.0  # seconds that an ending process gives the reader

_STDOUT, _STDERR = 1, 2

_outputs: dict[int, Output] = {}


def standard_error() -> Output | None:
    """Return this process's standard error as an `Output`, always the same one.

    The result is None if it is closed.
    """
    return _standard(_STDERR)


def _standard(descriptor: int) -> Output | None:
    if descriptor not in _outputs:
        try:
            _outputs[descriptor] = Output(descriptor)
        except OSError:
            return None
    return _outputs[descriptor]


def guard() -> None:
    """Make nothing that this process prints wait for a reader: replace sys.stdout and sys.stderr.

    They become `Output`s permanently, because the last output of a process comes late. Streams that
    do not belong to the process are left unchanged.
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
    """Write `text` to standard error, without waiting for its reader."""
    if (output := standard_error()) is not None:
        output.write(text)
        output.flush()


def write_directly() -> None:
    """Make this process wait at each write, as its forks do, so that output starts no thread."""
    for descriptor in (_STDOUT, _STDERR):
        _standard(descriptor)
    for each in _outputs.values():
        each._pid = 0
    _deferred._pid = 0


def continue_in_fork() -> None:
    """Make a forked process write like its parent. Without this, a fork waits at each write.

    Call it only in a fork of a process with one thread: then no line is being written, and no lock
    is held.
    """
    for each in _outputs.values():
        each._pid = os.getpid()
    _deferred._pid = os.getpid()


def dropped() -> int:
    """Return how many lines and log records this process has dropped."""
    return sum(output.dropped for output in _outputs.values()) + _deferred.dropped


def finish(seconds: float = LAST_WORDS, *, streams: bool = True) -> None:
    """Wait up to `seconds` for pending output. A stream whose reader does not read is abandoned.

    `streams`: also flush sys.stdout and sys.stderr if they belong to the application. This needs a
    thread.
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
        # A thread that waits for the reader may hold their locks.
        thread = threading.Thread(target=flush, daemon=True)
        with contextlib.suppress(RuntimeError):
            thread.start()
            thread.join(max(0.05, deadline - time.monotonic()))
