"""A minimal HTTP/1.1 server for probes, in the dispatcher's event loop.

It answers GET and HEAD, one request per connection. It runs beside the loops that claim and
heartbeat, so clients must not be able to hold them up. The size of a request, the time of a
connection and the number of connections are limited, and no answer waits for anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import stat
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

from jobq._worker.listen_address import Address
from jobq.errors import ConfigurationError

logger = logging.getLogger("jobq.worker")

# Maximum bytes of the request line and all headers.
MAX_HEAD_BYTES = 4096
# Maximum seconds of a connection, from accept to end.
DEADLINE = 5.0
# If another connection arrives, the oldest is closed. So unused open connections cannot keep a
# probe out.
MAX_CONNECTIONS = 16


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer."""

    status: int
    media_type: str
    body: bytes


class HealthServer:
    """Serves `answer(path)` at `address`, from `start` to `close`."""

    def __init__(self, address: str, answer: Callable[[str], Answer]) -> None:
        self._given = address
        self._address = Address.parse(address)
        self._answer = answer
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.StreamWriter, None] = {}
        self._inode: int | None = None

    async def start(self) -> None:
        """Listen. Raises ConfigurationError if the address cannot be used."""
        try:
            self._server = await self._listen()
        except (OSError, OverflowError, UnicodeError) as error:
            taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
            reason = "another process listens there; choose another, or end that one" if taken else str(error)
            raise ConfigurationError(f"health_address={self._given!r}: cannot listen: {reason}") from error
        logger.info("health is served", extra={"address": self.at})

    @property
    def at(self) -> str:
        """The address in use, with the actual port."""
        if self._address.path is not None or self._server is None:
            return self._given
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"

    async def _listen(self) -> asyncio.Server:
        options = {"limit": MAX_HEAD_BYTES, "backlog": MAX_CONNECTIONS}
        path = self._address.path
        if path is None:
            return await asyncio.start_server(self._serve, self._address.host, self._address.port, **options)
        _clear_away(path)
        server = await asyncio.start_unix_server(self._serve, path, **options)
        self._inode = os.stat(path).st_ino
        return server

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= MAX_CONNECTIONS:
            oldest = next(iter(self._connections))
            del self._connections[oldest]
            oldest.transport.abort()
        self._connections[writer] = None
        try:
            async with asyncio.timeout(DEADLINE):
                writer.write(await self._respond(reader))
                await writer.drain()
                writer.write_eof()
                # Wait until the client has read the answer: closing with unread input would make
                # the client lose it.
                while await reader.read(MAX_HEAD_BYTES):
                    pass
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass
        except Exception:
            logger.exception("a health request failed")
        finally:
            self._connections.pop(writer, None)
            writer.transport.abort()

    async def _respond(self, reader: asyncio.StreamReader) -> bytes:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            return _message(_plain(431))
        words = head.partition(b"\r\n")[0].decode("latin-1").split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/") or not words[1].startswith("/"):
            return _message(_plain(400))
        method, target, version = words
        if version not in ("HTTP/1.0", "HTTP/1.1"):
            return _message(_plain(505))
        if method not in ("GET", "HEAD"):
            return _message(_plain(405), "Allow: GET, HEAD\r\n")
        try:
            answer = self._answer(target.partition("?")[0])
        except Exception:
            logger.exception("a health request cannot be answered")
            answer = _plain(500)
        return _message(answer, body=method == "GET")

    async def close(self) -> None:
        """Stop listening. Connections in use end at their deadline, or with the event loop."""
        if self._server is None:
            return
        self._server.close()
        path = self._address.path
        if path is not None:
            with contextlib.suppress(OSError):
                if os.stat(path).st_ino == self._inode:
                    os.unlink(path)
        self._server = None


def _clear_away(path: str) -> None:
    """Remove the socket of a process that has ended.

    asyncio would also remove the socket of a live process.
    """
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise OSError(errno.EEXIST, f"{path} exists and is no socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except BlockingIOError:
            pass  # its queue is full, so a process listens
    raise OSError(errno.EADDRINUSE, "address in use")


def _plain(status: int) -> Answer:
    return Answer(status, "text/plain; charset=utf-8", f"{HTTPStatus(status).phrase}\n".encode())


def _message(answer: Answer, extra: str = "", *, body: bool = True) -> bytes:
    head = (
        f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}\r\n"
        f"Content-Type: {answer.media_type}\r\n"
        f"Content-Length: {len(answer.body)}\r\n"
        f"{extra}"
        "Cache-Control: no-store\r\n"
        "X-Content-Type-Options: nosniff\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode("latin-1") + (answer.body if body else b"")
