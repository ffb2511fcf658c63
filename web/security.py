"""What protects the page: headers, a token in every form, and a password where one is set."""

from __future__ import annotations

import hashlib
import hmac
import secrets

from flask import Response, abort, current_app, g, request, url_for
from itsdangerous import BadSignature, URLSafeTimedSerializer

_COOKIE = "jobq_csrf"
_FORM_LIFETIME = 12 * 3600
_NOTE_LIFETIME = 60

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


def add_headers(response: Response) -> Response:
    """Set the security headers, and forbid storing whatever is not a file of ours."""
    for name, value in HEADERS.items():
        response.headers[name] = value
    if request.endpoint is None or not request.endpoint.endswith(".static"):
        response.headers["Cache-Control"] = "no-store"
    return response


class Forms:
    """Form tokens: a random cookie that other sites cannot read, and its signed copy in each form. No session
    needed.
    """

    def __init__(self, secret_key: str | bytes | None) -> None:
        self._secret_key = secret_key
        self._of_this_process = secrets.token_bytes(32)

    def token(self) -> str:
        """Return the token for the forms of this response."""
        if "jobq_csrf" not in g:
            g.jobq_csrf = request.cookies.get(_COOKIE) or secrets.token_urlsafe(32)
        return self._signer("form").dumps(g.jobq_csrf)

    def check(self) -> None:
        """Abort with 403 unless this request came from a form of ours."""
        # Browsers say where a request came from; an old one says nothing, and the token decides.
        if request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
            abort(403, "This form was sent from another site. Nothing was changed.")
        cookie = request.cookies.get(_COOKIE, "")
        try:
            signed = self._signer("form").loads(request.form.get("csrf", ""), max_age=_FORM_LIFETIME)
        except BadSignature:
            signed = None
        if not cookie or not isinstance(signed, str) or not hmac.compare_digest(signed.encode(), cookie.encode()):
            abort(403, "This form is too old or was not made here. Nothing was changed: reload the page and try again.")

    def keep_cookie(self, response: Response) -> Response:
        """Give the browser the cookie that the forms in `response` need."""
        value = g.get("jobq_csrf")
        if value and request.cookies.get(_COOKIE) != value:
            response.set_cookie(
                _COOKIE,
                value,
                httponly=True,
                secure=request.is_secure,
                samesite="Strict",
                path=_root(),
            )
        return response

    def note(self, text: str) -> str:
        """Return `text` signed, to be carried to the next page in its address: nobody else can put words
        there.
        """
        return self._signer("note").dumps(text)

    def read_note(self, signed: str | None) -> str | None:
        """Return the text of a note that is ours and younger than a minute."""
        try:
            text = self._signer("note").loads(signed, max_age=_NOTE_LIFETIME) if signed else None
        except BadSignature:
            return None
        return text if isinstance(text, str) else None

    def _signer(self, purpose: str) -> URLSafeTimedSerializer:
        key = self._secret_key or current_app.secret_key or self._of_this_process
        return URLSafeTimedSerializer(key, salt=f"jobq.web {purpose}")


class Password:
    """HTTP basic authentication against one password; the user's name is free, and is who the audit names."""

    def __init__(self, password: str) -> None:
        self._digest = hashlib.sha256(password.encode()).digest()

    def __call__(self) -> Response | None:
        """Before each request: return 401 unless it brings the password. ``/livez`` stays open."""
        if request.path == "/livez":
            return None
        given = request.authorization
        text = given.password if given is not None and given.type == "basic" else None
        # Digests are of one length, so the comparison tells nothing of the password's.
        matches = hmac.compare_digest(hashlib.sha256((text or "").encode()).digest(), self._digest)
        if given is None or text is None or not matches:
            return Response(
                "This page needs a password.\n",
                401,
                {"WWW-Authenticate": 'Basic realm="jobq", charset="UTF-8"'},
                mimetype="text/plain",
            )
        g.jobq_user = given.username
        return None


def _root() -> str:
    blueprint = request.blueprint
    return url_for(f"{blueprint}.overview") if blueprint else "/"
