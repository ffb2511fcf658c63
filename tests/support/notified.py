"""A real notify socket, as systemd would hold one: hears what a service says of itself."""

from __future__ import annotations

import re
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from tests.support.waiting import wait_until


@dataclass(frozen=True, slots=True)
class Heard:
    """One NAME=value, when it came (time.monotonic()) and who sent it."""

    name: str
    value: str
    at: float
    pid: int


class NotifySocket:
    """Binds `path` (or '@' and an abstract name) and keeps every word that comes."""

    def __init__(self, path: Path | str) -> None:
        self.address = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.bind("\0" + self.address[1:] if self.address.startswith("@") else self.address)
        self.heard: list[Heard] = []
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while True:
            data, ancillary, _, _ = self._socket.recvmsg(65536, 1024)
            now = time.monotonic()
            if data == b"end of test":
                return
            pid = int.from_bytes(ancillary[0][2][:4], "little") if ancillary else 0
            for line in data.decode().split("\n"):
                name, _, value = line.partition("=")
                self.heard.append(Heard(name, value, now, pid))

    def values(self, name: str) -> list[str]:
        return [heard.value for heard in self.heard if heard.name == name]

    def wait(self, name: str, *, timeout: float = 30, what: str = "") -> Heard:
        """Wait for the first word of this name in whose value the pattern `what` is found."""

        def said() -> Heard | None:
            return next((heard for heard in self.heard if heard.name == name and re.search(what, heard.value)), None)

        try:
            found = wait_until(said, timeout=timeout, what=f"{name}={what}")
        except AssertionError as error:
            raise AssertionError(f"{error}; the last words were {self.heard[-8:]}") from None
        assert found is not None
        return found

    def close(self) -> None:
        end = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        end.sendto(b"end of test", self._socket.getsockname())
        end.close()
        self._thread.join(10)
        self._socket.close()
