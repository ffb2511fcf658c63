"""What protects the page's answers and forms: headers, and a token in every form."""

from __future__ import annotations

import hmac
import secrets

from flask import Response, abort, current_app, g, request
from itsdangerous import BadSignature, URLSafeSerializer, URLSafeTimedSerializer

COOKIE = "jobq_csrf"
FORM_LIFETIME = 12 * 3600
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
    """Form tokens: a random cookie that other sites cannot read, and its copy in each form, signed for one user. No session
    needed.
    """

    def __init__(self, secret_key: str | bytes | None) -> None:
        self._secret_key = secret_key
        self._of_this_process = secrets.token_bytes(32)
        # Stands in kept pages where a token goes. At random, so that no job's text can be it.
        self.placeholder = f"token-{secrets.token_hex(16)}".encode()

    def token(self, user: str | None) -> str:
        """Return the token for the forms of this response, good for `user` (None: before the login)."""
        if "jobq_csrf" not in g:
            g.jobq_csrf = request.cookies.get(COOKIE) or secrets.token_urlsafe(32)
        # One for all forms of a page: a list of a hundred rows has hundreds of them.
        made = g.get("jobq_token")
        if made is None or made[:2] != (g.jobq_csrf, user):
            made = g.jobq_token = g.jobq_csrf, user, self._signer("form").dumps([g.jobq_csrf, user])
        return str(made[2])

    def renew(self) -> None:
        """Forget the forms that are open in this browser: another user uses it now."""
        g.jobq_csrf = secrets.token_urlsafe(32)

    def check(self, user: str | None) -> None:
        """Abort with 403 unless this request came from a form of ours."""
        # Browsers say where a request came from; an old one says nothing, and the token decides.
        if request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
            abort(403, "This form was sent from another site. Nothing was changed.")
        cookie = request.cookies.get(COOKIE, "")
        try:
            signed, signed_for = self._signer("form").loads(request.form.get("csrf", ""), max_age=FORM_LIFETIME)
        except (BadSignature, ValueError, TypeError):
            signed, signed_for = "", None
        # A token is for one user: another user's token, with a cookie planted by a neighbour's site, is not valid.
        if not cookie or not hmac.compare_digest(str(signed).encode(), cookie.encode()) or signed_for != user:
            abort(403, "This form is too old or was not made here. Nothing was changed: reload the page and try again.")

    def keep_cookie(self, response: Response, *, path: str, secure: bool) -> Response:
        """Give the browser the cookie that the forms in `response` need."""
        value = g.get("jobq_csrf")
        if value and request.cookies.get(COOKIE) != value:
            response.set_cookie(
                COOKIE,
                value,
                httponly=True,
                secure=secure,
                # Not Strict: a browser that follows a link from elsewhere would seem to have none, get another, and find the
                # forms in its other tabs refused.
                samesite="Lax",
                path=path,
            )
        return response

    def note(self, text: str) -> str:
        """Return `text` signed, to be carried to the next page in its address: no one else can put words
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

    def key_id(self) -> str:
        """Return what tells the key from another, and nothing else of it."""
        return URLSafeSerializer(self._key(), salt="jobq.web key id").dumps("")

    def sessions(self) -> URLSafeSerializer:
        """Return what signs the cookies of logins, with the same key."""
        return URLSafeSerializer(self._key(), salt="jobq.web session")

    def _signer(self, purpose: str) -> URLSafeTimedSerializer:
        return URLSafeTimedSerializer(self._key(), salt=f"jobq.web {purpose}")

    def _key(self) -> str | bytes:
        return self._secret_key or current_app.secret_key or self._of_this_process
