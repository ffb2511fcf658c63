"""Slowing down those who guess passwords."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Callable
from math import ceil
from threading import Lock
from time import monotonic

from jobq.users import LONGEST_NAME

_MOST_KEYS = 10_000


class Throttle:
    """Tries at a password, counted by address and by name: 10 at once from an address and then one every 10 s; 20 for a name
    from all of them and then one every 3 s, so that who guesses from many addresses is slowed down and its owner not shut out
    for long. In this process: of several, each counts for itself, and a restart forgets.

    A try is counted before it is judged, so that many at a time are no way round; a right one is given back.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._lock = Lock()
        # By key: how many tries are left, and when that was so. The least recently used go first.
        self._left: OrderedDict[tuple[str, str], tuple[float, float]] = OrderedDict()

    def take(self, address: str | None, name: str | None) -> int:
        """Count a try. Return 0 when it may be made, else in how many seconds the next one may."""
        with self._lock:
            now = self._clock()
            found = [(key, self._now(key, most, every, now), every) for key, most, every in _buckets(address, name)]
            wait = max(every * (1 - left) for _, left, every in found)
            if wait > 0:
                return ceil(wait)
            for key, left, _ in found:
                self._keep(key, left - 1, now)
            return 0

    def wait(self, address: str | None) -> int:
        """Return 0 when `address` may try, else in how many seconds. Counts nothing."""
        with self._lock:
            key, most, every = _buckets(address, None)[0]
            return max(0, ceil(every * (1 - self._now(key, most, every, self._clock()))))

    def give_back(self, address: str | None, name: str | None) -> None:
        """The try was right."""
        with self._lock:
            now = self._clock()
            for key, most, every in _buckets(address, name):
                self._keep(key, min(most, self._now(key, most, every, now) + 1), now)

    def _now(self, key: tuple[str, str], most: float, every: float, now: float) -> float:
        left, at = self._left.get(key, (most, now))
        return min(most, left + (now - at) / every)

    def _keep(self, key: tuple[str, str], left: float, now: float) -> None:
        self._left[key] = (left, now)
        self._left.move_to_end(key)
        while len(self._left) > _MOST_KEYS:
            self._left.popitem(last=False)


def _buckets(address: str | None, name: str | None) -> list[tuple[tuple[str, str], float, float]]:
    found = [(("address", _network(address)), 10.0, 10.0)]
    if name is not None:
        # No user's name is that long, and what is kept must stay small.
        found.append((("name", name[:LONGEST_NAME]), 20.0, 3.0))
    return found


def _network(address: str | None) -> str:
    # A client with one IPv6 address has the 2**64 of its network.
    try:
        parsed = ipaddress.ip_address(address or "")
    except ValueError:
        return address or ""
    if parsed.version == 4:
        return str(parsed)
    # A socket for both families calls 192.0.2.1 ::ffff:192.0.2.1, which has no network in common with others of the kind.
    return str(parsed.ipv4_mapped or ipaddress.ip_network((parsed, 64), strict=False))
