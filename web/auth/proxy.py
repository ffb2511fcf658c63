"""Headers of reverse proxies. They count only if the request comes from one of the trusted
proxies.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Collection, Mapping

from flask import abort, request

from jobq.web.auth.access import ROLES, Identity

logger = logging.getLogger("jobq.web")

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class TrustedProxies:
    """The proxies at `trusted` (addresses and networks) and the headers in which they name user and
    role.
    """

    def __init__(
        self,
        trusted: Collection[str],
        *,
        user_header: str | None = None,
        role_header: str | None = None,
        roles: Mapping[str, str] | None = None,
        default_role: str = "viewer",
    ) -> None:
        self._networks = [ipaddress.ip_network(one) for one in trusted]
        self._user_header = user_header
        self._role_header = role_header
        self._roles = dict(roles or {}) or {role: role for role in ROLES}
        self._default_role = default_role

    def trusted(self, address: str | None) -> bool:
        """Return whether `address` is one of the trusted proxies."""
        parsed = _parsed(address)
        return parsed is not None and any(parsed in network for network in self._networks)

    def address(self) -> str | None:
        """Return the client address as the outermost trusted proxy saw it; entries beyond that one
        could be forged.
        """
        found = request.remote_addr
        if not self.trusted(found):
            return found
        for text in reversed(request.headers.get("X-Forwarded-For", "").split(",")):
            parsed = _parsed(text.strip())
            if parsed is None:
                break
            found = str(parsed)
            if not self.trusted(found):
                break
        return found

    def secure(self) -> bool:
        """Return whether the browser uses HTTPS, to this server or to a trusted proxy."""
        # Several proxies append to a list; the first entry is the browser's protocol.
        said = request.headers.get("X-Forwarded-Proto", "").partition(",")[0].strip().lower()
        return request.is_secure or (said == "https" and self.trusted(request.remote_addr))

    def identify(self) -> Identity | None:
        """Return the user that the proxy names; None if it names none.

        Aborts with 403 if an untrusted sender sends the headers: either a proxy is missing in
        `trusted_proxies`, or a client tries to impersonate a user.
        """
        if self._user_header is None:
            return None
        headers = [name for name in (self._user_header, self._role_header) if name and name in request.headers]
        if headers and not self.trusted(request.remote_addr):
            logger.warning("refused %s from %s, which is not a trusted proxy", headers[0], request.remote_addr)
            abort(
                403,
                f"{headers[0]} is accepted only from addresses in trusted_proxies, and this request came "
                "from another one.",
            )
        name = request.headers.get(self._user_header, "").strip()
        if not name:
            return None
        # Servers join repeated headers with a comma; here, one would be the visitor's own.
        if "," in name or len(name) > 200 or not name.isprintable():
            abort(
                403,
                f"{self._user_header} names more than one user: let the proxy replace the header, not append to it.",
            )
        return Identity(name, self._role())

    def _role(self) -> str:
        if self._role_header is None:
            return self._default_role
        groups = [group.strip() for group in request.headers.get(self._role_header, "").split(",")]
        found = [self._roles[group] for group in groups if group in self._roles]
        return max(found, key=ROLES.index, default=self._default_role)


def _parsed(address: str | None) -> _Address | None:
    try:
        parsed = ipaddress.ip_address(address or "")
    except ValueError:
        return None
    # A dual-stack socket reports 192.0.2.1 as ::ffff:192.0.2.1.
    return getattr(parsed, "ipv4_mapped", None) or parsed
