"""The login with the page's own users: a signed cookie that says who logged in when, and ends with the password or the role."""

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

from jobq import users
from jobq.users import User
from jobq.web.access import Identity
from jobq.web.database import Database

COOKIE = "jobq_session"
# For how long reads believe what the database last said of a user; a change asks again.
_FRESH = 5.0
_MOST_KNOWN = 1_000
# A cookie is written again, to say that its owner is still there, at most this often.
_TOUCH = 60.0
# So far the clocks of several machines that serve one page may be apart.
_SKEW = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """What the cookie says. Times are the page's own clock's, in seconds; `changed` names the user's row as it was."""

    name: str
    changed: str
    began: float
    seen: float


class Sessions:
    """Reads and writes the cookies of one mounted page."""

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
        # A hash takes 32 MiB and some 50 ms of a CPU: two at a time, for all requests together.
        self._hashing = BoundedSemaphore(2)

    def identify(self) -> Identity | None:
        """Return whose session this request carries, if it is still good."""
        session = self._read()
        if session is None:
            return None
        now = self._clock()
        if not (-_SKEW <= now - session.seen <= self._idle and now - session.began <= self._lifetime):
            return None
        user = self._user(session.name, fresh=request.method == "POST")
        if user is None or _as_of(user) != session.changed:
            return None
        # A request that a page makes by itself, without a user at it, says nothing about its owner.
        if _by_hand() and now - session.seen > min(_TOUCH, self._idle / 2):
            g.jobq_session = Session(name=session.name, changed=session.changed, began=session.began, seen=now)
        return Identity(user.name, user.role)

    def check(self, name: str, password: str) -> User | None:
        """Return the user if `password` is theirs. A name that no user has takes as long."""
        with self._database.read() as reader:
            user = reader.need(users.find, name) if len(name) <= users.LONGEST_NAME else None
        with self._hashing:
            dummy = _dummy_hash()
            good = check_password_hash(user.password_hash if user else dummy, password[: users.LONGEST_PASSWORD + 1])
        return user if user is not None and good else None

    def begin(self, user: User) -> None:
        """Give the answer to this request a session of `user`."""
        now = self._clock()
        g.jobq_session = Session(name=user.name, changed=_as_of(user), began=now, seen=now)

    def end(self) -> None:
        """Take the session away with the answer to this request."""
        g.jobq_session = None

    def keep_cookie(self, response: Response, *, path: str, secure: bool) -> Response:
        """Write the session's new state into `response`."""
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
                # A link in a chat still finds its reader logged in; forms have the stricter cookie.
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
        if known is not None and not fresh and now - known[1] < _FRESH:
            return known[0]
        with self._database.read() as reader:
            user = reader.need(users.find, name)
        with self._lock:
            self._known[name] = (user, now)
            self._known.move_to_end(name)
            while len(self._known) > _MOST_KNOWN:
                self._known.popitem(last=False)
        return user


def _as_of(user: User) -> str:
    # In UTC: each database session has a time zone of its own.
    return user.changed_at.astimezone(UTC).isoformat()


def _by_hand() -> bool:
    return request.method == "POST" or request.headers.get("Sec-Fetch-Mode", "navigate") == "navigate"


@cache
def _dummy_hash() -> str:
    # Of the same method and cost as every user's.
    return users.hashed("no one knows this one")
