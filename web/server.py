"""The server of `jobq web`: waitress on one address, adapted for long polls and for our error
pages.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
from collections.abc import Callable
from io import BytesIO
from typing import Any

from flask import Flask
from waitress import create_server  # type: ignore[import-untyped]  # no stubs
from waitress.channel import HTTPChannel  # type: ignore[import-untyped]  # no stubs
from waitress.task import ErrorTask, WSGITask  # type: ignore[import-untyped]  # no stubs
from waitress.utilities import RequestEntityTooLarge  # type: ignore[import-untyped]  # no stubs
from werkzeug.test import run_wsgi_app

from jobq.errors import ConfigurationError
from jobq.web.blueprint import MAX_FORM_BYTES
from jobq.web.bulk_runner import BulkRunner
from jobq.web.options import Options


def serve(app: Flask, host: str = "127.0.0.1", port: int = 8080, *, ready: Callable[[str], None] | None = None) -> None:
    """Serve `app` with waitress until interrupted.

    `port`: 0 for a free one. `ready`: called with the address once the server listens. Raises
    ConfigurationError if the address cannot be used, or if it is not loopback and the page has no
    authentication method. In the latter case the server also answers only requests for localhost,
    so that another site cannot reach the page through the visitor's browser under a host name of
    its own (DNS rebinding).
    """
    options: Options = app.config.get("JOBQ_OPTIONS") or Options()
    application: Any = app
    if not options.has_login:
        if not is_loopback(host):
            raise ConfigurationError(
                f"host={host!r}: without a login the status page listens on this machine only: add a login (--users, "
                "--proxy-header behind a proxy, or JOBQ_WEB_PASSWORD), or use 127.0.0.1"
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
        # The page itself (`auth/proxy.py`) decides which proxies' headers count.
        clear_untrusted_proxy_headers=not options.trusted_proxies,
        max_request_body_size=MAX_FORM_BYTES,
    )
    server.channel_class = _Channel
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    if ready is not None:
        ready(f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}{options.url_prefix or ''}/")
    for part in app.extensions.get("jobq.web", []):
        if isinstance(part, BulkRunner):
            # Continue operations that an earlier process left unfinished.
            part.wake()
    try:
        server.run()
    finally:
        server.close()
        close(app)


def close(app: Flask) -> None:
    """Close the database connections of the pages mounted in `app`, and stop their bulk operations
    after the current batch.
    """
    parts: list[Any] = app.extensions.get("jobq.web", [])
    for part in parts:
        part.close()


class _TooLarge(RequestEntityTooLarge):  # type: ignore[misc]  # its base is untyped
    """A request body that is too large: it is not read, and the application renders its own 413
    page.
    """

    def __init__(self, channel: Any, request: Any) -> None:
        super().__init__("the body is too large")
        self._environ = WSGITask(channel, request).get_environment()
        self._environ |= {"CONTENT_LENGTH": str(MAX_FORM_BYTES + 1), "wsgi.input": BytesIO()}
        self._application = channel.server.application

    def to_response(self, ident: Any = None) -> tuple[str, list[tuple[str, str]], bytes]:
        body, status, headers = run_wsgi_app(self._application, self._environ, buffered=True)
        return status, headers.to_wsgi_list(), b"".join(body)


class _ErrorTask(ErrorTask):  # type: ignore[misc]  # its base is untyped
    def execute(self) -> None:
        if isinstance(self.request.error, RequestEntityTooLarge):
            self.request.error = _TooLarge(self.channel, self.request)
        super().execute()


class _Task(WSGITask):  # type: ignore[misc]  # its base is untyped
    """Keeps the connection open after a 304: waitress closes it after a response without a length,
    so each poll would reconnect.
    """

    def set_close_on_finish(self) -> None:
        keeps = self.version == "1.1" and self.request.headers.get("CONNECTION", "").lower() != "close"
        if self.has_body or not keeps:
            super().set_close_on_finish()


class _Channel(HTTPChannel):  # type: ignore[misc]  # its base is untyped
    task_class = _Task
    error_task_class = _ErrorTask


def _with_ipv6_loopback(app: Flask) -> Any:
    """Return `app` made reachable as ``http://[::1]``: TRUSTED_HOSTS supports no IPv6 address, so
    the name is replaced.
    """

    def application(environ: dict[str, Any], start_response: Any) -> Any:
        name, bracket, port = environ.get("HTTP_HOST", "").partition("]")
        if name + bracket == "[::1]":
            environ["HTTP_HOST"] = f"localhost{port}"
        return app(environ, start_response)

    return application


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _listen(host: str, port: int) -> socket.socket:
    # Not left to waitress, which leaks its half-made server if the address is taken.
    try:
        family, _, _, _, address = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except (OSError, OverflowError, UnicodeError) as error:
        raise ConfigurationError(f"cannot listen on {host}:{port}: {error}") from error
