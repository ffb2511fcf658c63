"""The claim loop's failures: what fails costs only its own piece of a round; it is logged, shown and tried again."""

from __future__ import annotations

import time
from collections.abc import Awaitable
from typing import TypeVar

import psycopg

from jobq.worker.database import Connection
from jobq.worker.errors import ErrorKind, classify
from jobq.worker.problems import Problems
from jobq.worker.stalls import Repeats, Trouble
from jobq.worker.vitals import Pulse

T = TypeVar("T")

ROUND = "finish a round"


class Attempts:
    """One loop's. `pulse` is told how its rounds go, `problems` what fails."""

    def __init__(self, pulse: Pulse, problems: Problems, repeats: Repeats) -> None:
        self._pulse = pulse
        self._problems = problems
        self._repeats = repeats
        self._asked = False
        self._failed = False
        """Whether something has failed in this round."""
        self.failures = 0
        """Rounds that have failed in a row."""
        self.error: str | None = None
        """What failed last in this round, or in the failed rounds before it."""
        self.since: float | None = None
        """Since when a round trip is wanted that has not succeeded; None: none is wanted."""

    def begin(self) -> None:
        """A round begins."""
        self.since = self.since or time.monotonic()
        self._asked = self._failed = False
        self._pulse.turn()

    def asked(self) -> None:
        """The round asks the database for something."""
        self._asked = True
        self._pulse.turn()

    def ended(self) -> None:
        """The round has ended: well, if none of its pieces has failed."""
        if self._asked and not self._failed:
            self._pulse.well()

    def rested(self) -> None:
        """The loop comes back from the end of a round, and from its sleep if there was nothing to do."""
        if self.failures:
            self._problems.clear(ROUND)
        self.failures, self.since, self.error = 0, None, None

    def failed(self, what: str, error: BaseException) -> None:
        """A piece of the round has failed, and not its connection."""
        self._failed = True
        self.error = self._repeats.warn(f"cannot {what}; trying again", error)
        self._pulse.failed(error)
        self._problems.note(what, error)

    def lost(self, error: BaseException) -> None:
        """The connection is lost."""
        self._failed = True
        self.error = self._repeats.warn("the database does not answer", error)
        self._pulse.failed(error)

    async def of(self, what: str, work: Awaitable[T], connection: Connection) -> tuple[bool, T | None]:
        """Do one piece of a round that nothing else is to suffer from; return whether it went well, and what came of it.

        Raises psycopg.Error when the connection is lost.
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

    def trouble(self, doing: str | None) -> Trouble | None:
        """Return since when and why the database is wanted and does nothing, if that is so."""
        return Trouble(self.cause(doing), self.since) if self.since is not None else None

    def cause(self, doing: str | None) -> str:
        """Return what failed last, and what is waited for (`doing`)."""
        return "; ".join(part for part in (self.error, doing) if part) or "no round trip is under way"
