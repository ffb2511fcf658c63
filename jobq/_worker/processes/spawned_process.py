"""The operating system process of a runner, which leads its own session and process group.

The group contains the programs that the runner has started. `SpawnedProcess` starts an interpreter,
which imports the application. The other kind of process is forked: see `launcher.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from abc import ABC, abstractmethod
from asyncio.subprocess import Process
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from jobq._worker.health import stacks
from jobq._worker.ipc.runner_config import RunnerConfig
from jobq._worker.processes.process_group import end_group, signal_group

# Buffer size for both directions of a runner's socket.
_BUFFER_BYTES = 1 << 20


@dataclass(slots=True)
class RunnerEnds:
    """The descriptors that connect a new runner and its dispatcher: the runner's ends and our ends."""

    ours: socket.socket
    theirs: socket.socket
    alive: int
    """Closes when this process ends, for any reason. The runner, at the other end, then ends."""
    alive_theirs: int
    relay: stacks.Relay | None

    @classmethod
    @contextlib.contextmanager
    def opened(cls) -> Iterator[RunnerEnds]:
        """Open both ends for the duration of the context.

        On exit the runner's ends are closed here. After an error our ends are closed too. Raises
        OSError.
        """
        ours, theirs = socket.socketpair()
        alive_theirs, alive = os.pipe()
        ends = cls(ours, theirs, alive, alive_theirs, stacks.Relay.open())
        try:
            for end in (ours, theirs):
                for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                    end.setsockopt(socket.SOL_SOCKET, option, _BUFFER_BYTES)
            yield ends
            ours.setblocking(False)
        except BaseException:
            # If these are closed, a process that has already started ends as well.
            ours.close()
            os.close(alive)
            raise
        finally:
            theirs.close()
            os.close(alive_theirs)
            if ends.relay is not None:
                ends.relay.close()

    def named_in(self, config: RunnerConfig, table_fd: int) -> RunnerConfig:
        """Return `config` with the runner's descriptors, numbered as in this process."""
        return msgspec.structs.replace(
            config,
            socket_fd=self.theirs.fileno(),
            slots_fd=table_fd,
            alive_fd=self.alive_theirs,
            stacks_fd=-1 if self.relay is None else self.relay.writing,
        )


class OsProcess(ABC):
    """A runner's process."""

    pids: set[int] = set()  # noqa: RUF012  (of the class, on purpose)
    """Ids of all children of this process; the reaper ignores them."""
    starting = 0
    """Number of children that are being started."""

    def __init__(self, pid: int, alive: int) -> None:
        self.ended_for: str | None = None
        """Why the process had to end, if neither the process nor its jobs caused it."""
        self.pid = pid
        self._alive = alive

    @abstractmethod
    async def wait(self) -> int:
        """Wait until the process has ended; return its exit status."""

    @property
    @abstractmethod
    def running(self) -> bool:
        """Whether the end of the process has not been noticed yet."""

    @abstractmethod
    def signal(self, number: int) -> None:
        """Send a signal to the process, unless it has ended."""

    def kill(self) -> None:
        """End the process and everything that it has started at once."""
        if self.running:
            # The process led its group before its id was known here. So the group exists until the
            # process has been waited for.
            signal_group(self.pid, signal.SIGKILL)

    async def end_what_is_left(self, *, at_once: bool) -> None:
        """After the end of the process, end everything that it has started.

        The process id stays in use until the group is empty.
        """
        if at_once:
            signal_group(self.pid, signal.SIGKILL)
        else:
            await end_group(self.pid)

    def close(self) -> None:
        """Release the descriptors held for the process. Calling it again is no error."""
        if self._alive >= 0:
            os.close(self._alive)
            self._alive = -1


class SpawnedProcess(OsProcess):
    """A runner whose interpreter was started as a new program."""

    def __init__(self, process: Process, alive: int) -> None:
        super().__init__(process.pid, alive)
        self._process = process

    @classmethod
    async def start(cls, spec: RunnerConfig, table_fd: int) -> tuple[SpawnedProcess, socket.socket]:
        """Start a process as `spec` describes; return it with our end of its socket.

        Raises OSError.
        """
        OsProcess.starting += 1
        try:
            with RunnerEnds.opened() as ends:
                spec = ends.named_in(spec, table_fd)
                process = await start_interpreter(
                    "jobq._worker.runner.main",
                    [spec.socket_fd, table_fd, spec.alive_fd] + ([spec.stacks_fd] if spec.stacks_fd >= 0 else []),
                    JOBQ_RUNNER=msgspec.json.encode(spec).decode(),
                )
                cls.pids.add(process.pid)
        finally:
            OsProcess.starting -= 1
        return cls(process, ends.alive), ends.ours

    async def wait(self) -> int:
        status = await self._process.wait()
        self.pids.discard(self.pid)
        return status

    @property
    def running(self) -> bool:
        return self._process.returncode is None

    def signal(self, number: int) -> None:
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)


async def start_interpreter(module: str, descriptors: list[int], **environment: str) -> Process:
    """Start `python -m module` in a new session, with these descriptors and environment variables."""
    with stacks.held_back():
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            module,
            pass_fds=descriptors,
            stdin=asyncio.subprocess.DEVNULL,
            env={**os.environ, **environment},
            start_new_session=True,
        )
