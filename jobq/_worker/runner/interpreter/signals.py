"""The signals that a runner ignores, but the processes that its jobs fork do not."""

from __future__ import annotations

import os
import signal
import threading

# Signals that would end a runner if no one had asked for them. The application may set handlers of its own.
_HARMLESS = (
    signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGVTALRM,
    signal.SIGPROF,
)  # fmt: skip


def disarm() -> None:
    """Let the signals of `_HARMLESS` do nothing in this process, and what they do by default in those that jobs fork.

    multiprocessing ends its processes by SIGTERM, and then waits for them.
    """
    # A service manager's SIGTERM may reach every process: the dispatcher decides what it means. And a task that signals its own
    # process group means the programs that it has started.
    masks = threading.local()

    def nothing(*_: object) -> None: ...

    def hold() -> None:
        # Signals sent to the new process wait until `rearm` has run.
        masks.before = signal.pthread_sigmask(signal.SIG_BLOCK, _HARMLESS)

    def let_through() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, masks.before)

    def rearm() -> None:
        for number in _HARMLESS:
            if signal.getsignal(number) is nothing:
                signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        let_through()

    # Handlers, not SIG_IGN: that one would be handed down to the programs that tasks start.
    for number in _HARMLESS:
        signal.signal(number, nothing)
    os.register_at_fork(before=hold, after_in_parent=let_through, after_in_child=rearm)
