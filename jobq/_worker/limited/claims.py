"""The statement that claims from one limited queue, and the handling of its failures.

If the database refuses a claim or takes too long, a variant of the statement claims single jobs,
and jobs that are at fault are left out (`suspects.py`).
"""

from __future__ import annotations

from uuid import UUID

import psycopg
from psycopg.errors import Diagnostic

from jobq._worker.database import Connection, fetch, fetch_within
from jobq._worker.database_errors import ErrorKind, classify
from jobq._worker.faults.suspects import PATIENCE, QueueTrouble, Tried, is_slow
from jobq._worker.health.stalls import RateLimitedLog
from jobq._worker.limited.queues import PROBLEM, WORD, LimitedQueues
from jobq._worker.limited.schedule import BUSY_RETRY
from jobq._worker.statements.parameters import MAX_BATCH
from jobq._worker.statements.results import Claimed

CLAIM = "claim_limited"
CAREFUL = "claim_limited:except"
# Retries for a queue whose claim is refused although no single job is at fault: as BUSY_RETRY.
_REFUSED_RETRY = (1.0, 2.0, 300.0)
REFUSED = "claim a job of a queue with rules"


class LimitedClaims:
    """Claims from the limited queues of one worker."""

    def __init__(self, schema: str, limited: LimitedQueues) -> None:
        self._schema = schema
        self._limited = limited
        self._repeats = RateLimitedLog()
        limited.on_dropped = self._dropped

    def _dropped(self, queue: str, trouble: QueueTrouble) -> None:
        """Stop claiming from this queue by itself.

        A claim that meets the left-out jobs finds them again.
        """
        self._limited.problems.clear(PROBLEM, queue=queue)
        for tried in trouble.tried.values():
            self._limited.problems.clear(REFUSED, queue=queue, **tried.subject)

    async def claim(self, connection: Connection, worker: UUID, queue: str, want: int) -> Claimed:
        """Claim up to `want` jobs of `queue`.

        Raises psycopg.Error if the connection is lost. After other errors, the queue is left alone
        for a while.
        """
        limited = self._limited
        trouble = limited.trouble.get(queue)
        if trouble is not None and trouble.most is not None:
            return await self._claim_carefully(connection, worker, queue, want, trouble)
        claim = limited.begin(worker, queue, want)
        try:
            rows = await fetch(connection, self._schema, CLAIM, **claim)
        except BaseException as error:
            kind = classify(error, connection)
            limited.failed(queue, error, kind)
            if not isinstance(error, psycopg.Error) or kind is ErrorKind.CONNECTION:
                raise
            return Claimed()
        return limited.took(claim, rows)

    async def _claim_carefully(
        self, connection: Connection, worker: UUID, queue: str, want: int, trouble: QueueTrouble
    ) -> Claimed:
        """Claim some jobs without the refused ones, or try a refused job again.

        Raises as `claim`.
        """
        limited = self._limited
        retry = trouble.retry()
        most = 1 if retry is not None else min(want, trouble.most or want)
        claim = {**limited.begin(worker, queue, most), **trouble.parameters(retry)}
        said: list[Tried] = []

        def hear(notice: Diagnostic) -> None:
            if (tried := Tried.read(notice.message_primary)) is not None:
                said.append(tried)

        connection.add_notice_handler(hear)
        try:
            rows = await fetch_within(trouble.within(retry), connection, self._schema, CAREFUL, **claim)
        except BaseException as error:
            if not isinstance(error, psycopg.Error):
                limited.sooner(queue, 0.0)
                raise
            kind = classify(error, connection)
            self._failed_carefully(queue, trouble, said[-1] if said else None, error, kind)
            if kind is ErrorKind.CONNECTION:
                raise
            return Claimed()
        finally:
            connection.remove_notice_handler(hear)
        claimed = limited.took(claim, rows, aimed=retry is not None)
        if rows and rows[-1][WORD] == "locked":
            return claimed
        if retry is not None:
            if any(tried.key == retry.key for tried in said):
                trouble.suspects.let_in(retry.key)
            else:
                trouble.suspects.unmet(retry.key)
            if retry.key not in trouble.suspects:
                limited.problems.clear(REFUSED, queue=queue, **trouble.tried.pop(retry.key).subject)
                limited.lower(queue)
        if said or not claim["one_by_one"]:
            limited.problems.clear(PROBLEM, queue=queue)
            if trouble.went_well(MAX_BATCH):
                # A heartbeat may have reported meanwhile that the queue has no rules any more.
                limited.trouble.pop(queue, None)
        limited.sooner(queue, trouble.suspects.due_at)
        return claimed

    def _failed_carefully(
        self, queue: str, trouble: QueueTrouble, tried: Tried | None, error: psycopg.Error, kind: ErrorKind
    ) -> None:
        limited = self._limited
        if queue not in limited.queues:
            # It was paused or lost its rules meanwhile: it is not served from here any more.
            limited.sooner(queue, 0.0)
            return
        lost = kind is ErrorKind.CONNECTION
        one = trouble.most == 1 or trouble.retrying
        trouble.failed(error, lost=lost, refused=kind is ErrorKind.REFUSED)
        if not one or (lost and trouble.losses < PATIENCE):
            # Claim one by one from now on: it is not known yet which job is the reason.
            limited.sooner(queue, 0.0)
        elif (
            kind is ErrorKind.TRANSIENT
            and not is_slow(error)
            and trouble.failures <= PATIENCE
            and not (tried is not None and tried.key in trouble.suspects)
        ):
            limited.locked(queue)
        elif tried is not None and trouble.leave_out(tried, error):
            limited.problems.note(REFUSED, error, queue=queue, **tried.subject)
            self._repeats.warn(
                "a job cannot be claimed: it is left out, and tried again ever more rarely",
                error,
                queue=queue,
                **tried.subject,
            )
            limited.sooner(queue, 0.0)
        else:
            limited.problems.note(PROBLEM, error, queue=queue)
            self._repeats.warn("a queue cannot be claimed from: it is let alone for a while", error, queue=queue)
            limited.locked(queue, BUSY_RETRY if kind is ErrorKind.TRANSIENT else _REFUSED_RETRY)
