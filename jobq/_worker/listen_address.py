"""The address at which a worker serves its health."""

from __future__ import annotations

import os
from dataclasses import dataclass

from jobq.errors import ConfigurationError

_EXPECTED = "expected HOST:PORT, such as 127.0.0.1:9642 or [::1]:9642, or unix:PATH"


@dataclass(frozen=True, slots=True)
class Address:
    """The address to listen on: `path`, or `host` and `port` (0: a free port)."""

    host: str = ""
    port: int = 0
    path: str | None = None

    @classmethod
    def parse(cls, text: str) -> Address:
        """Return the address in `text`. Raises ConfigurationError if it is malformed."""
        if text.startswith("unix:"):
            path = text.removeprefix("unix:")
            # The limit of the kernel's sockaddr_un, including the final NUL.
            if not path.startswith("/") or "\0" in path or len(os.fsencode(path)) > 107:
                raise ConfigurationError(
                    f"health_address={text!r}: expected an absolute path of at most 107 bytes after unix:"
                )
            return cls(path=path)
        host, colon, port = text.rpartition(":")
        bracketed = host.startswith("[") and host.endswith("]")
        if bracketed:
            host = host[1:-1]
        if not (colon and host and port.isascii() and port.isdigit() and int(port) < 65_536):
            raise ConfigurationError(f"health_address={text!r}: {_EXPECTED}")
        if (":" in host) is not bracketed or any(c.isspace() for c in host):
            raise ConfigurationError(f"health_address={text!r}: {_EXPECTED}")
        return cls(host=host, port=int(port))
