"""The process of a runner, with all that it has started: a session, and so a process group, of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from asyncio.subprocess import Process

import msgspec

from jobq.worker import stacks
from jobq.worker.processgroup import end_group, signal_group
from jobq.worker.spec import Spec

# Both directions of a runner's socket.
_BUFFER_BYTES = 1 << 20


class RunnerProcess:
    """A process that was started. `pids` and `starting` tell all of them, for the reaper, which must leave them alone."""

    pids: set[int] = set()  # noqa: RUF012  (of the class, on purpose)
    starting = 0

    def __init__(self, process: Process, alive: int) -> None:
        self._process = process
        self._alive = alive
        self.pid = process.pid

    @classmethod
    async def start(cls, spec: Spec, table_fd: int) -> tuple[RunnerProcess, socket.socket]:
        """Start a process by `spec`; return it with our end of its socket."""
        ours, theirs = socket.socketpair()
        # Its other end closes with this process, however that ends.
        read, alive = os.pipe()
        relay = stacks.Relay.open()
        cls.starting += 1
        try:
            for end in (ours, theirs):
                for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                    end.setsockopt(socket.SOL_SOCKET, option, _BUFFER_BYTES)
            descriptors = [theirs.fileno(), table_fd, read] + ([] if relay is None else [relay.writing])
            spec = msgspec.structs.replace(
                spec,
                socket_fd=theirs.fileno(),
                slots_fd=table_fd,
                alive_fd=read,
                stacks_fd=-1 if relay is None else relay.writing,
            )
            with stacks.held_back():
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-m",
                    "jobq.worker.runner",
                    pass_fds=descriptors,
                    stdin=asyncio.subprocess.DEVNULL,
                    env={**os.environ, "JOBQ_RUNNER": msgspec.json.encode(spec).decode()},
                    start_new_session=True,
                )
            cls.pids.add(process.pid)
            ours.setblocking(False)
        except BaseException:
            # Without these, a process that has started ends as well.
            ours.close()
            os.close(alive)
            raise
        finally:
            cls.starting -= 1
            theirs.close()
            os.close(read)
            if relay is not None:
                relay.close()
        return cls(process, alive), ours

    async def wait(self) -> int:
        """Wait for its end; return its exit status."""
        status = await self._process.wait()
        self.pids.discard(self.pid)
        return status

    @property
    def running(self) -> bool:
        """Whether its end has not been noticed yet."""
        return self._process.returncode is None

    def signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    def kill(self) -> None:
        """End it at once, with all that it has started."""
        if self._process.returncode is None:
            # It leads its group from its first instruction on, so there is one as long as it has not been waited for.
            signal_group(self.pid, signal.SIGKILL)

    async def end_what_is_left(self, *, at_once: bool) -> None:
        """After its end: end what it has started. Its id is in use for as long as its group is not empty."""
        if at_once:
            signal_group(self.pid, signal.SIGKILL)
        else:
            await end_group(self.pid)

    def close(self) -> None:
        """Let go of what is held for it; again is no error."""
        if self._alive >= 0:
            os.close(self._alive)
            self._alive = -1
