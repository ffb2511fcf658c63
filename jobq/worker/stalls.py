"""Stalls: what stands still although it should move is said once when it has begun, and once when it is over."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

logger = logging.getLogger("jobq.worker")

# A wait that is over by then is nobody's business.
AFTER = 5.0
# An identical warning is logged again after so many seconds at the earliest.
AGAIN = 60.0


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something does not move: why, and since when in time.monotonic() seconds (None: since it was first seen)."""

    cause: str
    since: float | None = None


class Stalls:
    """Looks at everything in `watched` and logs what has stood still for more than `AFTER` seconds."""

    def __init__(self, watched: Mapping[str, Callable[[], Trouble | None]]) -> None:
        self._watched = dict(watched)
        self._seen: dict[str, float] = {}
        self.current: dict[str, str] = {}
        """What stalls at present, and why."""

    def watch(self, watched: Mapping[str, Callable[[], Trouble | None]]) -> None:
        """Look at these as well."""
        self._watched.update(watched)

    def look(self) -> None:
        """Look once; called about twice a second."""
        now = time.monotonic()
        for what, ask in self._watched.items():
            trouble = ask()
            if trouble is None:
                since = self._seen.pop(what, now)
                if self.current.pop(what, None) is not None:
                    logger.warning("a stall is over", extra={"stalled": what, "seconds": round(now - since, 1)})
                continue
            since = self._seen.setdefault(what, now)
            if trouble.since is not None:
                since = self._seen[what] = min(since, trouble.since)
            if what in self.current:
                self.current[what] = trouble.cause
            elif now - since > AFTER:
                self.current[what] = trouble.cause
                logger.warning(
                    "stalled", extra={"stalled": what, "seconds": round(now - since, 1), "cause": trouble.cause}
                )


class Repeats:
    """Warnings that every failed attempt would log: an identical one at most every `AGAIN` seconds, with their number."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[float, int]] = {}

    def warn(self, message: str, error: BaseException, **extra: object) -> str:
        """Log `message` with `error` and `extra`, unless that was just done; return the error's text."""
        text = str(error).strip() or type(error).__name__
        # Ports, process ids and seconds differ where the fault is the same.
        self.note(message, re.sub(r"\d+", "", text), error=text, **extra)
        return text

    def note(self, message: str, key: str, **extra: object) -> None:
        """Log `message` with `extra` unless the same was just logged with the same `key`."""
        key = f"{message} {key}"
        now = time.monotonic()
        at, kept_back = self._last.get(key, (now - AGAIN, 0))
        if now - at < AGAIN:
            self._last[key] = at, kept_back + 1
            return
        if len(self._last) > 100:
            self._last.clear()
        self._last[key] = now, 0
        logger.warning(message, extra={**extra, **({"not_logged": kept_back} if kept_back else {})})
