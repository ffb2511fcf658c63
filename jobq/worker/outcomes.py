"""Writing outcomes down: successes together with the next claim, setbacks by themselves, one bad row alone.

Every write is fenced by (id, claims, worker, moment of the claim): repeating one is harmless, and one that comes too late
changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any
from uuid import UUID

import msgspec
import psycopg
from psycopg import AsyncConnection

from jobq.bounds import LONGEST
from jobq.worker import parking
from jobq.worker.cursor import BEGINNING, NOWHERE, Scan, Sight, next_transaction
from jobq.worker.database import Connection, fetch, fetch_both, fetch_within
from jobq.worker.errors import ErrorKind, classify
from jobq.worker.frames import Ending, Job, Setback, Success
from jobq.worker.texts import LONGEST_DELAY, LONGEST_RUN, bounded, clean, storable

logger = logging.getLogger("jobq.worker")

# What the log says of a job that has succeeded without its result.
UNSTORED = "a job succeeded, and its result was not stored"
# The longest batch of one statement: bounds its time and what a failure must repeat.
MAX_BATCH = 500

_STATES = {
    Ending.RETRY: "ready",
    Ending.SNOOZE: "ready",
    Ending.RELEASE: "ready",
    Ending.CRASH: "ready",
    Ending.FAIL: "failed",
    Ending.CANCEL: "cancelled",
    Ending.EXPIRE: "expired",
    Ending.SUCCEED: "succeeded",
}
# Classes of errors that a result can cause: data that cannot be stored, and limits of the server's.
_OF_THE_RESULT = frozenset({"22", "54"})
_id = attrgetter("id")
_GIVES_BACK = frozenset({Ending.SNOOZE, Ending.RELEASE, Ending.CRASH})
# Through no fault of its own: unless it is to wait, the job keeps its place in the queue.
_KEEPS_PLACE = frozenset({Ending.RELEASE, Ending.CRASH})


@dataclass(frozen=True, slots=True)
class Claimed:
    """What one advance brought: how many acknowledgements were accepted, and rows of jobs, which are read when asked for."""

    accepted: int = 0
    sight: Sight | None = None
    """What the claim saw; None: nothing was claimed."""
    rows: Sequence[tuple[Any, ...]] = ()
    keyed: list[Job] = field(default_factory=list)
    """Filled by `jobs`: those whose keys hold until they start."""
    unwritten: tuple[Success, ...] = ()
    """Acknowledgements that the database does not take at present: to be tried again, apart from others."""
    error: psycopg.Error | None = None
    """Why, of one of them."""

    def __len__(self) -> int:
        """How many jobs were claimed."""
        return len(self.rows)

    def jobs(self) -> tuple[list[Job], list[Job]]:
        """Return the jobs to run, and those that had expired. Those that start by start_jobs.sql are in `keyed` then."""
        jobs: list[Job] = []
        expired: list[Job] = []
        self.keyed.clear()
        # Of jobs that were claimed by advance.sql, all at once, their rows do not tell it.
        at = self.sight.at if self.sight is not None else 0
        for (
            id_,
            claims,
            task,
            queue,
            args,
            attempt,
            most,
            crashes,
            timeout,
            headers,
            late,
            started,
            keyed,
            alone,
            releases,
        ) in self.rows:
            job = Job(
                id_,
                claims,
                task,
                queue,
                args.encode(),
                attempt,
                most,
                crashes,
                # Infinity, NaN, 1e300: of a row that was written past the constraints. No clock counts so far.
                timeout if timeout is None or timeout <= LONGEST else None,
                headers.encode(),
                started or at,
                alone,
                releases,
            )
            if late or keyed:
                (expired if late else self.keyed).append(job)
            else:
                jobs.append(job)
        return jobs, expired


@dataclass(frozen=True, slots=True)
class Settled:
    """The results of writing setbacks, each of which is in one of the three lists."""

    accepted: tuple[Setback, ...] = ()
    busy: tuple[Setback, ...] = ()
    """Their jobs' rows are locked: to be tried again."""
    refused: tuple[Setback, ...] = ()
    """The fence refused them: the jobs are no longer these executions'."""
    lowered: tuple[tuple[str, int], ...] = ()
    """Where jobs keep their places: queues, and the run_at in microseconds from which to read them again."""
    queues: frozenset[str] = frozenset()
    """The queues with jobs that can be claimed again."""
    unwritten: tuple[Setback, ...] = ()
    """Those that the database does not store at present, in no form: to be tried again, apart from others."""
    error: psycopg.Error | None = None
    """Why, of one of them."""

    def __add__(self, other: Settled) -> Settled:
        return Settled(
            self.accepted + other.accepted,
            self.busy + other.busy,
            self.refused + other.refused,
            self.lowered + other.lowered,
            self.queues | other.queues,
            self.unwritten + other.unwritten,
            self.error or other.error,
        )


class Ledger:
    """The statements that change jobs, for one worker on one schema."""

    def __init__(self, schema: str, park_patience: float = 3600.0) -> None:
        self._schema = schema
        self._park_patience = park_patience
        self.for_others = False
        """The worker stops, or is quiet: what it puts back is for others, who are told."""

    async def advance(
        self,
        connection: AsyncConnection[Any],
        worker: UUID,
        successes: list[Success],
        scan: Scan,
        want: int,
        *,
        refused: Sequence[int] = (),
        within: float | None = None,
    ) -> tuple[Claimed, list[Setback]]:
        """Acknowledge `successes` and claim up to `want` jobs of the lanes of `scan`, but none of those in `refused`; `within`
        so many seconds.

        Returns what was claimed, and a setback, a success without its result, for each whose result the database refuses to
        store: those were found by halving the batch, and the others are recorded, but for `Claimed.unwritten`.

        Raises psycopg.Error when nothing of it was done, or nothing is known of it: when the connection is lost, the whole
        statement did not get what it needs, or the claim alone is refused.
        """
        try:
            return await self._advance(connection, worker, successes, scan, want, refused=refused, within=within), []
        except psycopg.Error as error:
            if classify(error, connection) is not ErrorKind.REFUSED or not successes:
                raise
            if len(successes) == 1 and not scan.queues:
                if error.sqlstate is None or error.sqlstate[:2] in _OF_THE_RESULT:
                    return Claimed(), [_unstorable(successes[0], error)]
                # A rule is against it. The job has succeeded all the same, and nothing else is to be recorded.
                return Claimed(unwritten=(successes[0],), error=error), []
        return await self._apart(connection, worker, successes, whole=bool(scan.queues))

    async def acknowledge(self, connection: AsyncConnection[Any], worker: UUID, successes: list[Success]) -> int:
        """Acknowledge all of `successes` or none; return how many were accepted. Raises psycopg.Error."""
        return (await self._advance(connection, worker, successes, NOWHERE, 0)).accepted

    async def _apart(
        self, connection: AsyncConnection[Any], worker: UUID, successes: list[Success], *, whole: bool
    ) -> tuple[Claimed, list[Setback]]:
        """Acknowledge `successes` without a claim: as a `whole`, for the claim may have been refused, or in halves."""
        middle = len(successes) // 2
        parts = [successes] if whole else [successes[:middle], successes[middle:]]
        accepted = 0
        setbacks: list[Setback] = []
        unwritten: tuple[Success, ...] = ()
        why: psycopg.Error | None = None
        for part in parts:
            try:
                done, refused = await self.advance(connection, worker, part, NOWHERE, 0)
            except psycopg.Error as error:
                if classify(error, connection) is ErrorKind.CONNECTION:
                    raise
                unwritten, why = unwritten + tuple(part), error
                continue
            accepted += done.accepted
            setbacks += refused
            unwritten, why = unwritten + done.unwritten, done.error or why
        return Claimed(accepted, unwritten=unwritten, error=why), setbacks

    async def advance_and_claim(
        self,
        connection: Connection,
        worker: UUID,
        successes: list[Success],
        scan: Scan,
        *,
        want: int,
        claim: dict[str, Any],
    ) -> tuple[Claimed, list[tuple[Any, ...]]]:
        """Acknowledge `successes`, claim up to `want` jobs of the lanes of `scan`, and claim from a managed queue into the room
        that they leave, in one commit. Returns what was claimed, and the rows of claim_managed.

        Raises psycopg.Error; when the connection is not lost, nothing of it was done.
        """
        (first, *rows), managed = await fetch_both(
            connection,
            self._schema,
            ("advance", advance_parameters(worker, successes, scan, want)),
            ("claim_managed", claim),
        )
        return claimed(first, rows, scan), managed

    async def locked(self, connection: AsyncConnection[Any], ids: list[int]) -> frozenset[int]:
        """Return which of these jobs are locked. Does not wait."""
        return frozenset(row[0] for row in await fetch(connection, self._schema, "locked_jobs", ids=ids))

    async def _advance(
        self,
        connection: AsyncConnection[Any],
        worker: UUID,
        successes: list[Success],
        scan: Scan,
        want: int,
        *,
        refused: Sequence[int] = (),
        within: float | None = None,
    ) -> Claimed:
        parameters = advance_parameters(worker, successes, scan, want)
        name = "advance"
        if refused and scan.queues:
            name, parameters["refused"] = "advance:except", _numbers([*refused])
        first, *rows = await fetch_within(within, connection, self._schema, name, **parameters)
        return claimed(first, rows, scan)

    async def settle(self, connection: AsyncConnection[Any], worker: UUID, setbacks: list[Setback]) -> Settled:
        """Record `setbacks` and return the results; a row that cannot be stored is stored without its texts.

        Raises psycopg.Error when nothing of it was done, or nothing is known of it: when the connection is lost, or the whole
        statement did not get what it needs.
        """
        if refused := [setback for setback in setbacks if setback.ending is Ending.PARK]:
            others = [setback for setback in setbacks if setback.ending is not Ending.PARK]
            parked, instead = await self._park(connection, worker, refused)
            others += instead
            if not others:
                return parked
            try:
                return parked + await self.settle(connection, worker, others)
            except psycopg.Error as error:
                if classify(error, connection) is ErrorKind.CONNECTION:
                    raise
                # What is parked is committed.
                return parked + Settled(unwritten=tuple(others), error=error)
        try:
            return await self._settle(connection, worker, setbacks)
        except psycopg.Error as error:
            if classify(error, connection) is not ErrorKind.REFUSED:
                raise
            if len(setbacks) == 1:
                return await self._settle_plainly(connection, worker, setbacks[0], error)
        middle = len(setbacks) // 2
        settled = Settled()
        for half in (setbacks[:middle], setbacks[middle:]):
            try:
                settled += await self.settle(connection, worker, half)
            except psycopg.Error as error:
                if classify(error, connection) is ErrorKind.CONNECTION:
                    raise
                settled += Settled(unwritten=tuple(half), error=error)
        return settled

    async def _settle_plainly(
        self, connection: AsyncConnection[Any], worker: UUID, setback: Setback, error: psycopg.Error
    ) -> Settled:
        try:
            settled = await self._settle(connection, worker, [_plain(setback, error)])
        except psycopg.Error as again:
            if classify(again, connection) is ErrorKind.CONNECTION:
                raise
            return Settled(unwritten=(setback,), error=again)
        if settled.accepted:
            logger.error("the report of a job cannot be stored", extra={"job": setback.id, "error": str(error)})
        return settled

    async def _park(
        self, connection: AsyncConnection[Any], worker: UUID, refused: list[Setback]
    ) -> tuple[Settled, list[Setback]]:
        """Park what this worker's code has refused; return the results, and what is to be settled instead."""
        try:
            found = await parking.park(connection, self._schema, worker, refused, self._park_patience)
        except psycopg.Error as error:
            if classify(error, connection) is not ErrorKind.REFUSED:
                raise
            if len(refused) == 1:
                return Settled(unwritten=tuple(refused), error=error), []
            middle = len(refused) // 2
            first, instead = await self._park(connection, worker, refused[:middle])
            second, more = await self._park(connection, worker, refused[middle:])
            return first + second, instead + more
        return Settled(tuple(found.parked), tuple(found.busy), tuple(found.lost)), found.instead

    async def _settle(self, connection: AsyncConnection[Any], worker: UUID, setbacks: list[Setback]) -> Settled:
        parameters = settle_parameters(worker, setbacks, wake=self.for_others, channel=self._schema)
        return settled(setbacks, await fetch(connection, self._schema, "settle", **parameters))


def advance_parameters(worker: UUID, successes: list[Success], scan: Scan, want: int) -> dict[str, Any]:
    """Return the parameters of advance.sql, arrays as their text: psycopg would write them item by item in Python."""
    # Sorted like every other writer of jobs, so that two can never wait for each other.
    ordered = sorted(successes, key=_id)
    # Few for many jobs, and long numbers.
    moments = {started: str(started) for started in {success.started for success in ordered}}
    return {
        "ids": _numbers([success.id for success in ordered]),
        "claims": _numbers([success.claims for success in ordered]),
        "started": "{" + ",".join([moments[success.started] for success in ordered]) + "}",
        "results": texts_array([success.result.decode() for success in ordered]),
        "seconds": _numbers([success.seconds for success in ordered]),
        "worker": worker,
        "want": want,
        **scan_parameters(scan),
    }


def scan_parameters(scan: Scan) -> dict[str, Any]:
    """Return the lanes of `scan` as parameters, arrays as their text."""
    return {
        "queues": texts_array(scan.queues),
        "priorities": _numbers(scan.priorities),
        "since": _numbers([since for since, _ in scan.since]),
        "since_ids": _numbers([since_id for _, since_id in scan.since]),
    }


def _numbers(numbers: list[int] | list[float]) -> str:
    return "{" + ",".join(map(str, numbers)) + "}"


def texts_array(texts: list[str]) -> str:
    """Return an array of texts as PostgreSQL reads it."""
    # Both characters are rare, and replacing nothing costs little.
    escaped = [text.replace("\\", "\\\\").replace('"', '\\"') for text in texts]
    return '{"' + '","'.join(escaped) + '"}' if escaped else "{}"


def claimed(first: tuple[Any, ...], rows: Sequence[tuple[Any, ...]], scan: Scan) -> Claimed:
    """Return what the rows of advance.sql tell, `first` among them."""
    if not scan.queues:
        return Claimed(first[0])
    at, xmin, xmax, given, *end = map(int, first[2].split())
    following = next_transaction(xmax, given)
    cut, last = (end[0], (end[1], end[2])) if end else (None, BEGINNING)
    counts = [*map(int, first[3].split())] if first[3] else []
    pairs = tuple(zip(counts[::2], counts[1::2], strict=True))
    return Claimed(first[0], Sight(at=at, xmin=xmin, following=following, cut=cut, last=last, counts=pairs), rows)


def settle_parameters(
    worker: UUID, setbacks: list[Setback], *, wake: bool = False, channel: str = ""
) -> dict[str, Any]:
    """Return the parameters of settle.sql. `wake`: let the other workers on `channel` hear of what can be claimed again."""
    ordered = sorted(setbacks, key=_id)
    return {
        "worker": worker,
        "ids": [s.id for s in ordered],
        "claims": [s.claims for s in ordered],
        "started": [s.started for s in ordered],
        "states": [_STATES[s.ending] for s in ordered],
        "delays": [
            None if s.ending in _KEEPS_PLACE and s.delay <= 0 else bounded(s.delay, LONGEST_DELAY) for s in ordered
        ],
        "given_back": [int(s.ending in _GIVES_BACK) for s in ordered],
        "crashes": [int(s.recorded == "crashed") for s in ordered],
        "seconds": [s.seconds if s.seconds is None else bounded(s.seconds, LONGEST_RUN) for s in ordered],
        "recorded": [s.recorded for s in ordered],
        "error_types": [storable(s.error_type) for s in ordered],
        "messages": [storable(s.message) for s in ordered],
        "tracebacks": [storable(s.traceback) for s in ordered],
        "run_alone": [s.run_alone for s in ordered],
        "releases": [s.releases for s in ordered],
        "wake": wake,
        "channel": channel,
    }


def settled(setbacks: list[Setback], rows: Sequence[tuple[Any, ...]]) -> Settled:
    """Return what the rows of settle.sql tell about `setbacks`."""
    ordered = sorted(setbacks, key=_id)
    answers = {place: accepted for place, accepted, *_ in rows}
    lowered: dict[str, int] = {}
    for _, _, queue, run_at in rows:
        if run_at is not None:
            lowered[queue] = min(run_at, lowered.get(queue, run_at))
    return Settled(
        tuple(setback for place, setback in enumerate(ordered, 1) if answers.get(place) is True),
        tuple(setback for place, setback in enumerate(ordered, 1) if answers.get(place) is False),
        tuple(setback for place, setback in enumerate(ordered, 1) if place not in answers),
        tuple(lowered.items()),
        frozenset(queue for _, _, queue, _ in rows if queue is not None),
    )


def _unstorable(success: Success, error: psycopg.Error) -> Setback:
    return Setback(
        success.id,
        success.claims,
        success.started,
        Ending.SUCCEED,
        seconds=success.seconds,
        error_type="ResultError",
        message=clean(f"the database refused the result: {error}", 2000),
    )


def _plain(setback: Setback, error: psycopg.Error) -> Setback:
    return msgspec.structs.replace(
        setback,
        error_type="ReportError",
        message=clean(f"what the job reported cannot be stored: {error}", 2000),
        traceback=None,
        refused=None,
        signature=None,
    )
