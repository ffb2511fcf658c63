"""A TCP proxy that can fall silent, as a router that drops every packet does: nothing is refused, nothing is answered."""

from __future__ import annotations

import contextlib
import socket
import threading
from urllib.parse import urlsplit


class Proxy:
    """Stands before the server of `database_url`; `url` leads through it."""

    def __init__(self, database_url: str) -> None:
        parts = urlsplit(database_url)
        self._target = (parts.hostname or "127.0.0.1", parts.port or 5432)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self._silent = threading.Event()
        self.url = (
            f"postgresql://{parts.username or 'postgres'}@127.0.0.1:{self._listener.getsockname()[1]}{parts.path}"
        )
        threading.Thread(target=self._accept, daemon=True).start()

    def silence(self) -> None:
        """Forward nothing more, of old connections and new ones."""
        self._silent.set()

    def heal(self) -> None:
        """Serve new connections again; the old ones stay silent for ever."""
        self._silent.clear()

    def close(self) -> None:
        for each in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._sockets.append(client)
            if self._silent.is_set():
                continue
            server = socket.create_connection(self._target)
            self._sockets.append(server)
            dead = threading.Event()
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._pump, args=(source, sink, dead), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, dead: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if self._silent.is_set():
                    dead.set()
                if dead.is_set():
                    return  # both sockets stay open
                sink.sendall(data)
            if not dead.is_set() and not self._silent.is_set():
                sink.shutdown(socket.SHUT_WR)
