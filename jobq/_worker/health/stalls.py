"""Stalls: what stands still although it should move is said once when it has begun, and once when it is over.

A thread looks, for an event loop that stands still cannot say so itself; and says then where the loop stands.
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

# A wait that is over by then is not reported.
AFTER = 5.0
# Seconds between two looks.
EVERY = 0.5
# A thread that comes so many seconds late was stopped, and the loop with it: that is no stall of the loop's.
_STOPPED = 2.0
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
        """Look once; called about twice a second, from any thread."""
        now = time.monotonic()
        for what, ask in list(self._watched.items()):
            try:
                trouble = ask()
            except Exception:  # noqa: S112 - it reads what the event loop is changing, and is asked again soon
                continue
            if trouble is None:
                since = self._seen.pop(what, now)
                if self.current.pop(what, None) is not None:
                    logger.warning("a stall is over", extra={"stalled": what, "seconds": round(now - since, 1)})
                continue
            since = self._seen.setdefault(what, now)
            if trouble.since is not None:
                # Not since one was first seen: each time it may have been another short wait.
                since = self._seen[what] = trouble.since
            if what in self.current:
                self.current[what] = trouble.cause
            elif now - since > AFTER:
                self.current[what] = trouble.cause
                logger.warning(
                    "stalled", extra={"stalled": what, "seconds": round(now - since, 1), "cause": trouble.cause}
                )


class Beat:
    """Whether an event loop comes round: what it does about twice a second, a thread sees."""

    def __init__(self, every: float = EVERY) -> None:
        """Call it in the thread of the loop."""
        self._every = every
        self._thread = threading.get_ident()
        self._at = self._looked = time.monotonic()

    async def run(self) -> None:
        """Beat until cancelled."""
        while True:
            self._at = time.monotonic()
            await asyncio.sleep(self._every)

    def trouble(self) -> Trouble | None:
        """Return since when the loop has stood still, and where, if it does; asked about twice a second from another thread."""
        now = time.monotonic()
        if now - self._looked > _STOPPED:
            # The whole process was stopped, or had no processor.
            self._at = now
        self._looked = now
        if now - self._at <= 2 * self._every:
            return None
        frame = sys._current_frames().get(self._thread)
        where = "".join(traceback.format_stack(frame)[-12:]) if frame is not None else "unknown"
        return Trouble(f"the event loop stands still for {now - self._at:.0f} s, in:\n{where.rstrip()}", self._at)


class Looker:
    """Has a thread look for stalls about twice a second, while it is entered. Enter it in the thread of the event loop."""

    def __init__(self, stalls: Stalls, every: float = EVERY) -> None:
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
            # It may be waiting for the reader of the log.
            self._thread.join(self._every)


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
