"""Authentication methods: each is tried in order, and the first one that knows the user decides."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable

from flask import abort, g, redirect, request, url_for
from werkzeug.exceptions import TooManyRequests

from jobq.web.auth.access import Identity
from jobq.web.auth.proxy import TrustedProxies
from jobq.web.auth.sessions import Sessions
from jobq.web.auth.throttle import Throttle
from jobq.web.context import wants_json
from jobq.web.options import Options


class AuthMethods:
    """The authentication methods of one mounted page, as configured in `options`."""

    def __init__(self, options: Options, sessions: Sessions | None) -> None:
        self.sessions = sessions
        self.throttle = Throttle()
        self.proxies = TrustedProxies(
            options.trusted_proxies,
            user_header=options.proxy_header,
            role_header=options.proxy_role_header,
            roles=options.proxy_roles,
            default_role=options.default_role or "viewer",
        )
        self._options = options
        self._password = hashlib.sha256(options.password.encode()).digest() if options.password else None

    def identify(self) -> Identity | None:
        """Return the user of this request; None if a login is required and the request has none."""
        options = self._options
        if not options.has_login:
            return Identity(_named(options.actor), options.default_role or "admin")
        if options.identify is not None and (found := options.identify()) is not None:
            if not isinstance(found, Identity):
                raise TypeError(f"identify() returned {type(found).__name__}: it has to return an Identity or None")
            return found
        # Before the other methods, since it also refuses clients that send the proxy's headers
        # themselves.
        if (found := self.proxies.identify()) is not None:
            return found
        if self._password is not None and (found := self._basic()) is not None:
            return found
        found = self.sessions.identify() if self.sessions is not None else None
        g.jobq_by_session = found is not None
        return found

    def address(self) -> str | None:
        """Return the client address that the audit records."""
        return self.proxies.address()

    def challenge(self) -> None:
        """Abort: redirect a browser that opens a page to the login; answer everything else with
        401.
        """
        if self.sessions is not None and _wants_page():
            # Omit `next` for the overview: a login leads there anyway.
            wanted = request.script_root + request.full_path.rstrip("?")
            root = url_for(".overview")
            abort(redirect(url_for(".login", next=None if wanted == root else wanted), 303))
        g.jobq_ask_password = self._password is not None
        abort(401, "Log in first. Nothing was changed.")

    def _basic(self) -> Identity | None:
        given = request.authorization
        if given is None or given.type != "basic" or given.password is None:
            return None
        address = self.address()
        if wait := self.throttle.wait(address):
            raise TooManyRequests(f"Too many wrong passwords. Try again in {wait} s.", retry_after=wait)
        # Digests have equal lengths, so the comparison does not reveal the length of the password.
        if not hmac.compare_digest(hashlib.sha256(given.password.encode()).digest(), self._password or b""):
            self.throttle.take(address, None)
            return None
        return Identity(_clean(given.username or "") or "web", self._options.password_role)


def _wants_page() -> bool:
    # If a poll were redirected, the login form would replace the page's content.
    by_hand = request.headers.get("Sec-Fetch-Mode", "navigate") == "navigate" and "HX-Request" not in request.headers
    return request.method in ("GET", "HEAD") and by_hand and not wants_json()


def _named(given: str | Callable[[], str | None] | None) -> str:
    name = given() if callable(given) else given
    return _clean(name or request.remote_user or "") or "web"


def _clean(name: str) -> str:
    return name.replace("\x00", "").strip()[:200]
