"""Writes outcomes: successes together with the next claim, failures by themselves, a bad row alone.

Every write is fenced by (id, claims, worker, moment of the claim). A repeated write is harmless,
and a late one changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec
import psycopg
from psycopg import AsyncConnection

from jobq._core.storable import storable_text
from jobq._worker.arrays import numbers
from jobq._worker.database import Connection, fetch, fetch_both, fetch_within
from jobq._worker.database_errors import ErrorKind, classify
from jobq._worker.ipc.messages import Disposition, Failure, Success
from jobq._worker.lanes.cursor import NOWHERE, ClaimPlan
from jobq._worker.outcomes import parking
from jobq._worker.statements.parameters import advance_parameters, settle_parameters
from jobq._worker.statements.results import Claimed, Settled, claimed, settled

logger = logging.getLogger("jobq.worker")

# Log message for a job that has succeeded while its result is not stored.
UNSTORED = "a job succeeded, and its result was not stored"

# Classes of errors that a result can cause: data that cannot be stored, and limits of the server.
_OF_THE_RESULT = frozenset({"22", "54"})


class JobStore:
    """The statements that change jobs, for one worker and schema."""

    def __init__(self, schema: str, park_patience: float = 3600.0) -> None:
        self._schema = schema
        self._park_patience = park_patience
        self.for_others = False
        """Whether jobs that are put back are for other workers, who are notified.

        True while the worker stops or is paused.
        """

    async def advance(
        self,
        connection: AsyncConnection[Any],
        worker: UUID,
        successes: list[Success],
        scan: ClaimPlan,
        want: int,
        *,
        refused: Sequence[int] = (),
        within: float | None = None,
    ) -> tuple[Claimed, list[Failure]]:
        """Acknowledge `successes` and claim jobs, in one statement.

        Args:
            connection: The connection of the claim loop.
            worker: The worker that owns the jobs.
            successes: The successes to write.
            scan: The lanes to claim from.
            want: The most jobs to claim.
            refused: Ids of jobs not to claim.
            within: Time limit in seconds. None: that of the connection.

        Returns:
            The claimed jobs, and a failure (a success without its result) for each success whose
                result the database refuses to store. Those are found by halving the batch. All
                other successes are recorded, except `Claimed.unwritten`.

        Raises:
            psycopg.Error: Nothing was done, or the effect is unknown. The connection is lost, the
                whole statement lacked a lock or resources, or the claim alone is refused.
        """
        try:
            return await self._advance(connection, worker, successes, scan, want, refused=refused, within=within), []
        except psycopg.Error as error:
            if classify(error, connection) is not ErrorKind.REFUSED or not successes:
                raise
            if len(successes) == 1 and not scan.queues:
                if error.sqlstate is None or error.sqlstate[:2] in _OF_THE_RESULT:
                    return Claimed(), [_unstorable(successes[0], error)]
                # A rule is against it. The job has succeeded all the same, and nothing else may be
                # recorded.
                return Claimed(unwritten=(successes[0],), error=error), []
        return await self._apart(connection, worker, successes, whole=bool(scan.queues))

    async def acknowledge(self, connection: AsyncConnection[Any], worker: UUID, successes: list[Success]) -> int:
        """Acknowledge all of `successes` or none. Return how many were accepted.

        Raises psycopg.Error.
        """
        return (await self._advance(connection, worker, successes, NOWHERE, 0)).accepted

    async def _apart(
        self, connection: AsyncConnection[Any], worker: UUID, successes: list[Success], *, whole: bool
    ) -> tuple[Claimed, list[Failure]]:
        """Acknowledge `successes` without a claim: whole, or in halves.

        `whole`: the claim may have been the reason of the failure, so try all successes together
        first.
        """
        middle = len(successes) // 2
        parts = [successes] if whole else [successes[:middle], successes[middle:]]
        accepted = 0
        setbacks: list[Failure] = []
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
        scan: ClaimPlan,
        *,
        want: int,
        claim: dict[str, Any],
    ) -> tuple[Claimed, list[tuple[Any, ...]]]:
        """Run `ack_and_claim` and a claim from a limited queue into the room that `successes` leave.

        Both are one commit. `claim`: the parameters of claim_limited. Return what was claimed from
        lanes, and the rows of claim_limited. Raises psycopg.Error. If the connection is not lost,
        nothing was done.
        """
        (first, *rows), limited = await fetch_both(
            connection,
            self._schema,
            ("ack_and_claim", advance_parameters(worker, successes, scan, want)),
            ("claim_limited", claim),
        )
        return claimed(first, rows, scan), limited

    async def locked(self, connection: AsyncConnection[Any], ids: list[int]) -> frozenset[int]:
        """Return which of these jobs are locked. Does not wait."""
        return frozenset(row[0] for row in await fetch(connection, self._schema, "locked_jobs", ids=ids))

    async def _advance(
        self,
        connection: AsyncConnection[Any],
        worker: UUID,
        successes: list[Success],
        scan: ClaimPlan,
        want: int,
        *,
        refused: Sequence[int] = (),
        within: float | None = None,
    ) -> Claimed:
        parameters = advance_parameters(worker, successes, scan, want)
        name = "ack_and_claim"
        if refused and scan.queues:
            name, parameters["refused"] = "ack_and_claim:except", numbers([*refused])
        first, *rows = await fetch_within(within, connection, self._schema, name, **parameters)
        return claimed(first, rows, scan)

    async def settle(self, connection: AsyncConnection[Any], worker: UUID, setbacks: list[Failure]) -> Settled:
        """Record `setbacks` and return the results.

        A row that cannot be stored is stored without its texts.

        Raises psycopg.Error if nothing was done or the effect is unknown: the connection is lost,
        or the whole statement lacked a lock or resources.
        """
        if refused := [setback for setback in setbacks if setback.ending is Disposition.PARK]:
            others = [setback for setback in setbacks if setback.ending is not Disposition.PARK]
            parked, instead = await self._park(connection, worker, refused)
            others += instead
            if not others:
                return parked
            try:
                return parked + await self.settle(connection, worker, others)
            except psycopg.Error as error:
                if classify(error, connection) is ErrorKind.CONNECTION:
                    raise
                # The parked jobs are committed.
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
        self, connection: AsyncConnection[Any], worker: UUID, setback: Failure, error: psycopg.Error
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
        self, connection: AsyncConnection[Any], worker: UUID, refused: list[Failure]
    ) -> tuple[Settled, list[Failure]]:
        """Park the jobs that this worker's code has refused.

        Return the results, and the failures to settle instead.
        """
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

    async def _settle(self, connection: AsyncConnection[Any], worker: UUID, setbacks: list[Failure]) -> Settled:
        parameters = settle_parameters(worker, setbacks, wake=self.for_others, channel=self._schema)
        return settled(setbacks, await fetch(connection, self._schema, "record_failures", **parameters))


def _unstorable(success: Success, error: psycopg.Error) -> Failure:
    return Failure(
        success.id,
        success.claims,
        success.started,
        Disposition.SUCCEED,
        seconds=success.seconds,
        error_type="ResultError",
        message=storable_text(f"the database refused the result: {error}", 2000),
    )


def _plain(setback: Failure, error: psycopg.Error) -> Failure:
    return msgspec.structs.replace(
        setback,
        error_type="ReportError",
        message=storable_text(f"what the job reported cannot be stored: {error}", 2000),
        traceback=None,
        log=None,
        refused=None,
        signature=None,
    )
