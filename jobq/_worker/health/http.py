"""The smallest HTTP/1.1 server that a probe needs, in the dispatcher's event loop: GET and HEAD, one request a connection.

It stands beside the loops that claim and heartbeat, so it must not be possible to hold them up from outside: the size of a
request, the time of a connection and the number of connections are bounded, and no answer is computed by waiting.
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

from jobq.errors import ConfigurationError

logger = logging.getLogger("jobq.worker")

# Of the request line and all headers.
MAX_HEAD_BYTES = 4096
# From its accept to its end, whatever it does.
DEADLINE = 5.0
# When one more comes, the oldest is cut off: connections that are held open without use cannot keep a probe out.
MAX_CONNECTIONS = 16

_MEND = "give HOST:PORT, as 127.0.0.1:9642 or [::1]:9642, or unix:PATH"


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen: `path`, or `host` and `port` (0: a free one)."""

    host: str = ""
    port: int = 0
    path: str | None = None

    @classmethod
    def parse(cls, text: str) -> Address:
        """Return the address that `text` names. Raises ConfigurationError for a malformed one."""
        if text.startswith("unix:"):
            path = text.removeprefix("unix:")
            # What the kernel's sockaddr_un takes, its final NUL included.
            if not path.startswith("/") or "\0" in path or len(os.fsencode(path)) > 107:
                raise ConfigurationError(
                    f"health_address={text!r}: give an absolute path of at most 107 bytes after unix:"
                )
            return cls(path=path)
        host, colon, port = text.rpartition(":")
        bracketed = host.startswith("[") and host.endswith("]")
        if bracketed:
            host = host[1:-1]
        if not (colon and host and port.isascii() and port.isdigit() and int(port) < 65_536):
            raise ConfigurationError(f"health_address={text!r}: {_MEND}")
        if (":" in host) is not bracketed or any(c.isspace() for c in host):
            raise ConfigurationError(f"health_address={text!r}: {_MEND}")
        return cls(host=host, port=int(port))


@dataclass(frozen=True, slots=True)
class Answer:
    """A status, a media type and a body."""

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
        """Listen. Raises ConfigurationError when the address cannot be had."""
        try:
            self._server = await self._listen()
        except (OSError, OverflowError, UnicodeError) as error:
            taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
            reason = "another process listens there; choose another, or end that one" if taken else str(error)
            raise ConfigurationError(f"health_address={self._given!r}: cannot listen: {reason}") from error
        logger.info("health is served", extra={"address": self.at})

    @property
    def at(self) -> str:
        """The address that is listened on, with the port that was chosen."""
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
                # Until the other end has read it: closing with unread input of his would take the answer from him.
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
        """Stop listening. Connections that are being answered end by their deadline, or with the loop."""
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
    """Remove the socket of a process that has gone. asyncio would remove that of a living one as well."""
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
            pass  # its queue is full: someone has it
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
