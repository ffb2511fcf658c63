"""The demo's mail server: real SMTP, kept in memory, and in a bad mood at first, so that retries are seen."""

from __future__ import annotations

import asyncio
import email
import email.policy
import threading
from collections import Counter
from email.message import EmailMessage
from types import TracebackType
from typing import Any, Self

from aiosmtpd.smtp import SMTP, Envelope

_BUSY = "451 4.3.0 Mailbox busy, try again later"


class MailServer:
    """An SMTP server on 127.0.0.1, in its own thread. It refuses every second mail once, with a 451.

    `port` 0: a free one; `address` tells which.
    """

    def __init__(self, port: int = 0, *, moody: bool = True) -> None:
        self.address = ("127.0.0.1", port)
        self._moody = moody
        self._lock = threading.Lock()
        self._seen: list[str] = []
        self._refused: Counter[str] = Counter()
        self._accepted: list[EmailMessage] = []
        self._ready = threading.Event()
        self._failure: OSError | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="gallery-mail", daemon=True)

    def accepted(self) -> list[EmailMessage]:
        """Return the mails taken in so far, in order."""
        with self._lock:
            return list(self._accepted)

    @property
    def refusals(self) -> int:
        """How often a mail was answered with 451."""
        with self._lock:
            return self._refused.total()

    def start(self) -> Self:
        """Listen. Raises OSError when the port is taken."""
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            self._thread.join()
            raise self._failure
        return self

    def stop(self) -> None:
        """Stop listening; connections that are open are closed."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def handle_DATA(self, server: SMTP, session: Any, envelope: Envelope) -> str:
        """Answer one mail: what aiosmtpd calls when a message has come in whole."""
        content = envelope.original_content or b""
        message = email.message_from_bytes(content, policy=email.policy.default)
        ident = str(message["Message-ID"])
        with self._lock:
            if ident not in self._seen:
                self._seen.append(ident)
            if self._moody and self._seen.index(ident) % 2 == 0 and not self._refused[ident]:
                self._refused[ident] += 1
                return _BUSY
            self._accepted.append(message)
        return "250 Message accepted"

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            server = self._loop.run_until_complete(
                self._loop.create_server(self._session, self.address[0], self.address[1])
            )
        except OSError as error:
            self._failure = error
            self._ready.set()
            self._loop.close()
            return
        self.address = server.sockets[0].getsockname()[:2]
        self._ready.set()
        try:
            self._loop.run_forever()
        finally:
            server.close()
            tasks = asyncio.all_tasks(self._loop)
            for task in tasks:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            self._loop.close()

    def _session(self) -> SMTP:
        return SMTP(self, hostname="gallery.invalid", loop=self._loop)
