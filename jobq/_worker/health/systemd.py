"""sd_notify: messages of a service to systemd, as datagrams to the socket that NOTIFY_SOCKET names.

Protocol: sd_notify(3). Without NOTIFY_SOCKET nothing is sent and nothing fails, so the same program
runs in a terminal.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import MutableMapping

logger = logging.getLogger("jobq.worker")

# Messages about one moment. If they were sent later, they would be wrong.
_FLEETING = frozenset({"WATCHDOG", "EXTEND_TIMEOUT_USEC"})
# systemd truncates nothing, but shows one line.
_LONGEST_VALUE = 1_000


class Notifier:
    """Notifies the service manager, if there is one.

    It never blocks and never raises: a service must not fail because of it.
    """

    def __init__(self, address: str | None, *, watchdog: float | None = None) -> None:
        """Create a notifier.

        Args:
            address: A path, or '@' and an abstract name; None if there is no service manager.
            watchdog: Seconds of the watchdog; None if none is requested.
        """
        self._unsent: dict[str, str] = {}
        self._socket: socket.socket | None = None
        self._address = address
        self._complained = False
        self.watchdog = watchdog if address else None
        """Seconds within which the manager expects each WATCHDOG=1; None if it expects none."""
        if address is None:
            return
        if not address.startswith(("/", "@")) or len(address) < 2:
            self._complain(f"NOTIFY_SOCKET={address!r}: a path or an abstract name (@…) is understood, nothing else")
            return
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)
        if address.startswith("@"):
            self._address = "\0" + address[1:]

    @classmethod
    def from_environment(cls, environ: MutableMapping[str, str] | None = None) -> Notifier:
        """Return the notifier that the environment asks for, and remove the variables from it.

        Child processes must not send messages in our name, or feed our watchdog.
        """
        env = os.environ if environ is None else environ
        address = env.pop("NOTIFY_SOCKET", None) or None
        microseconds, pid = env.pop("WATCHDOG_USEC", None), env.pop("WATCHDOG_PID", None)
        watchdog = None
        if microseconds is not None and (not pid or pid == str(os.getpid())):
            with contextlib.suppress(ValueError):
                watchdog = int(microseconds) / 1e6
        return cls(address, watchdog=watchdog if watchdog and watchdog > 0 else None)

    @property
    def listened_to(self) -> bool:
        """Whether there is a service manager."""
        return self._socket is not None

    def tell(self, **values: str | int) -> None:
        """Send `values` (READY=1, STATUS="…") in one datagram, together with unsent earlier values."""
        if self._socket is None:
            return
        for name, value in values.items():
            self._unsent[name] = " ".join(str(value).split())[:_LONGEST_VALUE]
        message = "\n".join(f"{name}={value}" for name, value in self._unsent.items())
        try:
            self._socket.sendto(message.encode(errors="replace"), self._address or "")
        except OSError as error:
            # The socket is full, or its owner is being replaced. READY and STOPPING are sent again
            # with the next message.
            for name in _FLEETING & self._unsent.keys():
                del self._unsent[name]
            if not isinstance(error, BlockingIOError):
                self._complain(f"the service manager cannot be told: {error}")
            return
        self._unsent.clear()

    def _complain(self, text: str) -> None:
        if not self._complained:
            logger.warning(text)
        self._complained = True

    def close(self) -> None:
        """Close the socket; nothing is sent any more."""
        if self._socket is not None:
            self._socket.close()
        self._socket = None
