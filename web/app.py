"""The status page as an application of its own."""

from __future__ import annotations

import os

from flask import Flask, Response, send_from_directory
from typing_extensions import Unpack

from jobq.config import Settings
from jobq.web import errors
from jobq.web.mount import MAX_FORM_BYTES, chosen, livez, mount
from jobq.web.options import Options, OptionValues
from jobq.web.prefix import Prefixed
from jobq.web.proxy import Proxies
from jobq.web.security import add_headers


def create_app(
    settings: Settings | str | None = None,
    *,
    database_url: str | None = None,
    schema: str | None = None,
    **options: Unpack[OptionValues],
) -> Flask:
    """Return the status page as a Flask application.

    `settings`, or `database_url` and `schema`: which database (default: ``JOBQ_*`` variables). A text is the database's URL.
    `options` are those of :class:`jobq.web.Options`; those not given are read from ``JOBQ_WEB_*`` variables
    (``JOBQ_WEB_READ_ONLY=1``). Raises ConfigurationError for a missing database or an option that cannot be used.
    """
    settings = chosen(settings, database_url, schema)
    loaded = Options.load(**options)
    app = Flask("jobq.web", static_folder=None, template_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_FORM_BYTES
    app.config["JOBQ_OPTIONS"] = loaded
    app.add_url_rule("/livez", "livez", livez)
    app.add_url_rule("/favicon.ico", "favicon", _favicon)
    app.register_blueprint(mount(settings, loaded))
    app.after_request(add_headers)
    errors.install(app)
    app.wsgi_app = Prefixed(app.wsgi_app, loaded.url_prefix, Proxies(loaded.trusted_proxies))  # type: ignore[method-assign]
    return app


def _favicon() -> Response:
    return send_from_directory(os.path.join(os.path.dirname(__file__), "static"), "favicon.svg")
