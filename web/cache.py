"""Rendered pages, kept for a moment: fifty tabs that ask the same cost the database one answer.

An answer is only for one user with one role at one address (its query included). Forms have a placeholder where
each request's own token goes. Any POST empties the cache, and what was begun before it is not kept.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from threading import Event, Lock

# How long one request waits for another that makes the same answer, before it makes it itself.
_PATIENCE = 5.0
# A page that takes long to make is kept for longer: its readers together take a hundredth of one processor, however many
# they are. But no reader sees an answer older than this many times `seconds`.
_SHARE = 100.0
_LONGER = 4.0
# What an entry takes besides its body.
_OVERHEAD = 1_000
# The text of a time grows older by itself, and the script keeps it so; the moment of reading says nothing at all.
_MOVING = re.compile(rb"<time\b[^>]*\bdata-now\b[^>]*>[^<]*|(<time\b[^>]*>)[^<]*")


@dataclass(frozen=True, slots=True)
class Answer:
    """A rendered answer: what it says, its type and further headers, and its tag."""

    body: bytes
    mimetype: str
    headers: tuple[tuple[str, str], ...]
    tag: str


@dataclass(slots=True)
class _Flight:
    generation: int
    landed: Event = field(default_factory=Event)
    answer: Answer | None = None


class Cache:
    """At most `limit` bytes of answers, each kept for `seconds`, or up to 4 times as long if it took long to make; the least
    recently used go first.
    """

    def __init__(self, *, seconds: float, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds = seconds
        self._limit = limit
        self._clock = clock
        self._lock = Lock()
        self._generation = 0
        self._size = 0
        # Each with the time until which it is kept.
        self._kept: OrderedDict[Hashable, tuple[Answer, float]] = OrderedDict()
        self._flights: dict[Hashable, _Flight] = {}

    def get(self, key: Hashable, make: Callable[[], Answer | None]) -> Answer | None:
        """Return the answer kept for `key`, or that of `make`; None, which is not kept, when it makes none.

        Of several that ask at once one makes it and the others wait, for 5 s at most. An exception is the maker's alone: the
        others then try for themselves.
        """
        with self._lock:
            if (found := self._fresh(key)) is not None:
                return found
            flight = self._flights.get(key)
            if leads := flight is None:
                flight = self._flights[key] = _Flight(self._generation)
        assert flight is not None
        if not leads:
            flight.landed.wait(_PATIENCE)
            return flight.answer or make()
        try:
            # Its age counts from when the database was read.
            began = self._clock()
            flight.answer = make()
        finally:
            with self._lock:
                if self._flights.get(key) is flight:
                    del self._flights[key]
                if flight.answer is not None and flight.generation == self._generation:
                    self._keep(key, flight.answer, began)
            flight.landed.set()
        return flight.answer

    def clear(self) -> None:
        """Forget everything, also what is being made at this moment: something has changed."""
        with self._lock:
            self._generation += 1
            self._kept.clear()
            self._flights.clear()
            self._size = 0

    @property
    def size(self) -> int:
        """The bytes that are kept."""
        return self._size

    def _fresh(self, key: Hashable) -> Answer | None:
        found = self._kept.get(key)
        if found is None:
            return None
        if self._clock() >= found[1]:
            self._drop(key)
            return None
        self._kept.move_to_end(key)
        return found[0]

    def _keep(self, key: Hashable, answer: Answer, began: float) -> None:
        self._drop(key)
        if _cost(answer) > self._limit:
            return
        took = self._clock() - began
        keep = max(self.seconds, min(took * _SHARE, self.seconds * _LONGER))
        self._kept[key] = (answer, began + keep)
        self._size += _cost(answer)
        while self._size > self._limit:
            self._drop(next(iter(self._kept)))

    def _drop(self, key: Hashable) -> None:
        if (gone := self._kept.pop(key, None)) is not None:
            self._size -= _cost(gone[0])


def tag(body: bytes, *also: object) -> str:
    """Return the ETag of a page: the same while only its relative times have moved. `also` goes into it."""
    digest = hashlib.blake2b(_MOVING.sub(rb"\1", body), digest_size=12)
    digest.update(repr(also).encode())
    return digest.hexdigest()


def _cost(answer: Answer) -> int:
    return len(answer.body) + _OVERHEAD
