"""The status page as an application of its own, and the server that runs it."""

from __future__ import annotations

import ipaddress
import logging
import os
import socket
from collections.abc import Callable
from typing import Any

from flask import Flask, Response, send_from_directory
from typing_extensions import Unpack
from waitress import create_server  # type: ignore[import-untyped]

from jobq.config import Settings
from jobq.errors import ConfigurationError
from jobq.web import errors
from jobq.web.executor import Executor
from jobq.web.mount import MAX_FORM_BYTES, livez, mount
from jobq.web.options import Options, OptionValues
from jobq.web.security import add_headers


def create_app(
    settings: Settings | None = None,
    *,
    database_url: str | None = None,
    schema: str | None = None,
    **options: Unpack[OptionValues],
) -> Flask:
    """Return the status page as a Flask application.

    `settings`, or `database_url` and `schema`: which database (default: ``JOBQ_*`` variables). `options` are those of
    :class:`jobq.web.Options`; those not given are read from ``JOBQ_WEB_*`` variables (``JOBQ_WEB_READ_ONLY=1``). Raises
    ConfigurationError for a missing database or an option that cannot be used.
    """
    if settings is None:
        settings = Settings.load(database_url=database_url, schema=schema)
    loaded = Options.load(**options)
    app = Flask("jobq.web", static_folder=None, template_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_FORM_BYTES
    app.config["JOBQ_OPTIONS"] = loaded
    app.add_url_rule("/livez", "livez", livez)
    app.add_url_rule("/favicon.ico", "favicon", _favicon)
    app.register_blueprint(mount(settings, loaded))
    app.after_request(add_headers)
    errors.install(app)
    return app


def serve(app: Flask, host: str = "127.0.0.1", port: int = 8080, *, ready: Callable[[str], None] | None = None) -> None:
    """Serve `app` on waitress until interrupted; `ready` is told the address once it listens (`port` 0: a
    free one).

    Raises ConfigurationError for an address that is not loopback while the page has no login, or one that
    cannot be used. Without a login only requests for this machine's own names are answered, so that
    another site cannot reach the page through the visitor's browser under a name of its own.
    """
    options: Options = app.config.get("JOBQ_OPTIONS") or Options()
    if not options.has_login:
        if not is_loopback(host):
            raise ConfigurationError(
                f"host={host!r}: the status page without a login is for this machine only: have people log in (--users), "
                "behind a proxy (--proxy-header) or by a password (JOBQ_WEB_PASSWORD), or use 127.0.0.1"
            )
        if app.config.get("TRUSTED_HOSTS") is None:
            app.config["TRUSTED_HOSTS"] = ["localhost", "127.0.0.1", "[::1]"]
    listener = _listen(host, port)
    # What proxies say is judged by the page (`proxy.py`), which knows those that were named.
    strict = not options.trusted_proxies
    server = create_server(app, sockets=[listener], threads=8, ident=None, clear_untrusted_proxy_headers=strict)
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    if ready is not None:
        ready(f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}/")
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


def _favicon() -> Response:
    return send_from_directory(os.path.join(os.path.dirname(__file__), "static"), "favicon.svg")
