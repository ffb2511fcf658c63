"""A rate limit on password attempts."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Callable
from math import ceil
from threading import Lock
from time import monotonic

from jobq.web.auth.users import LONGEST_NAME

_MOST_KEYS = 10_000


class Throttle:
    """Token buckets for password attempts, by client address and by user name.

    An address has 10 attempts, and gains one every 10 s. A name has 20 attempts from all addresses
    together, and gains one every 3 s: that slows down guessing from many addresses without locking
    the user out for long. Counts are per process and are lost at a restart.

    An attempt is counted before the password is checked, so that parallel attempts cannot bypass
    the limit; a correct password gives the attempt back.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._lock = Lock()
        # Per key: the attempts left and when that was computed. The least recently used keys are
        # dropped first.
        self._left: OrderedDict[tuple[str, str], tuple[float, float]] = OrderedDict()

    def take(self, address: str | None, name: str | None) -> int:
        """Count an attempt. Return 0 if it is allowed, else the seconds until the next one is."""
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
        """Return 0 if `address` may try now, else the seconds until it may. Counts nothing."""
        with self._lock:
            key, most, every = _buckets(address, None)[0]
            return max(0, ceil(every * (1 - self._now(key, most, every, self._clock()))))

    def give_back(self, address: str | None, name: str | None) -> None:
        """Give an attempt back: the password was correct."""
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
        # Cut: no user name is longer, and the table must stay small.
        found.append((("name", name[:LONGEST_NAME]), 20.0, 3.0))
    return found


def _network(address: str | None) -> str:
    # A client that has one IPv6 address has the 2**64 addresses of its network.
    try:
        parsed = ipaddress.ip_address(address or "")
    except ValueError:
        return address or ""
    if parsed.version == 4:
        return str(parsed)
    # A dual-stack socket reports 192.0.2.1 as ::ffff:192.0.2.1. All such addresses would share one
    # /64 network.
    return str(parsed.ipv4_mapped or ipaddress.ip_network((parsed, 64), strict=False))
