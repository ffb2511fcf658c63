"""Responses through the page cache: inserts this browser's form tokens, and answers 304 if the
browser has the page.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from flask import Response, g, make_response, request

from jobq.web.auth.csrf import COOKIE, FORM_LIFETIME
from jobq.web.rendering.cache import CachedResponse, tag

if TYPE_CHECKING:
    from jobq.web.page import Page

# Responses at one address differ by user, and between htmx and the browser.
VARY = "Cookie, Authorization, HX-Request"
_MAX_QUERY_LENGTH = 2_000


def respond(page: Page, view: Callable[[], Any]) -> Any:
    """Return the response of `view` for this GET: rendered now, or a moment ago for another request
    of the same user.

    Responses that are not a whole page (a stream, a redirect) are passed through. An address with a
    note follows the user's own action, so its page is always rendered now.
    """
    if not page.cache.seconds or _has_note(page) or len(request.query_string) > _MAX_QUERY_LENGTH:
        return view()

    def make() -> CachedResponse | None:
        g.jobq_placeholder = True
        try:
            made = view()
        finally:
            g.jobq_placeholder = False
        response = make_response(made)
        if response.status_code != 200 or response.is_streamed or response.direct_passthrough:
            g.jobq_response = response
            return None
        return _to_cache(page, response)

    found = page.cache.get(_key(page), make)
    return g.pop("jobq_response") if found is None else _from_cache(page, found)


def _to_cache(page: Page, response: Response) -> CachedResponse:
    headers = tuple((name, value) for name, value in response.headers if name not in ("Content-Length", "Content-Type"))
    body = response.get_data()
    # Changes twice in the lifetime of a form token, so that a page that the browser keeps never has
    # an expired one.
    period = int(time.time() // (FORM_LIFETIME / 2))
    tagged = tag(
        body.replace(page.form_tokens.placeholder, b""), page.user, page.role, page.form_tokens.key_id(), period
    )
    return CachedResponse(body=body, mimetype=response.content_type, headers=headers, tag=tagged)


def _from_cache(page: Page, found: CachedResponse) -> Response:
    has_forms = page.form_tokens.placeholder in found.body
    # The tokens depend on the browser's cookie, so the ETag does as well.
    browser = hashlib.blake2b(request.cookies.get(COOKIE, "").encode(), digest_size=4).hexdigest() if has_forms else ""
    known = found.tag + browser
    if request.if_none_match.contains_weak(known):
        response = Response(status=304)
        # A 304 has the headers of the page, without those of a body.
        del response.headers["Content-Type"]
    else:
        body = found.body.replace(page.form_tokens.placeholder, page.csrf().encode()) if has_forms else found.body
        response = Response(body, content_type=found.mimetype, headers=list(found.headers))
    if not has_forms or request.cookies.get(COOKIE):
        response.set_etag(known, weak=True)
    return response


def _key(page: Page) -> tuple[Any, ...]:
    # With user and role, so that no user gets another user's page.
    query = urlencode([(name, value) for name, value in request.args.items(multi=True) if name != "note"])
    htmx = request.headers.get("HX-Request")
    return (
        page.user,
        page.role,
        page.can_log_out,
        request.script_root,
        request.path,
        query,
        htmx,
        request.method == "HEAD",
    )


def _has_note(page: Page) -> bool:
    return page.form_tokens.read_note(request.args.get("note")) is not None
