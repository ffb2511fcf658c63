"""Below which path browsers find the page, behind a proxy that does not give it the whole address."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jobq.web.proxy import Proxies

logger = logging.getLogger("jobq.web")

Application = Callable[[dict[str, Any], Any], Iterable[bytes]]

# No empty part (`//elsewhere` is another host), no backslash (browsers take it for a slash), nothing that is written otherwise
# in an address, a header or a cookie's path.
_PREFIX = re.compile(r"(?:/[A-Za-z0-9._~!$&'()*+=:@-]+)*")


def clean_prefix(text: str) -> str | None:
    """Return `text` as ``/a/b``, or ``""`` for the root; None when it is no path below which a page can stand."""
    found = text.strip().rstrip("/")
    if found and not found.startswith("/"):
        found = f"/{found}"
    if not _PREFIX.fullmatch(found) or not {".", ".."}.isdisjoint(found.split("/")):
        return None
    return found


class Prefixed:
    """A WSGI application that is told below which path it stands: `prefix`, or what a trusted proxy says in
    ``X-Forwarded-Prefix``, whose list is joined (each proxy adds the part that it has taken off).
    """

    def __init__(self, application: Application, prefix: str | None, proxies: Proxies) -> None:
        self._application = application
        self._prefix = prefix
        self._proxies = proxies

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        prefix, stripped = self._prefix, False
        said = environ.get("HTTP_X_FORWARDED_PREFIX", "").strip()
        if said and self._proxies.trusted(environ.get("REMOTE_ADDR")):
            parts = [clean_prefix(part) for part in said.split(",")]
            if None in parts:
                logger.warning("ignored X-Forwarded-Prefix %.200r: it is no path", said)
            else:
                prefix, stripped = "".join(part or "" for part in parts), True
        if prefix:
            path = environ.get("PATH_INFO", "")
            if not stripped and (path == prefix or path.startswith(f"{prefix}/")):
                environ["PATH_INFO"] = path[len(prefix) :] or "/"
            environ["SCRIPT_NAME"] = environ.get("SCRIPT_NAME", "") + prefix
        return self._application(environ, start_response)
