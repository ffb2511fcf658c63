"""Starts runners by forking a process that has imported the application.

This is the dispatcher's side of `template.py`. It is off unless requested
(`WorkerOptions.preload`). While there is no template (it is importing, it cannot be forked safely,
or it has ended), runners are started in the ordinary way. A
template that ends takes its runners with it, because it is their parent.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import time
from itertools import count
from typing import NamedTuple

import msgspec

from jobq._worker.ipc.runner_config import RunnerConfig
from jobq._worker.options import WorkerOptions
from jobq._worker.preload import messages
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
    ToTemplate,
    Unusable,
)
from jobq._worker.processes.process_group import end_group
from jobq._worker.processes.spawned_process import OsProcess, RunnerEnds, SpawnedProcess, start_interpreter

logger = logging.getLogger("jobq.worker")

# Maximum seconds for a fork. A template that needs longer hangs, and a runner is started without
# it.
_FORK_WITHIN = 5.0
# Minimum seconds between two starts of a template, because each start costs an import.
_START_AGAIN = 60.0
# Seconds for a template to end after its socket is closed.
_END_WITHIN = 2.0


class ForkedProcess(OsProcess):
    """A runner that was forked from a template. The template reports its end."""

    def __init__(self, pid: int, alive: int, pidfd: int, template: RunnerTemplate) -> None:
        super().__init__(pid, alive)
        self._pidfd = pidfd
        self._template = template
        self._ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def wait(self) -> int:
        return await asyncio.shield(self._ended)

    @property
    def running(self) -> bool:
        return not self._ended.done()

    def signal(self, number: int) -> None:
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    async def end_what_is_left(self, *, at_once: bool) -> None:
        if self._template.forget(self.pid):
            await super().end_what_is_left(at_once=at_once)
            self._template.send(Reap(self.pid))

    def on_end(self, status: int) -> None:
        """Note that the runner has ended. Its process id stays reserved."""
        if not self._ended.done():
            self._ended.set_result(status)

    def on_template_end(self) -> None:
        """End the runner because its template has ended.

        The process id of the runner is no longer reserved, so only the pidfd is used. It tells the
        real end: until then the runner may execute jobs.
        """
        self.ended_for = "its template has ended"
        # When this descriptor closes, the kernel kills the whole group: see `die_with_parent`.
        super().close()
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        asyncio.get_running_loop().add_reader(self._pidfd, self._on_exit)

    def _on_exit(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        self.on_end(-signal.SIGKILL)

    def close(self) -> None:
        super().close()
        if self._template.forget(self.pid):
            self._template.send(Reap(self.pid))
        if self._pidfd >= 0:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1


class _Running(NamedTuple):
    """The process of a template, and our ends of the descriptors that it shares with us."""

    process: asyncio.subprocess.Process
    control: socket.socket
    alive: int
    since: float
    """When the process was started, in time.monotonic() seconds."""


class RunnerTemplate:
    """The template of one worker. The object belongs to the dispatcher's event loop."""

    def __init__(self, options: WorkerOptions) -> None:
        self._options = options
        self.ready = False
        """Whether the template can be forked."""
        self._retired = False
        """Whether the template did not fork in time. It stays for its runners, and is not forked."""
        self._running: _Running | None = None
        self._starting: asyncio.Task[None] | None = None
        self._start_at = 0.0
        """Earliest start of the next template, in time.monotonic() seconds."""
        self._runners: dict[int, ForkedProcess] = {}
        """Runners whose process ids the template reserves, by id."""
        self._numbers = count(1)
        self._answers: dict[int, asyncio.Future[tuple[int, int]]] = {}
        """Answers to fork requests by request number: process id and pidfd."""
        self._ending: set[asyncio.Task[None]] = set()

    def tend(self, now: float) -> None:
        """Begin to start a template, unless one exists or it is too early.

        A template that takes too long to import is ended.
        """
        running, limit = self._running, self._options.import_timeout
        if self._retired:
            if not self._runners:
                self._on_end()
        elif running is not None and not self.ready and now - running.since > limit:
            logger.warning(f"runners cannot be forked: the template had not imported the application after {limit:g} s")
            self._on_end()
        if self._running is None and self._starting is None and now >= self._start_at:
            self._start_at = now + _START_AGAIN
            self._starting = asyncio.create_task(self._start(), name="template")

    async def _start(self) -> None:
        control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        alive_theirs, alive = os.pipe()
        config = TemplateConfig(
            app=self._options.app,
            control_fd=theirs.fileno(),
            alive_fd=alive_theirs,
            log_format=self._options.log_format,
            log_level=self._options.log_level,
        )
        OsProcess.starting += 1
        try:
            process = await start_interpreter(
                "jobq._worker.preload.template",
                [config.control_fd, config.alive_fd],
                JOBQ_TEMPLATE=msgspec.json.encode(config).decode(),
            )
        except Exception as error:
            logger.warning("no template can be started: runners import the application", extra={"error": str(error)})
            control.close()
            os.close(alive)
            return
        finally:
            OsProcess.starting -= 1
            self._starting = None
            theirs.close()
            os.close(alive_theirs)
        OsProcess.pids.add(process.pid)
        control.setblocking(False)
        self._running = _Running(process, control, alive, time.monotonic())
        asyncio.get_running_loop().add_reader(control, self._receive)

    # --- messages from the template --------------------

    def _receive(self) -> None:
        assert self._running is not None
        try:
            packet, descriptors, _, _ = socket.recv_fds(self._running.control, MAX_PACKET, 1)
        except BlockingIOError:
            return
        except OSError:
            packet, descriptors = b"", []
        if packet:
            self._on_message(messages.decode_from_template(packet), descriptors)
        else:
            self._on_end()

    def _on_message(self, message: FromTemplate, descriptors: list[int]) -> None:
        match message:
            case Ready(seconds):
                self.ready = True
                logger.info("the application is preloaded: runners are forked", extra={"seconds": round(seconds, 3)})
            case Unusable(reason, forever):
                if forever:
                    self._start_at = float("inf")
                logger.warning(f"runners cannot be forked: {reason}; each imports the application itself")
            case Forked(number, pid):
                answer = self._answers.pop(number, None)
                if answer is not None and not answer.done() and descriptors:
                    answer.set_result((pid, descriptors.pop()))
                elif answer is not None and not answer.done():
                    answer.set_exception(OSError("no descriptor is free for the runner"))
                # A runner that is not wanted any more finds its socket closed: it ends, and `Ended` tells it.
                for descriptor in descriptors:
                    os.close(descriptor)
            case ForkFailed(number, error):
                if (answer := self._answers.pop(number, None)) is not None and not answer.done():
                    answer.set_exception(OSError(error))
            case Ended(pid, status):
                if (runner := self._runners.get(pid)) is not None:
                    runner.on_end(status)
                else:
                    self.send(Reap(pid))

    def _on_end(self) -> None:
        """End the template and its runners: it has closed its socket, or does not react any more."""
        running, self._running = self._running, None
        if running is None:
            return
        if self.ready:
            logger.error("the template has ended, and its runners with it: runners import the application")
        self.ready = self._retired = False
        asyncio.get_running_loop().remove_reader(running.control)
        running.control.close()
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(OSError("the template has ended"))
        self._answers.clear()
        for runner in self._runners.values():
            runner.on_template_end()
        self._runners.clear()
        # When this descriptor closes, the kernel kills the template.
        os.close(running.alive)
        ending = asyncio.create_task(self._wait(running.process))
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)

    @staticmethod
    async def _wait(process: asyncio.subprocess.Process) -> None:
        try:
            async with asyncio.timeout(_END_WITHIN):
                await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        OsProcess.pids.discard(process.pid)
        # The programs that the import has started.
        await end_group(process.pid)

    # --- messages to the template --------------------

    def send(self, message: ToTemplate, descriptors: list[int] | None = None) -> None:
        """Send a message to the template, if there is one. If it does not read, end it."""
        if self._running is None:
            return
        try:
            socket.send_fds(self._running.control, [messages.encode(message)], descriptors or [])
        except OSError:
            self._on_end()

    async def fork(self, config: RunnerConfig, table_fd: int) -> tuple[OsProcess, socket.socket]:
        """Fork a runner as `config` describes; return it with our end of its socket.

        Raises OSError.
        """
        number = next(self._numbers)
        with RunnerEnds.opened() as ends:
            config = ends.named_in(config, table_fd)
            answer = self._answers[number] = asyncio.get_running_loop().create_future()
            self.send(Fork(number, config), [fd for name in DESCRIPTORS if (fd := getattr(config, name)) >= 0])
            try:
                async with asyncio.timeout(_FORK_WITHIN):
                    pid, pidfd = await answer
            except TimeoutError as error:
                # Its runners are sound: they stay, and no more are forked.
                self._answers.pop(number, None)
                self.ready, self._retired = False, True
                raise OSError("the template does not react") from error
            runner = self._runners[pid] = ForkedProcess(pid, ends.alive, pidfd, self)
        return runner, ends.ours

    def forget(self, pid: int) -> bool:
        """Forget this runner; return whether the template still reserves its process id."""
        return self._runners.pop(pid, None) is not None

    async def launch(self, config: RunnerConfig, table_fd: int) -> tuple[OsProcess, socket.socket]:
        """Fork a runner if possible; otherwise start one. Raises OSError."""
        if self.ready:
            try:
                return await self.fork(config, table_fd)
            except OSError as error:
                logger.warning("no runner can be forked: it is started", extra={"error": str(error)})
        return await SpawnedProcess.start(config, table_fd)

    async def close(self) -> None:
        """End the template, whose runners have ended. Calling it again is no error."""
        self._start_at = float("inf")
        if self._starting is not None:
            await self._starting
        self.ready = False
        self._on_end()
        await asyncio.gather(*self._ending)
