"""The user that a request comes from: each kind of login is asked in turn, and the first that knows is believed."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable

from flask import abort, g, redirect, request, url_for
from werkzeug.exceptions import TooManyRequests

from jobq.web.access import Identity
from jobq.web.context import for_programs
from jobq.web.options import Options
from jobq.web.proxy import Proxies
from jobq.web.sessions import Sessions
from jobq.web.throttle import Throttle


class Logins:
    """The logins of one mounted page, as `options` has them."""

    def __init__(self, options: Options, sessions: Sessions | None) -> None:
        self.sessions = sessions
        self.throttle = Throttle()
        self.proxies = Proxies(
            options.trusted_proxies,
            user_header=options.proxy_header,
            role_header=options.proxy_role_header,
            roles=options.proxy_roles,
            default_role=options.default_role or "viewer",
        )
        self._options = options
        self._password = hashlib.sha256(options.password.encode()).digest() if options.password else None

    def identify(self) -> Identity | None:
        """Return who this request comes from; None when a login is needed and there was none."""
        options = self._options
        if not options.has_login:
            return Identity(_named(options.actor), options.default_role or "admin")
        if options.identify is not None and (found := options.identify()) is not None:
            if not isinstance(found, Identity):
                raise TypeError(f"identify() returned {type(found).__name__}: it has to return an Identity or None")
            return found
        # First, since it also refuses those who write its headers themselves.
        if (found := self.proxies.identify()) is not None:
            return found
        if self._password is not None and (found := self._basic()) is not None:
            return found
        found = self.sessions.identify() if self.sessions is not None else None
        g.jobq_by_session = found is not None
        return found

    def address(self) -> str | None:
        """Return the address that the audit gets."""
        return self.proxies.address()

    def challenge(self) -> None:
        """Abort: to the login for who came to read a page, with 401 for everything else."""
        if self.sessions is not None and _wants_page():
            # Not what was asked for when that is where a login leads to anyway.
            wanted = request.script_root + request.full_path.rstrip("?")
            root = url_for(".overview")
            abort(redirect(url_for(".login", next=None if wanted == root else wanted), 303))
        g.jobq_ask_password = self._password is not None
        abort(401, "This page is for those who have logged in. Nothing was changed.")

    def _basic(self) -> Identity | None:
        given = request.authorization
        if given is None or given.type != "basic" or given.password is None:
            return None
        address = self.address()
        if wait := self.throttle.wait(address):
            raise TooManyRequests(f"Too many wrong passwords. Try again in {wait} s.", retry_after=wait)
        # Digests are of one length, so the comparison tells nothing of the password's.
        if not hmac.compare_digest(hashlib.sha256(given.password.encode()).digest(), self._password or b""):
            self.throttle.take(address, None)
            return None
        return Identity(_clean(given.username or "") or "web", self._options.password_role)


def _wants_page() -> bool:
    # A poll that was led to the login would put it where the page's content stands.
    by_hand = request.headers.get("Sec-Fetch-Mode", "navigate") == "navigate" and "HX-Request" not in request.headers
    return request.method in ("GET", "HEAD") and by_hand and not for_programs()


def _named(given: str | Callable[[], str | None] | None) -> str:
    name = given() if callable(given) else given
    return _clean(name or request.remote_user or "") or "web"


def _clean(name: str) -> str:
    return name.replace("\x00", "").strip()[:200]
