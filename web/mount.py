"""The blueprint: puts a page together, and its routes behind their checks."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from flask import Blueprint, Response, abort, g, request, request_started
from typing_extensions import Unpack

from jobq.config import Settings
from jobq.errors import ConfigurationError
from jobq.web import (
    actions,
    actions_bulk,
    actions_queues,
    actions_schedules,
    answers,
    api,
    errors,
    login,
    pages,
    routes,
)
from jobq.web.cache import Cache
from jobq.web.context import forget
from jobq.web.database import Database
from jobq.web.executor import Executor
from jobq.web.logins import Logins
from jobq.web.options import Options, OptionValues
from jobq.web.page import Page
from jobq.web.redaction import by_role
from jobq.web.security import Forms, add_headers
from jobq.web.sessions import Sessions

# Not "/static": below the root of an application, that is its own folder, which Flask would look into for our files.
STATIC = "/jobq-static"
# More than any form of ours has: 500 ids and a reason.
MAX_FORM_BYTES = 64 * 1024


def blueprint(
    settings: Settings | str | None = None,
    *,
    database_url: str | None = None,
    schema: str | None = None,
    name: str = "jobq",
    **options: Unpack[OptionValues],
) -> Blueprint:
    """Return the status page as a blueprint: ``app.register_blueprint(blueprint(), url_prefix="/jobs")``.

    `settings`, or `database_url` and `schema`: which database (default: ``JOBQ_*`` variables). A text is the database's URL.
    `options` are those of :class:`jobq.web.Options`, and are not read from variables here. Raises
    ConfigurationError for a missing database or an option that cannot be used.

    Without one of the logins (``identify=``, ``users=True``, ``proxy_header=``, ``password=``) any visitor of the page is an
    admin, or has the role of ``default_role=``: then guard it with ``blueprint.before_request`` or in front of the application.
    """
    return mount(chosen(settings, database_url, schema), Options(**options), name)


def chosen(settings: Settings | str | None, database_url: str | None, schema: str | None) -> Settings:
    """Return the settings that `create_app` and `blueprint` were given. Raises ConfigurationError."""
    if isinstance(settings, Settings):
        if database_url is not None or schema is not None:
            raise ConfigurationError("settings and database_url or schema are both given: give one of them")
        return settings
    if settings is not None and database_url is not None:
        raise ConfigurationError("the database's URL is given twice: give it once")
    if settings is not None and not isinstance(settings, str):
        raise ConfigurationError(
            f"settings={settings!r}: give the database's URL as text, q.settings, or database_url=…"
        )
    return Settings.load(database_url=database_url if settings is None else settings, schema=schema)


def mount(settings: Settings, options: Options, name: str = "jobq") -> Blueprint:
    """Return the blueprint with these options."""
    page = _page(settings, options)
    mounted = Blueprint(name, __name__, template_folder="templates", static_folder="static", static_url_path=STATIC)

    @mounted.before_request
    def enter() -> None:
        g.jobq_page = page
        # Flask before 3.1 has the limit for a whole application only, which is not ours to set.
        with suppress(AttributeError):
            request.max_content_length = MAX_FORM_BYTES
        if (request.content_length or 0) > MAX_FORM_BYTES:
            abort(413)

    @mounted.after_request
    def leave(response: Response) -> Response:
        root, secure = page.root, page.logins.proxies.secure()
        page.forms.keep_cookie(response, path=root, secure=secure)
        if page.logins.sessions is not None:
            page.logins.sessions.keep_cookie(response, path=root, secure=secure)
        response.headers["Vary"] = ", ".join(
            filter(None, (answers.VARY, options.proxy_header, options.proxy_role_header))
        )
        return add_headers(response)

    @mounted.record_once
    def announce(state: Any) -> None:
        # Before the host's own functions, too, whose errors are answered with our page.
        request_started.connect(forget, state.app)
        state.app.extensions.setdefault("jobq.web", []).extend((page.executor, page.database))

    changing = (*actions.ROUTES, *actions_queues.ROUTES, *actions_schedules.ROUTES, *actions_bulk.ROUTES)
    routes.register(mounted, (*pages.ROUTES, *changing, *api.ROUTES, *(login.ROUTES if options.users else ())))
    errors.install(mounted)
    return mounted


def livez() -> Response:
    """Answer that the process is up; the database is not asked, so that its outage restarts no process."""
    return Response("ok\n", mimetype="text/plain")


def _page(settings: Settings, options: Options) -> Page:
    database = Database(settings, read_only=options.read_only)
    forms = Forms(options.secret_key)
    sessions = None
    if options.users:
        sessions = Sessions(database, forms.sessions, idle=options.session_idle, lifetime=options.session_lifetime)
    return Page(
        settings=settings,
        options=options,
        database=database,
        executor=Executor(settings, enabled=not options.read_only),
        forms=forms,
        logins=Logins(options, sessions),
        cache=Cache(seconds=options.cache_seconds, limit=options.cache_bytes),
        redactors=by_role(options.redact, options.redact_for, options.reveal_to),
    )
