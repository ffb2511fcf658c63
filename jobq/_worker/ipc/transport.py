"""The dispatcher's end of the socket to a runner, without a coroutine that waits for each frame."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from jobq._worker.ipc import messages
from jobq._worker.ipc.messages import LENGTH_SIZE, FromRunner, ToRunner


class FrameTransport(asyncio.Protocol):
    """Sends and receives frames.

    `on_message` receives the runner's messages. `on_fault` is called when the runner sent an
    invalid frame; nothing is received after that.
    """

    def __init__(self, on_message: Callable[[FromRunner], None], on_fault: Callable[[Exception], None]) -> None:
        self._on_message = on_message
        self._on_fault = on_fault
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        """Beginning of a frame that has not arrived completely."""
        self._need = LENGTH_SIZE
        """Length that the buffer needs for a complete frame."""
        self.heard = 0
        """Total bytes received."""
        self.over = asyncio.Event()
        """Set when nothing more will be received."""

    # --- what asyncio calls --------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport of the new connection."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Process received bytes: frames, or parts of frames."""
        self.heard += len(data)
        if self.over.is_set():
            return
        if self._buffer:
            self._buffer += data
            if len(self._buffer) < self._need:
                return
            data = bytes(self._buffer)
            self._buffer.clear()
        try:
            rest = self._hear(data)
        except Exception as error:
            self.over.set()
            self._on_fault(error)
            return
        self._buffer += data[rest:]

    def eof_received(self) -> bool:
        """Note that the runner has closed its end. Our own writes then fail by themselves."""
        self.over.set()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that the socket is closed."""
        self.over.set()

    # --------------------

    def _hear(self, data: bytes) -> int:
        """Process the complete frames in `data`; return where the first incomplete one begins."""
        at, end = 0, len(data)
        while True:
            self._need = LENGTH_SIZE
            if end - at < LENGTH_SIZE:
                return at
            self._need += messages.length(data[at : at + LENGTH_SIZE])
            if end - at < self._need:
                return at
            message = messages.decode_from_runner(memoryview(data)[at + LENGTH_SIZE : at + self._need])
            at += self._need
            self._on_message(message)

    def tell(self, message: ToRunner) -> None:
        """Send a message, unless the socket is gone."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(messages.encode(message))

    def close(self) -> None:
        """Close the socket after it has taken all sent data."""
        if self._transport is not None:
            self._transport.close()
