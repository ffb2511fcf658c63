"""The template: a process that imports the application once and is forked into runners.

A forked runner is ready at once. If preloading is on, the dispatcher starts `python -m
jobq._worker.preload.template`. The template runs no job. It is forked only while it has one thread
and has opened nothing (`fork_safety.py`). Otherwise it reports the reason and ends, and runners are
started in the ordinary way. It is the parent of its runners: it reports their ends, and reserves
their process ids until the dispatcher releases them. Runners end when their template or its
dispatcher ends.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import sys
import traceback
from contextlib import suppress
from time import monotonic
from typing import NoReturn

import msgspec

from jobq._core import output
from jobq._core.logs import formats
from jobq._core.storable import storable_text
from jobq._worker.ipc.runner_config import RunnerConfig
from jobq._worker.preload import messages
from jobq._worker.preload.fork_safety import exit_finalizers, open_descriptors, unsafe_to_fork
from jobq._worker.preload.messages import (
    DESCRIPTORS,
    MAX_PACKET,
    Ended,
    Fork,
    Forked,
    ForkFailed,
    FromTemplate,
    Ready,
    Reap,
    TemplateConfig,
    Unusable,
)
from jobq._worker.processes.process_group import die_with_parent
from jobq._worker.runner.error_report import text_of
from jobq._worker.runner.exit import exit_now
from jobq._worker.runner.interpreter import signals
from jobq._worker.runner.main import LOGGERS, serve
from jobq.app import JobQ, load


class Template:
    """Forks `app` when the dispatcher, at the other end of `control`, requests it."""

    def __init__(self, control: socket.socket, app: JobQ, config: TemplateConfig) -> None:
        self._control = control
        self._app = app
        self._alive_fd = config.alive_fd
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)
        self._runners: dict[int, int] = {}
        """Process id of each running runner, by its pidfd."""

    def serve(self) -> NoReturn:
        """Fork runners and report their ends until the dispatcher closes its end."""
        while True:
            for descriptor, _ in self._poll.poll():
                if descriptor in self._runners:
                    self._tell_end(descriptor)
                else:
                    self._receive()

    def _receive(self) -> None:
        packet, descriptors, _, _ = socket.recv_fds(self._control, MAX_PACKET, len(DESCRIPTORS))
        if not packet:
            exit_now(0)
        match messages.decode_to_template(packet):
            case Fork(number, config):
                self._fork(number, config, descriptors)
            case Reap(pid):
                with suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)

    def _fork(self, number: int, config: RunnerConfig, descriptors: list[int]) -> None:
        named = [name for name in DESCRIPTORS if getattr(config, name) >= 0]
        if len(named) != len(descriptors):
            # At the limit of open files, the kernel passes fewer.
            for descriptor in descriptors:
                os.close(descriptor)
            say(self._control, ForkFailed(number, "too many open files"))
            return
        config = msgspec.structs.replace(config, **dict(zip(named, descriptors, strict=True)))
        try:
            pid, pidfd = self._forked(config)
        except OSError as error:
            say(self._control, ForkFailed(number, str(error)))
            return
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        self._runners[pidfd] = pid
        self._poll.register(pidfd, select.POLLIN)
        say(self._control, Forked(number, pid), [pidfd])

    def _forked(self, config: RunnerConfig) -> tuple[int, int]:
        """Return the id and a pidfd of a new runner. Raises OSError."""
        reading, writing = os.pipe()
        try:
            with signals.staying_disarmed():
                pid = os.fork()
                if pid == 0:
                    self._become_runner(config, reading, writing)
        except OSError:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        # From now on the runner leads its group, so the group can be signalled.
        os.read(reading, 1)
        os.close(reading)
        try:
            return pid, os.pidfd_open(pid)
        except OSError:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise

    def _become_runner(self, config: RunnerConfig, reading: int, writing: int) -> NoReturn:
        try:
            os.setsid()
            os.write(writing, b"r")
            for descriptor in (reading, writing, self._alive_fd, *self._runners):
                os.close(descriptor)
            self._control.close()
            output.continue_in_fork()
            _reseed()
            serve(config, self._app)
        except BaseException:
            traceback.print_exc()
        finally:
            # Whatever happens, the child must not continue as a second template.
            os._exit(70)

    def _tell_end(self, pidfd: int) -> None:
        self._poll.unregister(pidfd)
        pid = self._runners.pop(pidfd)
        ended = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOWAIT)
        os.close(pidfd)
        assert ended is not None
        status = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
        say(self._control, Ended(pid, status))


def say(control: socket.socket, message: FromTemplate, descriptors: list[int] | None = None) -> None:
    """Send a message to the dispatcher. If the dispatcher is gone, end."""
    try:
        socket.send_fds(control, [messages.encode(message)], descriptors or [])
    except OSError:
        exit_now(0)


def _reseed() -> None:
    """Give each runner its own random numbers. Python's `random` reseeds itself."""
    if (numpy := sys.modules.get("numpy")) is not None:
        with suppress(Exception):
            numpy.random.seed()


def prepare(config: TemplateConfig) -> JobQ | Unusable:
    """Import the application, and check whether this process may be forked afterwards."""
    before, exits = open_descriptors(), exit_finalizers()
    try:
        app = load(config.app)
    except BaseException as error:
        # A runner started in the ordinary way reports the error better, with its traceback.
        return Unusable(storable_text(text_of(error), 500), forever=False)
    if reasons := unsafe_to_fork(before, exits):
        return Unusable(storable_text("; ".join(reasons), 500), forever=True)
    return app


def main() -> None:
    """Entry point of the process."""
    config = msgspec.json.decode(os.environ.pop("JOBQ_TEMPLATE"), type=TemplateConfig)
    control = socket.socket(fileno=config.control_fd)
    formats.configure(format=config.log_format, level=config.log_level, waits=False)
    output.defer_logging(*LOGGERS)
    # A thread that writes would make this process unfit to be forked.
    output.write_directly()
    signals.disarm()
    if die_with_parent(config.alive_fd):
        exit_now(0)
    # Its runners start with SIGQUIT blocked: a runner that has no handler yet would die of it.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGQUIT})
    began = monotonic()
    match prepare(config):
        case Unusable() as unusable:
            say(control, unusable)
            exit_now(0)
        case app:
            # Fewer objects are written to after a fork, so more memory stays shared.
            for stream in (sys.stdout, sys.stderr):
                # Otherwise every runner would write again what the import has left in a buffer.
                with suppress(Exception):
                    stream.flush()
            gc.collect()
            gc.freeze()
            say(control, Ready(monotonic() - began))
            Template(control, app, config).serve()


if __name__ == "__main__":
    main()
