"""The status page as an application of its own, and the server that runs it."""

from __future__ import annotations

import ipaddress
import logging
import os
import socket
from collections.abc import Callable, Collection
from typing import Any

from flask import Flask, Response, send_from_directory
from waitress import create_server  # type: ignore[import-untyped]

from jobq.config import Settings
from jobq.errors import ConfigurationError
from jobq.web import errors
from jobq.web.executor import Executor
from jobq.web.page import blueprint, livez
from jobq.web.redaction import SECRET_NAMES
from jobq.web.security import Password, add_headers

PASSWORD_VARIABLE = "JOBQ_WEB_PASSWORD"  # noqa: S105 - the variable's name
# More than any form of ours has: 500 ids and a reason.
_MAX_FORM_BYTES = 64 * 1024


def create_app(
    settings: Settings | None = None,
    *,
    database_url: str | None = None,
    schema: str | None = None,
    secret_key: str | bytes | None = None,
    password: str | None = None,
    actor: str | Callable[[], str | None] | None = None,
    redact: Collection[str] = SECRET_NAMES,
    refresh_seconds: int = 5,
) -> Flask:
    """Return the status page as a Flask application.

    `password`: what HTTP basic authentication asks for, with any user name, which the audit then has
    (default: ``JOBQ_WEB_PASSWORD``; without either, whoever reaches the page may use it). The others are
    those of :func:`jobq.web.blueprint`. Raises ConfigurationError without a database.
    """
    app = Flask("jobq.web", static_folder=None, template_folder=None)
    app.secret_key = secret_key
    app.config["MAX_CONTENT_LENGTH"] = _MAX_FORM_BYTES
    password = password or os.environ.get(PASSWORD_VARIABLE)
    app.config["JOBQ_PASSWORD_SET"] = bool(password)
    if password:
        app.before_request(Password(password))
    mounted = blueprint(
        settings,
        database_url=database_url,
        schema=schema,
        secret_key=secret_key,
        actor=actor,
        redact=redact,
        refresh_seconds=refresh_seconds,
    )
    app.add_url_rule("/livez", "livez", livez)
    app.add_url_rule("/favicon.ico", "favicon", _favicon)
    app.register_blueprint(mounted)
    app.after_request(add_headers)
    errors.install(app)
    return app


def serve(app: Flask, host: str = "127.0.0.1", port: int = 8080, *, ready: Callable[[str], None] | None = None) -> None:
    """Serve `app` on waitress until interrupted; `ready` is told the address once it listens (`port` 0: a
    free one).

    Raises ConfigurationError for an address that is not loopback while the page has no password, or one that
    cannot be used. Without a password only requests for this machine's own names are answered, so that
    another site cannot reach the page through the visitor's browser under a name of its own.
    """
    protected = bool(app.config.get("JOBQ_PASSWORD_SET"))
    if not protected:
        if not is_loopback(host):
            raise ConfigurationError(
                f"host={host!r}: the status page without a password is for this machine only; "
                f"set {PASSWORD_VARIABLE}, or use 127.0.0.1"
            )
        if app.config.get("TRUSTED_HOSTS") is None:
            app.config["TRUSTED_HOSTS"] = ["localhost", "127.0.0.1", "[::1]"]
    listener = _listen(host, port)
    server = create_server(app, sockets=[listener], threads=8, ident=None, clear_untrusted_proxy_headers=True)
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
