"""The dispatcher's end of the socket to a runner: frames out, frames in, without a coroutine that waits for each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from jobq.worker import frames
from jobq.worker.frames import LENGTH_SIZE, FromRunner, ToRunner


class Line(asyncio.Protocol):
    """`on_message` hears what the runner says; `on_fault` that it said what is no frame, which is the last thing heard."""

    def __init__(self, on_message: Callable[[FromRunner], None], on_fault: Callable[[Exception], None]) -> None:
        self._on_message = on_message
        self._on_fault = on_fault
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        """The beginning of a frame whose rest has not come."""
        self._need = LENGTH_SIZE
        """How long the buffer must be for a frame to be complete."""
        self.heard = 0
        """Bytes that have come, ever."""
        self.over = asyncio.Event()
        """Set when nothing more will be heard."""

    # --- what asyncio calls --------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is there."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Some bytes have come: frames, or parts of them."""
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
        """The runner has closed its end; what we write fails by itself."""
        self.over.set()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone."""
        self.over.set()

    # --------------------

    def _hear(self, data: bytes) -> int:
        """Hear the frames that `data` begins with; return where the first incomplete one begins."""
        at, end = 0, len(data)
        while True:
            self._need = LENGTH_SIZE
            if end - at < LENGTH_SIZE:
                return at
            self._need += frames.length(data[at : at + LENGTH_SIZE])
            if end - at < self._need:
                return at
            message = frames.decode_from_runner(memoryview(data)[at + LENGTH_SIZE : at + self._need])
            at += self._need
            self._on_message(message)

    def tell(self, message: ToRunner) -> None:
        """Send a message, unless the socket is gone."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(frames.encode(message))

    def close(self) -> None:
        """Close the socket, once it has taken what was told."""
        if self._transport is not None:
            self._transport.close()
