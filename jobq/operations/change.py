"""How a change is applied to one batch of jobs, and why a job stays unchanged.

No change waits for a lock. Jobs are locked in the order of their ids, and jobs that a worker or
another operator has locked stay unchanged. Two operators therefore cannot deadlock, and no worker
waits longer than one batch takes.

No change sets a `run_at` to the past. If a job becomes claimable earlier than before or in another
lane, workers are notified: they read each lane from a cursor (jobq/_worker/lanes/README.md, "The
cursor").
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import psycopg
from psycopg import Connection

from jobq._postgres.statements import fetch
from jobq.filters import MAX_ID
from jobq.job import (
    FINISHED_STATES,
    IDLE_STATES,
    MOVABLE_STATES,
    REDRIVABLE_STATES,
    RUN_NOW_STATES,
    SNOOZABLE_STATES,
    STATES,
)
from jobq.operations.audit import AuditRecord

# The states of the jobs that each statement changes.
_TOUCHED: dict[str, tuple[str, ...]] = {
    "retry_finished": REDRIVABLE_STATES,
    "make_due": (*RUN_NOW_STATES, "waiting"),
    "cancel_idle": IDLE_STATES,
    "cancel_running": ("running",),
    "snooze": SNOOZABLE_STATES,
    "move": MOVABLE_STATES,
    "delete_live": IDLE_STATES,
    "delete_finished": FINISHED_STATES,
}

_ABSENT = "there is no job with this id"
KEY_TAKEN = "its key is held by another job"
_DATABASE = "the database refuses to change it"
_BUSY = "a worker or another operator is changing it at this moment: try again"
# If the database refuses this many jobs in a row, the cause is not the single jobs.
_REFUSED_IN_A_ROW = 20
# Seconds to search for the jobs that lack a lock, time or a resource at each try.
_LACKING_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """The outcome of a batch: each changed job's values, and why each other job stayed unchanged.

    A deleted job has values before, but none after.
    """

    before: dict[int, dict[str, Any]] = field(default_factory=dict)
    after: dict[int, dict[str, Any]] = field(default_factory=dict)
    refused: dict[int, str] = field(default_factory=dict)
    kinds: dict[int, str] = field(default_factory=dict)
    """For refusals that name something specific to the job: their general form, for counting."""

    @property
    def done(self) -> list[int]:
        """The ids that were changed, in order."""
        return sorted(self.before)

    def add(self, other: Batch) -> None:
        """Add the outcomes of other jobs."""
        self.before.update(other.before)
        self.after.update(other.after)
        self.refused.update(other.refused)
        self.kinds.update(other.kinds)


class Change(ABC):
    """One kind of change. `name`: the action in the audit log.

    `states`: the states that it can change.
    """

    name: ClassVar[str]
    states: ClassVar[tuple[str, ...]]
    refusals: ClassVar[Mapping[str, str]]

    def apply(
        self,
        conn: Connection[Any],
        schema: str,
        ids: Sequence[int],
        note: AuditRecord,
        *,
        found_in: Collection[str] = STATES,
        own: bool = False,
        one_of_many: bool = False,
    ) -> Batch:
        """Change as many of these jobs as possible, in the caller's transaction.

        If the database refuses to change a job (a trigger, a constraint), the job is found by
        halving the batch, and refused with the database's reason. In a transaction of jobq's own,
        deferred constraints are checked at once. In a caller's transaction they are left to its
        commit, because the caller may be about to repair a violation.

        If a lock, time or a resource is lacking, all jobs are tried once more; then the batch is
        halved as well.

        Args:
            conn: a psycopg connection.
            schema: the schema of jobq's tables.
            ids: the jobs.
            note: the audit entry.
            found_in: the states in which a filter found the jobs. A job in another state is left
                alone: a dead job to delete may have been put back, and a ready job to cancel may
                have started.
            own: whether the transaction is jobq's own.
            one_of_many: whether other batches follow. A single job that lacks something at each try
                is then refused, as it would be among others.

        Raises:
            psycopg.Error: the connection is lost; 20 jobs in a row are refused; something is
            lacking
                for all jobs, or still lacking after some seconds (then the cause is not a single
                job); or a caller's transaction has to start again.
        """
        batch = Batch()
        parts, in_a_row = [ids], 0
        lacking: list[psycopg.Error] = []
        until = math.inf
        while parts:
            part = parts.pop()
            try:
                with conn.transaction():
                    changed = self._apply(conn, schema, part, note, found_in)
                    if own:
                        conn.execute("SET CONSTRAINTS ALL IMMEDIATE")
            except psycopg.Error as error:
                if _is_not_of_a_job(error, conn, own=own):
                    raise
                if isinstance(error, psycopg.OperationalError):
                    if until == math.inf:
                        # The cause may have been temporary.
                        until = time.monotonic() + _LACKING_SECONDS
                        parts.append(part)
                        continue
                    if time.monotonic() >= until:
                        raise
                if len(part) > 1:
                    middle = len(part) // 2
                    parts += [part[middle:], part[:middle]]
                    continue
                in_a_row += 1
                if in_a_row == _REFUSED_IN_A_ROW:
                    raise
                if isinstance(error, psycopg.OperationalError):
                    lacking.append(error)
                # The server's own message, for example from a trigger, not advice on rights.
                why = (error.diag.message_primary or str(error)).strip().partition("\n")[0].replace("\x00", "")[:1000]
                changed = Batch(refused={part[0]: f"{_DATABASE}: {why}"}, kinds={part[0]: _DATABASE})
            else:
                in_a_row = 0
            batch.add(changed)
        if lacking and len(lacking) == len(ids) and not (one_of_many and len(ids) == 1):
            raise lacking[-1]
        return batch

    def _apply(
        self, conn: Connection[Any], schema: str, ids: Sequence[int], note: AuditRecord, found_in: Collection[str]
    ) -> Batch:
        batch = Batch()
        for name, params in self.statements(schema, note):
            if not any(state in found_in for state in _TOUCHED[name]):
                continue
            left = [id for id in ids if 0 <= id <= MAX_ID and id not in batch.before and id not in batch.refused]
            if not left:
                break
            for row in fetch(conn, schema, name, {"ids": left, **params}):
                if row.get("refusal") is not None:
                    batch.refused[row["id"]] = row["refusal"]
                    batch.kinds[row["id"]] = KEY_TAKEN
                    continue
                batch.before[row["id"]] = row["before"]
                if row["after"] is not None:
                    batch.after[row["id"]] = row["after"]
        left = [id for id in ids if id not in batch.before and id not in batch.refused]
        if left:
            known = [id for id in left if 0 <= id <= MAX_ID]
            states = {row["id"]: row["state"] for row in fetch(conn, schema, "job_states", {"ids": known})}
            for id in left:
                state = states.get(id)
                moved_on = state is not None and state not in found_in and state not in self.refusals
                batch.refused[id] = f"it is {state} by now" if moved_on else self.refusal(state)
        return batch

    @abstractmethod
    def statements(self, schema: str, note: AuditRecord) -> Sequence[tuple[str, dict[str, Any]]]:
        """Return the statements to run in order; each handles the jobs that the one before left."""

    def refusal(self, state: str | None) -> str:
        """Return why a job in `state` (None: it does not exist) stayed unchanged."""
        return _ABSENT if state is None else self.refusals.get(state, _BUSY)

    def options(self) -> dict[str, Any]:
        """Return the options that :func:`change_of` needs to make this change again, as JSON."""
        return {}


def _is_not_of_a_job(error: psycopg.Error, conn: Connection[Any], *, own: bool) -> bool:
    """Return whether the error concerns the session, role or transaction, so every job."""
    if conn.closed or conn.broken or isinstance(error, psycopg.errors.InFailedSqlTransaction):
        return True
    if error.sqlstate is None:
        return isinstance(error, psycopg.OperationalError)
    # A missing right, a missing table, or a standby. An error raised in a trigger has a context.
    if (error.sqlstate[:2] == "42" or error.sqlstate == "25006") and not error.diag.context:
        return True
    return error.sqlstate[:2] == "40" and not own
