"""What a reverse proxy says of a request, believed only where the proxy is one of those that were named."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Collection, Mapping

from flask import abort, request

from jobq.web.access import ROLES, Identity

logger = logging.getLogger("jobq.web")

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Proxies:
    """The proxies at `trusted` (addresses and networks) and the headers in which they name user and role."""

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
        """Whether `address` is one of the proxies."""
        parsed = _parsed(address)
        return parsed is not None and any(parsed in network for network in self._networks)

    def address(self) -> str | None:
        """Return where this request comes from: what the nearest proxy of ours saw, and nothing that a stranger wrote."""
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
        """Whether the browser speaks https, to us or to a proxy of ours."""
        # Several proxies make a list of it: the first is what the browser spoke.
        said = request.headers.get("X-Forwarded-Proto", "").partition(",")[0].strip().lower()
        return request.is_secure or (said == "https" and self.trusted(request.remote_addr))

    def identify(self) -> Identity | None:
        """Return the user that the proxy names; None when it names none.

        Aborts with 403 when an untrusted sender sends its headers: either a proxy is missing in `trusted_proxies`, or a client
        tries to pass for a user.
        """
        if self._user_header is None:
            return None
        headers = [name for name in (self._user_header, self._role_header) if name and name in request.headers]
        if headers and not self.trusted(request.remote_addr):
            logger.warning("refused %s from %s, which is none of the trusted proxies", headers[0], request.remote_addr)
            abort(
                403,
                f"{headers[0]} is believed from the proxies in trusted_proxies only, and this request came past them.",
            )
        name = request.headers.get(self._user_header, "").strip()
        if not name:
            return None
        # Servers join a header that comes twice, here the visitor's own and the proxy's, by a comma.
        if "," in name or len(name) > 200 or not name.isprintable():
            abort(403, f"{self._user_header} names no single user: let the proxy replace the header, not add to it.")
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
    # ::ffff:192.0.2.1 is what a socket for both families calls 192.0.2.1.
    return getattr(parsed, "ipv4_mapped", None) or parsed
