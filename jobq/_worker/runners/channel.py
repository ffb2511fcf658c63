"""The process of a runner and the socket to it: start, sending, and receiving until the end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable

from jobq._worker.health import stacks
from jobq._worker.ipc.messages import FromRunner, ToRunner
from jobq._worker.ipc.runner_config import RunnerConfig
from jobq._worker.ipc.transport import FrameTransport
from jobq._worker.processes.spawned_process import OsProcess, SpawnedProcess

# A runner that has ended can have left its end of the socket to a process that it forked. At that
# time everything that the runner itself wrote is in our receive buffers. If nothing arrives for
# this many seconds, nothing more will.
LAST_WORDS = 0.2

Launch = Callable[[RunnerConfig, int], Awaitable[tuple[OsProcess, socket.socket]]]
"""Starts the process that a configuration describes and returns it with our end of its socket.

The second argument is the descriptor of the slot table.
"""


class RunnerChannel:
    """The connection to one runner.

    `on_message` receives the runner's messages. `on_fault` is called when the runner sent an
    invalid frame; nothing is received after that.
    """

    def __init__(
        self,
        config: RunnerConfig,
        table_fd: int,
        *,
        on_message: Callable[[FromRunner], None],
        on_fault: Callable[[Exception], None],
        launch: Launch = SpawnedProcess.start,
    ) -> None:
        """Create a channel that is not open yet. `table_fd`: descriptor of the runner's slot table."""
        self._launch = launch
        self._config = config
        self._table_fd = table_fd
        self._on_message = on_message
        self._on_fault = on_fault
        self._process: OsProcess | None = None
        self._transport: FrameTransport | None = None
        self._unsent: list[ToRunner] = []
        """Messages sent before the socket was connected."""
        self._kill_at_start = False
        """Whether the runner was killed before its process had started."""
        self._hearing: asyncio.Task[object] | None = None
        self._ending: asyncio.Task[int] | None = None

    @property
    def pid(self) -> int | None:
        """Process id; None before the process has started."""
        return self._process.pid if self._process else None

    @property
    def ended_for(self) -> str | None:
        """Why the process had to end, if neither the process nor its jobs caused it."""
        return self._process.ended_for if self._process else None

    @property
    def connected(self) -> bool:
        """Whether the socket has been connected."""
        return self._transport is not None

    @property
    def received(self) -> int:
        """Total bytes received from the runner; -1 before the socket is connected."""
        return -1 if self._transport is None else self._transport.heard

    async def open(self) -> None:
        """Start the process, connect to it, and send the messages kept for it.

        Raises OSError, and RuntimeError if no thread can be started.
        """
        self._process, ours = await self._launch(self._config, self._table_fd)
        try:
            _, transport = await asyncio.get_running_loop().create_connection(
                lambda: FrameTransport(self._on_message, self._on_fault), sock=ours
            )
        except BaseException:
            ours.close()
            raise
        if self._kill_at_start:
            self._process.kill()
        self._transport = transport
        for message in self._unsent:
            transport.tell(message)
        self._unsent.clear()
        self._hearing = asyncio.create_task(transport.over.wait())
        self._ending = asyncio.create_task(self._process.wait())

    def send(self, message: ToRunner) -> None:
        """Send `message`, or keep it until the socket is connected."""
        if self._transport is None:
            self._unsent.append(message)
        else:
            self._transport.tell(message)

    async def wait_closed(self) -> None:
        """Wait until the runner has closed its end of the socket, or has ended."""
        assert self._hearing is not None
        assert self._ending is not None
        await asyncio.wait({self._hearing, self._ending}, return_when=asyncio.FIRST_COMPLETED)

    async def ends_within(self, seconds: float) -> bool:
        """Wait at most `seconds` for the end of the process; return whether it has ended."""
        assert self._ending is not None
        if not self._ending.done():
            await asyncio.wait({self._ending}, timeout=seconds)
        return self._ending.done()

    async def wait_ended(self) -> int:
        """Wait for the end of the process; return its exit status (0 if it never started)."""
        if self._ending is not None:
            return await self._ending
        return 0 if self._process is None else await self._process.wait()

    async def finish(self, *, at_once: bool) -> None:
        """Clean up after the end of the process.

        This ends the programs that the process has started (`at_once`: by SIGKILL), receives the
        remaining messages, and closes the socket.
        """
        assert self._process is not None
        assert self._transport is not None
        assert self._hearing is not None
        await self._process.end_what_is_left(at_once=at_once)
        heard, until = -1, time.monotonic() + LAST_WORDS * 25
        while not self._hearing.done() and heard != self._transport.heard and time.monotonic() < until:
            heard = self._transport.heard
            await asyncio.wait({self._hearing}, timeout=LAST_WORDS)
        self._hearing.cancel()
        await asyncio.gather(self._hearing, return_exceptions=True)
        self._transport.close()

    def kill(self) -> None:
        """End the process and the programs that it has started at once.

        A process that has not started yet is killed as soon as it has started.
        """
        self._kill_at_start = True
        if self._process is not None:
            self._process.kill()

    def hang_up(self) -> None:
        """Close the socket, so that an idle runner ends in good order.

        If the socket is not connected yet, the runner is killed instead.
        """
        if self._transport is None:
            self._kill_at_start = True
        else:
            self._transport.close()

    def dump_stacks(self) -> None:
        """Make the process print its stacks to standard error."""
        if self._process is not None and self._process.running:
            stacks.say(f"=== jobq dispatcher {os.getpid()}: runner {self.pid} is asked for its stacks")
            self._process.signal(signal.SIGQUIT)

    def close(self) -> None:
        """Release the resources held for the process. Calling it again is no error."""
        if self._process is not None:
            self._process.close()
