"""A short-lived cache of rendered pages: fifty tabs with the same address cost the database one
rendering.

An entry is valid for one user with one role at one address, including its query: responses must
never be shared between users. Forms contain a placeholder instead of the request's own token. Any
POST empties the cache, and a rendering that began before it is not stored.

Not Flask-Caching: it has no notion of renderings in progress, of the user in a key, or of pages
whose relative times change.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from threading import Event, Lock

# Seconds that a request waits for another one that renders the same page, before it renders the
# page itself.
_RENDER_TIMEOUT = 5.0
# A slow page is cached for longer, so that its readers together use at most a hundredth of one
# processor; but no longer than this many times `seconds`.
_COST_FACTOR = 100.0
_MAX_EXTENSION = 4.0
# Bytes that an entry takes in addition to its body.
_OVERHEAD = 1_000
# Texts that change with the time alone: relative times, which a script updates in the browser, and
# the time of reading.
_MOVING = re.compile(rb"<time\b[^>]*\bdata-now\b[^>]*>[^<]*|(<time\b[^>]*>)[^<]*")


@dataclass(frozen=True, slots=True)
class CachedResponse:
    """A rendered response: body, content type, further headers, and ETag."""

    body: bytes
    mimetype: str
    headers: tuple[tuple[str, str], ...]
    tag: str


@dataclass(slots=True)
class _InflightRender:
    generation: int
    finished: Event = field(default_factory=Event)
    answer: CachedResponse | None = None


class PageCache:
    """At most `limit` bytes of responses, each valid for `seconds`, or up to 4 times as long if
    rendering was slow.

    The least recently used responses are dropped first.
    """

    def __init__(self, *, seconds: float, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds = seconds
        self._limit = limit
        self._clock = clock
        self._lock = Lock()
        self._generation = 0
        self._size = 0
        # Each with the time at which it expires.
        self._entries: OrderedDict[Hashable, tuple[CachedResponse, float]] = OrderedDict()
        self._inflight: dict[Hashable, _InflightRender] = {}

    def get(self, key: Hashable, make: Callable[[], CachedResponse | None]) -> CachedResponse | None:
        """Return the cached response for `key`, else the result of `make`. A result of None is not
        cached.

        Of several concurrent callers, one calls `make` and the others wait for it, at most 5 s. If
        it raises, only that caller gets the exception, and the others call `make` themselves.
        """
        with self._lock:
            if (found := self._fresh(key)) is not None:
                return found
            render = self._inflight.get(key)
            if leads := render is None:
                render = self._inflight[key] = _InflightRender(self._generation)
        assert render is not None
        if not leads:
            render.finished.wait(_RENDER_TIMEOUT)
            return render.answer or make()
        try:
            # The age of a response counts from the time at which the database was read.
            began = self._clock()
            render.answer = make()
        finally:
            with self._lock:
                if self._inflight.get(key) is render:
                    del self._inflight[key]
                if render.answer is not None and render.generation == self._generation:
                    self._keep(key, render.answer, began)
            render.finished.set()
        return render.answer

    def clear(self) -> None:
        """Empty the cache, and do not store renderings in progress: something has changed."""
        with self._lock:
            self._generation += 1
            self._entries.clear()
            self._inflight.clear()
            self._size = 0

    @property
    def size(self) -> int:
        """The number of bytes in the cache."""
        return self._size

    def _fresh(self, key: Hashable) -> CachedResponse | None:
        found = self._entries.get(key)
        if found is None:
            return None
        if self._clock() >= found[1]:
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return found[0]

    def _keep(self, key: Hashable, answer: CachedResponse, began: float) -> None:
        self._drop(key)
        if _cost(answer) > self._limit:
            return
        took = self._clock() - began
        keep = max(self.seconds, min(took * _COST_FACTOR, self.seconds * _MAX_EXTENSION))
        self._entries[key] = (answer, began + keep)
        self._size += _cost(answer)
        while self._size > self._limit:
            self._drop(next(iter(self._entries)))

    def _drop(self, key: Hashable) -> None:
        if (gone := self._entries.pop(key, None)) is not None:
            self._size -= _cost(gone[0])


def tag(body: bytes, *also: object) -> str:
    """Return the ETag of a page, which ignores its relative times. It also depends on `also`."""
    digest = hashlib.blake2b(_MOVING.sub(rb"\1", body), digest_size=12)
    digest.update(repr(also).encode())
    return digest.hexdigest()


def _cost(answer: CachedResponse) -> int:
    return len(answer.body) + _OVERHEAD
