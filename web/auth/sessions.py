"""Login sessions of the page's own users: a signed cookie with the user and the time of the login.

A session ends when the user's password or role changes.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC
from functools import cache
from threading import BoundedSemaphore, Lock

from flask import Response, g, request
from itsdangerous import BadSignature, URLSafeSerializer
from werkzeug.security import check_password_hash

from jobq.web.auth import users
from jobq.web.auth.access import Identity
from jobq.web.auth.users import User
from jobq.web.database import Database

COOKIE = "jobq_session"
# Seconds for which GET requests reuse a user's row; a POST reads it again.
_USER_CACHE_SECONDS = 5.0
_MAX_CACHED_USERS = 1_000
# Seconds: the least time between two updates of a cookie's `seen`.
_TOUCH_SECONDS = 60.0
# Seconds by which the clocks of the machines that serve one page may differ.
_CLOCK_SKEW = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """The content of the cookie. Times are Unix times; `changed` is the user row's `changed_at` at
    the login.
    """

    name: str
    changed: str
    began: float
    seen: float


class Sessions:
    """Reads and writes the session cookies of one mounted page."""

    def __init__(
        self,
        database: Database,
        signer: Callable[[], URLSafeSerializer],
        *,
        idle: float,
        lifetime: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._signer = signer
        self._idle = idle
        self._lifetime = lifetime
        self._clock = clock
        self._lock = Lock()
        self._known: OrderedDict[str, tuple[User | None, float]] = OrderedDict()
        # One hash takes 32 MiB and about 50 ms of CPU time: at most two at a time over all
        # requests.
        self._hashing = BoundedSemaphore(2)

    def identify(self) -> Identity | None:
        """Return the user of this request's session; None if there is no valid session."""
        session = self._read()
        if session is None:
            return None
        now = self._clock()
        if not (-_CLOCK_SKEW <= now - session.seen <= self._idle and now - session.began <= self._lifetime):
            return None
        user = self._user(session.name, fresh=request.method == "POST")
        if user is None or _as_of(user) != session.changed:
            return None
        # Only requests made by a person count as activity; a page that refreshes itself does not.
        if _by_hand() and now - session.seen > min(_TOUCH_SECONDS, self._idle / 2):
            g.jobq_session = Session(name=session.name, changed=session.changed, began=session.began, seen=now)
        return Identity(user.name, user.role)

    def check(self, name: str, password: str) -> User | None:
        """Return the user if `password` is correct, else None. An unknown name takes equally
        long.
        """
        with self._database.read() as reader:
            user = reader.require(users.find, name) if len(name) <= users.LONGEST_NAME else None
        with self._hashing:
            dummy = _dummy_hash()
            good = check_password_hash(user.password_hash if user else dummy, password[: users.LONGEST_PASSWORD + 1])
        return user if user is not None and good else None

    def begin(self, user: User) -> None:
        """Start a session of `user` with the response to this request."""
        now = self._clock()
        g.jobq_session = Session(name=user.name, changed=_as_of(user), began=now, seen=now)

    def end(self) -> None:
        """End the session with the response to this request."""
        g.jobq_session = None

    def keep_cookie(self, response: Response, *, path: str, secure: bool) -> Response:
        """Set or delete the session cookie in `response`, if the session has changed."""
        if "jobq_session" not in g:
            return response
        session: Session | None = g.jobq_session
        if session is None:
            response.delete_cookie(COOKIE, path=path, secure=secure, httponly=True, samesite="Lax")
        else:
            value = self._signer().dumps([session.name, session.changed, session.began, session.seen])
            response.set_cookie(
                COOKIE,
                value,
                max_age=int(self._lifetime),
                path=path,
                secure=secure,
                httponly=True,
                # Lax, so that a link from another site finds its reader logged in; form tokens
                # protect changes.
                samesite="Lax",
            )
        return response

    def _read(self) -> Session | None:
        text = request.cookies.get(COOKIE)
        if not text:
            return None
        try:
            name, changed, began, seen = self._signer().loads(text)
        except (BadSignature, ValueError, TypeError):
            return None
        return Session(name=name, changed=changed, began=began, seen=seen)

    def _user(self, name: str, *, fresh: bool) -> User | None:
        now = time.monotonic()
        with self._lock:
            known = self._known.get(name)
        if known is not None and not fresh and now - known[1] < _USER_CACHE_SECONDS:
            return known[0]
        with self._database.read() as reader:
            user = reader.require(users.find, name)
        with self._lock:
            self._known[name] = (user, now)
            self._known.move_to_end(name)
            while len(self._known) > _MAX_CACHED_USERS:
                self._known.popitem(last=False)
        return user


def _as_of(user: User) -> str:
    # In UTC, since database sessions may use different time zones.
    return user.changed_at.astimezone(UTC).isoformat()


def _by_hand() -> bool:
    return request.method == "POST" or request.headers.get("Sec-Fetch-Mode", "navigate") == "navigate"


@cache
def _dummy_hash() -> str:
    # With the same method and cost as the hashes of users.
    return users.hashed("no one knows this one")
