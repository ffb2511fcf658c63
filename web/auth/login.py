"""The views that log users of the page in and out."""

from __future__ import annotations

import logging
import re
from urllib.parse import urlsplit

from flask import Response, make_response, redirect, request, url_for
from werkzeug.wrappers import Response as BaseResponse

from jobq.web.auth.access import ANYONE
from jobq.web.context import current_page
from jobq.web.routes import Route

logger = logging.getLogger("jobq.web")

_WRONG = "The name or the password is wrong."


def login() -> Response:
    """Show the login form."""
    return _form("", request.args.get("next", ""))


def login_post() -> BaseResponse:
    """Start a session, or report that the name or the password is wrong, without saying which
    one.
    """
    page = current_page()
    assert page.auth.sessions is not None
    name, password = request.form.get("name", "").strip(), request.form.get("password", "")
    wanted, address = request.form.get("next", ""), page.auth.address()
    if wait := page.auth.throttle.take(address, name):
        response = _form(f"Too many wrong passwords. Try again in {wait} s.", wanted, name=name, code=429)
        response.headers["Retry-After"] = str(wait)
        return response
    user = page.auth.sessions.check(name, password)
    if user is None:
        logger.warning("a login as %r from %s failed", name[:100], address)
        return _form(_WRONG, wanted, name=name, code=403)
    page.auth.throttle.give_back(address, name)
    page.auth.sessions.begin(user)
    page.form_tokens.renew()
    logger.info("%r logged in from %s", user.name, address)
    return redirect(local(wanted, page.root) or page.root, 303)


def logout() -> BaseResponse:
    """End the session."""
    page = current_page()
    assert page.auth.sessions is not None
    page.auth.sessions.end()
    page.form_tokens.renew()
    return redirect(url_for(".login"), 303)


def local(wanted: str, root: str) -> str | None:
    """Return `wanted` if it is a path below `root`, where this page is mounted; None for every
    other address.

    Browsers read a backslash as a slash and drop invisible characters, so //elsewhere, /\\elsewhere
    and /<tab>/elsewhere all lead to another site.
    """
    if not wanted.startswith(root) or wanted.startswith("//") or re.search(r"[\\\s\x00-\x20\x7f]", wanted):
        return None
    parts = urlsplit(wanted)
    return None if parts.scheme or parts.netloc or ".." in parts.path else wanted


def _form(text: str, wanted: str, *, name: str = "", code: int = 200) -> Response:
    page = current_page()
    rendered = page.render("login.html", text=text, wanted=local(wanted, page.root) or "", name=name[:100])
    return make_response(rendered, code)


ROUTES = [
    Route("/login", "GET", login, needs=ANYONE),
    Route("/login", "POST", login_post, needs=ANYONE),
    Route("/logout", "POST", logout, needs=ANYONE),
]
