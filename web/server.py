"""The server that runs the status page: waitress, on one address, with our own answer to what is too large."""

from __future__ import annotations

import ipaddress
import logging
import socket
from collections.abc import Callable
from io import BytesIO
from typing import Any

from flask import Flask
from waitress import create_server  # type: ignore[import-untyped]
from waitress.channel import HTTPChannel  # type: ignore[import-untyped]
from waitress.task import ErrorTask, WSGITask  # type: ignore[import-untyped]
from waitress.utilities import RequestEntityTooLarge  # type: ignore[import-untyped]
from werkzeug.test import run_wsgi_app

from jobq.errors import ConfigurationError
from jobq.web.executor import Executor
from jobq.web.mount import MAX_FORM_BYTES
from jobq.web.options import Options


def serve(app: Flask, host: str = "127.0.0.1", port: int = 8080, *, ready: Callable[[str], None] | None = None) -> None:
    """Serve `app` on waitress until interrupted; `ready` is told the address once it listens (`port` 0: a
    free one).

    Raises ConfigurationError for an address that is not loopback while the page has no login, or one that
    cannot be used. Without a login only requests for this machine's own names are answered, so that
    another site cannot reach the page through the visitor's browser under a name of its own.
    """
    options: Options = app.config.get("JOBQ_OPTIONS") or Options()
    application: Any = app
    if not options.has_login:
        if not is_loopback(host):
            raise ConfigurationError(
                f"host={host!r}: the status page without a login is for this machine only: have people log in (--users), "
                "behind a proxy (--proxy-header) or by a password (JOBQ_WEB_PASSWORD), or use 127.0.0.1"
            )
        if app.config.get("TRUSTED_HOSTS") is None:
            app.config["TRUSTED_HOSTS"] = ["localhost", "127.0.0.1"]
            application = _with_ipv6_loopback(app)
    listener = _listen(host, port)
    server = create_server(
        application,
        sockets=[listener],
        threads=8,
        ident=None,
        # What proxies say is judged by the page (`proxy.py`), which knows those that were named.
        clear_untrusted_proxy_headers=not options.trusted_proxies,
        max_request_body_size=MAX_FORM_BYTES,
    )
    server.channel_class = _Channel
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    if ready is not None:
        ready(f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}{options.url_prefix or ''}/")
    for part in app.extensions.get("jobq.web", []):
        if isinstance(part, Executor):
            # What an earlier process has left unfinished.
            part.wake()
    try:
        server.run()
    finally:
        server.close()
        close(app)


def close(app: Flask) -> None:
    """Close the database connections of the pages mounted in `app`, and end their bulk operations after the batch under way."""
    parts: list[Any] = app.extensions.get("jobq.web", [])
    for part in parts:
        part.close()


class _TooLarge(RequestEntityTooLarge):  # type: ignore[misc]
    """A body that is not read: the application is asked for its page about it, as if there were one."""

    def __init__(self, channel: Any, request: Any) -> None:
        super().__init__("the body is too large")
        self._environ = WSGITask(channel, request).get_environment()
        self._environ |= {"CONTENT_LENGTH": str(MAX_FORM_BYTES + 1), "wsgi.input": BytesIO()}
        self._application = channel.server.application

    def to_response(self, ident: Any = None) -> tuple[str, list[tuple[str, str]], bytes]:
        body, status, headers = run_wsgi_app(self._application, self._environ, buffered=True)
        return status, headers.to_wsgi_list(), b"".join(body)


class _ErrorTask(ErrorTask):  # type: ignore[misc]
    def execute(self) -> None:
        if isinstance(self.request.error, RequestEntityTooLarge):
            self.request.error = _TooLarge(self.channel, self.request)
        super().execute()


class _Task(WSGITask):  # type: ignore[misc]
    """waitress hangs up after whatever has no length, and a 304 must have none: each poll would cost a connection."""

    def set_close_on_finish(self) -> None:
        keeps = self.version == "1.1" and self.request.headers.get("CONNECTION", "").lower() != "close"
        if self.has_body or not keeps:
            super().set_close_on_finish()


class _Channel(HTTPChannel):  # type: ignore[misc]
    task_class = _Task
    error_task_class = _ErrorTask


def _with_ipv6_loopback(app: Flask) -> Any:
    """Return `app` for visitors of ``http://[::1]``, too: TRUSTED_HOSTS can name no IPv6 address, so it is told the name."""

    def application(environ: dict[str, Any], start_response: Any) -> Any:
        name, bracket, port = environ.get("HTTP_HOST", "").partition("]")
        if name + bracket == "[::1]":
            environ["HTTP_HOST"] = f"localhost{port}"
        return app(environ, start_response)

    return application


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _listen(host: str, port: int) -> socket.socket:
    # Not left to waitress, which keeps its half-made server when the address is taken.
    try:
        family, _, _, _, address = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except (OSError, OverflowError, UnicodeError) as error:
        raise ConfigurationError(f"cannot listen on {host}:{port}: {error}") from error
