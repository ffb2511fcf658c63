"""Protection of responses and forms: security headers, form tokens, and signed notes."""

from __future__ import annotations

import hmac
import secrets

from flask import Response, abort, current_app, g, request
from itsdangerous import BadSignature, URLSafeSerializer, URLSafeTimedSerializer

from jobq._core.durations import HOUR

COOKIE = "jobq_csrf"
FORM_LIFETIME = 12 * HOUR
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
    """Set the security headers, and forbid caches to store anything but static files."""
    for name, value in HEADERS.items():
        response.headers[name] = value
    if request.endpoint is None or not request.endpoint.endswith(".static"):
        response.headers["Cache-Control"] = "no-store"
    return response


class FormTokens:
    """Form tokens: a random cookie that other sites cannot read, and a signed copy of it in each
    form.

    A token is valid for one user. It needs no session.
    """

    def __init__(self, secret_key: str | bytes | None) -> None:
        self._secret_key = secret_key
        self._of_this_process = secrets.token_bytes(32)
        # The placeholder for a token in cached pages; random, so that no text of a job can equal
        # it.
        self.placeholder = f"token-{secrets.token_hex(16)}".encode()

    def token(self, user: str | None) -> str:
        """Return the token for the forms of this response, valid for `user` (None: not logged
        in).
        """
        if "jobq_csrf" not in g:
            g.jobq_csrf = request.cookies.get(COOKIE) or secrets.token_urlsafe(32)
        # Sign once per page: a list of a hundred rows has hundreds of forms.
        made = g.get("jobq_token")
        if made is None or made[:2] != (g.jobq_csrf, user):
            made = g.jobq_token = g.jobq_csrf, user, self._signer("form").dumps([g.jobq_csrf, user])
        return str(made[2])

    def renew(self) -> None:
        """Invalidate the forms that are open in this browser: another user uses it now."""
        g.jobq_csrf = secrets.token_urlsafe(32)

    def check(self, user: str | None) -> None:
        """Abort with 403 unless this request came from a form of this page."""
        # Browsers send the origin of a request. Old browsers do not; then the token decides.
        if request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
            abort(403, "This form was sent from another site. Nothing was changed.")
        cookie = request.cookies.get(COOKIE, "")
        try:
            signed, signed_for = self._signer("form").loads(request.form.get("csrf", ""), max_age=FORM_LIFETIME)
        except (BadSignature, ValueError, TypeError):
            signed, signed_for = "", None
        # A token belongs to one user: another user's token with a cookie planted by a neighboring
        # site is not valid.
        if not cookie or not hmac.compare_digest(str(signed).encode(), cookie.encode()) or signed_for != user:
            abort(
                403, "This form is too old or not from this page. Nothing was changed: reload the page and try again."
            )

    def keep_cookie(self, response: Response, *, path: str, secure: bool) -> Response:
        """Set the cookie that the forms in `response` need."""
        value = g.get("jobq_csrf")
        if value and request.cookies.get(COOKIE) != value:
            response.set_cookie(
                COOKIE,
                value,
                httponly=True,
                secure=secure,
                # Not Strict: after a link from another site, the browser would seem to have no
                # cookie and get a new one, and the forms in its other tabs would be refused.
                samesite="Lax",
                path=path,
            )
        return response

    def note(self, text: str) -> str:
        """Return `text` signed, for the address of the next page. Other sites cannot forge it."""
        return self._signer("note").dumps(text)

    def read_note(self, signed: str | None) -> str | None:
        """Return the text of a note that this page signed less than a minute ago; None for any
        other.
        """
        try:
            text = self._signer("note").loads(signed, max_age=_NOTE_LIFETIME) if signed else None
        except BadSignature:
            return None
        return text if isinstance(text, str) else None

    def key_id(self) -> str:
        """Return a fingerprint of the key, which does not reveal the key."""
        return URLSafeSerializer(self._key(), salt="jobq.web key id").dumps("")

    def sessions(self) -> URLSafeSerializer:
        """Return the signer of session cookies, which uses the same key."""
        return URLSafeSerializer(self._key(), salt="jobq.web session")

    def _signer(self, purpose: str) -> URLSafeTimedSerializer:
        return URLSafeTimedSerializer(self._key(), salt=f"jobq.web {purpose}")

    def _key(self) -> str | bytes:
        return self._secret_key or current_app.secret_key or self._of_this_process
