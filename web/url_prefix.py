"""The path below which browsers find the page, behind a proxy that strips it from the address."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jobq.web.auth.proxy import TrustedProxies

logger = logging.getLogger("jobq.web")

Application = Callable[[dict[str, Any], Any], Iterable[bytes]]

# No empty part (`//elsewhere` is another host), no backslash (browsers read it as a slash), and no
# character that has to be escaped in an address, a header or a cookie's path.
_PREFIX = re.compile(r"(?:/[A-Za-z0-9._~!$&'()*+=:@-]+)*")


def clean_prefix(text: str) -> str | None:
    """Return `text` as ``/a/b``, or ``""`` for the root; None if it is not a valid path."""
    found = text.strip().rstrip("/")
    if found and not found.startswith("/"):
        found = f"/{found}"
    if not _PREFIX.fullmatch(found) or not {".", ".."}.isdisjoint(found.split("/")):
        return None
    return found


class PrefixMiddleware:
    """WSGI middleware that sets SCRIPT_NAME from `prefix`, or from ``X-Forwarded-Prefix`` of a
    trusted proxy.

    Several proxies append to a list, each the part that it has stripped; the parts are joined.
    """

    def __init__(self, application: Application, prefix: str | None, proxies: TrustedProxies) -> None:
        self._application = application
        self._prefix = prefix
        self._proxies = proxies

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        prefix, stripped = self._prefix, False
        said = environ.get("HTTP_X_FORWARDED_PREFIX", "").strip()
        if said and self._proxies.trusted(environ.get("REMOTE_ADDR")):
            parts = [clean_prefix(part) for part in said.split(",")]
            if None in parts:
                logger.warning("ignored X-Forwarded-Prefix %.200r: not a valid path", said)
            else:
                prefix, stripped = "".join(part or "" for part in parts), True
        if prefix:
            path = environ.get("PATH_INFO", "")
            if not stripped and (path == prefix or path.startswith(f"{prefix}/")):
                environ["PATH_INFO"] = path[len(prefix) :] or "/"
            environ["SCRIPT_NAME"] = environ.get("SCRIPT_NAME", "") + prefix
        return self._application(environ, start_response)
