"""Executions that have ended here, from their runner's report until their outcome is written down."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import psycopg

from jobq.worker.database import Connection
from jobq.worker.deferred import Deferred, Written
from jobq.worker.errors import ErrorKind, classify
from jobq.worker.frames import Ending, Recorded, Setback, Success, head, outcome_size
from jobq.worker.lease import Lease
from jobq.worker.metrics import Metrics
from jobq.worker.outcomes import MAX_BATCH, UNSTORED, Claimed, Ledger, Settled
from jobq.worker.stalls import Repeats
from jobq.worker.suspects import PATIENCE

logger = logging.getLogger("jobq.worker")

Name = tuple[int, int, int]
"""(id, claims, started) of one execution."""

# When to try a setback again whose job is locked: a transaction of its runner's is still being committed, or undone.
BUSY_RETRY = 0.25
# Characters of a traceback that are logged.
MOST_OF_TRACEBACK = 4000
# For so many seconds after a finished job was found locked, locks are looked for before a batch is written: else each batch
# with a locked job would wait for the connection's lock_timeout.
WARY = 60.0


class Ended:
    """One worker's outcomes that are still to be written. Lives in the dispatcher's event loop."""

    def __init__(
        self,
        ledger: Ledger,
        lease: Lease,
        metrics: Metrics | None,
        repeats: Repeats,
        deferred: Deferred,
        *,
        tracebacks: bool = False,
    ) -> None:
        self._tracebacks = tracebacks
        self._ledger = ledger
        self.deferred = deferred
        """Those that could not be written with the others."""
        self._most = MAX_BATCH
        """How many acknowledgements to write at a time: less for a while after a batch that took too long."""
        self._wary_until = 0.0
        self._lease = lease
        self._metrics = metrics
        self._repeats = repeats
        self.successes: list[Success] = []
        self.setbacks: list[Setback] = []
        self._busy: dict[Name, Setback] = {}
        """Setbacks whose jobs were locked when they were to be written, until they are tried again."""
        self._aside: list[Success] = []
        """Successes whose jobs were locked when they were to be written."""
        self._look_aside = False
        """Whether it is time to see which of those can be written."""
        self._recorded: set[Name] = set()
        """Executions whose ends runners have written themselves, since `recount`."""
        self._landed = 0
        self._losses = 0
        """How many sessions in a row `settle` has lost."""
        self.finished = 0
        """Outcomes recorded so far."""
        self.odd = False
        """Whether the database refused an outcome as not ours: it may hold jobs in our name that nothing here runs."""
        self.waiting_since: float | None = None
        """Since when outcomes wait without any of them being written; None: none waits."""
        self.more = asyncio.Event()
        """Set when something has ended."""

    def __len__(self) -> int:
        """How many executions have ended whose outcomes are not written down."""
        return len(self.successes) + len(self.setbacks) + len(self._busy) + len(self._aside) + len(self.deferred)

    @property
    def hopeless(self) -> bool:
        """Whether nothing is left but what the database does not take."""
        return len(self) == len(self.deferred) and self.deferred.hopeless

    @property
    def writable(self) -> bool:
        """Whether something can be written now."""
        return bool(self.successes or self.setbacks or self._look_aside)

    def succeeded(self, successes: list[Success]) -> None:
        """A runner reports successes."""
        if self._metrics is not None:
            self._metrics.succeeded(successes)
        self.successes += successes
        self._one_more()

    def set_back(self, setback: Setback) -> None:
        """A runner, or the pool in its name, reports anything else."""
        if self._metrics is not None:
            self._metrics.ended(setback)
        self.setbacks.append(setback)
        self._one_more()

    def _one_more(self) -> None:
        self.more.set()
        if self.waiting_since is None:
            self.waiting_since = time.monotonic()

    def recorded(self, recorded: Recorded) -> None:
        """A runner reports an execution that is over and done with: a transactional task's."""
        self._recorded.add((recorded.id, recorded.claims, recorded.started))
        if recorded.accepted:
            self.finished += 1
            self._landed += 1
        else:
            self.odd = True
            logger.warning("an outcome was refused: the job was no longer ours", extra={"job": recorded.id})
        if recorded.accepted and recorded.unstored is not None:
            self._tell_unstored(recorded.id, recorded.unstored)
        self.more.set()

    def forget(self) -> None:
        """Drop the outcomes of an identity that is no longer ours: the fence would refuse them."""
        self.successes.clear()
        self.setbacks.clear()
        self._busy.clear()
        self._aside.clear()
        self.deferred.forget()
        self._look_aside = False
        self.waiting_since = None
        if self._metrics is not None:
            self._metrics.forget()

    def recount(self) -> None:
        """Begin to compare with the database: what runners wrote themselves before this moment it knows."""
        self._recorded.clear()

    def names(self) -> set[Name]:
        """Return the names of all that has ended and that the database may still hold to be running."""
        ended = {(s.id, s.claims, s.started) for s in self.successes + self._aside}
        ended |= {(s.id, s.claims, s.started) for s in self.setbacks}
        return ended | self._busy.keys() | self._recorded | self.deferred.names()

    # --- writing --------------------

    @property
    def looks_aside(self) -> bool:
        """Whether it is time for `take_back`."""
        return self._look_aside

    @property
    def wary(self) -> bool:
        """Whether finished jobs were found locked a short while ago: locks are looked for before the next batch is written."""
        return time.monotonic() < self._wary_until

    async def set_aside(self, connection: Connection, successes: list[Success]) -> bool:
        """Keep back those of `successes`, which are next, that someone has locked; tell whether there are any.

        Raises psycopg.Error.
        """
        locked = await self._ledger.locked(connection, [success.id for success in successes])
        if not locked:
            return False
        self._wary_until = time.monotonic() + WARY
        self._repeats.note("finished jobs are locked by another transaction", "", job=min(locked), jobs=len(locked))
        self.successes[: len(successes)] = [success for success in successes if success.id not in locked]
        self._aside += [success for success in successes if success.id in locked]
        asyncio.get_running_loop().call_later(BUSY_RETRY, self._look)
        return True

    async def take_back(self, connection: Connection) -> None:
        """Put those that were set aside and are locked no longer to the others again. Raises psycopg.Error."""
        if not self._look_aside:
            return
        self._look_aside = False
        try:
            locked = await self._ledger.locked(connection, [success.id for success in self._aside])
        except BaseException:
            asyncio.get_running_loop().call_later(BUSY_RETRY, self._look)
            raise
        self.successes += [success for success in self._aside if success.id not in locked]
        self._aside = [success for success in self._aside if success.id in locked]
        if self._aside:
            self._wary_until = time.monotonic() + WARY
            asyncio.get_running_loop().call_later(BUSY_RETRY, self._look)

    def _look(self) -> None:
        if self._aside:
            self._look_aside = True
            self._one_more()

    def batch(self) -> list[Success]:
        """Return the successes to be written next."""
        return head(self.successes, outcome_size, self._most)

    def written(self, successes: list[Success], claimed: Claimed, refused: list[Setback]) -> int:
        """A batch was written; return how many executions have ended since the last one."""
        del self.successes[: len(successes)]
        self.setbacks += refused
        self.finished += claimed.accepted
        if successes:
            self._most = min(2 * self._most, MAX_BATCH)
        if claimed.unwritten:
            self.deferred.add(claimed.unwritten, claimed.error or psycopg.OperationalError("unknown"))
        if claimed.accepted:
            self.deferred.wrote()
        self._wrote()
        if lost := len(successes) - claimed.accepted - len(refused) - len(claimed.unwritten):
            self.odd = True
            logger.warning("outcomes were refused: those jobs were no longer ours", extra={"refused": lost})
        landed, self._landed = self._landed, 0
        return len(successes) + landed

    def defer(self, successes: list[Success], error: psycopg.Error) -> None:
        """`successes`, which are next, could not be written: write them apart from here on, and fewer at a time."""
        del self.successes[: len(successes)]
        if isinstance(error, psycopg.errors.QueryCanceled):
            self._most = max(1, len(successes) // 2)
        self._repeats.warn("outcomes are written apart from the others", error)
        self.deferred.add(successes, error)
        self._wrote()

    def written_apart(self, written: Written) -> None:
        """What was deferred is written."""
        self.finished += written.accepted
        # A comparison that is under way may still see them.
        self._recorded.update((outcome.id, outcome.claims, outcome.started) for outcome in written.outcomes)
        for outcome in written.outcomes:
            if isinstance(outcome, Setback):
                self._tell(outcome)
        if (refused := len(written.outcomes) - written.accepted) > 0:
            self._fenced_off(refused, written.outcomes[0].id)
        self._wrote()
        self.more.set()

    def _wrote(self) -> None:
        # What is deferred is a problem of its own, and no standstill.
        self.waiting_since = time.monotonic() if len(self) > len(self.deferred) else None

    async def settle(self, connection: Connection) -> tuple[list[Setback], Settled]:
        """Write a batch of setbacks. Return those that are not to be written again, and the results.

        Raises psycopg.Error when the connection is lost; any other error is a matter of that batch, which is written apart.
        """
        setbacks = head(self.setbacks, outcome_size, MAX_BATCH)
        try:
            settled = await self._ledger.settle(connection, self._lease.worker, setbacks)
        except psycopg.Error as error:
            if classify(error, connection) is ErrorKind.CONNECTION:
                self._losses += 1
                if self._losses >= PATIENCE:
                    # One of them may be the reason.
                    self._losses = 0
                    del self.setbacks[: len(setbacks)]
                    self.deferred.add(setbacks, error)
                    self._wrote()
                raise
            settled = Settled(unwritten=tuple(setbacks), error=error)
        self._losses = 0
        self.finished += len(settled.accepted)
        del self.setbacks[: len(setbacks)]
        if settled.unwritten:
            self.deferred.add(settled.unwritten, settled.error or psycopg.OperationalError("unknown"))
        for setback in settled.busy:
            self._postpone(setback)
        self._wrote()
        for setback in settled.accepted:
            self._tell(setback)
        if settled.refused:
            self._fenced_off(len(settled.refused), settled.refused[0].id)
        return [*settled.accepted, *settled.refused], settled

    def _fenced_off(self, number: int, job: int) -> None:
        self.odd = True
        logger.warning("outcomes were refused: those jobs were no longer ours", extra={"refused": number, "job": job})

    def _postpone(self, setback: Setback) -> None:
        """Try `setback` again in a moment: until its job's row is free, it is not known whether it is still due."""
        name = (setback.id, setback.claims, setback.started)

        def again() -> None:
            if self._busy.pop(name, None) is not None:
                self.setbacks.append(setback)
                self._one_more()

        self._busy[name] = setback
        asyncio.get_running_loop().call_later(BUSY_RETRY, again)

    def _tell(self, setback: Setback) -> None:
        if setback.ending is Ending.PARK:
            self._repeats.note(
                "a job waits for a worker with other code",
                setback.message or "",
                job=setback.id,
                reason=setback.message,
            )
        if setback.ending is Ending.RELEASE and setback.message is not None and setback.recorded is None:
            # A thousand jobs of a task that is unknown here may come back every few seconds.
            self._repeats.note("a job was put back", setback.message, job=setback.id, reason=setback.message)
        if setback.ending is Ending.SUCCEED:
            self._tell_unstored(setback.id, setback.message or "")
        if setback.recorded is not None:
            last = setback.ending is Ending.FAIL
            logger.log(
                logging.ERROR if last else logging.WARNING,
                "job failed" if last else "job set back",
                extra=_fields(setback, tracebacks=self._tracebacks),
            )

    def _tell_unstored(self, job: int, why: str) -> None:
        # Every job of a task whose annotation is wrong: their values differ, and the rest is the same.
        self._repeats.note(UNSTORED, why.split("=", 1)[0], job=job, error=why)


def _fields(setback: Setback, *, tracebacks: bool) -> dict[str, Any]:
    """Return what the log tells of an attempt that failed."""
    fields: dict[str, Any] = {"job": setback.id}
    if setback.task is not None:
        fields |= {
            "task": setback.task,
            "queue": setback.queue,
            "attempt": setback.attempt,
            "max_attempts": setback.max_attempts,
        }
    message = setback.message or ""
    fields |= {
        "outcome": setback.recorded,
        "error": message if message == setback.error_type else f"{setback.error_type}: {message}",
        "retry_in": round(setback.delay, 1) if setback.ending is not Ending.FAIL else None,
    }
    if tracebacks and setback.traceback:
        trace = setback.traceback
        if len(trace) > MOST_OF_TRACEBACK:
            # Its end tells most, and a log shortens texts at their ends.
            half = MOST_OF_TRACEBACK // 2
            trace = f"{trace[:half]}\n… {len(trace) - 2 * half} characters left out …\n{trace[-half:]}"
        fields["traceback"] = trace
    return fields
