"""A TCP proxy before Postgres that loses the answers to COMMIT, as a network can."""

from __future__ import annotations

import contextlib
import socket
import threading
from urllib.parse import urlsplit

_COMMIT = b"Q\x00\x00\x00\x0bCOMMIT\x00"


class CommitEater:
    """Forwards everything, until a connection whose application is called `victim` commits: then the server hears it, the
    client hears nothing any more. As often as `appetite` says."""

    def __init__(self, database_url: str, victim: str, appetite: int) -> None:
        parts = urlsplit(database_url)
        self._server = (parts.hostname or "127.0.0.1", parts.port or 5432)
        self._victim = victim.encode()
        self._appetite = appetite
        self._lock = threading.Lock()
        self.eaten = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        query = f"{parts.query}&" if parts.query else ""
        credentials = parts.netloc.rpartition("@")[0]
        self.url = parts._replace(
            netloc=f"{credentials}@127.0.0.1:{port}" if credentials else f"127.0.0.1:{port}",
            query=f"{query}sslmode=disable&gssencmode=disable",
        ).geturl()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._forward, args=(client,), daemon=True).start()

    def _forward(self, client: socket.socket) -> None:
        server = socket.create_connection(self._server)
        eating = threading.Event()
        threading.Thread(target=self._answer, args=(server, client, eating), daemon=True).start()
        with client, contextlib.suppress(OSError):
            startup = data = client.recv(1 << 16)
            while data:
                if self._victim in startup and data.endswith(_COMMIT) and self._hungry():
                    eating.set()
                server.sendall(data)
                data = client.recv(1 << 16)
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_WR)

    def _hungry(self) -> bool:
        with self._lock:
            hungry = self.eaten < self._appetite
            self.eaten += hungry
            return hungry

    def _answer(self, server: socket.socket, client: socket.socket, eating: threading.Event) -> None:
        with server, contextlib.suppress(OSError):
            while (data := server.recv(1 << 16)) and not eating.is_set():
                client.sendall(data)
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)
