"""Outcomes of jobs that another transaction has locked: kept back while others are written."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from jobq._worker.database import Connection
from jobq._worker.health.stalls import RateLimitedLog
from jobq._worker.ipc.messages import Failure, Success
from jobq._worker.outcomes.store import JobStore

Name = tuple[int, int, int]
"""(id, claims, started) of one execution."""

# Seconds until the next try for a failure whose job is locked: a transaction of its runner is still
# ending.
BUSY_RETRY = 0.25
# After a finished job was found locked, each batch is checked for locks before it is written, for
# this many seconds. Otherwise each batch with a locked job would wait for the connection's
# lock_timeout.
WARY = 60.0


class LockedOutcomes:
    """The locked outcomes of one worker. Lives in the dispatcher's event loop."""

    def __init__(
        self,
        store: JobStore,
        repeats: RateLimitedLog,
        *,
        on_due: Callable[[], None],
        on_setback: Callable[[Failure], None],
    ) -> None:
        """Create an empty set.

        Args:
            store: Finds the locked jobs.
            repeats: Logs locked jobs.
            on_due: Called when successes must be checked again.
            on_setback: Called with a failure to try again.
        """
        self._store = store
        self._repeats = repeats
        self._on_due = on_due
        self._on_setback = on_setback
        self._successes: list[Success] = []
        self._setbacks: dict[Name, Failure] = {}
        self._wary_until = 0.0
        self.due = False
        """Whether it is time for `take_back`."""

    def __len__(self) -> int:
        """Number of outcomes that are kept back."""
        return len(self._successes) + len(self._setbacks)

    def names(self) -> set[Name]:
        """Return the names of those executions."""
        return {(s.id, s.claims, s.started) for s in self._successes} | self._setbacks.keys()

    def forget(self) -> None:
        """Drop all: they belong to a lost worker identity."""
        self._successes.clear()
        self._setbacks.clear()
        self.due = False

    @property
    def wary(self) -> bool:
        """Whether finished jobs were found locked recently.

        If so, check the next batch before writing.
        """
        return time.monotonic() < self._wary_until

    async def keep_back(self, connection: Connection, successes: list[Success]) -> list[Success]:
        """Keep back the locked ones, and return the others. Raises psycopg.Error."""
        locked = await self._store.locked(connection, [success.id for success in successes])
        if not locked:
            return successes
        self._repeats.note("finished jobs are locked by another transaction", "", job=min(locked), jobs=len(locked))
        self._successes += [success for success in successes if success.id in locked]
        self._look_later()
        self._wary_until = time.monotonic() + WARY
        return [success for success in successes if success.id not in locked]

    async def take_back(self, connection: Connection) -> list[Success]:
        """Return the outcomes that are no longer locked. Call it when `due`.

        Raises psycopg.Error.
        """
        self.due = False
        try:
            locked = await self._store.locked(connection, [success.id for success in self._successes])
        except BaseException:
            self._look_later()
            raise
        free = [success for success in self._successes if success.id not in locked]
        self._successes = [success for success in self._successes if success.id in locked]
        if self._successes:
            self._wary_until = time.monotonic() + WARY
            self._look_later()
        return free

    def _look_later(self) -> None:
        asyncio.get_running_loop().call_later(BUSY_RETRY, self._look)

    def _look(self) -> None:
        if self._successes:
            self.due = True
            self._on_due()

    def postpone(self, setback: Failure) -> None:
        """Try `setback` again in a moment.

        Only when its job's row is free is it known whether it is still due.
        """
        name = (setback.id, setback.claims, setback.started)
        self._setbacks[name] = setback
        asyncio.get_running_loop().call_later(BUSY_RETRY, self._again, name)

    def _again(self, name: Name) -> None:
        if (setback := self._setbacks.pop(name, None)) is not None:
            self._on_setback(setback)
