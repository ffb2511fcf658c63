"""A WSGI application behind waitress, in a thread of its own."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Any, Self

import waitress  # type: ignore[import-untyped]  # no stubs
from waitress.wasyncore import close_all  # type: ignore[import-untyped]  # no stubs


class WebServer:
    """Serves `app` on 127.0.0.1. `port` 0: a free one; `url` tells which. Raises OSError when the port is taken."""

    def __init__(self, app: Any, port: int = 0, *, threads: int = 8) -> None:
        self._map: dict[int, Any] = {}
        self._server = waitress.create_server(
            app, map=self._map, host="127.0.0.1", port=port, threads=threads, ident=None
        )
        self.port = int(self._server.effective_port)
        self._thread = threading.Thread(target=self._server.run, name=f"web-{self.port}", daemon=True)

    @property
    def url(self) -> str:
        """Where it answers, without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> Self:
        """Begin to serve."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Close every connection and wait for the thread. A request that is being answered ends first."""
        self._server.task_dispatcher.shutdown(timeout=10)
        # In the server's own thread: sockets closed from another would break its select().
        self._server.trigger.pull_trigger(lambda: close_all(self._map))
        self._thread.join()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
