"""Logging in with the page's own users, and out."""

from __future__ import annotations

import logging
import re
from urllib.parse import urlsplit

from flask import Response, make_response, redirect, request, url_for
from werkzeug.wrappers import Response as BaseResponse

from jobq.web.access import ANYONE
from jobq.web.context import current_page
from jobq.web.routes import Route

logger = logging.getLogger("jobq.web")

_WRONG = "No user has this name and this password."


def login() -> Response:
    """The form."""
    return _form("", request.args.get("next", ""))


def login_post() -> BaseResponse:
    """Begin a session, or say that name or password is wrong: never which."""
    page = current_page()
    assert page.logins.sessions is not None
    name, password = request.form.get("name", "").strip(), request.form.get("password", "")
    wanted, address = request.form.get("next", ""), page.logins.address()
    if wait := page.logins.throttle.take(address, name):
        response = _form(f"Too many wrong passwords. Try again in {wait} s.", wanted, name=name, code=429)
        response.headers["Retry-After"] = str(wait)
        return response
    user = page.logins.sessions.check(name, password)
    if user is None:
        logger.warning("a login as %r from %s failed", name[:100], address)
        return _form(_WRONG, wanted, name=name, code=403)
    page.logins.throttle.give_back(address, name)
    page.logins.sessions.begin(user)
    page.forms.renew()
    logger.info("%r logged in from %s", user.name, address)
    return redirect(local(wanted, page.root) or page.root, 303)


def logout() -> BaseResponse:
    """End the session."""
    page = current_page()
    assert page.logins.sessions is not None
    page.logins.sessions.end()
    page.forms.renew()
    return redirect(url_for(".login"), 303)


def local(wanted: str, root: str) -> str | None:
    """Return `wanted` if it is a path of this page, which is mounted at `root`; None for every other address.

    Browsers take a backslash for a slash, and leave out what is invisible: //elsewhere, /\\elsewhere, /<tab>/elsewhere.
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
