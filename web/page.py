"""What all pages of one mounted status page share, and who asks for one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flask import abort, g, request, url_for

from jobq.config import Settings
from jobq.errors import READ_ONLY
from jobq.operations import Actor
from jobq.queries import KnownFailures
from jobq.web import access, answers, show, templating
from jobq.web.access import Identity
from jobq.web.cache import Cache
from jobq.web.database import Database
from jobq.web.executor import Executor
from jobq.web.logins import Logins
from jobq.web.options import Options
from jobq.web.redaction import Redactor
from jobq.web.security import Forms


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One mounted page; each view finds it by `current_page()`. Its properties are about the request that is being answered."""

    settings: Settings
    options: Options
    database: Database
    executor: Executor
    forms: Forms
    logins: Logins
    cache: Cache
    redactors: Mapping[str | None, Redactor]
    failures: KnownFailures = field(default_factory=KnownFailures)

    @property
    def refresh_seconds(self) -> int:
        """How often a browser asks whether the page has changed; 0: never."""
        return self.options.refresh_seconds

    @property
    def read_only(self) -> bool:
        """Whether no user can change anything on this page."""
        return self.options.read_only

    @property
    def root(self) -> str:
        """The path at which the page is mounted."""
        return url_for(".overview")

    @property
    def identity(self) -> Identity | None:
        """The user that this request comes from; None: not logged in yet."""
        if "jobq_identity" not in g:
            # There is no user until it is known, nor for the error page when that fails.
            g.jobq_identity = None
            g.jobq_identity = self.logins.identify()
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

    @property
    def redact(self) -> Redactor:
        """What hides values from this role: ``page.redact(job.args, "args")``."""
        return self.redactors[self.role]

    @property
    def can_log_out(self) -> bool:
        """Whether this request comes from a session that a form can end."""
        return bool(g.get("jobq_by_session"))

    def may(self, permission: str) -> bool:
        """Whether this request may do that: by its role, and nothing but reading on a read-only page."""
        if self.read_only and permission not in access.READING:
            return False
        return access.may(self.role, permission)

    def require(self, permission: str) -> None:
        """Abort unless :meth:`may`: to the login, or with 401 or 403. Every route asks for what it needs before its view runs;
        a view asks for more where a form's field or a row decides.
        """
        if self.may(permission):
            return
        if self.identity is None:
            self.logins.challenge()
        if self.read_only and access.may(self.role, permission):
            abort(403, "This page is read-only: no one can change anything here.")
        abort(403, f"Your role is {self.role}, and that needs {access.LEAST_ROLE[permission]}. Nothing was changed.")

    def actor(self) -> Actor:
        """Return who acts, for the audit."""
        identity = self.identity
        assert identity is not None  # the route's check came first
        return Actor(identity.name, identity.role, self.logins.address())

    def csrf(self) -> str:
        """Return the token for a form, or what stands for it in a page that is kept."""
        return self.forms.placeholder.decode() if g.get("jobq_placeholder") else self.forms.token(self.user)

    def cached(self, view: Callable[[], Any]) -> Any:
        """Return the answer of `view`, or the one of a moment ago; see `jobq.web.answers`."""
        return answers.answer(self, view)

    def render(self, template: str, **values: Any) -> str:
        """Return a template of ours, with what all of them use."""
        common = {
            "page": self,
            "show": show,
            "csrf": self.csrf,
            "note": self.forms.read_note(request.args.get("note")),
            "missing": g.get("jobq_missing", []),
            # Why the server refuses every change; None where it takes them.
            "refuses": READ_ONLY if g.get("jobq_read_only") else None,
            # Said in any case: a host application may give all templates a `now` of its own.
            "now": None,
        }
        return templating.render(template, common | values)
