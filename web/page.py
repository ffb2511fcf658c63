"""The parts that all views of one mounted status page share, and the user of the current
request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flask import abort, g, request, url_for

from jobq.errors import READ_ONLY
from jobq.operations import Actor
from jobq.queries import KnownFailures
from jobq.settings import Settings
from jobq.web.auth import access
from jobq.web.auth.access import Identity
from jobq.web.auth.csrf import FormTokens
from jobq.web.auth.methods import AuthMethods
from jobq.web.bulk_runner import BulkRunner
from jobq.web.database import Database
from jobq.web.options import Options
from jobq.web.rendering import cached_response, formatting, templating
from jobq.web.rendering.cache import PageCache
from jobq.web.rendering.redaction import Redactor


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One mounted page. Views find it with `current_page()`; its properties describe the current
    request.
    """

    settings: Settings
    options: Options
    database: Database
    bulk_runner: BulkRunner
    form_tokens: FormTokens
    auth: AuthMethods
    cache: PageCache
    redactors: Mapping[str | None, Redactor]
    failures: KnownFailures = field(default_factory=KnownFailures)

    @property
    def refresh_seconds(self) -> int:
        """Seconds between a browser's checks for changes; 0: never."""
        return self.options.refresh_seconds

    @property
    def read_only(self) -> bool:
        """Whether this page refuses every change."""
        return self.options.read_only

    @property
    def root(self) -> str:
        """The path at which the page is mounted."""
        return url_for(".overview")

    @property
    def identity(self) -> Identity | None:
        """The user of this request; None: not logged in."""
        if "jobq_identity" not in g:
            # No user while the methods run, nor on the error page if one fails.
            g.jobq_identity = None
            g.jobq_identity = self.auth.identify()
        found: Identity | None = g.jobq_identity
        return found

    @property
    def user(self) -> str | None:
        """The name of the user of this request."""
        return None if self.identity is None else self.identity.name

    @property
    def role(self) -> str | None:
        """The role of the user of this request."""
        return None if self.identity is None else self.identity.role

    @property
    def redact(self) -> Redactor:
        """The redactor for this role: ``page.redact(job.args, "args")``."""
        return self.redactors[self.role]

    @property
    def can_log_out(self) -> bool:
        """Whether this request belongs to a session that the logout form can end."""
        return bool(g.get("jobq_by_session"))

    def may(self, permission: str) -> bool:
        """Return whether this request has `permission`: by its role, and only to read on a
        read-only page.
        """
        if self.read_only and permission not in access.READING:
            return False
        return access.may(self.role, permission)

    def require(self, permission: str) -> None:
        """Abort unless :meth:`may` allows it: with a redirect to the login, with 401 or with 403.

        Every route checks its permission before its view runs. A view checks further permissions if
        a form's field or a row decides about them.
        """
        if self.may(permission):
            return
        if self.identity is None:
            self.auth.challenge()
        if self.read_only and access.may(self.role, permission):
            abort(403, "This page is read-only. Nothing can be changed here.")
        abort(
            403,
            f"This needs the role {access.REQUIRED_ROLE[permission]}, and yours is {self.role}. Nothing was changed.",
        )

    def actor(self) -> Actor:
        """Return the actor for the audit."""
        identity = self.identity
        assert identity is not None  # the route's check came first
        return Actor(identity.name, identity.role, self.auth.address())

    def csrf(self) -> str:
        """Return the token for a form, or its placeholder while a page for the cache is
        rendered.
        """
        return self.form_tokens.placeholder.decode() if g.get("jobq_placeholder") else self.form_tokens.token(self.user)

    def cached(self, view: Callable[[], Any]) -> Any:
        """Return the response of `view`, possibly from the cache; see
        `jobq.web.rendering.cached_response`.
        """
        return cached_response.respond(self, view)

    def render(self, template: str, **values: Any) -> str:
        """Return the rendered `template`, with `values` and the values that all templates use."""
        common = {
            "page": self,
            "format": formatting,
            "csrf": self.csrf,
            "note": self.form_tokens.read_note(request.args.get("note")),
            "missing": g.get("jobq_missing", []),
            # Why the server refuses every change; None if it accepts them.
            "refuses": READ_ONLY if g.get("jobq_read_only") else None,
            # Always set: a host application may define a `now` for all templates.
            "now": None,
        }
        return templating.render(template, common | values)
