"""The blueprint: what all its pages share, and which function answers which address."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, Response, abort, current_app, g, render_template, request

from jobq import migrate
from jobq.config import Settings
from jobq.operations import Actor
from jobq.web import access, actions, actions_bulk, api, errors, pages, routes, show
from jobq.web.access import Identity
from jobq.web.database import Database
from jobq.web.executor import Executor
from jobq.web.redaction import SECRET_NAMES, Redactor
from jobq.web.security import Forms, add_headers


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What the functions of one mounted page need; each finds it as ``g.jobq_page``."""

    settings: Settings
    database: Database
    executor: Executor
    forms: Forms
    redact: Redactor
    identify: Callable[[], Identity | None]
    head: str
    refresh_seconds: int
    read_only: bool = False

    @property
    def identity(self) -> Identity | None:
        """Who this request comes from; None: somebody who has not said so yet."""
        if "jobq_identity" not in g:
            g.jobq_identity = self.identify()
        found: Identity | None = g.jobq_identity
        return found

    @property
    def user(self) -> str | None:
        """The name of who this request comes from."""
        return None if self.identity is None else self.identity.name

    @property
    def role(self) -> str | None:
        """The role of who this request comes from."""
        return None if self.identity is None else self.identity.role

    def may(self, permission: str) -> bool:
        """Whether this request may do that: by its role, and nothing but reading on a read-only page."""
        if self.read_only and permission not in access.READING:
            return False
        return access.may(self.role, permission)

    def require(self, permission: str) -> None:
        """Abort with 403 unless :meth:`may`. Routes ask for what they need before their view runs; a view asks for more
        where a form's field or a row decides.
        """
        if self.may(permission):
            return
        if self.identity is None:
            abort(401, "This page is for those who have logged in.")
        if self.read_only and access.may(self.role, permission):
            abort(403, "This page is read-only: it changes nothing for anybody.")
        abort(403, f"Your role is {self.role}; that needs {access.LEAST_ROLE[permission]}. Nothing was changed.")

    def actor(self) -> Actor:
        """Return who acts, for the audit."""
        assert self.identity is not None  # the route's check came first
        return Actor(self.identity.name, self.identity.role, request.remote_addr)

    def render(self, template: str, **values: Any) -> str:
        """Return a template of ours, with what all of them use."""
        return render_template(
            f"jobq/{template}",
            page=self,
            show=show,
            csrf=self.forms.token,
            note=self.forms.read_note(request.args.get("note")),
            missing=g.get("jobq_missing", []),
            has=lambda endpoint: f"{request.blueprint or 'jobq'}.{endpoint}" in current_app.view_functions,
            **values,
        )


def blueprint(
    settings: Settings | None = None,
    *,
    database_url: str | None = None,
    schema: str | None = None,
    secret_key: str | bytes | None = None,
    actor: str | Callable[[], str | None] | None = None,
    redact: Collection[str] = SECRET_NAMES,
    refresh_seconds: int = 5,
    default_role: str = "admin",
    read_only: bool = False,
    name: str = "jobq",
) -> Blueprint:
    """Return the status page as a blueprint: ``app.register_blueprint(blueprint(), url_prefix="/jobs")``.

    It brings its own form tokens, headers and error pages, and no login: whoever reaches it may read, retry,
    cancel and pause. Guard it with ``blueprint.before_request`` or in front of the application.

    `settings`, or `database_url` and `schema`: which database (default: ``JOBQ_*`` variables). Raises
    ConfigurationError without one.
    `secret_key`: signs forms (default: the application's, else one for this process; several processes need a
    common one). `actor`: whom the audit names, or a function that returns it (default: the web server's
    ``REMOTE_USER``, else "web"). `redact`: parts of names of JSON fields whose values are hidden (default:
    `jobq.web.redaction.SECRET_NAMES`); fewer show more than people may see.
    `refresh_seconds`: how often a browser with JavaScript reads the page anew (default: 5; 0: never); each is
    a few reads.
    """
    if settings is None:
        settings = Settings.load(database_url=database_url, schema=schema)
    page = Page(
        settings=settings,
        database=Database(settings, read_only=read_only),
        executor=Executor(settings, enabled=not read_only),
        forms=Forms(secret_key),
        redact=Redactor(redact),
        identify=_named(actor, default_role),
        head=migrate.head(),
        refresh_seconds=refresh_seconds,
        read_only=read_only,
    )
    mounted = Blueprint(name, __name__, template_folder="templates", static_folder="static", static_url_path="/static")

    @mounted.before_request
    def enter() -> None:
        g.jobq_page = page

    @mounted.record_once
    def announce(state: Any) -> None:
        state.app.extensions.setdefault("jobq.web", []).extend((page.executor, page.database))

    mounted.after_request(add_headers)
    mounted.after_request(page.forms.keep_cookie)
    routes.register(mounted, (*pages.ROUTES, *actions.ROUTES, *actions_bulk.ROUTES, *api.ROUTES))
    errors.install(mounted)
    return mounted


def _named(given: str | Callable[[], str | None] | None, role: str) -> Callable[[], Identity]:
    def identify() -> Identity:
        name = given() if callable(given) else given
        name = name or g.get("jobq_user") or request.remote_user or "web"
        return Identity(name.replace("\x00", "").strip()[:200] or "web", role)

    return identify


def livez() -> Response:
    """Answer that the process is up; the database is not asked, so that its outage restarts nobody."""
    return Response("ok\n", mimetype="text/plain")
