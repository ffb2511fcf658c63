"""The status page as a Flask application."""

from __future__ import annotations

import os

from flask import Flask, Response, send_from_directory
from typing_extensions import Unpack

from jobq.settings import Settings
from jobq.web.auth.csrf import add_headers
from jobq.web.auth.proxy import TrustedProxies
from jobq.web.blueprint import MAX_FORM_BYTES, build_blueprint, livez, resolve_settings
from jobq.web.options import Options, OptionValues
from jobq.web.rendering import errors
from jobq.web.url_prefix import PrefixMiddleware


def create_app(
    settings: Settings | str | None = None,
    *,
    database_url: str | None = None,
    schema: str | None = None,
    **options: Unpack[OptionValues],
) -> Flask:
    """Return the status page as a Flask application.

    `settings`, or `database_url` and `schema`: which database (default: ``JOBQ_*`` variables). A
    text is the database's URL. `options`: those of :class:`jobq.web.Options`; an option that is not
    passed is read from its ``JOBQ_WEB_*`` variable (``JOBQ_WEB_READ_ONLY=1``). Raises
    ConfigurationError for a missing database or an invalid option.
    """
    settings = resolve_settings(settings, database_url, schema)
    loaded = Options.load(**options)
    app = Flask("jobq.web", static_folder=None, template_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_FORM_BYTES
    app.config["JOBQ_OPTIONS"] = loaded
    app.add_url_rule("/livez", "livez", livez)
    app.add_url_rule("/favicon.ico", "favicon", _favicon)
    app.register_blueprint(build_blueprint(settings, loaded))
    app.after_request(add_headers)
    errors.install(app)
    app.wsgi_app = PrefixMiddleware(app.wsgi_app, loaded.url_prefix, TrustedProxies(loaded.trusted_proxies))  # type: ignore[method-assign]  # as Flask documents it
    return app


def _favicon() -> Response:
    return send_from_directory(os.path.join(os.path.dirname(__file__), "static"), "favicon.svg")
