"""From a view's answer to the response: kept for a moment, with this browser's form tokens put in, or 304 where it is known."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from flask import Response, g, make_response, request

from jobq.web.cache import Answer, tag
from jobq.web.security import COOKIE, FORM_LIFETIME

if TYPE_CHECKING:
    from jobq.web.page import Page

# What is answered differently at one address: by whom, and by htmx or the browser itself.
VARY = "Cookie, Authorization, HX-Request"
_LONGEST_QUERY = 2_000


def answer(page: Page, view: Callable[[], Any]) -> Any:
    """Return the response of `view` for this GET: rendered now, or for another request of the same user a moment ago.

    What is no whole page (a stream, a redirect) is passed on. With a note in its address, thus after an action of one's own,
    a page is always rendered now.
    """
    if not page.cache.seconds or _has_note(page) or len(request.query_string) > _LONGEST_QUERY:
        return view()

    def make() -> Answer | None:
        g.jobq_placeholder = True
        try:
            made = view()
        finally:
            g.jobq_placeholder = False
        response = make_response(made)
        if response.status_code != 200 or response.is_streamed or response.direct_passthrough:
            g.jobq_response = response
            return None
        return _answer(page, response)

    found = page.cache.get(_key(page), make)
    return g.pop("jobq_response") if found is None else _response(page, found)


def _answer(page: Page, response: Response) -> Answer:
    headers = tuple((name, value) for name, value in response.headers if name not in ("Content-Length", "Content-Type"))
    body = response.get_data()
    # The forms in a page that is known must outlive the time until the next page that is not.
    period = int(time.time() // (FORM_LIFETIME / 2))
    tagged = tag(body.replace(page.forms.placeholder, b""), page.user, page.role, page.forms.key_id(), period)
    return Answer(body=body, mimetype=response.content_type, headers=headers, tag=tagged)


def _response(page: Page, found: Answer) -> Response:
    has_forms = page.forms.placeholder in found.body
    # The tokens go with the browser's cookie; where that is another one, so is the page.
    browser = hashlib.blake2b(request.cookies.get(COOKIE, "").encode(), digest_size=4).hexdigest() if has_forms else ""
    known = found.tag + browser
    if request.if_none_match.contains_weak(known):
        response = Response(status=304)
        # A 304 has the headers that the page would have, but none of a body's.
        del response.headers["Content-Type"]
    else:
        body = found.body.replace(page.forms.placeholder, page.csrf().encode()) if has_forms else found.body
        response = Response(body, content_type=found.mimetype, headers=list(found.headers))
    if not has_forms or request.cookies.get(COOKIE):
        response.set_etag(known, weak=True)
    return response


def _key(page: Page) -> tuple[Any, ...]:
    # The user and the role stand in it, so that no user is answered with another user's page.
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
    return page.forms.read_note(request.args.get("note")) is not None
