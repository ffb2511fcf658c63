"""A TCP proxy that fails on purpose, for what no server can be asked to do to its clients."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar
from urllib.parse import urlsplit

T = TypeVar("T")

_CHUNK = 1 << 16
# Close with RST: the peer sees an error, not an end.
_RESET = struct.pack("ii", 1, 0)


class Proxy:
    """Stands before the server of `database_url`, in a thread of its own; `url` leads through it.

    What it does wrong is set at any time, and holds for the connections that there are and for those to come.
    """

    def __init__(self, database_url: str) -> None:
        parts = urlsplit(database_url)
        self._target = (parts.hostname or "127.0.0.1", parts.port or 5432)
        self._loop = asyncio.new_event_loop()
        self._flows: set[_Flow] = set()
        self._delay = 0.0
        self._open = asyncio.Event()
        self._open.set()
        self._silent = False
        self._refuse = False
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self._server = self._call(asyncio.start_server(self._accept, "127.0.0.1", 0))
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"postgresql://{parts.username or 'postgres'}@127.0.0.1:{port}{parts.path}"

    # --- faults --------------------

    def delay(self, seconds: float) -> None:
        """Let every chunk wait for so long, in both directions; 0 for not at all."""
        self._later(lambda: setattr(self, "_delay", seconds))

    def drop(self) -> None:
        """Reset every connection. New ones are welcome."""
        self._later(lambda: self._each(_Flow.reset))

    def half_close(self) -> None:
        """End what the server says, on every connection, and go on carrying what the client says."""
        self._later(lambda: self._each(_Flow.half_close))

    def swallow(self) -> None:
        """Be a black hole: accept connections and bytes, acknowledge them, and pass nothing on."""
        self._later(self._open.clear)

    def refuse(self) -> None:
        """Reset every connection, and every new one as soon as it is accepted."""

        def begin() -> None:
            self._refuse = True
            self._each(_Flow.reset)

        self._later(begin)

    def silence(self) -> None:
        """Swallow, and for good: the connections that there are, and those made until `heal`, stay silent for ever."""

        def begin() -> None:
            self._silent = True
            self._open.clear()
            self._each(_Flow.lose)

        self._later(begin)

    def heal(self) -> None:
        """Do nothing wrong any more, and pass on what `swallow` has kept."""

        def fix() -> None:
            self._refuse = self._silent = False
            self._delay = 0.0
            self._open.set()

        self._later(fix)

    def close(self) -> None:
        """Reset everything and listen no more."""

        async def end() -> None:
            self._server.close()
            self._refuse = True
            self._open.set()
            self._each(_Flow.reset)
            # Not cancelled: asyncio would report each of its stream's handlers as failed.
            await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}), return_exceptions=True)

        self._call(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # --- inside the loop --------------------

    def _each(self, fault: Callable[[_Flow], None]) -> None:
        for flow in list(self._flows):
            fault(flow)

    def _later(self, action: Callable[[], object]) -> None:
        self._loop.call_soon_threadsafe(action)

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        flow = _Flow(writer, lost=self._silent)
        if self._refuse:
            flow.reset()
            return
        self._flows.add(flow)
        try:
            await self._open.wait()
            if flow.lost:
                while await reader.read(_CHUNK):
                    pass
                return
            upstream_reader, flow.upstream = await asyncio.open_connection(*self._target)
            pumps = {
                asyncio.create_task(self._pump(flow, reader, flow.upstream)),
                asyncio.create_task(self._pump(flow, upstream_reader, writer)),
            }
            await asyncio.wait(pumps)
        except OSError:
            flow.reset()
        finally:
            self._flows.discard(flow)
            flow.close()

    async def _pump(self, flow: _Flow, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, RuntimeError):
            while data := await reader.read(_CHUNK):
                if self._delay:
                    await asyncio.sleep(self._delay)
                await self._open.wait()
                if flow.lost:
                    continue
                writer.write(data)
                await writer.drain()
            if not flow.lost:
                writer.write_eof()


class _Flow:
    """One connection: the client's side of it and, once there is one, the server's."""

    def __init__(self, client: asyncio.StreamWriter, *, lost: bool) -> None:
        self.client = client
        self.upstream: asyncio.StreamWriter | None = None
        self.lost = lost

    def lose(self) -> None:
        self.lost = True

    def reset(self) -> None:
        for writer in (self.client, self.upstream):
            if writer is not None:
                end: socket.socket = writer.get_extra_info("socket")
                with contextlib.suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                writer.transport.abort()

    def half_close(self) -> None:
        with contextlib.suppress(OSError, RuntimeError):
            self.client.write_eof()

    def close(self) -> None:
        for writer in (self.client, self.upstream):
            if writer is not None:
                writer.close()
