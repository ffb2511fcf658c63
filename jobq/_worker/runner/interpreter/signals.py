"""The signals that a runner ignores. Processes forked by its jobs do not ignore them."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# Signals that end a runner by default. The application may set handlers of its own.
_HARMLESS = (
    signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGVTALRM,
    signal.SIGPROF,
)  # fmt: skip


_staying: list[bool] = []
"""If it is not empty, a process forked now continues as a runner."""


@contextmanager
def staying_disarmed() -> Iterator[None]:
    """Make a process forked within the context continue as a runner.

    The signals stay harmless in it, but not in the processes that it forks.
    """
    _staying.append(True)
    try:
        yield
    finally:
        _staying.clear()


def disarm() -> None:
    """Make the signals of `_HARMLESS` do nothing in this process.

    In processes that jobs fork, they keep their defaults: multiprocessing ends its processes with
    SIGTERM and then waits for them.
    """
    # A service manager's SIGTERM may reach every process, and the dispatcher decides what it means.
    # If a task signals its own process group, it means the programs that it has started.
    masks = threading.local()

    def nothing(*_: object) -> None: ...

    def hold() -> None:
        # Signals sent to the new process stay pending until `rearm` has run.
        masks.before = signal.pthread_sigmask(signal.SIG_BLOCK, _HARMLESS)

    def let_through() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, masks.before)

    def rearm() -> None:
        stays = bool(_staying)
        _staying.clear()
        for number in () if stays else _HARMLESS:
            if signal.getsignal(number) is nothing:
                signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        let_through()

    # Use handlers instead of SIG_IGN: programs that tasks start would inherit SIG_IGN.
    for number in _HARMLESS:
        signal.signal(number, nothing)
    os.register_at_fork(before=hold, after_in_parent=let_through, after_in_child=rearm)
