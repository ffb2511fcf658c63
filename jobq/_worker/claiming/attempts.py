"""Failures of the claim loop: each costs only its piece of a round, and is tried again."""

from __future__ import annotations

import time
from collections.abc import Awaitable
from typing import TypeVar

import psycopg

from jobq._worker.database import Connection
from jobq._worker.database_errors import ErrorKind, classify
from jobq._worker.faults.problems import Problems
from jobq._worker.health.stalls import RateLimitedLog, Stall
from jobq._worker.health.state import LoopHealth

T = TypeVar("T")

ROUND = "finish a round"


class Attempts:
    """The attempts of one loop.

    `pulse` receives how its rounds go, `problems` receives what fails.
    """

    def __init__(self, pulse: LoopHealth, problems: Problems, repeats: RateLimitedLog) -> None:
        self._pulse = pulse
        self._problems = problems
        self._repeats = repeats
        self._asked = False
        self._failed = False
        """Whether something has failed in this round."""
        self.failures = 0
        """Number of failed rounds in a row."""
        self.error: str | None = None
        """The last failure in this round, or in the failed rounds before it."""
        self.since: float | None = None
        """Since when the loop waits for a successful round trip. None: it waits for none."""

    def begin(self) -> None:
        """Start a round."""
        self.since = self.since or time.monotonic()
        self._asked = self._failed = False
        self._pulse.turn()

    def asked(self) -> None:
        """Take note that the round sends a statement to the database."""
        self._asked = True
        self._pulse.turn()

    def ended(self) -> None:
        """End the round. It succeeded if none of its pieces failed."""
        if self._asked and not self._failed:
            self._pulse.well()

    def rested(self) -> None:
        """Reset after a round, and after the sleep that follows if there was nothing to do."""
        if self.failures:
            self._problems.clear(ROUND)
        self.failures, self.since, self.error = 0, None, None

    def failed(self, what: str, error: BaseException) -> None:
        """Take note that a piece of the round has failed while its connection is intact."""
        self._failed = True
        self.error = self._repeats.warn(f"cannot {what}; trying again", error)
        self._pulse.failed(error)
        self._problems.note(what, error)

    def lost(self, error: BaseException) -> None:
        """Take note that the connection is lost."""
        self._failed = True
        self.error = self._repeats.warn("the database does not answer", error)
        self._pulse.failed(error)

    async def of(self, what: str, work: Awaitable[T], connection: Connection) -> tuple[bool, T | None]:
        """Do one piece of a round whose failure must not stop the rest.

        Return whether it succeeded, and its result. Raises psycopg.Error if the connection is lost.
        """
        try:
            done = await work
        except psycopg.Error as error:
            if classify(error, connection) is ErrorKind.CONNECTION:
                raise
            self.failed(what, error)
            return False, None
        self._problems.clear(what)
        return True, done

    def trouble(self, doing: str | None) -> Stall | None:
        """Return the current stall: since when and why the database does not answer.

        None: no stall.
        """
        return Stall(self.cause(doing), self.since) if self.since is not None else None

    def cause(self, doing: str | None) -> str:
        """Return the last failure and the awaited operation (`doing`)."""
        return "; ".join(part for part in (self.error, doing) if part) or "no round trip is under way"
