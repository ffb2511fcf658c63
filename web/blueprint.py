"""The blueprint: builds a page with all its parts, and registers its routes behind their checks."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from flask import Blueprint, Response, abort, g, request, request_started
from typing_extensions import Unpack

from jobq.errors import ConfigurationError
from jobq.settings import Settings
from jobq.web import api, routes, views
from jobq.web.auth import login
from jobq.web.auth.csrf import FormTokens, add_headers
from jobq.web.auth.methods import AuthMethods
from jobq.web.auth.sessions import Sessions
from jobq.web.bulk_runner import BulkRunner
from jobq.web.context import clear_request_state
from jobq.web.database import Database
from jobq.web.options import Options, OptionValues
from jobq.web.page import Page
from jobq.web.rendering import cached_response, errors
from jobq.web.rendering.cache import PageCache
from jobq.web.rendering.redaction import redactors_by_role

# Not "/static": if the page is mounted at the root, that is the folder of the host application.
STATIC = "/jobq-static"
# More than the largest form needs: 500 ids and a reason.
MAX_FORM_BYTES = 64 * 1024


def blueprint(
    settings: Settings | str | None = None,
    *,
    database_url: str | None = None,
    schema: str | None = None,
    name: str = "jobq",
    **options: Unpack[OptionValues],
) -> Blueprint:
    """Return the status page as a blueprint: ``app.register_blueprint(blueprint(),
    url_prefix="/jobs")``.

    `settings`, or `database_url` and `schema`: which database (default: ``JOBQ_*`` variables). A
    text is the database's URL. `options`: those of :class:`jobq.web.Options`; here they are not
    read from variables. Raises ConfigurationError for a missing database or an invalid option.

    Without an authentication method (``identify=``, ``users=True``, ``proxy_header=``,
    ``password=``) every visitor is an admin, or has the role ``default_role=``: then guard the page
    with ``blueprint.before_request`` or in front of the application.

        app.register_blueprint(jobq.web.blueprint(identify=current_identity), url_prefix="/jobs")
    """
    return build_blueprint(resolve_settings(settings, database_url, schema), Options(**options), name)


def resolve_settings(settings: Settings | str | None, database_url: str | None, schema: str | None) -> Settings:
    """Return the settings that the arguments of `create_app` or `blueprint` describe. Raises
    ConfigurationError.
    """
    if isinstance(settings, Settings):
        if database_url is not None or schema is not None:
            raise ConfigurationError("settings excludes database_url and schema: pass either")
        return settings
    if settings is not None and database_url is not None:
        raise ConfigurationError("the database's URL is passed twice: pass it once")
    if settings is not None and not isinstance(settings, str):
        raise ConfigurationError(
            f"settings={settings!r}: expected the database's URL as text, q.settings, or database_url=…"
        )
    return Settings.load(database_url=database_url if settings is None else settings, schema=schema)


def build_blueprint(settings: Settings, options: Options, name: str = "jobq") -> Blueprint:
    """Return the blueprint with these options."""
    page = _page(settings, options)
    mounted = Blueprint(name, __name__, template_folder="templates", static_folder="static", static_url_path=STATIC)

    @mounted.before_request
    def enter() -> None:
        g.jobq_page = page
        # Flask before 3.1 has this limit only for the whole application, which belongs to the host.
        with suppress(AttributeError):
            request.max_content_length = MAX_FORM_BYTES
        if (request.content_length or 0) > MAX_FORM_BYTES:
            abort(413)

    @mounted.after_request
    def leave(response: Response) -> Response:
        root, secure = page.root, page.auth.proxies.secure()
        page.form_tokens.keep_cookie(response, path=root, secure=secure)
        if page.auth.sessions is not None:
            page.auth.sessions.keep_cookie(response, path=root, secure=secure)
        response.headers["Vary"] = ", ".join(
            filter(None, (cached_response.VARY, options.proxy_header, options.proxy_role_header))
        )
        return add_headers(response)

    @mounted.record_once
    def announce(state: Any) -> None:
        # This runs before the host's own functions, whose errors are answered with a page of ours.
        request_started.connect(clear_request_state, state.app)
        state.app.extensions.setdefault("jobq.web", []).extend((page.bulk_runner, page.database))

    routes.register(mounted, (*views.ROUTES, *api.ROUTES, *(login.ROUTES if options.users else ())))
    errors.install(mounted)
    return mounted


def livez() -> Response:
    """Report that the process is up. This does not ask the database: its outage must not restart
    the process.
    """
    return Response("ok\n", mimetype="text/plain")


def _page(settings: Settings, options: Options) -> Page:
    database = Database(settings, read_only=options.read_only)
    form_tokens = FormTokens(options.secret_key)
    sessions = None
    if options.users:
        sessions = Sessions(
            database, form_tokens.sessions, idle=options.session_idle, lifetime=options.session_lifetime
        )
    return Page(
        settings=settings,
        options=options,
        database=database,
        bulk_runner=BulkRunner(settings, enabled=not options.read_only),
        form_tokens=form_tokens,
        auth=AuthMethods(options, sessions),
        cache=PageCache(seconds=options.cache_seconds, limit=options.cache_bytes),
        redactors=redactors_by_role(options.redact, options.redact_for, options.reveal_to),
    )
