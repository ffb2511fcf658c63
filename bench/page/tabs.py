"""Open tabs: each asks for its page every 5 s, with the tag of the last answer, as the page's script does.

`python -m bench.page.tabs URL TABS SECONDS`: a process of its own; says what it got as JSON at its end.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import urlsplit

from bench.figures import percentile

EVERY = 5.0
# What operators leave open, in turn.
PATHS = ["/", "/queues", "/", "/jobs", "/workers", "/", "/jobs?q=state%3Afailed", "/failures", "/", "/queues/default"]


class Tab:
    """One browser's tab on a connection that stays open."""

    def __init__(self, host: str, port: int, path: str) -> None:
        self._host, self._port, self._path = host, port, path
        self._cookies: dict[str, str] = {}
        self._etag: str | None = None
        self._stream: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self.times: list[float] = []
        self.statuses: Counter[int] = Counter()

    async def live(self, first: float, until: float) -> None:
        """Refresh from `first` on, until `until`, both of time.monotonic()."""
        due = first
        while due < until:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            begun = time.monotonic()
            self.statuses[await self._get()] += 1
            self.times.append(time.monotonic() - begun)
            due += EVERY

    async def _get(self) -> int:
        for _ in range(2):
            fresh = self._stream is None
            if self._stream is None:
                self._stream = await asyncio.open_connection(self._host, self._port)
            try:
                return await self._exchange(*self._stream)
            except (ConnectionError, asyncio.IncompleteReadError, ValueError):
                # Closed while it was idle.
                self._stream[1].close()
                self._stream = None
                if fresh:
                    raise
        raise ConnectionError("closed twice")

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
        headers = {"Host": f"{self._host}:{self._port}", "HX-Request": "true", "Accept": "text/html"}
        if self._cookies:
            headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in self._cookies.items())
        if self._etag is not None:
            headers["If-None-Match"] = self._etag
        lines = [f"GET {self._path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *rest = head.split("\r\n")
        status, length, chunked, closes = int(first.split()[1]), 0, False, False
        for line in rest:
            name, _, value = line.partition(":")
            match name.lower():
                case "content-length":
                    length = int(value)
                case "transfer-encoding":
                    chunked = True
                case "connection":
                    closes = value.strip().lower() == "close"
                case "etag":
                    self._etag = value.strip()
                case "set-cookie":
                    self._cookies |= {key: morsel.value for key, morsel in SimpleCookie(value.strip()).items()}
        if status != 304:
            while chunked and (size := int((await reader.readline()).strip() or b"0", 16)):
                await reader.readexactly(size + 2)
            await reader.readexactly(2 if chunked else length)
        if closes:
            writer.close()
            self._stream = None
        return status


async def run(url: str, number: int, seconds: float) -> dict[str, Any]:
    """Keep `number` tabs open for `seconds`; return what they got."""
    parts = urlsplit(url)
    begun = time.monotonic()
    tabs = [Tab(parts.hostname or "127.0.0.1", parts.port or 80, PATHS[place % len(PATHS)]) for place in range(number)]
    await asyncio.gather(*(tab.live(begun + place * EVERY / number, begun + seconds) for place, tab in enumerate(tabs)))
    times = [took for tab in tabs for took in tab.times]
    statuses = sum((tab.statuses for tab in tabs), Counter())
    return {
        "requests": len(times),
        "statuses": {str(status): count for status, count in sorted(statuses.items())},
        **{f"p{share}_ms": percentile(times, share) * 1000 for share in (50, 95, 100)},
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(run(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))))
