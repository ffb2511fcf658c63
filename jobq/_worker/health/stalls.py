"""Stall detection: each stall is logged once when it has begun, and once when it is over.

A thread checks for stalls, because a blocked event loop cannot report itself. The report says where
the loop stands.
"""

from __future__ import annotations

import asyncio
import logging
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass

logger = logging.getLogger("jobq.worker")

# A wait shorter than this is not reported.
AFTER = 5.0
# Seconds between two checks.
EVERY = 0.5
# If the checking thread is late by this many seconds, the process was stopped. This is not a stall
# of the event loop.
_STOPPED = 2.0
# Minimum seconds before an identical warning is logged again.
AGAIN = 60.0


@dataclass(frozen=True, slots=True)
class Stall:
    """A stall: its cause, and when it began.

    The time is in time.monotonic() seconds; None means that the stall began when it was first seen.
    """

    cause: str
    since: float | None = None


class StallDetector:
    """Checks everything in `watched` and logs each stall that lasts more than `AFTER` seconds."""

    def __init__(self, watched: Mapping[str, Callable[[], Stall | None]]) -> None:
        self._watched = dict(watched)
        self._seen: dict[str, float] = {}
        self.current: dict[str, str] = {}
        """The present stalls and their causes, by name."""

    def watch(self, watched: Mapping[str, Callable[[], Stall | None]]) -> None:
        """Watch these as well."""
        self._watched.update(watched)

    def look(self) -> None:
        """Check once; called about twice a second, from any thread."""
        now = time.monotonic()
        for what, ask in list(self._watched.items()):
            try:
                trouble = ask()
            except Exception:  # noqa: S112 - it reads data that the event loop changes; the next check is soon
                continue
            if trouble is None:
                since = self._seen.pop(what, now)
                if self.current.pop(what, None) is not None:
                    logger.warning("a stall is over", extra={"stalled": what, "seconds": round(now - since, 1)})
                continue
            since = self._seen.setdefault(what, now)
            if trouble.since is not None:
                # Do not count from the first sighting: each time it may have been another short
                # wait.
                since = self._seen[what] = trouble.since
            if what in self.current:
                self.current[what] = trouble.cause
            elif now - since > AFTER:
                self.current[what] = trouble.cause
                logger.warning(
                    "stalled", extra={"stalled": what, "seconds": round(now - since, 1), "cause": trouble.cause}
                )


class Beat:
    """Whether an event loop runs: it leaves a time about twice a second, and a thread checks it."""

    def __init__(self, every: float = EVERY) -> None:
        """Create the object in the thread of the loop."""
        self._every = every
        self._thread = threading.get_ident()
        self._at = self._looked = time.monotonic()

    async def run(self) -> None:
        """Leave the time of each round until cancelled."""
        while True:
            self._at = time.monotonic()
            await asyncio.sleep(self._every)

    def trouble(self) -> Stall | None:
        """Return the stall of the loop; None if it runs.

        Call this about twice a second from another thread.
        """
        now = time.monotonic()
        if now - self._looked > _STOPPED:
            # The whole process was stopped, or got no processor time.
            self._at = now
        self._looked = now
        if now - self._at <= 2 * self._every:
            return None
        frame = sys._current_frames().get(self._thread)
        where = "".join(traceback.format_stack(frame)[-12:]) if frame is not None else "unknown"
        return Stall(f"the event loop stands still for {now - self._at:.0f} s, in:\n{where.rstrip()}", self._at)


class Looker:
    """A context manager whose thread checks for stalls about twice a second.

    Enter it in the thread of the event loop.
    """

    def __init__(self, stalls: StallDetector, every: float = EVERY) -> None:
        self._stalls = stalls
        self._every = every
        self._stop = threading.Event()
        self._beat: asyncio.Task[None] | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> None:
        beat = Beat(self._every)
        self._stalls.watch({"event loop": beat.trouble})
        self._beat = asyncio.create_task(beat.run(), name="beat")
        self._thread = threading.Thread(target=self._look, name="stalls", daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._stop.wait(self._every):
            self._stalls.look()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._beat is not None:
            self._beat.cancel()
        if self._thread is not None:
            # The thread may be waiting for the reader of the log.
            self._thread.join(self._every)


class RateLimitedLog:
    """Rate limit for warnings that every failed attempt would log.

    An identical warning is logged at most once every `AGAIN` seconds, with the number of warnings
    left out.
    """

    def __init__(self) -> None:
        self._last: dict[str, tuple[float, int]] = {}

    def warn(self, message: str, error: BaseException, **extra: object) -> str:
        """Log `message` with `error` and `extra`, at the limited rate; return the error's text."""
        text = str(error).strip() or type(error).__name__
        # Errors that differ only in ports, process ids or seconds count as identical.
        self.note(message, re.sub(r"\d+", "", text), error=text, **extra)
        return text

    def note(self, message: str, key: str, **extra: object) -> None:
        """Log `message` with `extra`, unless the same was just logged with the same `key`."""
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
