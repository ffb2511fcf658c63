"""The blueprint: what all its pages share, and which function answers which address."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, Response, g, render_template, request

from jobq import migrate
from jobq.config import Settings
from jobq.web import actions, api, errors, reads, show
from jobq.web.database import Database
from jobq.web.redaction import SECRET_NAMES, Redactor
from jobq.web.security import Forms, add_headers


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What the functions of one mounted page need; each finds it as ``g.jobq_page``."""

    settings: Settings
    database: Database
    forms: Forms
    redact: Redactor
    actor: Callable[[], str]
    head: str
    refresh_seconds: int

    def render(self, template: str, **values: Any) -> str:
        """Return a template of ours, with what all of them use."""
        return render_template(
            f"jobq/{template}",
            page=self,
            show=show,
            csrf=self.forms.token,
            note=self.forms.read_note(request.args.get("note")),
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
        database=Database(settings),
        forms=Forms(secret_key),
        redact=Redactor(redact),
        actor=_actor(actor),
        head=migrate.head(),
        refresh_seconds=refresh_seconds,
    )
    mounted = Blueprint(name, __name__, template_folder="templates", static_folder="static", static_url_path="/static")

    @mounted.before_request
    def enter() -> None:
        g.jobq_page = page

    @mounted.record_once
    def announce(state: Any) -> None:
        state.app.extensions.setdefault("jobq.web", []).append(page.database)

    mounted.after_request(add_headers)
    mounted.after_request(page.forms.keep_cookie)
    for module in (reads, actions, api):
        for rule, method, view in module.ROUTES:
            mounted.add_url_rule(rule, view.__name__, view, methods=[method])
    errors.install(mounted)
    return mounted


def _actor(given: str | Callable[[], str | None] | None) -> Callable[[], str]:
    def actor() -> str:
        name = given() if callable(given) else given
        name = name or g.get("jobq_user") or request.remote_user or "web"
        return name.replace("\x00", "").strip()[:200] or "web"

    return actor


def livez() -> Response:
    """Answer that the process is up; the database is not asked, so that its outage restarts nobody."""
    return Response("ok\n", mimetype="text/plain")
